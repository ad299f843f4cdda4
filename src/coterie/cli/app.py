"""The application that verbs register with, and the boundary where errors become messages."""

import os
import sys
from typing import Annotated

import typer

import coterie
from coterie.cli import data, laboratory, measuring, recommending, training
from coterie.cli.console import err, show_log
from coterie.cli.options import LogFormat, LogLevel
from coterie.errors import CoterieError
from coterie.running.interrupt import stoppable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Recommend by collaborative filtering with variational autoencoders.\n\nA log becomes a"
        " data set ([b]prepare[/b]), a data set a model ([b]train[/b]), a model is measured"
        " ([b]evaluate[/b], [b]compare[/b]), looked into ([b]analyze[/b]) and used"
        " ([b]recommend[/b]). Begin with [b]coterie demo[/b]."
    ),
    epilog=(
        "Exit codes: 0 done · 2 a wrong option · 3 bad data · 4 a damaged or unknown artifact · 5 a"
        " loss or score that is not finite · 130, 143 stopped by SIGINT, SIGTERM (train and tune"
        " resume, and so does recommend into a folder)."
    ),
)


for group in (laboratory, data, training, measuring, recommending):
    app.add_typer(group.verbs)


def main() -> None:
    """Runs the command line; an error of Coterie's own becomes a message and its exit code."""
    # Threads that spin while they wait take the cores from whatever else runs, and lose them to it
    # in turn (docs/performance.md). Read by OpenMP when torch is loaded, so set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        with stoppable():
            app()
    except CoterieError as error:
        err.print("error:", style="bold red", end=" ")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.")
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="The least important line shown.")] = (
        LogLevel.INFO
    ),
    log_format: Annotated[
        LogFormat, typer.Option(help="json: a JSON object a line, for services.")
    ] = LogFormat.TEXT,
) -> None:
    if version:
        print(coterie.__version__)
        raise typer.Exit
    show_log(log_level.value, as_json=log_format is LogFormat.JSON)
