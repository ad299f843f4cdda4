"""The history of a run as TensorBoard events."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coterie.extras import require
from coterie.running.progress import Progress, Update


@contextmanager
def tensorboard_events(folder: str | Path) -> Iterator[Progress]:
    """Yields a listener of training that writes every epoch's terms and validation into ``folder``;
    those of a refit under ``refit/``.

    Raises:
        MissingPackageError: if the package tensorboard is missing.
    """
    require("tensorboard", "tensorboard", "writing TensorBoard events")
    writer = require("torch.utils.tensorboard", "tensorboard", "writing TensorBoard events")
    with writer.SummaryWriter(str(folder)) as events:

        def listen(update: Update) -> None:
            if "epoch" not in update.facts:
                return
            scalars = {
                name: value
                for name, value in update.facts.items()
                if isinstance(value, int | float) and name not in ("epoch", "step")
            }
            stage = f"{update.facts['stage']}/" if "stage" in update.facts else ""
            for name, value in (scalars | update.facts.get("validation", {})).items():
                events.add_scalar(stage + name, value, update.facts["epoch"])

        yield listen
