"""What models are for: lists, indexes, exports."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from coterie.cli import reading
from coterie.cli.console import drawn, out, write_result
from coterie.cli.options import (
    MORE,
    Device,
    Engine,
    JsonFile,
    RunOrModel,
    listed,
    read_ids,
)
from coterie.cli.places import existing, result_folder, result_table_or_folder
from coterie.errors import ConfigError
from coterie.running.progress import Update

if TYPE_CHECKING:
    from coterie.data.table_options import TextFields
    from coterie.ranking.engine import WrittenRecommendations
    from coterie.ranking.histories import Histories
    from coterie.ranking.options import RankingOptions
    from coterie.stream.ray_engine import RayEngine
    from coterie.stream.to_folder import FolderRecommendations
    from coterie.training.trained_model import TrainedModel

verbs = typer.Typer()


@verbs.command()
def recommend(
    run: RunOrModel,
    histories: Annotated[
        str,
        typer.Option(
            help=(
                "Parquet, delimited text or JSON lines of user_id,item_id (an empty item_id: no"
                " history) or of user_id,item_ids (lists). "
                "For a folder out also a folder of such files, an fsspec URL, or a data set folder:"
                " everybody in it."
            )
        ),
    ],
    path: Annotated[
        str,
        typer.Option(
            "--out",
            callback=result_table_or_folder,
            help=(
                "A file ending in .parquet, .csv or .jsonl; or a folder or URL, for any number of"
                " users: part-00000.parquet, …, "
                "resumed by the same command. Rows: user_id, rank, item_id, score, source."
            ),
        ),
    ],
    k: Annotated[int, typer.Option(min=1, help="Items a user.")] = 10,
    user_column: Annotated[str, typer.Option(help="Column of user ids.")] = "user_id",
    item_column: Annotated[
        str, typer.Option(help="Column of item ids; its plural is a column of lists.")
    ] = "item_id",
    columns: reading.AllColumns = None,
    delimiter: reading.Delimiter = None,
    quote: reading.Quote = '"',
    encoding: reading.Encoding = "utf-8",
    users: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID,…",
            help=f"Recommend only to these users of the histories, in this order; {MORE}.",
        ),
    ] = None,
    users_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=existing, help="The same from a file, one id a line."
        ),
    ] = None,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Also recommend what is in the history.")
    ] = False,
    allow: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=existing, help="Recommend only these items, one id a line."
        ),
    ] = None,
    deny: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=existing, help="Never recommend these items, one id a line."
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            callback=existing,
            help="Rank approximately, by an index of this model (verb index).",
        ),
    ] = None,
    shard_users: Annotated[
        int, typer.Option(min=1, help="Folder: users in a file; a crash loses no more.")
    ] = 65_536,
    engine: Annotated[
        Engine,
        typer.Option(help="Folder: this process, or Ray (RAY_ADDRESS, else one on this machine)."),
    ] = Engine.LOCAL,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Folder: threads a shard (default: all; Ray: 1).")
    ] = None,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Recommend to anybody with a history, in training or not; without one, the most popular items,
    marked so.
    """
    from coterie.ranking.approximate import ApproximateIndex  # noqa: PLC0415
    from coterie.ranking.options import RankingOptions  # noqa: PLC0415
    from coterie.ranking.table_files import is_table  # noqa: PLC0415
    from coterie.running.execution import Execution  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415

    if is_table(path) and (engine is Engine.RAY or threads is not None):
        raise ConfigError(
            f"--engine ray and --threads are for a folder, --out is the file {path}; name a"
            " folder, or leave them out."
        )
    written = reading.written(columns, delimiter, quote, encoding)
    place = _Place((histories, user_column, item_column), written)
    wanted = _wanted(place, users, users_file)
    chosen = Execution.of(device).resolved().device
    model = TrainedModel.load(run, chosen)
    options = RankingOptions(
        k=k,
        exclude_seen=not include_seen,
        allow=read_ids(allow),
        deny=read_ids(deny),
        index=None if index is None else ApproximateIndex.load(index, model),
    )
    if is_table(path):
        done = _to_file(model, wanted, path, options)
    else:
        ray = _ray_engine(run, chosen, index) if engine is Engine.RAY else None
        done = _to_folder(model, wanted, path, options, shard_users, threads, ray)
    out.print(
        f"[green]recommendations[/green] {path}  {done.n_rows:,} rows for {done.n_users:,} users",
        highlight=False,
    )
    for line in done.notes():
        out.print(line, highlight=False, markup=False)
    write_result(json_file, done.to_json())


