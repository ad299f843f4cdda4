"""The progress bar of training: loss terms and validation beside the time left."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not visible)
        self._task = self._bar.add_task(label, total=n_epochs, terms="")
        self._n_batches = n_batches

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def step(self, epoch: int, batch: int) -> None:
        """Moves the bar to ``batch`` finished batches after ``epoch`` finished epochs."""
        self._bar.update(self._task, completed=round(epoch + batch / self._n_batches, 1))

    def epoch(self, entry: dict[str, Any]) -> None:
        """Shows the terms of a finished epoch, as written to the history."""
        shown = [f"{name} {entry[name]:.4g}" for name in ("nll", "kl", "pia", "beta") if name in entry]
        shown += [f"{name} {value:.4f}" for name, value in entry.get("validation", {}).items()]
        if entry.get("best_epoch"):
            shown.append(f"(best at {entry['best_epoch']})")
        self._bar.update(self._task, completed=entry["epoch"], terms=" ".join(shown))
