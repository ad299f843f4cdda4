"""One optimisation step: mask, encode, sample, decode, weigh the terms, update."""

import contextlib
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from coterie.config import NetworkConfig, TrainingConfig
from coterie.errors import ConfigError
from coterie.models.autoencoder import Autoencoder, input_scale, met_rows
from coterie.models.multdae import MultDAE, MultDAEConfig
from coterie.models.recvae import RecVAE, RecVAEConfig
from coterie.models.stepped import PIA_PARTS, AlignedConfig, Part
from coterie.objectives.alignment import alignment_parts, nearest_alignment
from coterie.objectives.divergence import composite_log_density, gaussian_kl, sampled_kl
from coterie.objectives.likelihood import LogitBuffer, multinomial_nll, sampled_nll
from coterie.objectives.masking import mask_items
from coterie.objectives.schedules import linear_warm_up
from coterie.running.world import ALONE, World
from coterie.sparse import SparseRows
from coterie.training.networks import build_network

Precision: TypeAlias = Literal["float32", "bf16"]

# Logits of a batch, 1 GiB in float32, beyond which they are computed in chunks of items unless a
# chunk is asked for.
LOGITS_AT_ONCE = 2**28
CHUNK_ITEMS = 4096

# Streams of random numbers, kept apart so that none depends on how much another has drawn.
WEIGHTS, ORDER, NOISE = range(3)


