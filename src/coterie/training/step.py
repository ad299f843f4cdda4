"""One optimisation step: mask, encode, sample, decode, weigh the terms, update."""

import contextlib
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from coterie.config import TrainingConfig
from coterie.errors import ConfigError
from coterie.models.autoencoder import input_scale
from coterie.models.multdae import MultDAE, MultDAEConfig
from coterie.models.multvae import MultVAE, MultVAEConfig
from coterie.objectives.alignment import alignment
from coterie.objectives.divergence import gaussian_kl
from coterie.objectives.likelihood import LogitBuffer, multinomial_nll
from coterie.objectives.masking import mask_items
from coterie.objectives.schedules import linear_warm_up
from coterie.sparse import SparseRows

Precision: TypeAlias = Literal["float32", "bf16"]

# Streams of random numbers, kept apart so that none depends on how much another has drawn.
WEIGHTS, ORDER, NOISE = range(3)


def seeded(seed: int, stream: int, number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on nothing but its arguments.

    Each step's randomness is a function of (seed, step): a resumed run needs no saved generator, and draws what an
    uninterrupted one would have.
    """
    state = np.random.SeedSequence([seed, stream, number]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


class TrainingStep:
    """A network with its anchors and optimiser, advanced one batch a call.

    Args:
        n_items: Size of the catalogue.
        model: Architecture and objective.
        training: Learning rate, weight decay and seed are read.
        device: Where everything lives.
        precision: ``"bf16"`` runs the products under autocast; weights, soft-max and the terms stay float32.

    Example:
        >>> step = TrainingStep(4, MultVAEConfig(hidden_dims=(3,), latent_dim=2, pia=0.3))
        >>> sorted(step(SparseRows.from_csr(csr_array([[1, 0, 1, 0], [0, 1, 0, 1]]))))
        ['kl', 'loss', 'nll', 'pia']
    """

    def __init__(
        self,
        n_items: int,
        model: MultVAEConfig | MultDAEConfig,
        training: TrainingConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        training = training or TrainingConfig()
        check_precision(precision)
        generator = seeded(training.seed, WEIGHTS, 0)
        self.network = build_network(n_items, model, generator).to(device)
        self.anchors = _anchors(n_items, model, generator, device)
        self.model, self.training, self.device, self.precision = model, training, torch.device(device), precision
        self.optimizer = self._optimizer()
        self.n_steps = 0
        self._buffer = LogitBuffer()

    def _optimizer(self) -> torch.optim.Adam:
        weights = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim == 1]
        if self.anchors is not None:
            others.append(self.anchors)
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": self.training.weight_decay}, {"params": others}]
        return torch.optim.Adam(groups, lr=self.training.learning_rate, fused=True)

    def __call__(self, rows: SparseRows) -> dict[str, Tensor]:
        """Takes one step on ``[n_users, n_items]`` clean histories.

        Returns:
            Means over the users, detached, on the device: ``loss`` and its unweighted terms ``nll``, ``kl`` and ``pia``.
        """
        narrow = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else contextlib.nullcontext()
        with narrow:
            loss, terms = self._objective(rows, seeded(self.training.seed, NOISE, self.n_steps, self.device))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.n_steps += 1
        return {"loss": loss.detach(), **terms}

    def _objective(self, rows: SparseRows, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        kept = mask_items(rows, self.model.keep_prob, generator)
        scale = input_scale(rows.counts) / self.model.keep_prob
        if isinstance(self.network, MultDAE):
            nll = self._nll(self.network.code(kept, scale), rows)
            return nll, {"nll": nll.detach()}
        mu, logvar = (part.float() for part in self.network.posterior(kept, scale))
        noise = torch.randn(mu.shape, generator=generator, device=self.device)
        nll = self._nll(mu + (logvar / 2).exp() * noise, rows)
        kl = gaussian_kl(mu, logvar).mean()
        loss = nll + self.beta * kl
        terms = {"nll": nll.detach(), "kl": kl.detach()}
        if self.anchors is not None:
            pia = alignment(mu, logvar, self.anchors, rows).mean()
            loss = loss + self.model.pia * pia  # type: ignore[union-attr]
            terms["pia"] = pia.detach()
        return loss, terms

    def _nll(self, z: Tensor, rows: SparseRows) -> Tensor:
        hidden, output = self.network.decode_hidden(z), self.network.output
        return multinomial_nll(hidden, output.weight, output.bias, rows, self._buffer).mean()

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return self.network.n_items

    def score(self, histories: csr_array) -> Tensor:
        """Scores ``[n, n_items]`` clean histories with the weights of the moment: a `Scorer`, for validation."""
        with torch.no_grad():
            return self.network.score(SparseRows.from_csr(histories, self.device))

    @property
    def beta(self) -> float:
        """Weight of the KL in the next step."""
        if isinstance(self.model, MultDAEConfig):
            return 0.0
        return linear_warm_up(self.n_steps, self.model.anneal_steps, self.model.beta)

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint must hold, by name: weights, anchors and Adam's moments."""
        state = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.anchors is not None:
            state["anchors"] = self.anchors.detach()
        for number, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"adam.{number}.{name}": value for name, value in moments.items()}
        return state

    def restore(self, state: dict[str, Tensor], n_steps: int) -> None:
        """Takes over what `state` gave after ``n_steps`` steps; the next step is that of an uninterrupted run."""
        self.network.load_state_dict({name.removeprefix("network."): v for name, v in state.items() if name.startswith("network.")})
        if self.anchors is not None:
            self.anchors.data.copy_(state["anchors"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("adam."):
                _, number, moment = name.split(".")
                moments.setdefault(int(number), {})[moment] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.n_steps = n_steps


def check_precision(precision: str) -> None:
    """Refuses what is no `Precision`.

    Raises:
        ConfigError: naming those there are.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision must be one of {', '.join(get_args(Precision))}, found {precision!r}; choose one of them.")


def build_network(n_items: int, model: MultVAEConfig | MultDAEConfig, generator: torch.Generator | None = None) -> MultVAE | MultDAE:
    """An untrained network, its weights drawn from ``generator``."""
    generator = generator or torch.Generator()
    return MultVAE(n_items, model, generator) if isinstance(model, MultVAEConfig) else MultDAE(n_items, model, generator)


def _anchors(
    n_items: int, model: MultVAEConfig | MultDAEConfig, generator: torch.Generator, device: torch.device | str
) -> nn.Parameter | None:
    if isinstance(model, MultDAEConfig) or model.pia == 0:
        return None
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(n_items, model.latent_dim), generator=generator).to(device))
