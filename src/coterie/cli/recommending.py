"""What models are for: lists, indexes, exports."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.cli.console import bar, out, users_bar, write_result
from coterie.cli.options import (
    Device,
    Engine,
    JsonFile,
    RunOrModel,
    read_ids,
)
from coterie.cli.places import existing, result_folder, result_table_or_folder
from coterie.errors import ConfigError, Interrupted

verbs = typer.Typer()


@verbs.command()
def recommend(
    run: RunOrModel,
    histories: Annotated[
        str,
        typer.Option(
            help=(
                "Parquet, CSV or JSON lines of user_id,item_id (an empty item_id: no history) or of"
                " user_id,item_ids (lists). "
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
    from coterie.recommend.approximate import ApproximateIndex  # noqa: PLC0415
    from coterie.recommend.engine import recommend_to_file  # noqa: PLC0415
    from coterie.recommend.history_files import read_histories  # noqa: PLC0415
    from coterie.recommend.table_files import is_table  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415
    from coterie.training.trainer import resolve_device  # noqa: PLC0415

    chosen = resolve_device(device)
    model = TrainedModel.load(run, chosen)
    options: dict[str, Any] = {
        "exclude_seen": not include_seen,
        "allow": read_ids(allow),
        "deny": read_ids(deny),
    }
    options["index"] = None if index is None else ApproximateIndex.load(index, model)
    if is_table(path):
        if engine is Engine.RAY or threads is not None:
            raise ConfigError(
                f"--engine ray and --threads are for a folder, --out is the file {path}; name a"
                " folder, or leave them out."
            )
        asked = read_histories(histories, user_column, item_column)
        with bar("users") as advance:
            done: Any = recommend_to_file(model, asked, path, k, progress=advance, **options)
    else:
        scorer = _ray_engine(run, chosen, index) if engine is Engine.RAY else None
        options |= {"shard_users": shard_users, "threads": threads, "engine": scorer}
        done = _recommend_to_folder(model, histories, user_column, item_column, path, k, options)
    _tell_recommended(path, done)
    write_result(
        json_file,
        {**asdict(done), "unknown_items": {str(item): n for item, n in done.unknown_items.items()}},
    )


def _recommend_to_folder(
    model: Any,
    histories: str,
    user_column: str,
    item_column: str,
    path: str,
    k: int,
    options: dict[str, Any],
) -> Any:
    from coterie.running.interrupt import StopRequest  # noqa: PLC0415
    from coterie.stream.history_source import open_histories  # noqa: PLC0415
    from coterie.stream.to_folder import recommend_to_folder  # noqa: PLC0415

    with users_bar() as advance, StopRequest(active=True) as stop:

        def progress(done: int, total: int) -> None:
            advance(done, total)
            if stop.signal_number is not None:
                raise Interrupted(
                    f"{path}: stopped at {done:,} of {total:,} users; the same command goes on.",
                    stop.signal_number,
                )

        return recommend_to_folder(
            model,
            open_histories(histories, user_column, item_column),
            path,
            k,
            progress=progress,
            **options,
        )


def _ray_engine(run: Path, device: str, index: Path | None) -> Any:
    from functools import partial  # noqa: PLC0415

    from coterie.recommend.approximate import ApproximateIndex  # noqa: PLC0415
    from coterie.stream.ray_engine import RayEngine  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415

    # Ray shows each task its own GPU only, as the first one.
    device, gpus = ("cuda", 1) if device.startswith("cuda") else (device, 0)
    load_index = None if index is None else partial(ApproximateIndex.load, index.resolve())
    return RayEngine(partial(TrainedModel.load, run.resolve(), device), load_index, gpus=gpus)


def _tell_recommended(path: str, done: Any) -> None:
    out.print(
        f"[green]recommendations[/green] {path}  {done.n_rows:,} rows for {done.n_users:,} users",
        highlight=False,
    )
    if done.n_popularity_users:
        out.print(
            f"{done.n_popularity_users:,} users without a known item got the most popular ones"
            " (source = popularity)",
            highlight=False,
        )
    for what, unknown in (
        ("histories", done.unknown_items),
        ("allow", done.unknown_allow),
        ("deny", done.unknown_deny),
    ):
        if unknown:
            shown = ", ".join(map(str, list(unknown)[:5])) + (", …" if len(unknown) > 5 else "")
            out.print(
                f"{len(unknown):,} items of {what} are unknown to the model and were ignored:"
                f" {shown}",
                highlight=False,
                markup=False,
            )


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
    from coterie.recommend.approximate import ApproximateIndex  # noqa: PLC0415
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
