"""From logs to data sets."""

from pathlib import Path
from typing import Annotated

import typer

from coterie.cli.console import drawn, say, say_written, write_result
from coterie.cli.options import JsonFile
from coterie.cli.places import result_folder
from coterie.running.progress import Update
from coterie.show.contents import shown

verbs = typer.Typer()


@verbs.command()
def prepare(
    path: Annotated[
        str, typer.Argument(help="Log: a file, a folder, or for tables an fsspec URL (s3://…).")
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
    titles: Annotated[
        str | None,
        typer.Option(
            help="File of titles: movies.csv, movies.dat, u.item, …, or a table item_id,title."
        ),
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
    held_out_users: Annotated[
        int | None,
        typer.Option(min=1, help="Validation users, and as many test users (default a tenth)."),
    ] = None,
    held_out_share: Annotated[
        float | None, typer.Option(help="Share of a held-out user's items to hide (default 0.2).")
    ] = None,
    validation_share: Annotated[
        float | None,
        typer.Option(help="Given split: share of training items to validate on (default 0.1)."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the split; 98765 is the published one's.")
    ] = 98765,
    memory_limit: Annotated[str, typer.Option(help="DuckDB's; more spills to disk.")] = "3GB",
    json_file: JsonFile = None,
) -> None:
    """Turn a log into a data set: read, threshold, merge, filter, split."""
    from coterie.data.prepare import prepare as prepare_log  # noqa: PLC0415
    from coterie.data.read import read_log  # noqa: PLC0415
    from coterie.data.rules import PrepareRules  # noqa: PLC0415

    rules = PrepareRules(
        min_rating=min_rating,
        min_user_items=min_user_items,
        min_item_users=min_item_users,
        held_out_users=held_out_users,
        held_out_share=held_out_share,
        validation_share=validation_share,
        seed=seed,
    )
    columns = {
        "user_column": user_column,
        "item_column": item_column,
        "rating_column": rating_column,
        "timestamp_column": timestamp_column,
    }
    with drawn() as progress:
        progress(Update("reading the log"))
        with read_log(path, format, **columns, titles=titles, memory_limit=memory_limit) as log:
            dataset = prepare_log(log, rules, progress)
        progress(Update("writing the data set"))
        dataset.save(folder)
    counts = dataset.provenance["counts"]
    for name, count in shown(counts).items():
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
