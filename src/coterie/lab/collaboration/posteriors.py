"""Users as the model sees them: one diagonal Gaussian each."""

from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.errors import ConfigError, DataError, NumericalError
from coterie.networks.autoencoder import Autoencoder, input_scale
from coterie.networks.network import Variational
from coterie.objectives.masking import mask_items
from coterie.sparse import SparseRows

USERS_AT_ONCE = 4096


@dataclass(frozen=True)
class Posteriors:
    """q(z given x_u) = N(mu_u, diag sigma_u²) of every user.

    Args:
        mu: ``[n_users, latent_dim]``.
        sigma: ``[n_users, latent_dim]`` standard deviations, not variances.
    """

    mu: Tensor
    sigma: Tensor

    def __len__(self) -> int:
        return len(self.mu)

    @property
    def latent_dim(self) -> int:
        """Number of latent dimensions."""
        return self.mu.shape[1]

    def take(self, users: Tensor) -> "Posteriors":
        """The posteriors of some users."""
        return Posteriors(self.mu[users], self.sigma[users])

    def draw(self, n_draws: int, generator: torch.Generator) -> Tensor:
        """``[n_draws, n_users, latent_dim]`` latent points; ``generator`` on the device of
        ``mu``.
        """
        noise = torch.randn(
            (n_draws, *self.mu.shape),
            generator=generator,
            device=self.mu.device,
            dtype=self.mu.dtype,
        )
        return self.mu + self.sigma * noise


def encode_users(
    network: Autoencoder,
    rows: SparseRows,
    *,
    keep_prob: float = 1.0,
    generator: torch.Generator | None = None,
) -> Posteriors:
    """The posteriors of users, from their clean histories or from one draw of masks.

    Args:
        network: A variational autoencoder.
        rows: ``[n_users, n_items]`` clean histories, on the device of the network.
        keep_prob: Probability that an entry survives the mask; 1 = clean.
        generator: Of the masks, on the device of ``rows``; needed below 1.

    Raises:
        ConfigError: if the network has no posterior, or masks have no generator.
        DataError: if there is no user, or one without items, whom the model knows nothing of.
        NumericalError: if a mean or a deviation is not finite, as after a training that diverged.

    Example:
        >>> from scipy.sparse import csr_array
        >>> from coterie.models.multvae import MultVAEConfig
        >>> config = MultVAEConfig(hidden_dims=(3,), latent_dim=2)
        >>> network = config.build(4, torch.Generator().manual_seed(1))
        >>> users = encode_users(
        ...     network, SparseRows.from_csr(csr_array([[1, 0, 1, 0], [0, 1, 0, 0]]))
        ... )
        >>> users.mu.shape, bool((users.sigma > 0).all())
        (torch.Size([2, 2]), True)
    """
    if not isinstance(network, Variational):
        raise ConfigError(
            f"posteriors need a variational autoencoder, found {type(network).__name__}; analyze a"
            " mult-vae or a recvae."
        )
    if keep_prob < 1 and generator is None:
        raise ConfigError(
            f"masks of keep_prob {keep_prob} need a generator; pass one, or keep_prob = 1 for clean"
            " histories."
        )
    empty = (rows.counts == 0).nonzero().flatten()
    if len(rows) == 0 or len(empty):
        found = (
            f"user {int(empty[0])} without any ({len(empty)} in all)" if len(empty) else "no user"
        )
        raise DataError(
            f"every user to analyze needs at least one item, found {found}; leave them out."
        )
    scale = input_scale(rows.counts) / keep_prob
    parts = []
    with torch.no_grad():
        for users in torch.split(
            torch.arange(len(rows), device=rows.offsets.device), USERS_AT_ONCE
        ):
            batch = rows.take(users)
            parts.append(
                network.posterior(
                    batch if generator is None else mask_items(batch, keep_prob, generator),
                    scale[users],
                )
            )
    mu, logvar = (torch.cat(one) for one in zip(*parts, strict=True))
    sigma = (logvar / 2).exp()
    broken = int((~(mu.isfinite() & sigma.isfinite()).all(dim=1)).sum())
    if broken:
        raise NumericalError(
            f"posteriors must be finite, found {broken} of {len(rows)} users with NaN or infinity:"
            " the weights are damaged or training diverged; train again with a lower learning"
            " rate."
        )
    return Posteriors(mu, sigma)
