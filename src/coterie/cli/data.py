"""From logs to data sets."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli import reading
from coterie.cli.console import drawn, say, say_written, write_result
from coterie.cli.options import IdTypes, JsonFile, TimeUnits
from coterie.cli.places import result_folder
from coterie.errors import ConfigError
from coterie.running.progress import Update
from coterie.show.contents import shown

verbs = typer.Typer()

_OF_SPLITS = (
    "held_out_users",
    "held_out_share",
    "validation_share",
    "seed",
    "last_n",
    "test_days",
    "validation_days",
    "gap_days",
    "history_days",
    "new_users",
    "new_items",
    "repeats",
)


@verbs.command()
def prepare(
    paths: reading.LogPaths,
    folder: Annotated[
        Path,
        typer.Option(
            "--out", callback=result_folder, help="Folder of the data set; replaced if there."
        ),
    ],
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
    test: reading.TestLog = None,
    titles: reading.Titles = None,
    titles_columns: reading.TitlesColumns = None,
    min_rating: reading.MinRating = None,
    min_user_items: reading.MinUserItems = None,
    min_item_users: reading.MinItemUsers = 0,
    merge: reading.MergeRule = None,
    negative_value: reading.NegativeValue = None,
    split: Annotated[
        str | None,
        typer.Option(
            help=(
                "strong (held-out users), given (by the log), last (each user's last items), time;"
                " default: given if the log brings its split, else strong."
            )
        ),
    ] = None,
    held_out_users: Annotated[
        int | None,
        typer.Option(
            min=0, help="Strong: validation users, and as many test users (default a tenth)."
        ),
    ] = None,
    held_out_share: Annotated[
        float | None,
        typer.Option(help="Strong: share of a held-out user's items to hide (default 0.2)."),
    ] = None,
    validation_share: Annotated[
        float | None,
        typer.Option(help="Given: share of training items to validate on (default 0.1)."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Strong, given: default 98765, the published split's."),
    ] = None,
    last_n: Annotated[
        int | None,
        typer.Option(min=1, help="Last: items for the test, and for validation (default 1)."),
    ] = None,
    test_days: Annotated[
        int | None, typer.Option(min=1, help="Time: length of the test window (default 7).")
    ] = None,
    test_from: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Time: its first day, UTC (default: it ends with the log's last day).",
        ),
    ] = None,
    validation_days: Annotated[
        int | None,
        typer.Option(min=0, help="Time: length of the validation window (default 7; 0: none)."),
    ] = None,
    gap_days: Annotated[
        int | None, typer.Option(min=0, help="Time: days left out before a window (default 0).")
    ] = None,
    history_days: Annotated[
        int | None,
        typer.Option(min=1, help="Time: only the last days before a window are input, and train."),
    ] = None,
    new_users: Annotated[
        str | None,
        typer.Option(help="Time: users with nothing known before: report (default) or drop."),
    ] = None,
    new_items: Annotated[
        str | None,
        typer.Option(help="Time: the ceiling that unknown items set: report (default) or drop."),
    ] = None,
    repeats: Annotated[
        str | None,
        typer.Option(
            help=(
                "Time: what a user had and takes up again: drop (default), or keep, to find it,"
                " too; then nothing is left out of lists."
            )
        ),
    ] = None,
    memory_limit: reading.MemoryLimit = "3GB",
    json_file: JsonFile = None,
) -> None:
    """Turn a log into a data set: read, threshold, merge, filter, split."""
    given = locals()  # before all else: the options by name
    from coterie.data.prepare import prepare as prepare_log  # noqa: PLC0415
    from coterie.data.rules import split_rules  # noqa: PLC0415
    from coterie.data.table_options import not_used  # noqa: PLC0415

    options = {name: given[name] for name in _OF_SPLITS} | {
        "test_from": test_from and test_from.date()
    }
    rules = reading.rules(given, split_rules(split, options))
    with drawn() as progress:
        progress(Update("reading the log"))
        with reading.read(given) as log:
            dataset = prepare_log(log, rules, progress)
        progress(Update("writing the data set"))
        dataset.save(folder)
    counts = dataset.provenance["counts"]
    for name, count in shown(counts | dataset.provenance.get("ceiling", {})).items():
        say(f"{name:41} {count:>20}")
    if words := not_used(dataset.provenance["reading"]):
        say(words)
    say_written("data set", folder, f"fingerprint {dataset.fingerprint[:16]}")
    write_result(
        json_file, {"folder": str(folder), "fingerprint": dataset.fingerprint, **dataset.provenance}
    )


@verbs.command()
def simulate(
    folder: Annotated[
        Path,
        typer.Option(
            "--out",
            callback=result_folder,
            help=(
                "Folder for ratings.csv and movies.csv, in MovieLens' form, or with --weeks for"
                " events/day=YYYY-MM-DD/ and titles.parquet."
            ),
        ),
    ],
    users: Annotated[int, typer.Option(min=1, help="Users of the service.")] = 10_000,
    items: Annotated[int, typer.Option(min=1, help="Titles of the service.")] = 2_000,
    mean_items: Annotated[
        int,
        typer.Option(min=0, help="Mean interactions a user; 0 chooses by the number of titles."),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    weeks: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=(
                "So many weeks of a service that lives: titles and users come and leave, tastes"
                " drift, rows arrive late and twice."
            ),
        ),
    ] = None,
    first_day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Of --weeks (default 2026-01-05)."),
    ] = None,
) -> None:
    """Write the log of a simulated streaming service, block by block, of any size."""
    from coterie.simulation.service import SimulatedService  # noqa: PLC0415

    if weeks is not None:
        if mean_items:
            raise ConfigError("--mean-items must be left out with --weeks, found both.")
        _simulate_days(folder, users, items, weeks, seed, first_day)
        return
    if first_day is not None:
        raise ConfigError("--first-day must go with --weeks, found no --weeks; give both.")
    service = SimulatedService(users, items, seed, mean_items=mean_items)
    with drawn() as progress:
        service.write_ratings_csv(folder, progress)
    say_written("log", folder / "ratings.csv")


def _simulate_days(
    folder: Path, users: int, items: int, weeks: int, seed: int, first_day: datetime | None
) -> None:
    from coterie.simulation.living import LivingService  # noqa: PLC0415

    service = LivingService(users, items, weeks, seed)
    if first_day is not None:
        service = replace(service, first_day=first_day.date())
    with drawn() as progress:
        service.write(folder, service.first_day, service.last_day, progress)
    say_written("days", folder / "events")
    say_written("titles", folder / "titles.parquet")
