"""The command line: one function per verb, each parses, calls and prints.

Libraries are imported inside the verbs: ``--help`` should not wait two seconds for torch.
"""

import os
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

import coterie
from coterie.errors import ConfigError, CoterieError, Interrupted
from coterie.files import check_replaceable, write_json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Recommend by collaborative filtering with variational autoencoders.\n\n"
    "A log becomes a data set ([b]prepare[/b]), a data set a model ([b]train[/b]), a model is measured "
    "([b]evaluate[/b], [b]compare[/b]), looked into ([b]analyze[/b]) and used ([b]recommend[/b]). Begin with [b]coterie demo[/b].",
    epilog="Exit codes: 0 done · 2 a wrong option · 3 bad data · 4 a damaged or unknown artifact · 5 a loss or score that is not "
    "finite · 130, 143 stopped by SIGINT, SIGTERM (train and tune resume, and so does recommend into a folder).",
)

bench_app = typer.Typer(no_args_is_help=True, help="Measure the engine on this machine, beside what it cannot do without.")
app.add_typer(bench_app, name="bench")

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; auto takes CUDA where there is one.")]
Data = Annotated[Path | None, typer.Option(help="Data set folder; by default the one the run was trained on, where it then was.")]
Metrics = Annotated[
    list[str],
    typer.Option("--metric", help="recall@K (÷ min(K, held out)), recall_of_held_out@K (÷ held out) or ndcg@K; repeat for more."),
]
_DEFAULT_METRICS = ["recall@20", "recall@50", "ndcg@100"]

out = Console()
err = Console(stderr=True)


class SplitPart(StrEnum):
    """Which held-out users."""

    VALIDATION = "validation"
    TEST = "test"


class Engine(StrEnum):
    """Who scores."""

    LOCAL = "local"
    RAY = "ray"


class Precision(StrEnum):
    """Of the products of a training step."""

    FLOAT32 = "float32"
    BF16 = "bf16"


class StudyPruner(StrEnum):
    """What ends a trial early."""

    MEDIAN = "median"
    NONE = "none"


def main() -> None:
    """Runs the command line; an error of Coterie's own becomes a message and its exit code."""
    # Threads that spin while they wait take the cores from whatever else runs, and lose them to it in turn
    # (docs/performance.md). Read by OpenMP when torch is loaded, so set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except CoterieError as error:
        err.print("error:", style="bold red", end=" ")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        print(coterie.__version__)
        raise typer.Exit


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Where log, data set, models and figure go; replaced if there.")] = Path("demo"),
    users: Annotated[int, typer.Option(min=1000, help="Users of the simulated service.")] = 6000,
    items: Annotated[int, typer.Option(min=200, help="Titles of the simulated service.")] = 1500,
    seed: Annotated[int, typer.Option(min=0, help="Of service, split and training.")] = 1,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """The main job on a simulated streaming service: log, data set, five models, recommendations, figure."""
    from coterie.demo import run_demo  # noqa: PLC0415

    result = run_demo(folder, n_users=users, n_items=items, seed=seed, device=device, tell=err.print)
    out.print(result.text, markup=False, highlight=False, soft_wrap=True)
    _write(json_file, result.to_json())


