"""The demo, the results book and the benchmarks."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from coterie.cli import reading
from coterie.cli.console import command, drawn, say, say_written, write_result
from coterie.cli.options import (
    MORE,
    Device,
    JsonFile,
    Precision,
    Rows,
    Seeds,
    Threads,
    listed,
    whole_numbers,
)
from coterie.cli.places import existing, result_file, result_folder
from coterie.errors import ConfigError

if TYPE_CHECKING:
    from coterie.data.table_options import TableFields

verbs = typer.Typer()

bench_verbs = typer.Typer(
    no_args_is_help=True,
    help="Measure the engine on this machine, beside what it cannot do without.",
)
verbs.add_typer(bench_verbs, name="bench")


@verbs.command()
def demo(
    folder: Annotated[
        Path,
        typer.Option(
            "--out",
            callback=result_folder,
            help="Where log, data set, models and figure go; replaced if there.",
        ),
    ] = Path("demo"),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=existing,
            help=(
                "A log of your own in place of the simulated service: delimited text, JSON lines or"
                " Parquet. Its columns are guessed, and told."
            ),
        ),
    ] = None,
    user_column: Annotated[str | None, typer.Option(help="Of --data, in place of a guess.")] = None,
    item_column: Annotated[str | None, typer.Option(help="Of --data, in place of a guess.")] = None,
    rating_column: Annotated[
        str | None, typer.Option(help="Of --data: ratings or counts, in place of a guess.")
    ] = None,
    timestamp_column: Annotated[
        str | None, typer.Option(help="Of --data, in place of a guess.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…", help=f"Of --data without a header: all columns in order; {MORE}."
        ),
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="Of --data, as in ';'; else found.")] = None,
    quote: reading.Quote = '"',
    encoding: Annotated[
        str | None, typer.Option(help="Of --data, as in cp1252; else found.")
    ] = None,
    titles: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=existing, help="Of --data's items; else movies.dat beside it."
        ),
    ] = None,
    titles_columns: reading.TitlesColumns = None,
    min_rating: Annotated[
        float | None,
        typer.Option(
            help="Of --data: the least that is a like (default 3 of 4, 4 of 5, 7 of 10, any)."
        ),
    ] = None,
    users: Annotated[
        int, typer.Option(min=1000, help="Users of the simulated service; of --data at most.")
    ] = 6000,
    items: Annotated[
        int | None,
        typer.Option(
            min=200,
            help="Titles of the simulated service (default 1500); of --data at most (5000).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of service, split and training.")] = 1,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """The main job on a simulated streaming service, or with --data on a log of your own: data set,
    five models, what each is for, lists, figure.
    """
    from coterie.lab.demo.own_log import OwnLog  # noqa: PLC0415
    from coterie.lab.demo.run import run_demo, run_on_log  # noqa: PLC0415

    stated = {
        "user_column": user_column,
        "item_column": item_column,
        "rating_column": rating_column,
        "timestamp_column": timestamp_column,
        "encoding": encoding,
    } | reading.written(columns, delimiter, quote, encoding)
    table = cast("TableFields", {name: one for name, one in stated.items() if one is not None})
    if data is None and (table or titles or titles_columns or min_rating is not None):
        raise ConfigError("columns, titles and ratings are those of a log; name it with --data.")
    with drawn() as progress:
        if data is None:
            result = run_demo(
                folder,
                n_users=users,
                n_items=items or 1500,
                seed=seed,
                device=device,
                progress=progress,
            )
        else:
            told = reading.titles_of(titles, titles_columns, table.get("quote", '"'))
            own = OwnLog(data, table, told, min_rating, users, items or 5000)
            result = run_on_log(folder, own, seed=seed, device=device, progress=progress)
    say(result.text)
    say(f"see it: {command('dashboard', folder)}")
    write_result(json_file, result.to_json())


@verbs.command()
def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            help=(
                "ml-20m, netflix, taste-profile, ml-1m, recvae, ml-latest-small, gowalla,"
                " pia-ablations or curves."
            )
        ),
    ],
    raw: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            callback=existing,
            help="Folder of the raw files; needed until every data set is prepared.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            callback=result_folder,
            help=(
                "Data sets, runs and the table; the same command goes on there (default"
                " runs/TABLE)."
            ),
        ),
    ] = None,
    seeds: Seeds = None,
    held_out_users: Annotated[
        int | None, typer.Option(min=1, help="A smaller table: in place of the protocol's number.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="A smaller table: passes at most.")
    ] = None,
    rows: Rows = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=result_file,
            help="Also replace the table's section in this page.",
        ),
    ] = None,
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate", help="Only print the time and memory it will take, from a few steps."
        ),
    ] = False,
    threads: Threads = None,
    device: Device = "auto",
    json_file: JsonFile = None,
    data: Annotated[Path | None, typer.Option(hidden=True, callback=existing)] = None,
) -> None:
    """Run a published protocol from raw files to its table, beside the published values."""
    from coterie.lab.reproduce.book import reproduce as reproduce_table  # noqa: PLC0415
    from coterie.lab.reproduce.estimate import estimate as estimate_table  # noqa: PLC0415
    from coterie.lab.reproduce.pages import text  # noqa: PLC0415
    from coterie.running.execution import Execution  # noqa: PLC0415

    execution = Execution(device, threads).resolved()
    chosen = listed(rows) or None
    if estimate:
        costs = estimate_table(table, rows=chosen, epochs=epochs, device=execution)
        say(str(costs))
        write_result(json_file, costs.to_json())
        return
    with drawn() as progress:
        results = reproduce_table(
            table,
            folder or Path("runs") / table,
            raw or data,  # --data is the older name
            seeds=whole_numbers(seeds) or None,
            held_out_users=held_out_users,
            epochs=epochs,
            rows=chosen,
            device=execution,
            page=page,
            progress=progress,
        )
    say(text(results))
    write_result(json_file, results.to_json())


@bench_verbs.command("training-step")
def bench_training_step(
    items: Annotated[int, typer.Option(min=1, help="Size of the catalogue.")] = 20108,
    batch: Annotated[int, typer.Option(min=1, help="Users a step.")] = 500,
    items_per_user: Annotated[int, typer.Option(min=1, help="Mean length of a history.")] = 73,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the hidden layer.")] = 600,
    latent: Annotated[int, typer.Option(min=1, help="Dimension of the latent space.")] = 200,
    pia: Annotated[
        float, typer.Option(min=0, help="λ_A; anchors take part if it is above 0.")
    ] = 0.0,
    chunk_items: Annotated[int, typer.Option(min=0, help="As training.chunk_items.")] = 0,
    sampled_items: Annotated[int, typer.Option(min=0, help="As training.sampled_items.")] = 0,
    sparse_updates: Annotated[
        bool, typer.Option("--sparse-updates", help="As training.sparse_updates.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="How often each takes its turn.")] = 15,
    dense: Annotated[bool, typer.Option(help="Whether the usual dense step takes part.")] = True,
    device: Device = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Of Coterie's products.")
    ] = Precision.FLOAT32,
    json_file: JsonFile = None,
) -> None:
    """One training step against the usual dense one and the decoder's three products alone."""
    from coterie.config import TrainingConfig  # noqa: PLC0415
    from coterie.lab.bench.training_step import bench_training_step as bench  # noqa: PLC0415
    from coterie.models.multvae import MultVAEConfig  # noqa: PLC0415
    from coterie.running.execution import Execution  # noqa: PLC0415

    turns = bench(
        items,
        batch_size=batch,
        items_per_user=items_per_user,
        model=MultVAEConfig(hidden_dims=(hidden,), latent_dim=latent, pia=pia),
        training=TrainingConfig(
            chunk_items=chunk_items, sampled_items=sampled_items, sparse_updates=sparse_updates
        ),
        rounds=rounds,
        device=Execution(device, precision=precision.value),
        dense=dense,
    )
    say(str(turns))
    write_result(json_file, turns.to_json())


