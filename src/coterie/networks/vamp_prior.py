"""The VampPrior: a mixture of the posteriors of inputs that are learned."""

import torch
from torch import Tensor, nn

from coterie.networks.autoencoder import Autoencoder
from coterie.networks.prior import AnnealedPrior
from coterie.objectives.divergence import gaussian_log_density, mixture_log_density
from coterie.sparse import SparseRows


def draw_pseudo_inputs(n: int, n_items: int, generator: torch.Generator) -> Tensor:
    """``[n, n_items]`` initial pseudo-inputs, normal(0.05, 0.01): a little of every item."""
    return torch.empty(n, n_items).normal_(0.05, 0.01, generator=generator)


class VampPrior(AnnealedPrior):
    """p(z) = 1/K Σ_k q(z given u_k), where u_k are points of [0, 1]^I and q is the encoder itself.

    Pseudo-inputs beyond 0 and 1 are clipped, and normalised as histories are. They take 4 bytes ×
    K × items, with Adam three times that, while training; no artifact holds them.

    Args:
        pseudo_inputs: ``[K, n_items]`` initial values.
        beta: Final weight of the divergence.
        anneal_steps: Steps until then.

    References:
        Tomczak and Welling (2018), equation 9; Kim and Suh (2019), section 3.2.
    """

    def __init__(self, pseudo_inputs: Tensor, beta: float, anneal_steps: int) -> None:
        super().__init__(beta, anneal_steps)
        self.pseudo_inputs = nn.Parameter(pseudo_inputs)

    def divergence(
        self, network: Autoencoder, z: Tensor, mu: Tensor, logvar: Tensor, rows: SparseRows
    ) -> Tensor:
        """An estimate from ``z``, unbiased; it may be negative."""
        code = network.encode_dense(self.pseudo_inputs.clamp(0, 1)).float()
        log_prior = mixture_log_density(z, *code.chunk(2, dim=1))
        return gaussian_log_density(z, mu, logvar).sum(dim=1) - log_prior
