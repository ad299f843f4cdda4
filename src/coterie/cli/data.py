"""From logs to data sets."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, cast

import typer

from coterie.cli.console import drawn, say, say_written, write_result
from coterie.cli.options import MORE, IdTypes, JsonFile, TimeUnits, listed, numbers, value_of
from coterie.cli.places import result_folder
from coterie.errors import ConfigError
from coterie.running.progress import Update
from coterie.show.contents import shown

verbs = typer.Typer()


def _titles(path: str | None, columns: str) -> dict[str, str]:
    """Titles of a table whose columns are named."""
    from coterie.data.titles import read_titles  # noqa: PLC0415

    names = listed([columns])
    if path is None or len(names) != 2:
        raise ConfigError(
            f"--titles-columns must be ID,TITLE beside --titles, found {columns!r}; give both."
        )
    return read_titles(path, *names)


@verbs.command()
def prepare(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH…",
            help=(
                "Log: a file or a folder; for tables also several, fsspec URLs (s3://…), or a"
                " database (sqlite:///, postgresql://) with --query."
            ),
        ),
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--out", callback=result_folder, help="Folder of the data set; replaced if there."
        ),
    ],
    format: Annotated[  # noqa: A002
        str,
        typer.Option(
            help=(
                "movielens, netflix, taste-profile, adjacency, table; auto chooses by the names of"
                " the files."
            )
        ),
    ] = "auto",
    user_column: Annotated[
        str | None, typer.Option(help="Table: column of user ids (default user_id).")
    ] = None,
    item_column: Annotated[
        str | None, typer.Option(help="Table: column of item ids (default item_id).")
    ] = None,
    rating_column: Annotated[
        str | None, typer.Option(help="Table: column of ratings or counts.")
    ] = None,
    timestamp_column: Annotated[
        str | None, typer.Option(help="Table: column of times (seconds since 1970, or ISO).")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…", help=f"Table without a header: all its columns in order; {MORE}."
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(help=r"Table: one or two characters between fields, \t a tab; else found."),
    ] = None,
    encoding: Annotated[str, typer.Option(help="Table: of its text, as in cp1252.")] = "utf-8",
    null_word: Annotated[
        list[str] | None,
        typer.Option(help="Table: a text that means a missing id, in place of the usual ones."),
    ] = None,
    rating_value: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD=NUMBER,…",
            help=f"Table: what words in the rating column mean, as in view=1,buy=3; {MORE}.",
        ),
    ] = None,
    timestamp_unit: Annotated[
        TimeUnits, typer.Option(help="Table: of times that are numbers; auto goes by their size.")
    ] = TimeUnits.AUTO,
    user_id_type: Annotated[
        IdTypes, typer.Option(help="Table: auto takes integers if all ids are whole numbers.")
    ] = IdTypes.AUTO,
    item_id_type: Annotated[IdTypes, typer.Option(help="Table: likewise.")] = IdTypes.AUTO,
    glob: Annotated[
        bool, typer.Option("--glob", help="Table: stars and brackets in PATH are a pattern.")
    ] = False,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Table: key=value in a path is a column (hive).")
    ] = False,
    query: Annotated[
        str | None, typer.Option(help="SQL that gives the rows, where PATH is a database.")
    ] = None,
    titles: Annotated[
        str | None,
        typer.Option(
            help="File of titles: movies.csv, movies.dat, u.item, …, or a table item_id,title."
        ),
    ] = None,
    titles_columns: Annotated[
        str | None,
        typer.Option(metavar="ID,TITLE", help="Columns of a table of titles, if named otherwise."),
    ] = None,
    min_rating: Annotated[
        float | None,
        typer.Option(help="Keep ratings (or counts) of at least this; MovieLens and Netflix: 4."),
    ] = None,
    min_user_items: Annotated[
        int | None,
        typer.Option(min=0, help="Drop users with fewer items (default 5; 0 for a given split)."),
    ] = None,
    min_item_users: Annotated[
        int, typer.Option(min=0, help="First drop items with fewer users (Taste Profile: 200).")
    ] = 0,
    merge: Annotated[
        str | None,
        typer.Option(
            help=(
                "Repeated rows of a user and item: any (default; one that reaches --min-rating is"
                " enough), latest (default with --negative-value), sum (of counts)."
            )
        ),
    ] = None,
    negative_value: Annotated[
        list[str] | None,
        typer.Option(
            metavar="V,…",
            help=f"A rating that says unlike, and takes back what came before; {MORE}.",
        ),
    ] = None,
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
    memory_limit: Annotated[str, typer.Option(help="DuckDB's; more spills to disk.")] = "3GB",
    json_file: JsonFile = None,
) -> None:
    """Turn a log into a data set: read, threshold, merge, filter, split."""
    from coterie.data.prepare import prepare as prepare_log  # noqa: PLC0415
    from coterie.data.read import read_log  # noqa: PLC0415
    from coterie.data.rules import Merge, PrepareRules, split_rules  # noqa: PLC0415
    from coterie.data.table_options import NULL_WORDS, TableFields  # noqa: PLC0415

    options = {
        "held_out_users": held_out_users,
        "held_out_share": held_out_share,
        "validation_share": validation_share,
        "seed": seed,
        "last_n": last_n,
        "test_days": test_days,
        "test_from": test_from and test_from.date(),
        "validation_days": validation_days,
        "gap_days": gap_days,
        "history_days": history_days,
        "new_users": new_users,
        "new_items": new_items,
    }
    rules = PrepareRules(
        min_rating=min_rating,
        min_user_items=min_user_items,
        min_item_users=min_item_users,
        split=split_rules(split, options),
        merge=cast("Merge | None", merge),
        negative_values=numbers(negative_value),
    )
    table: TableFields = {
        "user_column": user_column,
        "item_column": item_column,
        "rating_column": rating_column,
        "timestamp_column": timestamp_column,
        "columns": listed(columns) or None,
        "delimiter": None if delimiter is None else delimiter.replace(r"\t", "\t"),
        "encoding": encoding,
        "null_words": NULL_WORDS if null_word is None else tuple(null_word),
        "rating_values": dict(map(value_of, listed(rating_value))),
        "negative_ratings": min_rating is not None or bool(negative_value),
        "timestamp_unit": timestamp_unit.value,
        "user_id_type": user_id_type.value,
        "item_id_type": item_id_type.value,
        "pattern": glob,
        "partitions": partitions,
        "query": query,
    }
    titled = _titles(titles, titles_columns) if titles_columns else titles
    with drawn() as progress:
        progress(Update("reading the log"))
        with read_log(paths, format, titles=titled, memory_limit=memory_limit, **table) as log:
            dataset = prepare_log(log, rules, progress)
        progress(Update("writing the data set"))
        dataset.save(folder)
    counts = dataset.provenance["counts"]
    for name, count in shown(counts | dataset.provenance.get("ceiling", {})).items():
        say(f"{name:41} {count:>20}")
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
            help="Folder for ratings.csv and movies.csv, in MovieLens' form.",
        ),
    ],
    users: Annotated[int, typer.Option(min=1, help="Users of the service.")] = 10_000,
    items: Annotated[int, typer.Option(min=1, help="Titles of the service.")] = 2_000,
    mean_items: Annotated[
        int,
        typer.Option(min=0, help="Mean interactions a user; 0 chooses by the number of titles."),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Write the log of a simulated streaming service, block by block, of any size."""
    from coterie.simulation.service import SimulatedService  # noqa: PLC0415

    service = SimulatedService(users, items, seed, mean_items=mean_items)
    with drawn() as progress:
        service.write_ratings_csv(folder, progress)
    say_written("log", folder / "ratings.csv")
