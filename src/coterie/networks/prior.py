"""Priors: what a posterior is held against in training, and how much that weighs.

They stand beside the network, not in it: a prior may have parameters or a memory of its own, and no
artifact holds them.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from coterie.networks.autoencoder import Autoencoder
from coterie.objectives.divergence import gaussian_kl
from coterie.objectives.schedules import linear_warm_up
from coterie.sparse import SparseRows


class Prior(nn.Module, ABC):
    """A prior p(z), maybe of each user."""

    @abstractmethod
    def divergence(
        self, network: Autoencoder, z: Tensor, mu: Tensor, logvar: Tensor, rows: SparseRows
    ) -> Tensor:
        """KL(q ‖ p) of every user, or an estimate of it.

        Args:
            network: Whose posterior q is.
            z: ``[n_users, latent_dim]`` drawn from q, with gradients to its parameters.
            mu: ``[n_users, latent_dim]`` mean of q, from the MASKED input.
            logvar: ``[n_users, latent_dim]`` log-variance of q.
            rows: ``[n_users, n_items]`` the CLEAN histories.

        Returns:
            ``[n_users]`` in nats.
        """

    @abstractmethod
    def weight(self, n_steps: int, rows: SparseRows) -> float | Tensor:
        """What the divergence is multiplied by in the step after ``n_steps``: a number, or
        ``[n_users]``.
        """

    @abstractmethod
    def schedule(self, n_steps: int) -> dict[str, float]:
        """The number behind `weight` by its own name, for the history of a run."""

    def before_decoder(self, network: Autoencoder) -> None:
        """Called before passes in which the decoder alone learns."""

    def memory(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of it, by name; the tensors themselves."""
        return {name: value.detach() for name, value in self.named_parameters()}


class AnnealedPrior(Prior):
    """A prior weighed by a β that rises linearly from 0 and then STAYS.

    Args:
        beta: Its final value.
        anneal_steps: Steps until then.
    """

    def __init__(self, beta: float, anneal_steps: int) -> None:
        super().__init__()
        self.beta, self.anneal_steps = beta, anneal_steps

    def weight(self, n_steps: int, rows: SparseRows) -> float:
        """β."""
        return linear_warm_up(n_steps, self.anneal_steps, self.beta)

    def schedule(self, n_steps: int) -> dict[str, float]:
        """β."""
        return {"beta": linear_warm_up(n_steps, self.anneal_steps, self.beta)}


class StandardNormal(AnnealedPrior):
    """N(0, I)."""

    def divergence(
        self, network: Autoencoder, z: Tensor, mu: Tensor, logvar: Tensor, rows: SparseRows
    ) -> Tensor:
        """The KL itself."""
        return gaussian_kl(mu, logvar)
