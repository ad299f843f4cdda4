"""One optimisation step: mask, encode, sample, decode, weigh the terms, update."""

import contextlib
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from coterie.config import NetworkConfig, TrainingConfig
from coterie.errors import ConfigError
from coterie.models.autoencoder import input_scale, met_rows
from coterie.models.multdae import MultDAE, MultDAEConfig
from coterie.objectives.alignment import alignment
from coterie.objectives.divergence import gaussian_kl
from coterie.objectives.likelihood import LogitBuffer, multinomial_nll, sampled_nll
from coterie.objectives.masking import mask_items
from coterie.objectives.schedules import linear_warm_up
from coterie.sparse import SparseRows
from coterie.training.networks import build_network
from coterie.training.parallel import ALONE, World

Precision: TypeAlias = Literal["float32", "bf16"]

# Logits of a batch, 1 GiB in float32, beyond which they are computed in chunks of items unless a chunk is asked for.
LOGITS_AT_ONCE = 2**28
CHUNK_ITEMS = 4096

# Streams of random numbers, kept apart so that none depends on how much another has drawn.
WEIGHTS, ORDER, NOISE = range(3)


def seeded(seed: int, stream: int, number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on nothing but its arguments.

    Each step's randomness is a function of (seed, step): a resumed run needs no saved generator, and draws what an
    uninterrupted one would have.
    """
    state = np.random.SeedSequence([seed, stream, number]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


class Proposal:
    """Items drawn by popularity for half, evenly for half.

    The soft-max's mass lies mostly where popularity lies; the even half bounds the weight of items that popularity
    knows nothing of.

    Args:
        n_items: Size of the catalogue.
        popularity: ``[n_items]`` users of each item; None, or nothing but zeros, draws evenly.
        device: Where the items are drawn.
    """

    def __init__(self, n_items: int, popularity: np.ndarray | None, device: torch.device | str) -> None:
        probability = torch.full((n_items,), 1 / n_items, dtype=torch.float64)
        if popularity is not None and popularity.any():
            probability = (probability + torch.from_numpy(popularity / popularity.sum())) / 2
        self.probability = probability.to(device)
        self._cumulative = self.probability.cumsum(0)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``[n]`` int64 items, with replacement, and the expected number of times that each of them is drawn, float32."""
        draws = torch.rand(n, generator=generator, dtype=torch.float64, device=self.probability.device)
        items = torch.searchsorted(self._cumulative, draws).clamp(max=len(self.probability) - 1)
        return items, (n * self.probability[items]).float()


class TrainingStep:
    """A network with its anchors and optimiser, advanced one batch a call.

    Args:
        n_items: Size of the catalogue.
        model: Architecture and objective.
        training: Learning rate, weight decay, how the likelihood and Adam treat large catalogues, and seed are read.
        device: Where everything lives.
        precision: ``"bf16"`` runs the products under autocast; weights, soft-max and the terms stay float32.
        world: The processes that take each step together.
        popularity: ``[n_items]`` training users of each item: by it items are drawn if they are sampled; None draws evenly.
        compile: Runs the layers between the first and the last compiled (`torch.compile`).

    Example:
        >>> step = TrainingStep(4, MultVAEConfig(hidden_dims=(3,), latent_dim=2, pia=0.3))
        >>> sorted(step(SparseRows.from_csr(csr_array([[1, 0, 1, 0], [0, 1, 0, 1]]))))
        ['kl', 'loss', 'nll', 'pia']
    """

    def __init__(
        self,
        n_items: int,
        model: NetworkConfig,
        training: TrainingConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
        world: World = ALONE,
        popularity: np.ndarray | None = None,
        compile: bool = False,  # noqa: A002 - torch's own word for it
    ) -> None:
        training = training or TrainingConfig()
        check_precision(precision)
        generator = seeded(training.seed, WEIGHTS, 0)
        self.network = build_network(n_items, model, generator).to(device)
        self.anchors = _anchors(n_items, model, generator, device)
        self.model, self.training, self.device, self.precision, self.world = model, training, torch.device(device), precision, world
        self.optimizers = self._optimizers()
        self.n_steps = 0
        self._buffer = LogitBuffer()
        self._proposal = Proposal(n_items, popularity, device) if training.sampled_items else None
        if compile:
            self.network.compile_layers()

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By the name of its moments in a checkpoint: Adam, and with sparse updates lazy Adam for the matrices of items."""
        sparse: list[nn.Parameter] = []
        if self.training.sparse_updates:
            if self.world.size > 1:
                raise ConfigError("sparse_updates need one process, whose rows nobody else must know; leave them off or train with one.")
            self.network.input.sparse_gradient = True
            met = [self.network.input.weight, self.network.output.weight if self.training.sampled_items else None, self.anchors]
            sparse = [parameter for parameter in met if parameter is not None]
        rest = [p for p in self.network.parameters() if all(p is not one for one in sparse)]
        weights, others = [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim == 1]
        if self.anchors is not None and not sparse:
            others.append(self.anchors)
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": self.training.weight_decay}, {"params": others}]
        optimizers: dict[str, torch.optim.Optimizer] = {"adam": torch.optim.Adam(groups, lr=self.training.learning_rate, fused=True)}
        if sparse:
            optimizers["sparse-adam"] = torch.optim.SparseAdam(sparse, lr=self.training.learning_rate)
        return optimizers

    def __call__(self, rows: SparseRows) -> dict[str, Tensor]:
        """Takes one step on ``[n_users, n_items]`` clean histories, the whole batch for every process of the world.

        Returns:
            Means over all users, detached, on the device: ``loss`` and its unweighted terms ``nll``, ``kl`` and ``pia``.
        """
        narrow = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else contextlib.nullcontext()
        with narrow:
            loss, terms = self._objective(rows, seeded(self.training.seed, NOISE, self.n_steps, self.device))
        with self.world.summed_gradients(p for group in self.optimizers["adam"].param_groups for p in group["params"]):
            loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers.values():
            optimizer.step()
            # At once, not before the next step: gradients are as large as the weights, and validation comes in between.
            optimizer.zero_grad()
        self.n_steps += 1
        terms = {"loss": loss.detach(), **terms}
        return dict(zip(terms, self.world.total(torch.stack(list(terms.values()))), strict=True))

    def _objective(self, batch: SparseRows, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """This process's part of the loss and of its terms: sums over its users, over the number of users in the batch.

        Masks and noise are drawn for the whole batch by every process, so that they do not depend on how many there are.
        """
        n, mine = len(batch), self.world.share(len(batch))
        rows, kept = self.world.take(batch), self.world.take(mask_items(batch, self.model.keep_prob, generator))
        scale = input_scale(rows.counts) / self.model.keep_prob
        if isinstance(self.network, MultDAE):
            nll = self._nll(self.network.code(kept, scale), rows, generator).sum() / n
            return nll, {"nll": nll.detach()}
        mu, logvar = (part.float() for part in self.network.posterior(kept, scale))
        noise = torch.randn((n, mu.shape[1]), generator=generator, device=self.device)[mine]
        nll = self._nll(mu + (logvar / 2).exp() * noise, rows, generator).sum() / n
        kl = gaussian_kl(mu, logvar).sum() / n
        loss = nll + self.beta * kl
        terms = {"nll": nll.detach(), "kl": kl.detach()}
        if self.anchors is not None:
            met, anchors = met_rows(rows, self.anchors) if self.training.sparse_updates else (rows, self.anchors)
            pia = alignment(mu, logvar, anchors, met).sum() / n
            loss = loss + self.model.pia * pia  # type: ignore[union-attr]
            terms["pia"] = pia.detach()
        return loss, terms

    def _nll(self, z: Tensor, rows: SparseRows, generator: torch.Generator) -> Tensor:
        hidden, output, training = self.network.decode_hidden(z), self.network.output, self.training
        if self._proposal is None:
            too_many = len(rows) * self.n_items > LOGITS_AT_ONCE
            chunk_items = training.chunk_items or (CHUNK_ITEMS if too_many else None)
            return multinomial_nll(hidden, output.weight, output.bias, rows, self._buffer, chunk_items)
        sample, expected = self._proposal.draw(training.sampled_items, generator)
        sparse = training.sparse_updates
        return sampled_nll(hidden.float(), output.weight, output.bias, rows, sample, expected, sparse_gradient=sparse)

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return self.network.n_items

    def score(self, histories: csr_array) -> Tensor:
        """Scores ``[n, n_items]`` clean histories with the weights of the moment: a `Scorer`, for validation."""
        with torch.no_grad():
            return self.network.score(SparseRows.from_csr(histories, self.device))

    def user_factors(self, histories: csr_array) -> Tensor:
        """``[n, dim]``, with the weights of the moment."""
        with torch.no_grad():
            return self.network.user_factors(SparseRows.from_csr(histories, self.device))

    def item_factors(self) -> Tensor:
        """``[n_items, dim]``, with the weights of the moment."""
        return self.network.item_factors().detach()

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
        for name, optimizer in self.optimizers.items():
            for number, moments in optimizer.state_dict()["state"].items():
                state |= {f"{name}.{number}.{moment}": torch.as_tensor(value) for moment, value in moments.items()}
        return state

    def restore(self, state: dict[str, Tensor], n_steps: int) -> None:
        """Takes over what `state` gave after ``n_steps`` steps; the next step is that of an uninterrupted run."""
        self.network.load_state_dict({name.removeprefix("network."): v for name, v in state.items() if name.startswith("network.")})
        if self.anchors is not None:
            self.anchors.data.copy_(state["anchors"])
        for kind, optimizer in self.optimizers.items():
            moments: dict[int, dict[str, Any]] = {}
            for name, value in state.items():
                if name.startswith(f"{kind}."):
                    _, number, moment = name.split(".")
                    # Lazy Adam counts its steps in a plain number.
                    counter = kind == "sparse-adam" and moment == "step"
                    moments.setdefault(int(number), {})[moment] = int(value) if counter else value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        self.n_steps = n_steps


def check_precision(precision: str) -> None:
    """Refuses what is no `Precision`.

    Raises:
        ConfigError: naming those there are.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision must be one of {', '.join(get_args(Precision))}, found {precision!r}; choose one of them.")


def _anchors(n_items: int, model: NetworkConfig, generator: torch.Generator, device: torch.device | str) -> nn.Parameter | None:
    if isinstance(model, MultDAEConfig) or model.pia == 0:
        return None
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(n_items, model.latent_dim), generator=generator).to(device))
