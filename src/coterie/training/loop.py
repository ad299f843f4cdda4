"""The loop over steps and epochs: what is done next, validated, kept and written down."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part as SplitPart
from coterie.errors import ConfigError, Interrupted, NumericalError
from coterie.evaluation.evaluate import evaluate
from coterie.models.kinds import SteppedConfig, TrainedPart
from coterie.networks.implicit_slim import draw_together
from coterie.networks.network import Network
from coterie.networks.warm_start import Parent
from coterie.running.execution import Execution
from coterie.running.interrupt import StopRequest
from coterie.running.progress import Update
from coterie.running.world import World
from coterie.sparse import SparseRows
from coterie.training.checkpoint import Position, load_checkpoint, save_checkpoint
from coterie.training.judge import ValidationJudge
from coterie.training.randomness import ORDER, seeded
from coterie.training.run_folder import RunFolder
from coterie.training.step import TrainingStep
from coterie.training.warm_start import WarmStart

# Steps after which whatever is scheduled has come to its end.
_LONG_AGO = 2**62


class TrainingLoop:
    """Training under way: a step, a position, and the best weights so far.

    Args:
        dataset: With its split.
        config: Of a network.
        execution: Where and how, begun.
        folder: Where history and checkpoints go, if anywhere.
        checkpoint_seconds: From one checkpoint to the next.
        refit: Whether it is the last training, on everybody; progress and history say so.
        warm: The model that a warm start begins with; None goes on from the checkpoint of one.

    Raises:
        ConfigError: if the model is not trained in steps, or a warm start has neither.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: RunConfig,
        execution: Execution,
        folder: RunFolder | None = None,
        checkpoint_seconds: float = 60.0,
        *,
        refit: bool = False,
        warm: WarmStart | None = None,
    ) -> None:
        if not isinstance(config.model, SteppedConfig):
            raise ConfigError(f"{config.model.name} is not trained in steps.")
        device, world = execution.device, execution.world
        self.config, self.folder, self.device, self.world = config.training, folder, device, world
        self.work = ("refitting " if refit else "training ") + config.model.name
        self.stage = {"stage": "refit"} if refit else {}
        self.work += " + PIA" if getattr(config.model, "pia", 0) else ""
        self.rows, self._train = _rows(dataset, config.model, device), dataset.train
        self.cases = dataset.cases(SplitPart.VALIDATION)
        parent, self._before = self._parent(warm, dataset), self._steps_before(warm)
        self.step = TrainingStep(
            dataset.n_items,
            config.model,
            config.training,
            execution,
            dataset.train,
            parent,
            _LONG_AGO if self._before is None else self._before,
        )
        self.judge = (
            ValidationJudge(self.cases, config.training.metric, device) if self._validates else None
        )
        self.model = self._closed(config.model, dataset.train)
        self.model.fit_beside(self.step.network, dataset.train)
        self.position, self.best = Position(), self._copied_weights()
        self.passes = config.model.passes
        self.n_batches = len(self.passes) * self._batches_a_pass
        self.checkpoint_seconds, self._saved_at = checkpoint_seconds, time.monotonic()
        self._epoch_started = time.perf_counter()
        self._sums: dict[str, Tensor] = {}
        if folder is not None:
            self._take_over(folder, keep=parent is not None)
        world.check_same("checkpoint", f"one at {self.position}")
        # Initial weights may differ by rounding from one kind of processor to another.
        world.broadcast([*self.step.state().values(), *self.best.values()])
        share_state(self.step.network, world)

    def _closed(self, model: SteppedConfig, train: csr_array) -> SteppedConfig:
        """What the configuration leaves open chosen, by the first process for all: what a library
        fits may differ by rounding.
        """
        if self.world.size == 1 or self.judge is None:
            return model.choose(train, self.judge)
        chosen = model.choose(train, self.judge).model_dump_json() if self.world.leads else ""
        return type(model).model_validate_json(self.world.shared_text(chosen))

    def _parent(self, warm: WarmStart | None, dataset: Dataset) -> Parent | None:
        """What is carried over; None where nothing is, or it is in the checkpoint already."""
        if self.config.start != "warm":
            return None
        if self.folder is not None and self.folder.checkpoint.exists():
            return None
        if warm is None:
            raise ConfigError(
                "a warm start needs the trained model it starts from as long as there is no"
                " checkpoint, found none; give it (warm_from, --warm-from)."
            )
        return warm.parent(dataset)

    def _steps_before(self, warm: WarmStart | None) -> int | None:
        """Of the parent and its own parents; None if they are not known."""
        if self.config.start != "warm":
            return 0
        if warm is not None:
            return warm.n_steps
        told = None if self.folder is None else self.folder.warm
        return None if told is None else told["parent_steps"]

    def _take_over(self, folder: RunFolder, *, keep: bool) -> None:
        """Goes on from the checkpoint; ``keep`` writes one of the start, which then can be gone."""
        if keep:
            if self.world.leads:
                self._save(folder)
            self.world.barrier()
        if folder.checkpoint.exists():
            self.position, state, best = load_checkpoint(folder.checkpoint, self.device)
            self.best |= best  # what an older version did not choose stays as it began
            self.step.restore(state, self.position.n_steps)
            self._sums = {
                name: torch.tensor(value, dtype=torch.float64, device=self.device)
                for name, value in self.position.sums.items()
            }
        folder.keep_history(self.position.epoch)

    def update(self, entry: Mapping[str, Any] | None = None) -> Update:
        """How far it has come, with the history line of the epoch that ended, if one did."""
        done = self.position.epoch + self.position.batch / self.n_batches
        return Update(self.work, done, self.config.epochs, "epochs", entry or {})

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

    def batches(self) -> Iterator[tuple[Tensor, TrainedPart]]:
        """The users of each batch still to come in this epoch, and what learns from them; the order
        depends on seed and pass alone.
        """
        self._draw_together()
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

    def _draw_together(self) -> None:
        """ImplicitSLIM before an epoch, when it is due; the same in every process."""
        every, network = self.config.implicit_slim, self.step.network
        at_start = self.position.batch == 0 < self.position.epoch
        if not every or not at_start or self.position.epoch % every:
            return
        draw_together(network, self._train, self.config.slim_l2)
        self.world.broadcast([network.input.weight.data, network.output.weight.data])

    def advance(self, users: Tensor, part: TrainedPart = "all") -> None:
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
            **self.stage,
            "epoch": self.position.epoch,
            "step": self.position.n_steps,
            **means,
            **self.step.schedule(),
        }
        last = self.position.epoch == self.config.epochs
        if self._validates and (last or self.position.epoch % self.config.validate_every == 0):
            entry["validation"] = {self.config.metric: self._validate()}
        elif not self._validates:
            with self.step.averaged():
                self.best = self._copied_weights()
            self.position.best_epoch = self.position.epoch
        for name, value in self.step.network.chosen().items():
            entry[name] = float(value)
        entry["best_epoch"] = self.position.best_epoch
        entry["seconds"] = round(time.perf_counter() - self._epoch_started, 3)
        self._epoch_started = time.perf_counter()
        if self.folder is not None:
            self.folder.append_history(entry)
        return entry

    def _validate(self) -> float:
        with self.step.averaged():
            self._weigh()
            value = self._validation_mean()
            if self.position.best_value is None or value > self.position.best_value:
                self.position.best_value, self.position.best_epoch = value, self.position.epoch
                for name, weights in self._weights().items():
                    self.best[name].copy_(weights)
        return value

    def _weigh(self) -> None:
        """Chooses what is chosen at each validation, the same in every process."""
        if self.judge is None:
            return
        self.model.weigh(self.step.network, self.judge)
        for value in self.step.network.chosen().values():
            shared = value.to(self.device)
            self.world.broadcast([shared])
            value.copy_(shared)

    def _validation_mean(self) -> float:
        """The metric's mean over all cases; each process ranks its own."""
        cases, metric, n = self.cases, self.config.metric, len(self.cases.user_index)
        mine = self.world.share(n)
        own = cases.take(mine)
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
        """What is kept of the best epoch: the network, what was chosen beside its weights and, with
        PIA, the items' anchors.
        """
        weights, anchors = self._of_network(), self.step.anchors
        return weights if anchors is None else weights | {"anchors": anchors.detach()}

    def _of_network(self) -> dict[str, Tensor]:
        network = self.step.network
        weights = {name: value.detach() for name, value in network.named_parameters()}
        return weights | {f"chosen.{name}": value for name, value in network.chosen().items()}

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
            self._save(self.folder)
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

    def _save(self, folder: RunFolder) -> None:
        """Writes a checkpoint."""
        self.position.sums = {name: float(total) for name, total in self._sums.items()}
        save_checkpoint(folder.checkpoint, self.position, self.step.state(), self.best)
        self._saved_at = time.monotonic()

    def best_network(self) -> Network:
        """The network with the best weights."""
        for name, weights in self._of_network().items():
            weights.copy_(self.best[name])
        return self.step.network

    def summary(self) -> dict[str, Any]:
        """What the model says of its training: JSON values."""
        best, before = self.position.best_epoch, self._before
        return {
            "best_epoch": best,
            "best_validation": self.position.best_value,
            "steps": None if before is None else before + best * self.n_batches,
        }

    def resolved(self, config: RunConfig) -> RunConfig:
        """The run's configuration with nothing left open; of `best_network`."""
        return config.model_copy(update={"model": self.model.resolved(self.step.network)})


def _rows(dataset: Dataset, model: SteppedConfig, device: str) -> SparseRows:
    """The histories to train on, with weights where the model has some for them."""
    rows = SparseRows.from_csr(dataset.train, device)
    weights = model.interaction_weights(
        dataset.train, dataset.train_timestamps, dataset.train_counts
    )
    return rows if weights is None else rows.weighted(torch.from_numpy(weights).to(device))


def share_state(network: Network, world: World) -> None:
    """Every process takes over the first one's weights, computed ones included: what a library fits
    with several threads may differ from process to process, even in how much there is of it.
    """
    if world.size == 1:
        return
    state = network.state_dict()
    shapes = {name: torch.tensor(value.shape, device=value.device) for name, value in state.items()}
    world.broadcast(shapes.values())
    for name, shape in shapes.items():
        if list(state[name].shape) != shape.tolist():
            state[name] = state[name].new_empty(shape.tolist())
    world.broadcast(state.values())
    network.load_state_dict(state)
