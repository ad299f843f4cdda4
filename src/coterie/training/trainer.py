"""Training: a data set and a configuration in, a trained model out."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coterie.config import ClosedFormConfig, NetworkConfig, RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Cases
from coterie.data.split import Part as SplitPart
from coterie.errors import ConfigError, Interrupted, NumericalError
from coterie.evaluation.evaluate import evaluate
from coterie.models.stepped import AlignedConfig, Part
from coterie.objectives.alignment import count_weights, rarity_weights, recency_weights
from coterie.running.interrupt import StopRequest
from coterie.running.progress import TrainingProgress
from coterie.running.world import ALONE, World, cuda_of_process, join_world
from coterie.sparse import SparseRows
from coterie.training.checkpoint import Position, load_checkpoint, save_checkpoint
from coterie.training.networks import Network, fit_network, fit_path
from coterie.training.run_folder import RunFolder, new_identity
from coterie.training.step import ORDER, Precision, TrainingStep, check_precision, seeded
from coterie.training.trained_model import TrainedModel


def train(
    dataset: Dataset,
    config: RunConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    precision: Precision = "float32",
    progress: bool = False,
    tensorboard: bool = False,
    checkpoint_seconds: float = 60.0,
    compile: bool = False,  # noqa: A002 - torch's own word for it
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainedModel:
    """Trains a model; the epoch with the best validation metric is the one returned.

    Seeded: on the CPU, with the same number of threads, the same arguments give the same weights,
    interrupted and resumed or not; SLIM on several threads up to its solver's tolerance. Without
    validation cases every epoch is run and the last one returned.

    Several processes that call this together, under torchrun or another launcher that sets the
    ``env://`` variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) or with a process
    group already initialised, train one model: each takes its part of every batch of ``batch_size``
    users. Order, masks and noise are those of one process, and the weights differ from its only by
    rounding. All are given the same arguments and see the same ``out``, where the first one writes;
    all return the model. A run may be resumed by another number of processes. A closed form is
    computed by every process for itself.

    Args:
        dataset: With its split.
        config: A Mult-VAE with its defaults if None.
        out: Run folder (see `run_folder`). With it, SIGINT and SIGTERM stop cleanly after the step
            under way.
        resume: Go on with the run in ``out``, from its last checkpoint or, if it has none, from the
            start.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …; ``"auto"`` is CUDA where there is one. Under
            a launcher both ``"auto"`` and ``"cuda"`` are the device LOCAL_RANK of the machine.
        precision: ``"bf16"`` runs the products in bfloat16.
        progress: Draw a bar on standard error.
        tensorboard: Also write the history as TensorBoard events into ``out``.
        checkpoint_seconds: From one checkpoint to the next; a SIGKILL loses at most so much work.
        compile: Compile the layers between the first and the last with `torch.compile`, which needs
            a C++ compiler and takes some seconds.
        watch: Told of every finished epoch by its line of the history; what it raises ends the run,
            which can be resumed.

    Raises:
        ConfigError: if the arguments contradict one another, the run in ``out`` or those of another
            process.
        ConflictError: if another process trains in ``out``, or it holds a run and ``resume`` is
            false.
        CannotWriteError: if ``out`` cannot be written.
        Interrupted: if a signal asked for a stop; the checkpoint is on disk.
        NumericalError: if a loss stopped being finite.

    Example:
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> config = {
        ...     "model": {"name": "mult-vae", "hidden_dims": [20], "latent_dim": 8},
        ...     "training": {"epochs": 2},
        ... }
        >>> model = train(data, RunConfig.of(config))
        >>> model.score(data.train[:3]).shape == (3, data.n_items)
        True
    """
    config = config or RunConfig()
    device = resolve_device(device)
    check_precision(precision)
    if out is None and (resume or tensorboard):
        raise ConfigError("resume and tensorboard need a run folder; pass out.")
    with join_world(device) as world, ExitStack() as stack:
        told = {
            "config": config.as_json(),
            "dataset": dataset.fingerprint,
            "precision": precision,
            "out": str(out),
            "resume": resume,
        }
        world.check_same("arguments", json.dumps(told))
        folder = (
            None
            if out is None
            else stack.enter_context(
                RunFolder(out, config, dataset, device, precision, resume=resume, world=world)
            )
        )
        if folder is not None and folder.model.exists():
            return TrainedModel.load(folder.model, device)
        identity = new_identity(world) if folder is None else folder.identity
        if isinstance(config.model, ClosedFormConfig):
            network = fit_network(dataset.train, config.model).to(device)
            summary: dict[str, Any] = {}
        else:
            run = Descent(
                dataset,
                config,
                folder,
                device,
                precision,
                checkpoint_seconds,
                world,
                compile=compile,
            )
            network, summary = _descend(run, watch, progress=progress, tensorboard=tensorboard)
            if folder is not None and "anchors" in run.best:
                folder.keep_anchors(run.best["anchors"])
        popularity = np.asarray(dataset.train.sum(axis=0), dtype=np.int64)
        provenance = {"dataset": dataset.fingerprint, **identity.to_json(), **summary}
        model = TrainedModel(
            network.eval(), config, dataset.items, dataset.titles, popularity, provenance
        )
        if folder is not None and world.leads:
            model.save(folder.model)
            folder.checkpoint.unlink(missing_ok=True)
        world.barrier()
    return model


def resolve_device(device: str) -> str:
    """The device that a name stands for; ``"auto"`` is CUDA where there is one, under a launcher
    this process's own.

    Raises:
        ConfigError: if CUDA is asked for and there is none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"device {device!r} needs CUDA, this machine or this torch has none; use cpu."
        )
    return cuda_of_process(torch.cuda.device_count()) if device == "cuda" else device


