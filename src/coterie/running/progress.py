"""The progress bar of training: loss terms and validation beside the time left."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """A bar over all steps, on standard error; silent unless ``visible``.

    Args:
        n_epochs: Epochs at most.
        n_batches: Steps an epoch.
        label: What is being trained.
        visible: Whether to draw anything.
    """

    def __init__(self, n_epochs: int, n_batches: int, label: str, *, visible: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[terms]}"),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not visible)
        self._task = self._bar.add_task(label, total=n_epochs, terms="")
        self._n_batches = n_batches

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def step(self, epoch: int, batch: int) -> None:
        """Moves the bar to ``batch`` finished batches after ``epoch`` finished epochs."""
        self._bar.update(self._task, completed=round(epoch + batch / self._n_batches, 1))

    def epoch(self, entry: dict[str, Any]) -> None:
        """Shows the terms of a finished epoch, as written to the history; a star marks the best
        validation so far.
        """
        shown = [f"{name} {entry[name]:.3g}" for name in ("nll", "kl", "pia") if name in entry]
        star = "*" if entry["best_epoch"] == entry["epoch"] else ""
        shown += [
            f"{name} {value:.4f}{star}" for name, value in entry.get("validation", {}).items()
        ]
        self._bar.update(self._task, completed=entry["epoch"], terms=" ".join(shown))
