"""What people see: results on standard output, progress and logs on standard error."""

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from coterie.files import write_json
from coterie.running.logs import show_logs
from coterie.running.progress import Progress, Update

out = Console()
err = Console(stderr=True)

_NOT_SHOWN = {"epoch", "best_epoch", "step", "seconds", "beta", "loss"}
"""Facts of a history line that a bar has no room for."""


def say(text: str) -> None:
    """Prints a value's own text as it is, lines as long as they are."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def say_written(what: str, path: object, note: str = "") -> None:
    """Says what was written, and where."""
    out.print(what, style="green", end=" ")
    say(f"{path}{'  ' if note else ''}{note}")


def command(*words: object) -> str:
    """What to type for a verb, called as this one was, so that it works where one is.

    Example:
        >>> command("show", "my runs").endswith("coterie show 'my runs'")
        True
    """
    return shlex.join([_program(), *map(str, words)])


def _program() -> str:
    called, found = sys.argv[0], shutil.which("coterie")
    is_found = found is not None and Path(found).resolve() == Path(called).resolve()
    return called if Path(called).name == "coterie" and not is_found else "coterie"


def write_result(path: Path | None, value: Any) -> None:
    """Writes a result for machines, if ``--json`` names a file."""
    if path is not None:
        write_json(path, value)


def show_log(level: str, *, as_json: bool) -> None:
    """Sends log records to standard error: above a bar where there is one.

    Where a bar is seen, the log does not repeat what it shows.
    """

    def write(line: str) -> None:
        err.print(line, markup=False, highlight=False, soft_wrap=True)

    show_logs(write, level, as_json=as_json, with_progress=as_json or not err.is_terminal)


@contextmanager
def drawn() -> Iterator[Progress]:
    """Draws the progress of whatever is under way, one piece of work after the other."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        _Count(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Bars(*columns, console=err, transient=True, speed_estimate_period=60) as bars:
        task = bars.add_task("", total=None, facts="", unit="")

        def draw(update: Update) -> None:
            if update.work != bars.tasks[0].description:
                bars.reset(
                    task, description=update.work, total=update.total, facts="", unit=update.unit
                )
            bars.update(task, completed=update.done, total=update.total)
            if update.facts:
                bars.update(task, facts=_in_words(update.facts))

        yield draw


class _Count(ProgressColumn):
    """Done of all, and of users how many a second."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        count = f"{task.completed:,.0f}/{task.total:,.0f} {task.fields['unit']}"
        if task.fields["unit"] == "users" and task.speed is not None:
            count += f" {task.speed:,.0f}/s"
        return Text(count)


def _in_words(facts: Mapping[str, Any]) -> str:
    numbers = {
        name: value
        for name, value in {**facts, **facts.get("validation", {})}.items()
        if isinstance(value, int | float) and name not in _NOT_SHOWN
    }
    star = "*" if facts.get("best_epoch") == facts.get("epoch", -1) else ""
    return " ".join(f"{name} {value:.4g}" for name, value in numbers.items()) + star
