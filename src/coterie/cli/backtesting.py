"""How models would have done, week after week."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli import reading
from coterie.cli.console import drawn, say, say_written, write_result
from coterie.cli.options import (
    Device,
    IdTypes,
    JsonFile,
    Metrics,
    TimeUnits,
    laid_over,
    listed,
    setting_of,
)
from coterie.cli.places import existing, result_folder
from coterie.errors import ConfigError
from coterie.running.progress import Update

if TYPE_CHECKING:
    from coterie.config import RunConfig

verbs = typer.Typer()

_DAYS = {"d": 1, "w": 7}
_METRICS = ["ndcg@20", "recall@20"]


@verbs.command()
def backtest(
    paths: reading.LogPaths,
    folder: Annotated[
        Path,
        typer.Option(
            "--out",
            callback=result_folder,
            help="Per-user values of every window, backtest.png; what is there is gone on with.",
        ),
    ],
    models: Annotated[
        str,
        typer.Option(
            metavar="NAME,…",
            help=(
                "By name, as pia=mult-vae under another, or as best=FILE of a configuration; gains"
                " are over the first."
            ),
        ),
    ] = "popularity,ease,mult-vae",
    every: Annotated[
        str, typer.Option(help="Length of a window, and from one cut to the next: 7d, 2w.")
    ] = "7d",
    windows: Annotated[
        int, typer.Option(min=1, help="How many; the last ends with the log's last day.")
    ] = 8,
    validation: Annotated[
        str | None,
        typer.Option(help="Window before each cut that chooses epochs (default as --every)."),
    ] = None,
    metric: Metrics = _METRICS,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any field, of all models or of one, as in pia.model.pia=0.3; repeat for more.",
        ),
    ] = None,
    format: reading.LogFormatName = "auto",  # noqa: A002
    user_column: reading.UserColumn = None,
    item_column: reading.ItemColumn = None,
    rating_column: reading.RatingColumn = None,
    timestamp_column: reading.TimestampColumn = None,
    columns: reading.AllColumns = None,
    delimiter: reading.Delimiter = None,
    quote: reading.Quote = '"',
    encoding: reading.Encoding = "utf-8",
    null_word: reading.NullWord = None,
    rating_value: reading.RatingValue = None,
    timestamp_unit: reading.TimestampUnit = TimeUnits.AUTO,
    user_id_type: reading.UserIdType = IdTypes.AUTO,
    item_id_type: reading.ItemIdType = IdTypes.AUTO,
    glob: reading.Glob = False,
    partitions: reading.Partitions = False,
    query: reading.Query = None,
    titles: reading.Titles = None,
    titles_columns: reading.TitlesColumns = None,
    min_rating: reading.MinRating = None,
    min_user_items: reading.MinUserItems = None,
    min_item_users: reading.MinItemUsers = 0,
    merge: reading.MergeRule = None,
    negative_value: reading.NegativeValue = None,
    gap_days: Annotated[int, typer.Option(min=0, help="Days left out before each window.")] = 0,
    history_days: Annotated[
        int | None, typer.Option(min=1, help="Only the last days before a window are known.")
    ] = None,
    repeats: Annotated[
        str,
        typer.Option(
            help=(
                "What a user had and takes up again: drop, or keep, to find it, too; then nothing"
                " is left out of lists."
            )
        ),
    ] = "drop",
    memory_limit: reading.MemoryLimit = "3GB",
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Train at each cut, measure the window after it: how models would have done week by week."""
    given = locals()  # before all else: the options by name
    from coterie.backtesting.plan import BacktestPlan  # noqa: PLC0415
    from coterie.backtesting.plot import draw  # noqa: PLC0415
    from coterie.backtesting.run import backtest as run_backtest  # noqa: PLC0415
    from coterie.data.rules import split_rules  # noqa: PLC0415
    from coterie.running.execution import Execution  # noqa: PLC0415

    options = {"gap_days": gap_days, "history_days": history_days, "repeats": repeats}
    split = split_rules("time", options | {"validation_days": 0})
    plan = BacktestPlan(
        _configs(listed([models]), dict(map(setting_of, setting or ()))),
        reading.rules(given, split),
        days(every),
        windows,
        None if validation is None else days(validation),
        tuple(listed(metric)),
    )
    execution = Execution.of(device).resolved()
    with drawn() as progress:
        progress(Update("reading the log"))
        with reading.read(given) as log:
            found = run_backtest(log, plan, folder, device=execution, progress=progress)
    draw(found, folder / "backtest.png")
    say(str(found))
    say_written("backtest", folder, "with backtest.png")
    write_result(json_file, found.to_json())


def days(text: str) -> int:
    """A number of days, as in ``7d``, ``2w`` or 7.

    Example:
        >>> days("2w"), days("7")
        (14, 7)
    """
    number, unit = (text[:-1], text[-1]) if text[-1:] in _DAYS else (text, "d")
    if not number.isdigit() or not int(number):
        raise ConfigError(f"a length must be days or weeks, found {text!r}; as in 7d or 2w.")
    return int(number) * _DAYS[unit]


def _configs(entries: list[str], settings: dict[str, Any]) -> "dict[str, RunConfig]":
    """Configurations by name, each with the settings of all and its own laid over."""
    named = {}
    for entry in entries:
        name, _, source = entry.partition("=")
        named[name] = source or name
    if len(named) < len(entries):
        raise ConfigError(
            f"every model must have its own name, found {', '.join(entries)}; as in pia=mult-vae."
        )
    return {name: _config(name, source, list(named), settings) for name, source in named.items()}


def _config(name: str, source: str, names: list[str], settings: dict[str, Any]) -> "RunConfig":
    from coterie.config import RunConfig, overlay  # noqa: PLC0415

    is_file = source.endswith((".toml", ".json"))
    path = existing(Path(source)) if is_file else None
    values = laid_over(path, {} if is_file else {"model.name": source})
    closed_form = RunConfig.of(values).network_free()
    own = {}
    for key, value in settings.items():
        first, _, rest = key.partition(".")
        if first == name:
            own[rest] = value
        elif first not in names and not (closed_form and first == "training"):
            own[key] = value
    return RunConfig.of(overlay(values, own))