def seeded(
    seed: int, stream: int, number: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator that depends on nothing but its arguments.

    Each step's randomness is a function of (seed, step): a resumed run needs no saved generator,
    and draws what an uninterrupted one would have.
    """
    state = np.random.SeedSequence([seed, stream, number]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


class Proposal:
    """Items drawn by popularity for half, evenly for half.

    The soft-max's mass lies mostly where popularity lies; the even half bounds the weight of items
    that popularity knows nothing of.

    Args:
        n_items: Size of the catalogue.
        popularity: ``[n_items]`` users of each item; None, or nothing but zeros, draws evenly.
        device: Where the items are drawn.
    """

    def __init__(
        self, n_items: int, popularity: np.ndarray | None, device: torch.device | str
    ) -> None:
        probability = torch.full((n_items,), 1 / n_items, dtype=torch.float64)
        if popularity is not None and popularity.any():
            probability = (probability + torch.from_numpy(popularity / popularity.sum())) / 2
        self.probability = probability.to(device)
        self._cumulative = self.probability.cumsum(0)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``[n]`` int64 items, with replacement, and the expected number of times that each of them
        is drawn, float32.
        """
        draws = torch.rand(
            n, generator=generator, dtype=torch.float64, device=self.probability.device
        )
        items = torch.searchsorted(self._cumulative, draws).clamp(max=len(self.probability) - 1)
        return items, (n * self.probability[items]).float()


class TrainingStep:
    """A network with its anchors and optimiser, advanced one batch a call.

    Args:
        n_items: Size of the catalogue.
        model: Architecture and objective.
        training: Learning rate, weight decay, how the likelihood and Adam treat large catalogues,
            and seed are read.
        device: Where everything lives.
        precision: ``"bf16"`` runs the products under autocast; weights, soft-max and the terms stay
            float32.
        world: The processes that take each step together.
        popularity: ``[n_items]`` training users of each item: by it items are drawn if they are
            sampled; None draws evenly.
        compile: Runs the layers between the first and the last compiled (`torch.compile`).

    Example:
        >>> from coterie.models.multvae import MultVAEConfig
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
        self.anchors = _anchors(model, self.network, generator, device)
        self.model, self.training, self.device, self.precision, self.world = (
            model,
            training,
            torch.device(device),
            precision,
            world,
        )
        self.optimizers = self._optimizers()
        self.n_steps = 0
        self.prior: dict[str, Tensor] = {}
        if isinstance(self.network, RecVAE):
            self.prior = {
                name: value.detach().clone()
                for name, value in self.network.named_parameters()
                if not name.startswith("output.")
            }
        self._learnt: Part | None = None
        self._buffer = LogitBuffer()
        self._proposal = Proposal(n_items, popularity, device) if training.sampled_items else None
        if compile:
            self.network.compile_layers()

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By the name of its moments in a checkpoint: Adam, and with sparse updates lazy Adam for
        the matrices of items.

        Where encoder and decoder learn in turns, each has its own.
        """
        if self.training.sparse_updates:
            if self.world.size > 1:
                raise ConfigError(
                    "sparse_updates need one process, whose rows nobody else must know; leave them"
                    " off or train with one."
                )
            if getattr(self.model, "pia_anchors", "free") != "free":
                raise ConfigError(
                    "sparse_updates need anchors of their own, found tied ones; set"
                    " model.pia_anchors to free or leave them off."
                )
            self.network.input.sparse_gradient = True
        anchors = [] if self.anchors is None else [self.anchors]
        if self.model.passes == ("all",):
            return self._adams("", [*self.network.parameters(), *anchors])
        last = set(self.network.output.parameters())
        encoder = [p for p in self.network.parameters() if p not in last]
        return self._adams("encoder-", [*encoder, *anchors]) | self._adams("decoder-", list(last))

    def _adams(
        self, prefix: str, parameters: list[nn.Parameter]
    ) -> dict[str, torch.optim.Optimizer]:
        met: list[nn.Parameter | None] = []
        if self.training.sparse_updates:
            met = [
                self.network.input.weight,
                self.network.output.weight if self.training.sampled_items else None,
                self.anchors,
            ]
        sparse = [p for p in parameters if any(p is one for one in met)]
        rest = [p for p in parameters if all(p is not one for one in met)]
        weights = [p for p in rest if p.ndim > 1 and p is not self.anchors]
        others = [p for p in rest if p.ndim == 1 or p is self.anchors]
        groups: list[dict[str, Any]] = [
            {"params": weights, "weight_decay": self.training.weight_decay},
            {"params": others},
        ]
        adams: dict[str, torch.optim.Optimizer] = {
            f"{prefix}adam": torch.optim.Adam(groups, lr=self.training.learning_rate, fused=True)
        }
        if sparse:
            adams[f"{prefix}sparse-adam"] = torch.optim.SparseAdam(
                sparse, lr=self.training.learning_rate
            )
        return adams

    def __call__(self, rows: SparseRows, part: Part = "all") -> dict[str, Tensor]:
        """Takes one step on ``[n_users, n_items]`` clean histories, the whole batch for every
        process of the world.

        Args:
            rows: The batch; values, if there are any, weigh the items of PIA's centroids.
            part: What learns. The decoder alone learns from clean input, after the prior has taken
                over the encoder.

        Returns:
            Means over all users, detached, on the device: ``loss`` and its unweighted terms
            ``nll``, ``kl`` and ``pia``.
        """
        self._turn_to(part)
        optimizers = [
            one for name, one in self.optimizers.items() if part == "all" or name.startswith(part)
        ]
        narrow = (
            torch.autocast(self.device.type, torch.bfloat16)
            if self.precision == "bf16"
            else contextlib.nullcontext()
        )
        with narrow:
            keep_prob = 1.0 if part == "decoder" else self.model.keep_prob
            loss, terms = self._objective(
                rows, keep_prob, seeded(self.training.seed, NOISE, self.n_steps, self.device)
            )
        dense = [one for one in optimizers if isinstance(one, torch.optim.Adam)]
        with self.world.summed_gradients(
            p for one in dense for group in one.param_groups for p in group["params"]
        ):
            loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            # At once, not before the next step: gradients are as large as the weights, and
            # validation comes in between.
            optimizer.zero_grad()
        self.n_steps += 1
        terms = {"loss": loss.detach(), **terms}
        return dict(
            zip(terms, self.world.all_reduce_sum(torch.stack(list(terms.values()))), strict=True)
        )

    def _turn_to(self, part: Part) -> None:
        """Freezes what does not learn, whose gradients then are not computed."""
        if part == self._learnt or self.model.passes == ("all",):
            return
        if part == "decoder":
            # Once more after a resumption, to no effect: the encoder has not moved since.
            for name, value in self.network.named_parameters():
                if name in self.prior:
                    self.prior[name].copy_(value.detach())
        for learns, optimizer in (
            (part in ("all", name.partition("-")[0]), one) for name, one in self.optimizers.items()
        ):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.requires_grad_(learns)
        self._learnt = part

    def _objective(
        self, batch: SparseRows, keep_prob: float, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """This process's part of the loss and of its terms: sums over its users, over the number of
        users in the batch.

        Masks and noise are drawn for the whole batch by every process, so that they do not depend
        on how many there are.
        """
        n, mine = len(batch), self.world.share(len(batch))
        rows, kept = (
            self.world.take(batch),
            self.world.take(mask_items(batch, keep_prob, generator)),
        )
        scale = input_scale(rows.counts) / keep_prob
        if isinstance(self.network, MultDAE):
            nll = self._nll(self.network.code(kept, scale), rows, generator).sum() / n
            return nll, {"nll": nll.detach()}
        mu, logvar = (part.float() for part in self.network.posterior(kept, scale))
        noise = torch.randn((n, mu.shape[1]), generator=generator, device=self.device)[mine]
        z = mu + (logvar / 2).exp() * noise
        nll = self._nll(z, rows, generator).sum() / n
        kl = self._kl(z, mu, logvar, rows)
        weight = self.beta * rows.counts if self.prior else self.beta
        loss = nll + (weight * kl).sum() / n
        terms = {"nll": nll.detach(), "kl": kl.detach().sum() / n}
        if self.anchors is not None:
            pia = self._pia(mu, logvar, rows).sum() / n
            loss = loss + self.pia_weight * pia
            terms["pia"] = pia.detach()
        return loss, terms

    def _kl(self, z: Tensor, mu: Tensor, logvar: Tensor, rows: SparseRows) -> Tensor:
        if not self.prior:
            return gaussian_kl(mu, logvar)
        with torch.no_grad():
            earlier = torch.func.functional_call(self.network, self.prior, (rows,))
        return sampled_kl(
            z, mu, logvar, composite_log_density(z, *(part.float() for part in earlier))
        )

    def _pia(self, mu: Tensor, logvar: Tensor, rows: SparseRows) -> Tensor:
        """L_A of every user in the variant that the configuration asks for."""
        model = self.model
        assert isinstance(model, AlignedConfig)
        points = self.anchor_points()
        assert points is not None
        rows, anchors = met_rows(rows, points) if self.training.sparse_updates else (rows, points)
        if model.pia_temperature:
            return nearest_alignment(mu, logvar, anchors, rows, model.pia_temperature)
        parts = alignment_parts(mu, logvar, anchors, rows)
        return torch.stack(
            [getattr(parts, name) for name in PIA_PARTS if name in model.pia_parts]
        ).sum(dim=0)

    def anchor_points(self) -> Tensor | None:
        """``[n_items, latent_dim]``: the anchors, or what items' weights and a projection make of
        them; None without PIA.
        """
        layer = {"encoder": self.network.input, "decoder": self.network.output}.get(
            getattr(self.model, "pia_anchors", "free")
        )
        return (
            self.anchors if layer is None or self.anchors is None else layer.weight @ self.anchors
        )

    def _nll(self, z: Tensor, rows: SparseRows, generator: torch.Generator) -> Tensor:
        hidden, output, training = self.network.decode_hidden(z), self.network.output, self.training
        if self._proposal is None:
            too_many = len(rows) * self.n_items > LOGITS_AT_ONCE
            chunk_items = training.chunk_items or (CHUNK_ITEMS if too_many else None)
            return multinomial_nll(
                hidden, output.weight, output.bias, rows, self._buffer, chunk_items
            )
        sample, expected = self._proposal.draw(training.sampled_items, generator)
        sparse = training.sparse_updates
        return sampled_nll(
            hidden.float(),
            output.weight,
            output.bias,
            rows,
            sample,
            expected,
            sparse_gradient=sparse,
        )

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
        with torch.no_grad():
            return self.network.user_factors(SparseRows.from_csr(histories, self.device))

    def item_factors(self) -> Tensor | None:
        """``[n_items, dim]``, with the weights of the moment; None where there are none."""
        factors = self.network.item_factors()
        return None if factors is None else factors.detach()

    @property
    def beta(self) -> float:
        """Weight of the KL in the next step; RecVAE's, γ, is that of each item of a user."""
        if isinstance(self.model, MultDAEConfig):
            return 0.0
        if isinstance(self.model, RecVAEConfig):
            return self.model.gamma
        return linear_warm_up(self.n_steps, self.model.anneal_steps, self.model.beta)

    @property
    def pia_weight(self) -> float:
        """λ_A in the next step."""
        if not isinstance(self.model, AlignedConfig):
            return 0.0
        risen = linear_warm_up(self.n_steps, self.model.pia_steps, self.model.pia)
        return {"constant": self.model.pia, "rise": risen, "fall": self.model.pia - risen}[
            self.model.pia_schedule
        ]

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint must hold, by name: weights, anchors, the prior's encoder and
        Adam's moments.
        """
        state = {
            f"network.{name}": value.detach() for name, value in self.network.named_parameters()
        }
        if self.anchors is not None:
            state["anchors"] = self.anchors.detach()
        state |= {f"prior.{name}": value for name, value in self.prior.items()}
        for name, optimizer in self.optimizers.items():
            for number, moments in optimizer.state_dict()["state"].items():
                state |= {
                    f"{name}.{number}.{moment}": torch.as_tensor(value)
                    for moment, value in moments.items()
                }
        return state

    def restore(self, state: dict[str, Tensor], n_steps: int) -> None:
        """Takes over what `state` gave after ``n_steps`` steps; the next step is that of an
        uninterrupted run.
        """
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(state[f"network.{name}"])
        if self.anchors is not None:
            self.anchors.data.copy_(state["anchors"])
        for name, value in self.prior.items():
            value.copy_(state[f"prior.{name}"])
        for kind, optimizer in self.optimizers.items():
            moments: dict[int, dict[str, Any]] = {}
            for name, value in state.items():
                if name.startswith(f"{kind}."):
                    _, number, moment = name.split(".")
                    # Lazy Adam counts its steps in a plain number.
                    counter = kind.endswith("sparse-adam") and moment == "step"
                    moments.setdefault(int(number), {})[moment] = int(value) if counter else value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        self.n_steps = n_steps


def check_precision(precision: str) -> None:
    """Refuses what is no `Precision`.

    Raises:
        ConfigError: naming those there are.
    """
    if precision not in get_args(Precision):
        raise ConfigError(
            f"precision must be one of {', '.join(get_args(Precision))}, found {precision!r};"
            " choose one of them."
        )


def _anchors(
    model: NetworkConfig,
    network: Autoencoder,
    generator: torch.Generator,
    device: torch.device | str,
) -> nn.Parameter | None:
    """``[n_items, latent_dim]`` points, or, where they are tied to a layer, the ``[hidden,
    latent_dim]`` projection of its weights.
    """
    if not isinstance(model, AlignedConfig) or model.pia == 0:
        return None
    rows = {
        "free": network.n_items,
        "encoder": network.input.weight.shape[1],
        "decoder": network.output.weight.shape[1],
    }[model.pia_anchors]
    return nn.Parameter(
        nn.init.xavier_normal_(torch.empty(rows, model.latent_dim), generator=generator).to(device)
    )