@bench_verbs.command("scoring")
def bench_scoring(
    items: Annotated[int, typer.Option(min=1, help="Size of the catalogue.")] = 20108,
    users: Annotated[int, typer.Option(min=1, help="Users scored in a round.")] = 2000,
    block: Annotated[int, typer.Option(min=1, help="Users scored at once.")] = 500,
    k: Annotated[int, typer.Option(min=1, help="Length of the lists.")] = 100,
    items_per_user: Annotated[int, typer.Option(min=1, help="Mean length of a history.")] = 73,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the hidden layer.")] = 600,
    latent: Annotated[int, typer.Option(min=1, help="Dimension of the latent space.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="How often each takes its turn.")] = 7,
    ease: Annotated[
        bool, typer.Option("--ease", help="EASE takes part; it needs items² floats.")
    ] = False,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """The top k of all users against the single product of their hidden states and the items."""
    from coterie.lab.bench.scoring import bench_scoring as bench  # noqa: PLC0415
    from coterie.models.multvae import MultVAEConfig  # noqa: PLC0415
    from coterie.running.execution import Execution  # noqa: PLC0415

    model = MultVAEConfig(hidden_dims=(hidden,), latent_dim=latent)
    size = {"n_users": users, "block_size": block, "k": k, "items_per_user": items_per_user}
    device = Execution.of(device).resolved().device
    turns = bench(items, **size, model=model, rounds=rounds, device=device, ease=ease)
    say(str(turns))
    write_result(json_file, turns.to_json())


@bench_verbs.command("serving")
def bench_serving(
    items: Annotated[int, typer.Option(min=1, help="Size of the catalogue.")] = 20_000,
    k: Annotated[int, typer.Option(min=1, help="Length of the lists.")] = 100,
    items_per_user: Annotated[int, typer.Option(min=1, help="Mean length of a history.")] = 73,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the hidden layer.")] = 600,
    latent: Annotated[int, typer.Option(min=1, help="Dimension of the latent space.")] = 200,
    requests: Annotated[int, typer.Option(min=8, help="Requests of each kind.")] = 400,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """One user's list and 32 users', alone and from 8 threads, against the bare product."""
    from coterie.lab.bench.serving import bench_serving as bench  # noqa: PLC0415
    from coterie.models.multvae import MultVAEConfig  # noqa: PLC0415
    from coterie.running.execution import Execution  # noqa: PLC0415

    times = bench(
        items,
        k=k,
        items_per_user=items_per_user,
        model=MultVAEConfig(hidden_dims=(hidden,), latent_dim=latent),
        requests=requests,
        device=Execution.of(device).resolved().device,
    )
    say(str(times))
    write_result(json_file, times.to_json())


@verbs.command()
def demo_production(
    folder: Annotated[
        Path,
        typer.Option("--out", callback=result_folder, help="The service's folder; new or empty."),
    ] = Path("demo-production"),
    users: Annotated[int, typer.Option(min=300, help="Users at the beginning.")] = 1500,
    items: Annotated[int, typer.Option(min=100, help="Titles at the beginning.")] = 300,
    weeks: Annotated[int, typer.Option(min=2, help="How many; the sixth is broken.")] = 8,
) -> None:
    """Eight weeks of production on a simulated service that changes: jobs, gates, lists."""
    from coterie.lab.demo.production import production, table  # noqa: PLC0415
    from coterie.lab.demo.production_figure import draw_production  # noqa: PLC0415

    with drawn() as progress:
        told = production(folder, n_users=users, n_items=items, weeks=weeks, progress=progress)
    draw_production(folder / "production.png", told)
    say(table(told))
    day = told[-1].week + timedelta(weeks=1)
    say_written("service", folder, "with production.png and weeks.json")
    say(f"  {command('status', folder, '--date', day)}")
    say(f"  {command('serve', folder, '--port', 8080)}")
    say(f"  {command('analyze', folder)}   (a minute; for the dashboard's latent map)")
    say(f"see it: {command('dashboard', folder, '--date', day)}")


@verbs.command()
def demo_experiment(
    folder: Annotated[
        Path,
        typer.Option("--out", callback=result_folder, help="The service's folder; new or empty."),
    ] = Path("demo-experiment"),
    users: Annotated[int, typer.Option(min=300, help="Users at the beginning.")] = 3000,
    items: Annotated[int, typer.Option(min=100, help="Titles at the beginning.")] = 300,
    days: Annotated[int, typer.Option(min=4, max=90, help="Of the experiment, at most.")] = 28,
) -> None:
    """An experiment on a simulated service, from plan to report: PIA or what most people watch."""
    from coterie.experiment.report import PAGE, told  # noqa: PLC0415
    from coterie.jobs.config import Service  # noqa: PLC0415
    from coterie.lab.demo.experiment import NAME, experiment  # noqa: PLC0415

    with drawn() as progress:
        found = experiment(
            folder, n_users=users, n_items=items, days=days, seen_days=max(28, days),
            progress=progress,
        )  # fmt: skip
    say(told(found))
    service = Service.load(folder)
    day = service.experiments.record(NAME).ended
    say_written("written", service.report(NAME) / PAGE)
    say(f"  {command('analyze', folder)}   (a minute; for the dashboard's latent map)")
    say(f"see it: {command('dashboard', folder, '--date', day)}")
