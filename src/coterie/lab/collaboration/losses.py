"""What users lose, and what a step on a user goes down: losses at points, by their gradients.

A point is an input of the encoder and the noise of its latent point. Who is helped is asked by the
reconstruction of what was shown, or by the items that were not shown (`hidden.py`). Who helps does
so by the objective of training, whole: likelihood, β KL and λ_A L_A.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from coterie.errors import ConfigError
from coterie.lab.collaboration.transfer import repeat_rows
from coterie.models.kinds import AlignedConfig
from coterie.networks.alignment import Alignment
from coterie.networks.autoencoder import VariationalAutoencoder, input_scale
from coterie.networks.prior import Prior
from coterie.objectives.masking import mask_items
from coterie.sparse import SparseRows

LONG_AGO = 2**62
"""Steps after which whatever is scheduled has come to its end."""


class Loss(Protocol):
    """A loss of every point."""

    def at_logits(self, logits: Tensor) -> Tensor:
        """``[n, n_items]`` its gradient at the logits, which may be overwritten."""
        ...

    def beside(
        self, network: VariationalAutoencoder, z: Tensor, mu: Tensor, logvar: Tensor
    ) -> Tensor:
        """``[n]`` what it has beside a function of the logits."""
        ...

    def take(self, points: Tensor) -> Self:
        """The loss of the points at ``[m]`` int64 positions."""
        ...


@dataclass(frozen=True)
class Reconstruction:
    """-Σ_{i∈S_u} log softmax(f(z))_i.

    Args:
        rows: ``[n, n_items]`` the clean histories.
    """

    rows: SparseRows

    def at_logits(self, logits: Tensor) -> Tensor:
        """The soft-max times n, less x."""
        return _less_ones(_weighted_softmax(logits, self.rows), self.rows)

    def beside(
        self, network: VariationalAutoencoder, z: Tensor, mu: Tensor, logvar: Tensor
    ) -> Tensor:
        """Nothing."""
        return mu.new_zeros(len(mu))

    def take(self, points: Tensor) -> "Reconstruction":
        """Of some points."""
        return Reconstruction(self.rows.take(points))


@dataclass(frozen=True)
class HiddenItems:
    """The loss of `coterie.lab.collaboration.hidden.hidden_nll`.

    Args:
        shown: ``[n, n_items]`` outside of the soft-max.
        hidden: ``[n, n_items]`` to be found.
    """

    shown: SparseRows
    hidden: SparseRows

    def at_logits(self, logits: Tensor) -> Tensor:
        """The soft-max times n_hidden, less what is hidden; 0 at what was shown."""
        logits[self.shown.row, self.shown.indices] = -torch.inf
        return _less_ones(_weighted_softmax(logits, self.hidden), self.hidden)

    def beside(
        self, network: VariationalAutoencoder, z: Tensor, mu: Tensor, logvar: Tensor
    ) -> Tensor:
        """Nothing."""
        return mu.new_zeros(len(mu))

    def take(self, points: Tensor) -> "HiddenItems":
        """Of some points."""
        return HiddenItems(self.shown.take(points), self.hidden.take(points))


@dataclass(frozen=True)
class WholeObjective:
    """What training goes down: reconstruction + weight · KL + λ_A · L_A.

    Anchors are constants here. They are parameters of the one who helps alone: nobody's loss but
    L_A depends on them, so that no step on them reaches another user.

    Args:
        rows: ``[n, n_items]`` the clean histories.
        prior: Of the run.
        alignment: PIA, if it is on.
        n_steps: Steps taken before, for what is scheduled.
        unit: Of the latent space, by which `in_unit` divided the network's: prior and anchors are
            met in their own.
    """

    rows: SparseRows
    prior: Prior
    alignment: Alignment | None = None
    n_steps: int = LONG_AGO
    unit: float = 1.0

    def at_logits(self, logits: Tensor) -> Tensor:
        """That of the reconstruction."""
        return Reconstruction(self.rows).at_logits(logits)

    def beside(
        self, network: VariationalAutoencoder, z: Tensor, mu: Tensor, logvar: Tensor
    ) -> Tensor:
        """The sum weight · KL + λ_A · L_A."""
        z, mu, logvar = z * self.unit, mu * self.unit, logvar + 2 * math.log(self.unit)
        divergence = self.prior.divergence(network, z, mu, logvar, self.rows)
        loss = self.prior.weight(self.n_steps, self.rows) * divergence
        if self.alignment is not None:
            pull = self.alignment.loss(mu, logvar, self.rows)
            loss = loss + self.alignment.weight(self.n_steps) * pull
        return loss

    def take(self, points: Tensor) -> "WholeObjective":
        """Of some points."""
        return replace(self, rows=self.rows.take(points))


def whole_objective(
    model: AlignedConfig,
    network: VariationalAutoencoder,
    rows: SparseRows,
    anchors: Tensor | None,
    n_steps: int = LONG_AGO,
) -> WholeObjective:
    """The objective of a configuration.

    RecVAE's prior remembers the encoder before the last decoder passes: at the end of an epoch that
    is the encoder itself. Its encoder and decoder learn in turns, the decoder from clean input; one
    step over both from one input is what is measured here.

    Args:
        model: Of a variational autoencoder.
        network: At the end of an epoch.
        rows: ``[n, n_items]`` the clean histories.
        anchors: ``[n_items, latent_dim]`` PIA's; needed where λ_A is above 0.
        n_steps: Steps taken before.

    Raises:
        ConfigError: if the prior has parameters of its own, or anchors are missing.
    """
    prior = model.prior(network, torch.Generator())
    if any(True for _ in prior.parameters()):
        raise ConfigError(
            f"the whole objective is measured where the prior learns nothing, {model.name}'s has"
            " parameters that the encoder reads; take a mult-vae or a recvae."
        )
    if model.pia and anchors is None:
        raise ConfigError(
            f"λ_A is {model.pia:g}, so the whole objective needs the anchors of the run, found"
            " none; keep anchors.safetensors beside the model."
        )
    pulls = anchors is not None and model.pia > 0
    alignment = Alignment(anchors.to(rows.offsets.device), model.pia) if pulls else None  # type: ignore[union-attr]
    if alignment is not None:
        alignment.requires_grad_(requires_grad=False)
    return WholeObjective(rows, prior.to(rows.offsets.device), alignment, n_steps)


@dataclass(frozen=True)
class Side:
    """Users, the points at which their gradients are taken, and of which loss.

    Args:
        seen: ``[n_points, n_items]`` what the encoder is shown, a user's points side by side.
        scale: ``[n_points]`` the value of every entry.
        noise: ``[n_points, latent_dim]`` of z = mu + σ · noise; None is the mean path, z = mu.
        loss: Of the points.
        n_draws: Points a user; a user's gradient is their mean.
    """

    seen: SparseRows
    scale: Tensor
    noise: Tensor | None
    loss: Loss
    n_draws: int = 1

    def __len__(self) -> int:
        return len(self.seen) // self.n_draws

    def take(self, users: Tensor) -> "Side":
        """The users at ``[m]`` int64 positions, with their points."""
        first = users.unsqueeze(1) * self.n_draws
        points = (first + torch.arange(self.n_draws, device=users.device)).flatten()
        noise = None if self.noise is None else self.noise[points]
        taken = self.seen.take(points), self.scale[points], noise, self.loss.take(points)
        return Side(*taken, self.n_draws)


def mean_path(rows: SparseRows, loss: Loss) -> Side:
    """Users as they are scored: the clean history, z = mu.

    Args:
        rows: ``[n_users, n_items]`` what is folded in.
        loss: Of these users.
    """
    return Side(rows, input_scale(rows.counts), None, loss)


def drawn_as_trained(
    objective: WholeObjective,
    latent_dim: int,
    keep_prob: float,
    n_draws: int,
    generator: torch.Generator,
) -> Side:
    """Users as a step of training meets them: masked, z drawn.

    Args:
        objective: Of the users, one row each.
        latent_dim: Of z.
        keep_prob: Of the masks.
        n_draws: Masks, and latent points, of each user; 0 = the mean path, without mask and noise.
        generator: On the device of the rows.
    """
    if n_draws == 0:
        return mean_path(objective.rows, objective)
    rows = repeat_rows(objective.rows, n_draws)
    seen, scale = mask_items(rows, keep_prob, generator), input_scale(rows.counts) / keep_prob
    shape = len(rows), latent_dim
    noise = torch.randn(shape, generator=generator, device=rows.offsets.device)
    return Side(seen, scale, noise, replace(objective, rows=rows), n_draws)


def _weighted_softmax(logits: Tensor, rows: SparseRows) -> Tensor:
    return torch.softmax(logits, dim=1).mul_(rows.counts.unsqueeze(1))


def _less_ones(delta: Tensor, rows: SparseRows) -> Tensor:
    delta[rows.row, rows.indices] -= 1
    return delta