@app.command()
def prepare(
    path: Annotated[str, typer.Argument(help="Log: a file, a folder, or for tables an fsspec URL (s3://…).")],
    folder: Annotated[Path, typer.Option("--out", help="Folder of the data set; replaced if there.")],
    format: Annotated[  # noqa: A002
        str, typer.Option(help="movielens, netflix, taste-profile, adjacency, table; auto tells it by the file names.")
    ] = "auto",
    user_column: Annotated[str | None, typer.Option(help="Table: column of user ids (default user_id).")] = None,
    item_column: Annotated[str | None, typer.Option(help="Table: column of item ids (default item_id).")] = None,
    rating_column: Annotated[str | None, typer.Option(help="Table: column of ratings or counts.")] = None,
    timestamp_column: Annotated[str | None, typer.Option(help="Table: column of times (seconds since 1970, or ISO).")] = None,
    titles: Annotated[str | None, typer.Option(help="File of titles: movies.csv, movies.dat, u.item, …, or a table item_id,title.")] = None,
    min_rating: Annotated[float | None, typer.Option(help="Keep ratings (or counts) of at least this; MovieLens and Netflix: 4.")] = None,
    min_user_items: Annotated[int | None, typer.Option(min=0, help="Drop users with fewer items (default 5; 0 for a given split).")] = None,
    min_item_users: Annotated[int, typer.Option(min=0, help="First drop items with fewer users (Taste Profile: 200).")] = 0,
    held_out_users: Annotated[int | None, typer.Option(min=1, help="Validation users, and as many test users (default a tenth).")] = None,
    held_out_share: Annotated[float | None, typer.Option(help="Share of a held-out user's items to hide (default 0.2).")] = None,
    validation_share: Annotated[
        float | None, typer.Option(help="Given split: share of training items to validate on (default 0.1).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split; 98765 is the published one's.")] = 98765,
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
    with _stages() as tell:
        tell("reading the log")
        with read_log(path, format, **columns, titles=titles, memory_limit=memory_limit) as log:
            dataset = prepare_log(log, rules, tell)
        tell("writing the data set")
        dataset.save(folder)
    counts = dataset.provenance["counts"]
    for name, count in counts.items():
        out.print(f"{name.replace('_', ' '):45} {count:>14,}", highlight=False)
    out.print(f"[green]data set[/green] {folder}  fingerprint {dataset.fingerprint[:16]}", highlight=False)
    _write(json_file, {"folder": str(folder), "fingerprint": dataset.fingerprint, **dataset.provenance})


@app.command()
def simulate(
    folder: Annotated[Path, typer.Option("--out", help="Folder for ratings.csv and movies.csv, in MovieLens' form.")],
    users: Annotated[int, typer.Option(min=1, help="Users of the service.")] = 10_000,
    items: Annotated[int, typer.Option(min=1, help="Titles of the service.")] = 2_000,
    mean_items: Annotated[int, typer.Option(min=0, help="Mean interactions a user; 0 chooses by the number of titles.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Write the log of a simulated streaming service, block by block, of any size."""
    from coterie.data.simulate import Service  # noqa: PLC0415

    service = Service(users, items, seed, mean_items=mean_items)
    with _bar("users") as advance:
        service.write_ratings_csv(folder, lambda done: advance(done, users))
    out.print(f"[green]log[/green] {folder}/ratings.csv", highlight=False)


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="Data set folder, from prepare.")],
    folder: Annotated[Path, typer.Option("--out", help="Run folder: configuration, history, checkpoint, model.")],
    model: Annotated[
        str | None,
        typer.Option(help="mult-vae (default), mult-dae, recvae, linear-path-vae, ease, slim, rp3beta, item-knn, ials or popularity."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML or JSON with the sections model and training; options go over it.")] = None,
    pia: Annotated[float | None, typer.Option(help="λ_A, the weight of Personalized Item Alignment (default 0, off).")] = None,
    keep_prob: Annotated[float | None, typer.Option(help="Share of input entries that survive masking; 1 = clean.")] = None,
    beta: Annotated[float | None, typer.Option(help="Final weight of the KL.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training users, at most.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order, masks and noise.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field, as in model.latent_dim=64; repeat for more.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out after an interruption.")] = False,
    device: Device = "auto",
    precision: Annotated[Precision, typer.Option(help="bf16 runs the products under autocast.")] = Precision.FLOAT32,
    compile_layers: Annotated[bool, typer.Option("--compile", help="Compile the inner layers (torch.compile; needs a compiler).")] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="From one checkpoint to the next; a crash loses at most so much.")
    ] = 60.0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard events into --out.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Train a model; the epoch with the best validation metric is kept."""
    from coterie.config import RunConfig  # noqa: PLC0415
    from coterie.data.dataset import Dataset  # noqa: PLC0415
    from coterie.training.parallel import rank_of_process  # noqa: PLC0415
    from coterie.training.trainer import train as train_model  # noqa: PLC0415

    options = {"model.name": model, "model.pia": pia, "model.keep_prob": keep_prob, "model.beta": beta}
    options |= {"training.epochs": epochs, "training.seed": seed}
    values = _values(config, options | dict(map(_setting, setting or [])))
    trained = train_model(
        Dataset.load(data),
        RunConfig.of(values),
        out=folder,
        resume=resume,
        device=device,
        precision=precision.value,
        progress=True,
        tensorboard=tensorboard,
        checkpoint_seconds=checkpoint_seconds,
        compile=compile_layers,
    )
    if rank_of_process() > 0:
        return  # the first process tells of what all have done
    best = trained.provenance.get("best_epoch")
    found = f"  best epoch {best}, validation {trained.provenance['best_validation']:.4f}" if best else ""
    out.print(f"[green]model[/green] {folder}/model{found}", highlight=False)
    _write(json_file, {"run": str(folder), "config": trained.config.as_json(), **trained.provenance})


@app.command()
def tune(
    data: Annotated[Path, typer.Argument(help="Data set folder, from prepare; its test users take no part.")],
    folder: Annotated[Path, typer.Option("--out", help="Study folder: trials, best.toml, trials.csv. The same command goes on with it.")],
    model: Annotated[str | None, typer.Option(help="As for train.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML or JSON to start from; options go over it.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field, which is then not searched; repeat for more.")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=SPEC",
            help="Search this field, as in model.pia=0.05..5:log, model.keep_prob=0.3..0.9, model.latent_dim=64,128 or, in the "
            "model's own range, model.pia; repeat for more. Without any, all of the model's own space.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Of the whole study.")] = 50,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at once; the same command elsewhere takes part, too.")] = 1,
    metric: Annotated[str | None, typer.Option(help="On validation users (default: training.metric).")] = None,
    pruner: Annotated[StudyPruner, typer.Option(help="median ends a trial that is worse than half of the others.")] = StudyPruner.MEDIAN,
    seed: Annotated[int, typer.Option(min=0, help="Of the search; that of training is training.seed.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the models of finished trials.")] = False,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Search a model's configurations for the best one on validation users."""
    from coterie.config import RunConfig  # noqa: PLC0415
    from coterie.data.dataset import Dataset  # noqa: PLC0415
    from coterie.tuning.space import read_space  # noqa: PLC0415
    from coterie.tuning.tune import tune as tune_model  # noqa: PLC0415

    fixed = dict(map(_setting, setting or []))
    base = RunConfig.of(_values(config, {"model.name": model} | fixed))
    with _trials_bar(trials) as progress:
        result = tune_model(
            Dataset.load(data),
            base,
            out=folder,
            search=read_space(base, search or [], fixed),
            n_trials=trials,
            jobs=jobs,
            metric=metric,
            pruner=pruner.value,
            seed=seed,
            device=device,
            keep=keep,
            command=shlex.join(["coterie", *sys.argv[1:]]),
            progress=progress,
        )
    out.print(str(result), highlight=False, markup=False, soft_wrap=True)
    if result.best is not None:
        out.print(f"[green]configuration[/green] {folder}/best.toml", highlight=False, soft_wrap=True)
    _write(json_file, result.to_json())


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder, from train.")],
    split: Annotated[SplitPart, typer.Option(help="Choose on validation; report test once.")] = SplitPart.TEST,
    metric: Metrics = _DEFAULT_METRICS,
    data: Data = None,
    per_user: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write every user's values as Parquet.")] = None,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Measure a model on held-out users, overall and by their number of interactions."""
    report = _evaluate(run, split, metric, data, device)
    out.print(str(report), highlight=False, soft_wrap=True)
    if per_user is not None:
        import pyarrow.parquet as pq  # noqa: PLC0415

        from coterie.files import publish_file  # noqa: PLC0415

        with publish_file(per_user) as aside:
            pq.write_table(report.per_user_table(), aside)
    _write(json_file, {"run": str(run), "split": split.value, **report.to_json()})


@app.command()
def compare(
    candidate: Annotated[str, typer.Argument(help="Run folder, or several (seeds) joined by commas.")],
    reference: Annotated[str, typer.Argument(help="Run folder to hold it against, as many, in the same order.")],
    split: Annotated[SplitPart, typer.Option(help="Choose on validation; report test once.")] = SplitPart.TEST,
    metric: Metrics = _DEFAULT_METRICS,
    data: Data = None,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap and of the sign flips.")] = 10_000,
    confidence: Annotated[float, typer.Option(help="Of the interval.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Compare two models on the same users: paired bootstrap intervals and p-values.

    Several runs a side are pooled, each user once with the average over their runs.
    """
    from coterie.evaluation.compare import compare_runs  # noqa: PLC0415

    sides = [[_evaluate(Path(run), split, metric, data, device) for run in side.split(",")] for side in (candidate, reference)]
    comparison = compare_runs(*sides, seed=seed, n_resamples=resamples, confidence=confidence)
    out.print(str(comparison), highlight=False, soft_wrap=True)
    _write(json_file, {"candidate": candidate, "reference": reference, "split": split.value, **comparison.to_json()})


@bench_app.command("training-step")
def bench_training_step(
    items: Annotated[int, typer.Option(min=1, help="Size of the catalogue.")] = 20108,
    batch: Annotated[int, typer.Option(min=1, help="Users a step.")] = 500,
    items_per_user: Annotated[int, typer.Option(min=1, help="Mean length of a history.")] = 73,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the hidden layer.")] = 600,
    latent: Annotated[int, typer.Option(min=1, help="Dimension of the latent space.")] = 200,
    pia: Annotated[float, typer.Option(min=0, help="λ_A; anchors take part if it is above 0.")] = 0.0,
    chunk_items: Annotated[int, typer.Option(min=0, help="As training.chunk_items.")] = 0,
    sampled_items: Annotated[int, typer.Option(min=0, help="As training.sampled_items.")] = 0,
    sparse_updates: Annotated[bool, typer.Option("--sparse-updates", help="As training.sparse_updates.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="How often each takes its turn.")] = 15,
    dense: Annotated[bool, typer.Option(help="Whether the usual dense step takes part.")] = True,
    device: Device = "auto",
    precision: Annotated[Precision, typer.Option(help="Of Coterie's products.")] = Precision.FLOAT32,
    json_file: JsonFile = None,
) -> None:
    """One training step against the usual dense one and the decoder's three products alone."""
    from coterie.bench.training_step import bench_training_step as bench  # noqa: PLC0415
    from coterie.config import TrainingConfig  # noqa: PLC0415
    from coterie.models.multvae import MultVAEConfig  # noqa: PLC0415
    from coterie.training.trainer import resolve_device  # noqa: PLC0415

    turns = bench(
        items,
        batch_size=batch,
        items_per_user=items_per_user,
        model=MultVAEConfig(hidden_dims=(hidden,), latent_dim=latent, pia=pia),
        training=TrainingConfig(chunk_items=chunk_items, sampled_items=sampled_items, sparse_updates=sparse_updates),
        rounds=rounds,
        device=resolve_device(device),
        precision=precision.value,
        dense=dense,
    )
    out.print(str(turns), highlight=False, soft_wrap=True)
    _write(json_file, turns.to_json())


@bench_app.command("scoring")
def bench_scoring(
    items: Annotated[int, typer.Option(min=1, help="Size of the catalogue.")] = 20108,
    users: Annotated[int, typer.Option(min=1, help="Users scored in a round.")] = 2000,
    block: Annotated[int, typer.Option(min=1, help="Users scored at once.")] = 500,
    k: Annotated[int, typer.Option(min=1, help="Length of the lists.")] = 100,
    items_per_user: Annotated[int, typer.Option(min=1, help="Mean length of a history.")] = 73,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the hidden layer.")] = 600,
    latent: Annotated[int, typer.Option(min=1, help="Dimension of the latent space.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="How often each takes its turn.")] = 7,
    ease: Annotated[bool, typer.Option("--ease", help="EASE takes part; it needs items² floats.")] = False,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """The top k of all users against the single product of their hidden states and the items."""
    from coterie.bench.scoring import bench_scoring as bench  # noqa: PLC0415
    from coterie.models.multvae import MultVAEConfig  # noqa: PLC0415
    from coterie.training.trainer import resolve_device  # noqa: PLC0415

    model = MultVAEConfig(hidden_dims=(hidden,), latent_dim=latent)
    size = {"n_users": users, "block_size": block, "k": k, "items_per_user": items_per_user}
    turns = bench(items, **size, model=model, rounds=rounds, device=resolve_device(device), ease=ease)
    out.print(str(turns), highlight=False, soft_wrap=True)
    _write(json_file, turns.to_json())


@app.command()
def recommend(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    histories: Annotated[
        str,
        typer.Option(
            help="Parquet, CSV or JSON lines of user_id,item_id (an empty item_id: no history) or of user_id,item_ids (lists). "
            "For a folder out also a folder of such files, an fsspec URL, or a data set folder: everybody in it."
        ),
    ],
    path: Annotated[
        str,
        typer.Option(
            "--out",
            help="A file ending in .parquet, .csv or .jsonl; or a folder or URL, for any number of users: part-00000.parquet, …, "
            "resumed by the same command. Rows: user_id, rank, item_id, score, source.",
        ),
    ],
    k: Annotated[int, typer.Option(min=1, help="Items a user.")] = 10,
    user_column: Annotated[str, typer.Option(help="Column of user ids.")] = "user_id",
    item_column: Annotated[str, typer.Option(help="Column of item ids; its plural is a column of lists.")] = "item_id",
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Also recommend what is in the history.")] = False,
    allow: Annotated[Path | None, typer.Option(metavar="FILE", help="Recommend only these items, one id a line.")] = None,
    deny: Annotated[Path | None, typer.Option(metavar="FILE", help="Never recommend these items, one id a line.")] = None,
    index: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Rank approximately, by an index of this model (verb index).")
    ] = None,
    shard_users: Annotated[int, typer.Option(min=1, help="Folder: users in a file; a crash loses no more.")] = 65_536,
    engine: Annotated[Engine, typer.Option(help="Folder: this process, or Ray (RAY_ADDRESS, else one on this machine).")] = Engine.LOCAL,
    threads: Annotated[int | None, typer.Option(min=1, help="Folder: threads a shard (default: all; Ray: 1).")] = None,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Recommend to anybody with a history, in training or not; without one, the most popular items, marked so."""
    from coterie.recommend.approximate import ApproximateIndex  # noqa: PLC0415
    from coterie.recommend.engine import recommend_to_file  # noqa: PLC0415
    from coterie.recommend.history_files import read_histories  # noqa: PLC0415
    from coterie.recommend.table_files import is_table  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415
    from coterie.training.trainer import resolve_device  # noqa: PLC0415

    chosen = resolve_device(device)
    model = TrainedModel.load(run, chosen)
    options: dict[str, Any] = {"exclude_seen": not include_seen, "allow": _read_ids(allow), "deny": _read_ids(deny)}
    options["index"] = None if index is None else ApproximateIndex.load(index, model)
    if is_table(path):
        if engine is Engine.RAY or threads is not None:
            raise ConfigError(f"--engine ray and --threads are for a folder, --out is the file {path}; name a folder, or leave them out.")
        asked = read_histories(histories, user_column, item_column)
        with _bar("users") as advance:
            done: Any = recommend_to_file(model, asked, path, k, progress=advance, **options)
    else:
        scorer = _ray_engine(run, chosen, index) if engine is Engine.RAY else None
        options |= {"shard_users": shard_users, "threads": threads, "engine": scorer}
        done = _recommend_to_folder(model, histories, user_column, item_column, path, k, options)
    _tell_recommended(path, done)
    _write(json_file, {**asdict(done), "unknown_items": {str(item): n for item, n in done.unknown_items.items()}})


def _recommend_to_folder(model: Any, histories: str, user_column: str, item_column: str, path: str, k: int, options: dict[str, Any]) -> Any:
    from coterie.stream.history_source import open_histories  # noqa: PLC0415
    from coterie.stream.to_folder import recommend_to_folder  # noqa: PLC0415
    from coterie.training.stop import StopRequest  # noqa: PLC0415

    with _users_bar() as advance, StopRequest(active=True) as stop:

        def progress(done: int, total: int) -> None:
            advance(done, total)
            if stop.signal_number is not None:
                raise Interrupted(f"{path}: stopped at {done:,} of {total:,} users; the same command goes on.", stop.signal_number)

        return recommend_to_folder(model, open_histories(histories, user_column, item_column), path, k, progress=progress, **options)


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
    out.print(f"[green]recommendations[/green] {path}  {done.n_rows:,} rows for {done.n_users:,} users", highlight=False)
    if done.n_popularity_users:
        out.print(
            f"{done.n_popularity_users:,} users without a known item got the most popular ones (source = popularity)", highlight=False
        )
    for what, unknown in (("histories", done.unknown_items), ("allow", done.unknown_allow), ("deny", done.unknown_deny)):
        if unknown:
            shown = ", ".join(map(str, list(unknown)[:5])) + (", …" if len(unknown) > 5 else "")
            out.print(f"{len(unknown):,} items of {what} are unknown to the model and were ignored: {shown}", highlight=False, markup=False)


@app.command()
def index(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder of the index; replaced if there.")],
    lists: Annotated[int | None, typer.Option(min=1, help="Lists of items (default: twice the root of their number).")] = None,
    probed: Annotated[int | None, typer.Option(min=1, help="Lists read for each user (default: a 25th): more find more, slower.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Index a model's items for approximate search, for catalogues of some hundred thousand items and more."""
    from coterie.recommend.approximate import ApproximateIndex  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415

    built = ApproximateIndex.build(TrainedModel.load(run), n_lists=lists, n_probed=probed)
    built.save(folder)
    out.print(f"[green]index[/green] {folder}  {built.n_probed} of {built.lists.nlist} lists read a user", highlight=False)
    _write(json_file, {"folder": str(folder), "n_lists": built.lists.nlist, "n_probed": built.n_probed})


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder of model.onnx, its weights, items.parquet, manifest; replaced if there.")],
    json_file: JsonFile = None,
) -> None:
    """Write a model as an ONNX graph, to be served without torch and without Coterie."""
    from coterie.export import SCHEMA, export_onnx  # noqa: PLC0415
    from coterie.files import read_manifest  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415

    export_onnx(TrainedModel.load(run), folder)
    out.print(f"[green]graph[/green] {folder}/model.onnx", highlight=False)
    _write(json_file, {"folder": str(folder), **read_manifest(folder, SCHEMA)})


@app.command()
def reproduce(
    table: Annotated[
        str, typer.Argument(help="ml-20m, netflix, taste-profile, ml-1m, recvae, ml-latest-small, gowalla, pia-ablations or curves.")
    ],
    data: Annotated[Path | None, typer.Option(help="Folder of the raw files; needed until every data set is prepared.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Data sets, runs and the table; the same command goes on there (default runs/TABLE).")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2,…", help="In place of the table's own; each draws a split and trains.")] = None,
    held_out_users: Annotated[int | None, typer.Option(min=1, help="A smaller table: in place of the protocol's number.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="A smaller table: passes at most.")] = None,
    rows: Annotated[str | None, typer.Option(metavar="NAME,…", help="Some of the table's rows only.")] = None,
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Also replace the table's section in this page.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only tell the time and memory it will take, from a few steps.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch (default: all).")] = None,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Run a published protocol from raw files to its table, beside the published values."""
    import torch  # noqa: PLC0415

    from coterie.reproduce.book import reproduce as reproduce_table  # noqa: PLC0415
    from coterie.reproduce.estimate import estimate as estimate_table  # noqa: PLC0415
    from coterie.reproduce.pages import text  # noqa: PLC0415

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = None if rows is None else rows.split(",")
    if estimate:
        costs = estimate_table(table, rows=chosen, epochs=epochs, device=device, tell=err.print)
        out.print(str(costs), markup=False, highlight=False, soft_wrap=True)
        _write(json_file, costs.to_json())
        return
    results = reproduce_table(
        table,
        folder or Path("runs") / table,
        data,
        seeds=None if seeds is None else _whole_numbers(seeds),
        held_out_users=held_out_users,
        epochs=epochs,
        rows=chosen,
        device=device,
        page=page,
        tell=lambda line: err.print(line, markup=False, highlight=False, soft_wrap=True),
        progress=True,
    )
    out.print(text(results), markup=False, highlight=False, soft_wrap=True)
    _write(json_file, results.to_json())


@app.command()
def analyze(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Run folders of one data set, or NAME=RUN to call them otherwise.")],
    folder: Annotated[Path, typer.Option("--out", help="report.html, a PNG a figure, numbers.json, users.parquet, pairs.parquet.")],
    data: Data = None,
    users: Annotated[int, typer.Option(min=2, help="Training users whose transfer is measured, all with all.")] = 1000,
    draws: Annotated[int, typer.Option(min=2, help="Latent points, and masks, of each of them.")] = 4,
    map_users: Annotated[int, typer.Option(min=10, help="Training users in the maps and neighbourhoods.")] = 2000,
    neighbours: Annotated[int, typer.Option(min=1, help="Size of a neighbourhood.")] = 50,
    near: Annotated[float, typer.Option(help="Local pairs: this share of all, the closest by Jaccard distance.")] = 0.05,
    far: Annotated[float, typer.Option(help="Far pairs: all but this share of the closest.")] = 0.5,
    subset: Annotated[
        float, typer.Option(help="Far pairs are related if the heavier user has this share of the lighter one's items …")
    ] = 0.5,
    linked: Annotated[int, typer.Option(min=1, help="… or if so many of their nearest users are common to both.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of users, draws and masks.")] = 0,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Look into models: how users help each other, drift, collapse, maps, and what to do about it, as one page."""
    from coterie.collaboration.analyze import AnalysisOptions, load_settings  # noqa: PLC0415
    from coterie.collaboration.analyze import analyze as analyze_settings  # noqa: PLC0415
    from coterie.collaboration.figures import check_figures  # noqa: PLC0415
    from coterie.collaboration.pairs import PairRules  # noqa: PLC0415
    from coterie.collaboration.report import PAGE, numbers, summary, write_report  # noqa: PLC0415
    from coterie.training.trainer import resolve_device  # noqa: PLC0415

    check_figures()
    check_replaceable(folder, PAGE)
    rules = PairRules(near=near, far=far, subset=subset, linked=linked)
    options = AnalysisOptions(users=users, draws=draws, map_users=map_users, neighbours=neighbours, rules=rules, seed=seed)
    settings, dataset = load_settings(runs, data, resolve_device(device))
    with _stages() as tell:
        analysis = analyze_settings(settings, dataset, options, tell=tell)
        tell("writing the report")
        write_report(analysis, folder)
    out.print(summary(analysis), highlight=False, markup=False, soft_wrap=True)
    out.print(f"[green]report[/green] {folder}/report.html", highlight=False, soft_wrap=True)
    _write(json_file, numbers(analysis))


def _evaluate(run: Path, split: SplitPart, metrics: list[str], data: Path | None, device: str) -> Any:
    from coterie.data.dataset import Dataset  # noqa: PLC0415
    from coterie.data.split import Part  # noqa: PLC0415
    from coterie.evaluation.evaluate import evaluate as evaluate_model  # noqa: PLC0415
    from coterie.training.run_folder import dataset_folder  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415
    from coterie.training.trainer import resolve_device  # noqa: PLC0415

    model = TrainedModel.load(run, resolve_device(device))
    dataset = Dataset.load(data or dataset_folder(run))
    if dataset.fingerprint != model.provenance["dataset"]:
        raise ConfigError(f"{run} was trained on another data set than {data or dataset.folder}; give the right one with --data.")
    with _bar(f"{run}") as advance:
        return evaluate_model(model, dataset.cases(Part[split.name]), metrics=metrics, user_ids=dataset.users, progress=advance)


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"seeds must be whole numbers joined by commas, found {text!r}; as in 1,2,3.") from error


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or "." not in key:
        raise ConfigError(f"--set must be SECTION.FIELD=VALUE, found {text!r}; as in model.latent_dim=64.")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _values(config: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration file says, with options over it; those that are None were not given."""
    from coterie.config import read_values  # noqa: PLC0415

    values = read_values(config) if config else {}
    for key, value in options.items():
        if value is not None:
            *path, field = key.split(".")
            place = values
            for step in path:
                place = place.setdefault(step, {})
                if not isinstance(place, dict):
                    raise ConfigError(f"{key}: {step} must hold fields, found the value {place!r}; leave .{field} out.")
            place[field] = value
    values.setdefault("model", {}).setdefault("name", "mult-vae")
    return values


def _read_ids(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: must be a readable UTF-8 file with one item id a line ({error}); check the path.") from error


def _write(path: Path | None, value: Any) -> None:
    if path is not None:
        write_json(path, value)


@contextmanager
def _stages() -> Iterator[Callable[[str], None]]:
    """Shows what is being done, and for how long."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("")
        yield lambda stage: progress.update(task, description=stage)


@contextmanager
def _users_bar() -> Iterator[Callable[[int, int], None]]:
    """Shows users done of all, users a second and the time left, by the last minute's speed."""
    columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("users"), _Speed(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, speed_estimate_period=60) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


@contextmanager
def _trials_bar(total: int) -> Iterator[Callable[[Any], None]]:
    """Shows the trials that are finished, the best so far and the time left."""
    columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("trials{task.description}"), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as progress:
        task = progress.add_task("", total=total)

        def tell(result: Any) -> None:
            best = f"  {result.metric} {result.best.value:.4f} in trial {result.best.number}" if result.best else ""
            progress.update(task, completed=result.n_finished, description=best)

        yield tell


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how many of all are done, and the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


if __name__ == "__main__":
    main()