class _Place(NamedTuple):
    """Where histories are: path and columns; and how text is written, as far as that is said."""

    names: tuple[str, str, str]
    written: "TextFields"

    def read(self) -> "Histories":
        from coterie.ranking.history_files import read_histories  # noqa: PLC0415

        return read_histories(*self.names, **self.written)


def _wanted(
    place: _Place, users: list[str] | None, users_file: Path | None
) -> "_Place | Histories":
    """Where everybody's histories are; or, where users are named, the histories of those."""
    from coterie.data.source import is_url  # noqa: PLC0415

    path = place.names[0]
    if users is None and users_file is None:
        return place
    if is_url(path) or Path(path).is_dir():
        raise ConfigError(
            "--users and --users-file look users up in one local file of histories, found the"
            f" folder or URL {path}; name a file, or leave them out to ask for everybody."
        )
    return place.read().of_users([*listed(users), *(read_ids(users_file) or [])])


def _to_file(
    model: "TrainedModel",
    wanted: "_Place | Histories",
    path: str,
    options: "RankingOptions",
) -> "WrittenRecommendations":
    from coterie.ranking.engine import recommend_to_file  # noqa: PLC0415

    histories = wanted.read() if isinstance(wanted, _Place) else wanted
    with drawn() as progress:
        return recommend_to_file(model, histories, path, options, progress=progress)


def _to_folder(
    model: "TrainedModel",
    wanted: "_Place | Histories",
    path: str,
    options: "RankingOptions",
    shard_users: int,
    threads: int | None,
    ray: "RayEngine | None",
) -> "FolderRecommendations":
    from coterie.running.interrupt import StopRequest  # noqa: PLC0415
    from coterie.stream.history_source import stream_histories  # noqa: PLC0415
    from coterie.stream.to_folder import recommend_to_folder  # noqa: PLC0415

    with drawn() as progress, StopRequest() as stop:

        def listen(update: Update) -> None:
            progress(update)
            stop.check(
                lambda: (
                    f"{path}: stopped at {update.done:,} of {update.total:,} users; the same"
                    " command goes on."
                )
            )

        return recommend_to_folder(
            model,
            stream_histories(*wanted.names, **wanted.written)
            if isinstance(wanted, _Place)
            else wanted,
            path,
            options,
            shard_users=shard_users,
            threads=threads,
            engine=ray,
            progress=listen,
        )


def _ray_engine(run: Path, device: str, index: Path | None) -> "RayEngine":
    from functools import partial  # noqa: PLC0415

    from coterie.ranking.approximate import ApproximateIndex  # noqa: PLC0415
    from coterie.stream.ray_engine import RayEngine  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415

    load_index = None if index is None else partial(ApproximateIndex.load, index.resolve())
    return RayEngine.on(device, partial(TrainedModel.load, run.resolve()), load_index)


@verbs.command()
def index(
    run: RunOrModel,
    folder: Annotated[
        Path,
        typer.Option(
            "--out", callback=result_folder, help="Folder of the index; replaced if there."
        ),
    ],
    lists: Annotated[
        int | None,
        typer.Option(min=1, help="Lists of items (default: twice the root of their number)."),
    ] = None,
    probed: Annotated[
        int | None,
        typer.Option(
            min=1, help="Lists read for each user (default: a 25th): more find more, slower."
        ),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Index a model's items for approximate search, for catalogues of some hundred thousand items
    and more.
    """
    from coterie.ranking.approximate import ApproximateIndex  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415

    built = ApproximateIndex.build(TrainedModel.load(run), n_lists=lists, n_probed=probed)
    built.save(folder)
    out.print(
        f"[green]index[/green] {folder}  {built.n_probed} of {built.lists.nlist} lists read a user",
        highlight=False,
    )
    write_result(
        json_file, {"folder": str(folder), "n_lists": built.lists.nlist, "n_probed": built.n_probed}
    )


@verbs.command()
def export(
    run: RunOrModel,
    folder: Annotated[
        Path,
        typer.Option(
            "--out",
            callback=result_folder,
            help="Folder of model.onnx, its weights, items.parquet, manifest; replaced if there.",
        ),
    ],
    json_file: JsonFile = None,
) -> None:
    """Write a model as an ONNX graph, to be served without torch and without Coterie."""
    from coterie.export import SCHEMA, export_onnx  # noqa: PLC0415
    from coterie.files import read_manifest  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415

    export_onnx(TrainedModel.load(run), folder)
    out.print(f"[green]graph[/green] {folder}/model.onnx", highlight=False)
    write_result(json_file, {"folder": str(folder), **read_manifest(folder, SCHEMA)})
