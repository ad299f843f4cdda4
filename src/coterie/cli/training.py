"""From data sets to models."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.cli.console import drawn, say, say_written, write_result
from coterie.cli.options import (
    ConfigFile,
    Device,
    JsonFile,
    Precision,
    Prepared,
    Settings,
    StudyPruner,
    Threads,
    laid_over,
    setting_of,
)
from coterie.cli.places import existing, result_folder
from coterie.errors import ConfigError
from coterie.running.progress import Progress, Update

verbs = typer.Typer()


@verbs.command()
def train(
    data: Prepared,
    folder: Annotated[
        Path,
        typer.Option(
            "--out",
            callback=result_folder,
            help="Run folder: configuration, history, checkpoint, model.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="mult-vae (default) or another; coterie config lists them."),
    ] = None,
    config: ConfigFile = None,
    pia: Annotated[
        float | None,
        typer.Option(help="λ_A, the weight of Personalized Item Alignment (default 0, off)."),
    ] = None,
    keep_prob: Annotated[
        float | None, typer.Option(help="Share of input entries that survive masking; 1 = clean.")
    ] = None,
    beta: Annotated[float | None, typer.Option(help="Final weight of the KL.")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training users, at most.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of weights, order, masks and noise; a model without chance has no use for it.",
        ),
    ] = None,
    setting: Settings = None,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit",
            help=(
                "Train once more at the end, on all interactions of all users, for as many epochs"
                " as were best; the validated run is OUT/validated."
            ),
        ),
    ] = False,
    refit_of: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            callback=existing,
            help=(
                "Train on all of DATA with the configuration and the best epoch of a finished run."
            ),
        ),
    ] = None,
    warm_from: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help=(
                "Start from the weights of a trained model, or of a run's, with the same layers:"
                " rows by item id, new items from those they are consumed with."
            ),
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out after an interruption.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    precision: Annotated[
        Precision, typer.Option(help="bf16 runs the products under autocast.")
    ] = Precision.FLOAT32,
    compile_layers: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the inner layers (torch.compile; needs a compiler)."
        ),
    ] = False,
    checkpoint_seconds: Annotated[
        float,
        typer.Option(min=0, help="From one checkpoint to the next; a crash loses at most so much."),
    ] = 60.0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard events into --out.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Train a model; the epoch with the best validation metric is kept."""
    from coterie.config import RunConfig  # noqa: PLC0415
    from coterie.data.dataset import Dataset  # noqa: PLC0415
    from coterie.running.execution import Execution  # noqa: PLC0415
    from coterie.running.world import rank_of_process  # noqa: PLC0415
    from coterie.training.run_config import warm_values  # noqa: PLC0415
    from coterie.training.tensorboard import tensorboard_events  # noqa: PLC0415
    from coterie.training.trainer import refit as refit_run  # noqa: PLC0415
    from coterie.training.trainer import train as train_model  # noqa: PLC0415
    from coterie.training.warm_start import in_words  # noqa: PLC0415

    options = {
        "model.name": model,
        "model.pia": pia,
        "model.keep_prob": keep_prob,
        "model.beta": beta,
        "training.epochs": epochs,
    }
    if refit_of is not None:
        _check_alone(
            refit=refit,
            config=config,
            model=model,
            pia=pia,
            keep_prob=keep_prob,
            beta=beta,
            epochs=epochs,
            seed=seed,
            set=setting,
        )
    if not resume:
        existing(warm_from)
    values = laid_over(config, options | dict(map(setting_of, setting or [])))
    if warm_from is not None and refit_of is None:
        values = warm_values(values)
    config_of_run = RunConfig.of(values)
    if seed is not None:
        config_of_run = config_of_run.with_seed(seed)
    execution = Execution(device, threads, precision.value, compile_layers).resolved()
    with ExitStack() as stack:
        listeners = [stack.enter_context(drawn())] if rank_of_process() == 0 else []
        if tensorboard:
            listeners.append(stack.enter_context(tensorboard_events(folder)))
        begin = (
            partial(train_model, config=config_of_run, refit=refit)
            if refit_of is None
            else partial(refit_run, refit_of)
        )
        trained = begin(
            dataset=Dataset.load(data),
            out=folder,
            resume=resume,
            warm_from=warm_from,
            device=execution,
            progress=partial(_to_all, listeners),
            checkpoint_seconds=checkpoint_seconds,
        )
    if rank_of_process() > 0:
        return  # the first process speaks for all
    best, value = (trained.provenance.get(f"best_{what}") for what in ("epoch", "validation"))
    # Without validation cases the last epoch is the best, of no value.
    found = [f"best epoch {best}"] if best else []
    found += [] if value is None else [f"validation {value:.4f}"]
    if trained.provenance.get("start") == "warm":
        found.append(in_words(trained.provenance))
    if trained.is_refit:
        found.append(f"refitted on all {trained.provenance['train_users']:,} users")
    say_written("model", folder / "model", ", ".join(found))
    write_result(
        json_file, {"run": str(folder), "config": trained.config.as_json(), **trained.provenance}
    )


def _check_alone(**options: Any) -> None:
    """Beside ``--refit-of`` no option may say what is trained: the run does."""
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in options.items()
        if value is not None and value is not False
    ]
    if given:
        raise ConfigError(
            f"--refit-of takes the configuration from its run, found {', '.join(given)} beside it;"
            " leave one out."
        )


def _to_all(listeners: Sequence[Progress], update: Update) -> None:
    for listen in listeners:
        listen(update)


@verbs.command()
def tune(
    data: Annotated[
        Path,
        typer.Argument(
            callback=existing, help="Data set folder, from prepare; its test users take no part."
        ),
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--out",
            callback=result_folder,
            help="Study folder: trials, best.toml, trials.csv. The same command goes on with it.",
        ),
    ],
    model: Annotated[str | None, typer.Option(help="As for train.")] = None,
    config: ConfigFile = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any field, which is then not searched; repeat for more.",
        ),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=SPEC",
            help=(
                "Search this field, as in model.pia=0.05..5:log, model.keep_prob=0.3..0.9,"
                " model.latent_dim=64,128 or, in the "
                "model's own range, model.pia; repeat for more. Without any, all of the model's own"
                " space."
            ),
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Of the whole study.")] = 50,
    jobs: Annotated[
        int,
        typer.Option(min=1, help="Processes at once; the same command elsewhere joins in."),
    ] = 1,
    metric: Annotated[
        str | None, typer.Option(help="On validation users (default: training.metric).")
    ] = None,
    pruner: Annotated[
        StudyPruner, typer.Option(help="median ends a trial that is worse than half of the others.")
    ] = StudyPruner.MEDIAN,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the search; that of training is training.seed.")
    ] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the models of finished trials.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    json_file: JsonFile = None,
) -> None:
    """Search a model's configurations for the best one on validation users."""
    from coterie.config import RunConfig  # noqa: PLC0415
    from coterie.data.dataset import Dataset  # noqa: PLC0415
    from coterie.running.execution import Execution  # noqa: PLC0415
    from coterie.tuning.space import read_space  # noqa: PLC0415
    from coterie.tuning.tune import tune as tune_model  # noqa: PLC0415

    fixed = dict(map(setting_of, setting or []))
    base = RunConfig.of(laid_over(config, {"model.name": model} | fixed))
    with drawn() as progress:
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
            device=Execution(device, threads),
            keep=keep,
            command=shlex.join(["coterie", *sys.argv[1:]]),
            progress=progress,
        )
    say(str(result))
    if result.best is not None:
        say_written("configuration", folder / "best.toml")
    write_result(json_file, result.to_json())