def _descend(
    run: "Descent",
    watch: Callable[[dict[str, Any]], None] | None,
    *,
    progress: bool,
    tensorboard: bool,
) -> tuple[Network, dict[str, Any]]:
    folder, model, leads = run.folder, run.step.model, run.world.leads
    with ExitStack() as stack:
        label = model.name + (" + PIA" if getattr(model, "pia", 0) else "")
        bar = stack.enter_context(
            TrainingProgress(run.config.epochs, run.n_batches, label, visible=progress and leads)
        )
        stop = stack.enter_context(StopRequest(active=folder is not None))
        events = (
            stack.enter_context(_event_writer(folder.path))
            if tensorboard and folder is not None and leads
            else None
        )
        while not run.finished():
            for users, part in run.batches():
                run.advance(users, part)
                bar.step(run.position.epoch, run.position.batch)
                run.pause(stop)
            entry = run.close_epoch()
            bar.epoch(entry)
            if events is not None:
                _write_events(events, entry)
            run.pause(stop)
            if watch is not None:
                watch(entry)
    return run.best_network(), {
        "best_epoch": run.position.best_epoch,
        "best_validation": run.position.best_value,
    }


class Descent:
    """Gradient descent under way: a step, a position, and the best weights so far.

    Args:
        dataset: With its split.
        config: Of a network.
        folder: Where history and checkpoints go, if anywhere.
        device: Where to train.
        precision: Of the products.
        checkpoint_seconds: From one checkpoint to the next.
        world: The processes that descend together.
        compile: Whether to compile the inner layers.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: RunConfig,
        folder: RunFolder | None,
        device: str,
        precision: Precision,
        checkpoint_seconds: float,
        world: World = ALONE,
        *,
        compile: bool = False,  # noqa: A002
    ) -> None:
        if isinstance(config.model, ClosedFormConfig):
            raise ConfigError(f"{config.model.name} is not trained in steps.")
        self.config, self.folder, self.device, self.world = config.training, folder, device, world
        self.rows = _weighted_rows(dataset, config.model, device)
        self.cases = dataset.cases(SplitPart.VALIDATION)
        popularity = np.asarray(dataset.train.sum(axis=0))
        options: dict[str, Any] = {
            "device": device,
            "precision": precision,
            "world": world,
            "popularity": popularity,
            "compile": compile,
        }
        self.step = TrainingStep(dataset.n_items, config.model, config.training, **options)
        fit_path(self.step.network, config.model, dataset.train, device)
        self.position, self.best = Position(), self._copied_weights()
        self.passes = config.model.passes
        self.n_batches = len(self.passes) * self._batches_a_pass
        self.checkpoint_seconds, self._saved_at = checkpoint_seconds, time.monotonic()
        self._epoch_started = time.perf_counter()
        self._sums: dict[str, Tensor] = {}
        if folder is not None:
            self._take_over(folder)
        world.check_same("checkpoint", f"one at {self.position}")
        # Initial weights may differ by rounding from one kind of processor to another.
        world.broadcast([*self.step.state().values(), *self.best.values()])

    def _take_over(self, folder: RunFolder) -> None:
        if folder.checkpoint.exists():
            self.position, state, self.best = load_checkpoint(folder.checkpoint, self.device)
            self.step.restore(state, self.position.n_steps)
            self._sums = {
                name: torch.tensor(value, dtype=torch.float64, device=self.device)
                for name, value in self.position.sums.items()
            }
        folder.keep_history(self.position.epoch)

    def finished(self) -> bool:
        """Whether all epochs are done or patience has run out."""
        waited = (self.position.epoch - self.position.best_epoch) // self.config.validate_every
        out_of_patience = (
            self._validates and self.position.batch == 0 and waited >= self.config.patience
        )
        return self.position.epoch >= self.config.epochs or out_of_patience

    @property
    def _validates(self) -> bool:
        return len(self.cases.user_index) > 0

    @property
    def _batches_a_pass(self) -> int:
        return -(-len(self.rows) // self.config.batch_size)

    def batches(self) -> Iterator[tuple[Tensor, Part]]:
        """The users of each batch still to come in this epoch, and what learns from them; the order
        depends on seed and pass alone.
        """
        done, begun = divmod(self.position.batch, self._batches_a_pass)
        for number in range(done, len(self.passes)):
            generator = seeded(
                self.config.seed, ORDER, self.position.epoch * len(self.passes) + number
            )
            order = torch.randperm(len(self.rows), generator=generator).to(self.device)
            for users in torch.split(order, self.config.batch_size)[
                begun if number == done else 0 :
            ]:
                yield users, self.passes[number]

    def advance(self, users: Tensor, part: Part = "all") -> None:
        """Takes one step."""
        # Clean input and another part of the network: the decoder's passes are told apart.
        prefix = "decoder_" if part == "decoder" else ""
        for name, term in self.step(self.rows.take(users), part).items():
            # In float64, so that a checkpoint holds the sum exactly.
            self._sums[prefix + name] = self._sums.get(prefix + name, 0.0) + term.double() * len(
                users
            )
        self.position.batch += 1
        self.position.n_steps = self.step.n_steps

    def close_epoch(self) -> dict[str, Any]:
        """Validates, keeps the best weights and writes the history line of the epoch that ends
        here.
        """
        of_decoder = self.passes.count("decoder")
        passes = {
            name: of_decoder if name.startswith("decoder_") else len(self.passes) - of_decoder
            for name in self._sums
        }
        means = {
            name: float(total) / len(self.rows) / passes[name] for name, total in self._sums.items()
        }
        if not np.isfinite([value for name, value in means.items() if name.endswith("loss")]).all():
            terms = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
            raise NumericalError(
                f"the loss must stay finite, found {terms} in epoch {self.position.epoch + 1};"
                " lower the learning rate."
            )
        self.position.epoch, self.position.batch, self._sums = self.position.epoch + 1, 0, {}
        entry: dict[str, Any] = {
            "epoch": self.position.epoch,
            "step": self.position.n_steps,
            **means,
            "beta": self.step.beta,
        }
        last = self.position.epoch == self.config.epochs
        if self._validates and (last or self.position.epoch % self.config.validate_every == 0):
            entry["validation"] = {self.config.metric: self._validate()}
        elif not self._validates:
            self.best, self.position.best_epoch = self._copied_weights(), self.position.epoch
        entry["best_epoch"] = self.position.best_epoch
        entry["seconds"] = round(time.perf_counter() - self._epoch_started, 3)
        self._epoch_started = time.perf_counter()
        if self.folder is not None:
            self.folder.append_history(entry)
        return entry

    def _validate(self) -> float:
        value = self._validation_mean()
        if self.position.best_value is None or value > self.position.best_value:
            self.position.best_value, self.position.best_epoch = value, self.position.epoch
            for name, weights in self._weights().items():
                self.best[name].copy_(weights)
        return value

    def _validation_mean(self) -> float:
        """The metric's mean over all cases; each process ranks its own."""
        cases, metric, n = self.cases, self.config.metric, len(self.cases.user_index)
        mine = self.world.share(n)
        own = Cases(cases.user_index[mine], cases.fold_in[mine], cases.held_out[mine])
        values = (
            evaluate(self.step, own, metrics=(metric,)).metrics[metric]
            if len(own.user_index)
            else np.zeros(0)
        )
        return (
            float(
                self.world.all_reduce_sum(
                    torch.tensor(values.sum(), dtype=torch.float64, device=self.device)
                )
            )
            / n
        )

    def _weights(self) -> dict[str, Tensor]:
        """What is kept of the best epoch: the network and, with PIA, the items' anchors."""
        weights = {name: value.detach() for name, value in self.step.network.named_parameters()}
        anchors = self.step.anchor_points()
        return weights if anchors is None else weights | {"anchors": anchors.detach()}

    def _copied_weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._weights().items()}

    def pause(self, stop: StopRequest) -> None:
        """Writes a checkpoint when one is due or a stop was asked for, of whichever process.

        Raises:
            Interrupted: on every process, if a stop was asked for.
        """
        if self.folder is None:
            return
        # A signal to one process stops all, after the same step.
        signal_number = self.world.all_reduce_max(stop.signal_number or 0)
        due = time.monotonic() - self._saved_at >= self.checkpoint_seconds
        if self.world.leads and (due or signal_number):
            self.position.sums = {name: float(total) for name, total in self._sums.items()}
            save_checkpoint(self.folder.checkpoint, self.position, self.step.state(), self.best)
            self._saved_at = time.monotonic()
        if signal_number:
            # A launcher ends the others when one process leaves: not before the checkpoint is
            # written.
            self.world.barrier()
            where = (
                f"epoch {self.position.epoch + 1}, batch {self.position.batch} of {self.n_batches}"
            )
            raise Interrupted(
                f"stopped in {where}; {self.folder.checkpoint} holds it, go on with --resume.",
                signal_number,
            )

    def best_network(self) -> Network:
        """The network with the best weights."""
        with torch.no_grad():
            for name, weights in self.step.network.named_parameters():
                weights.copy_(self.best[name])
        return self.step.network


