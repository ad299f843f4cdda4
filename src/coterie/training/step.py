"""One optimisation step: mask, encode, sample, decode, weigh the terms, update."""

import contextlib

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from coterie.config import TrainingConfig
from coterie.errors import ConfigError
from coterie.models.kinds import SteppedConfig, TrainedPart
from coterie.networks.alignment import Alignment
from coterie.networks.autoencoder import Autoencoder, VariationalAutoencoder
from coterie.networks.network import InnerProduct
from coterie.networks.spectral_start import start_spectrally
from coterie.networks.warm_start import Parent, rest_anchors, start_anchors, start_warm
from coterie.running.execution import ON_CPU, Execution
from coterie.sparse import SparseRows
from coterie.training.average import WeightAverage
from coterie.training.objective import Likelihood, Objective
from coterie.training.optimizers import Optimizers
from coterie.training.proposal import Proposal
from coterie.training.randomness import NOISE, WEIGHTS, seeded


class TrainingStep:
    """A network with what stands beside it in training, advanced one batch a call.

    Args:
        n_items: Size of the catalogue.
        model: Architecture and objective.
        training: Learning rate, weight decay, how the likelihood and Adam treat large catalogues,
            and seed are read.
        execution: Where everything lives, the processes that take each step together, and how:
            ``"bf16"`` runs the products under autocast; weights, soft-max and terms stay float32.
        train: ``[n_users, n_items]`` what is trained on: what a spectral start decomposes, and by
            whose popularity items are drawn if they are sampled; None draws evenly.
        parent: What a warm start carries over; None leaves its weights drawn, for those of a
            checkpoint to be restored.
        steps_before: Of training that the weights come from: what is scheduled goes on from there.

    Example:
        >>> from coterie.models.multvae import MultVAEConfig
        >>> step = TrainingStep(4, MultVAEConfig(hidden_dims=(3,), latent_dim=2, pia=0.3))
        >>> sorted(step(SparseRows.from_csr(csr_array([[1, 0, 1, 0], [0, 1, 0, 1]]))))
        ['kl', 'loss', 'nll', 'pia']
    """

    def __init__(
        self,
        n_items: int,
        model: SteppedConfig,
        training: TrainingConfig | None = None,
        execution: Execution = ON_CPU,
        train: csr_array | None = None,
        parent: Parent | None = None,
        steps_before: int = 0,
    ) -> None:
        training, device, world = training or TrainingConfig(), execution.device, execution.world
        if training.sparse_updates and world.size > 1:
            raise ConfigError(
                "sparse_updates need one process, whose rows nobody else must know; leave them off"
                " or train with one."
            )
        self.model, self.training, self.world = model, training, world
        self.precision = execution.precision
        self.device, self.n_steps, self._before = torch.device(device), 0, steps_before
        generator = seeded(training.seed, WEIGHTS, 0)
        network = model.build(n_items, generator)
        if training.start == "spectral":
            assert train is not None, "a spectral start decomposes what is trained on"
            start_spectrally(network, train, training.start_rank)
        if parent is not None:
            start_warm(network, parent, training.shrink)
        self.network = network.to(device)
        prior = model.prior(self.network, generator)
        alignment = model.alignment(self.network, generator)
        if parent is not None and alignment is not None:
            _start_alignment(alignment, self.network, parent, training.shrink)
        self.prior = None if prior is None else prior.to(device)
        self.alignment = None if alignment is None else alignment.to(device)
        popularity = None if train is None else np.asarray(train.sum(axis=0))
        proposal = Proposal(n_items, popularity, device) if training.sampled_items else None
        self.objective = Objective(
            self.network, self.prior, self.alignment, Likelihood(training, proposal), world
        )
        in_turns = model.passes != ("all",)
        self.optimizers = Optimizers(
            self.network, self.prior, self.alignment, training, in_turns=in_turns
        )
        self._average = (
            WeightAverage(self._learned(), training.average) if training.average else None
        )
        if execution.compile:
            self.network.compile_layers()

    def __call__(self, rows: SparseRows, part: TrainedPart = "all") -> dict[str, Tensor]:
        """Takes one step on ``[n_users, n_items]`` clean histories, the whole batch for every
        process of the world.

        Args:
            rows: The batch.
            part: What learns. The decoder alone learns from clean input.

        Returns:
            Means over all users, detached, on the device: ``loss`` and its unweighted terms
            ``nll``, ``kl`` and ``pia``.
        """
        turned = self.optimizers.turn_to(part)
        if turned and part == "decoder" and self.prior is not None:
            self.prior.before_decoder(self.network)
        with self._autocast():
            keep_prob = 1.0 if part == "decoder" else self.model.keep_prob
            generator = seeded(self.training.seed, NOISE, self.n_steps, self.device)
            scheduled = self._before + self.n_steps
            loss, terms = self.objective(rows, keep_prob, generator, scheduled)
        with self.world.summed_gradients(self.optimizers.dense_parameters(part)):
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers.step(part)
        self.n_steps += 1
        if self._average is not None:
            self._average.update(self.n_steps)
        terms = {"loss": loss.detach(), **terms}
        means = self.world.all_reduce_sum(torch.stack(list(terms.values())))
        return dict(zip(terms, means, strict=True))

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Lets the average of the weights stand in their place, where there is one."""
        return contextlib.nullcontext() if self._average is None else self._average.in_place()

    def schedule(self) -> dict[str, float]:
        """What is scheduled, by its name, as it is in the next step: β, or RecVAE's γ."""
        return {} if self.prior is None else self.prior.schedule(self._before + self.n_steps)

    @property
    def anchors(self) -> Tensor | None:
        """``[n_items, latent_dim]`` where PIA has the items; None without it."""
        return None if self.alignment is None else self.alignment.points()

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return self.network.n_items

    def score(self, histories: csr_array) -> Tensor:
        """Scores ``[n, n_items]`` clean histories with the weights of the moment: a `Scorer`, for
        validation.
        """
        with torch.no_grad():
            return self.network.score(SparseRows.from_csr(histories, self.device))

    def user_factors(self, histories: csr_array) -> Tensor:
        """``[n, dim]``, with the weights of the moment."""
        assert isinstance(self.network, InnerProduct)
        with torch.no_grad():
            return self.network.user_factors(SparseRows.from_csr(histories, self.device))

    def item_factors(self) -> Tensor:
        """``[n_items, dim]``, with the weights of the moment."""
        assert isinstance(self.network, InnerProduct)
        return self.network.item_factors().detach()

    @property
    def has_factors(self) -> bool:
        """Whether scores are inner products of `user_factors` and `item_factors`."""
        return isinstance(self.network, InnerProduct)

    def _learned(self) -> dict[str, nn.Parameter]:
        """The network's parameters and the anchors, by their name in a checkpoint."""
        named = {f"network.{name}": value for name, value in self.network.named_parameters()}
        return named if self.alignment is None else named | {"anchors": self.alignment.anchors}

    def _own_state(self) -> dict[str, Tensor]:
        """What moves but the optimizers, by its name in a checkpoint; the tensors themselves."""
        state = {name: value.detach() for name, value in self._learned().items()}
        if self._average is not None:
            state |= self._average.state()
        if self.prior is not None:
            state |= {f"prior.{name}": value for name, value in self.prior.memory().items()}
        return state

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint must hold, by name: weights, anchors, the prior's memory and
        Adam's moments.
        """
        return self._own_state() | self.optimizers.state()

    def restore(self, state: dict[str, Tensor], n_steps: int) -> None:
        """Takes over what `state` gave after ``n_steps`` steps; the next step is that of an
        uninterrupted run.
        """
        for name, value in self._own_state().items():
            value.copy_(state[name])
        self.optimizers.restore(state)
        self.n_steps = n_steps


def _start_alignment(
    alignment: Alignment, network: Autoencoder, parent: Parent, shrink: float
) -> None:
    """PIA's anchors of a warm start: the parent's, or at rest where those are not known."""
    if parent.anchors is not None:
        start_anchors(alignment, parent, shrink)
    else:
        assert isinstance(network, VariationalAutoencoder), "PIA needs a posterior"
        rest_anchors(alignment, network, parent.train)
