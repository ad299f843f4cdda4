"""The application that verbs register with, and its start."""

import os
import sys
from typing import Annotated

import typer

import coterie
from coterie.cli import (
    backtesting,
    boundary,
    data,
    experimenting,
    laboratory,
    looking,
    measuring,
    recommending,
    service,
    serving,
    training,
)
from coterie.cli.console import show_log
from coterie.cli.options import LogFormat, LogLevel
from coterie.running.interrupt import stoppable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Recommend by collaborative filtering with variational autoencoders.\n\nA log becomes a"
        " data set ([b]prepare[/b]), a data set a model ([b]train[/b]), a model is measured"
        " ([b]evaluate[/b], [b]compare[/b]), looked into ([b]analyze[/b], [b]similar[/b]) and used"
        " ([b]recommend[/b], [b]explain[/b]). What is in a folder: [b]show[/b]. Begin with"
        " [b]coterie demo[/b]."
    ),
    epilog=(
        "Exit codes: 0 done · 1 a fault of Coterie's · 2 a wrong option · 3 bad data · 4 a damaged"
        " or unknown artifact · 5 a loss or score that is not finite · 6 not found · 7 something"
        " else is there or at work there · 8 out of memory, or a service or device out of reach ·"
        " 9 a place that cannot be written · 10 a model failed a gate · 11 status warns · 130,"
        " 143 stopped by SIGINT, SIGTERM (train, tune, weekly and daily resume, and so does"
        " recommend into a folder)."
    ),
)


for group in (
    laboratory, data, training, measuring, backtesting, looking, recommending, service,
    experimenting, serving,
):  # fmt: skip
    app.add_typer(group.verbs)


def main() -> None:
    """Runs the command line; every error becomes a message and an exit code."""
    # Threads that spin while they wait take the cores from whatever else runs, and lose them to it
    # in turn (docs/performance.md). Read by OpenMP when torch is loaded, so set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    boundary.survive_any_console()
    sys.exit(boundary.run(_stoppable))


def _stoppable() -> None:
    with stoppable():
        app()


@app.callback(invoke_without_command=True)
def _options_of_all(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (COTERIE_DEBUG=1).")
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="The least important line shown.")] = (
        LogLevel.INFO
    ),
    log_format: Annotated[
        LogFormat, typer.Option(help="json: a JSON object a line, for services.")
    ] = LogFormat.TEXT,
) -> None:
    if debug:
        os.environ[boundary.DEBUG] = "1"  # processes that a verb starts see it, too
    if version:
        print(coterie.__version__)
        raise typer.Exit
    show_log(log_level.value, as_json=log_format is LogFormat.JSON)