def _weighted_rows(dataset: Dataset, model: NetworkConfig, device: str) -> SparseRows:
    """The histories to train on; where PIA's centroids are weighted, with those weights."""
    rows = SparseRows.from_csr(dataset.train, device)
    if not isinstance(model, AlignedConfig):
        return rows
    weights = np.ones(len(dataset.train.indices), dtype=np.float32)
    if model.pia_rarity:
        weights *= rarity_weights(dataset.train.sum(axis=0), model.pia_rarity)[
            dataset.train.indices
        ]
    if model.pia_half_life:
        if dataset.train_timestamps is None:
            raise ConfigError(
                "pia_half_life needs times, found none in the data set; prepare a log with"
                " timestamps, or set it to 0."
            )
        weights *= recency_weights(
            dataset.train_timestamps, dataset.train.indptr, model.pia_half_life
        )
    if model.pia_counts:
        if dataset.train_counts is None:
            raise ConfigError(
                "pia_counts needs items that users had more than once, found none in the data set;"
                " set it to 0."
            )
        weights *= count_weights(dataset.train_counts, model.pia_counts)
    return (
        rows if (weights == 1).all() else replace(rows, values=torch.from_numpy(weights).to(device))
    )


def _event_writer(path: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ConfigError(
            "TensorBoard events need the package tensorboard; pip install 'coterie[tensorboard]'."
        ) from error
    return SummaryWriter(str(path))


def _write_events(events: Any, entry: dict[str, Any]) -> None:
    scalars = {
        name: value
        for name, value in entry.items()
        if isinstance(value, int | float) and name not in ("epoch", "step")
    }
    for name, value in (scalars | entry.get("validation", {})).items():
        events.add_scalar(name, value, entry["epoch"])
