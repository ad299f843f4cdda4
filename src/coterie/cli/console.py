"""What people see: the two consoles, and bars that show how far work has come."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from coterie.files import write_json

out = Console()
err = Console(stderr=True)


def say(text: str) -> None:
    """Prints a value's own text as it is, lines as long as they are."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def say_written(what: str, path: object, note: str = "") -> None:
    """Says what was written, and where."""
    out.print(what, style="green", end=" ")
    say(f"{path}{'  ' if note else ''}{note}")


def write_result(path: Path | None, value: Any) -> None:
    """Writes a result for machines, if ``--json`` names a file."""
    if path is not None:
        write_json(path, value)


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Shows what is being done, and for how long."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("")
        yield lambda stage: progress.update(task, description=stage)


@contextmanager
def users_bar() -> Iterator[Callable[[int, int], None]]:
    """Shows users done of all, users a second and the time left, by the last minute's speed."""
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("users"),
        _Speed(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, speed_estimate_period=60) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


@contextmanager
def trials_bar(total: int) -> Iterator[Callable[[Any], None]]:
    """Shows the trials that are finished, the best so far and the time left."""
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("trials{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as progress:
        task = progress.add_task("", total=total)

        def tell(result: Any) -> None:
            best = (
                f"  {result.metric} {result.best.value:.4f} in trial {result.best.number}"
                if result.best
                else ""
            )
            progress.update(task, completed=result.n_finished, description=best)

        yield tell


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how many of all are done, and the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
