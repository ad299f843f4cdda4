"""Gradient transfer: how far a step on one user goes in the direction that another user needs.

The loss of a user at a latent point z is the reconstruction, -Σ_{i∈S_u} log softmax(f(z))_i, a SUM
over the user's items. Its gradient is taken over the decoder, which is everything between z and the
logits. At one point the gradient of a dense layer is the outer product of δ, the gradient at the
layer's output, with the layer's input h; so two users' gradients multiply as

    <g_u, g_v> = (δ_u · δ_v) (h_u · h_v + 1),    summed over layers, averaged over pairs of draws,

with the 1 for the bias. No gradient is ever written out: at 600 × 20,000 weights one of them takes
48 MB.
"""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from coterie.errors import ConfigError, DataError, NumericalError
from coterie.lab.collaboration.posteriors import Posteriors
from coterie.networks.autoencoder import Autoencoder
from coterie.running.progress import Progress, Update, silent
from coterie.sparse import SparseRows

BYTES_AT_ONCE = 2**28
"""Of one block's δ over all items, by far the largest array; about four of them live at once."""

Factors: TypeAlias = list[tuple[Tensor, Tensor]]
"""(δ, h) of every layer, ``[…, n_out]`` and ``[…, n_in]``, the last layer last."""


@dataclass(frozen=True)
class UserDraws:
    """Users' histories, and the latent points at which their gradients are taken.

    What is computed from them is exact for these points. The points are an argument, not a seed, so
    that all quantities of an analysis speak of the same ones.

    Args:
        rows: ``[n_users, n_items]`` clean histories.
        z: ``[n_users, n_draws, latent_dim]``.
    """

    rows: SparseRows
    z: Tensor

    def __len__(self) -> int:
        return len(self.z)

    @property
    def n_draws(self) -> int:
        """Points a user."""
        return self.z.shape[1]

    def take(self, users: Tensor) -> "UserDraws":
        """The users at ``[m]`` int64 positions, with their points."""
        return UserDraws(self.rows.take(users), self.z[users])

    def blocks(self) -> tuple[Tensor, ...]:
        """Positions of users whose δ over all items take `BYTES_AT_ONCE` together, or of one user
        each.
        """
        size = max(1, BYTES_AT_ONCE // (self.n_draws * self.rows.n_items * self.z.element_size()))
        return torch.split(torch.arange(len(self), device=self.z.device), size)

    def points(self) -> tuple[Tensor, SparseRows]:
        """One row a point, a user's points side by side: ``[n_users · n_draws, latent_dim]`` and
        the histories along with them.
        """
        return self.z.flatten(0, 1), repeat_rows(self.rows, self.n_draws)


def repeat_rows(rows: SparseRows, times: int) -> SparseRows:
    """Every row ``times`` times in a row."""
    return rows.take(torch.arange(len(rows), device=rows.offsets.device).repeat_interleave(times))


def draw_users(
    users: Posteriors, rows: SparseRows, n_draws: int, generator: torch.Generator
) -> UserDraws:
    """Draws the latent points of users from their posteriors.

    Args:
        users: Their posteriors.
        rows: ``[n_users, n_items]`` clean histories, the same users in the same order.
        n_draws: Points a user; 0 = one point, the posterior mean, which is what the model scores
            with.
        generator: On the device of the posteriors.

    Raises:
        ConfigError: if ``n_draws`` is negative.
        DataError: if the numbers of users differ.
    """
    if n_draws < 0:
        raise ConfigError(
            f"n_draws must be 0 (the posterior mean) or more, found {n_draws}; 4 is a good start."
        )
    if len(users) != len(rows):
        raise DataError(
            f"posteriors and histories must be of the same users, found {len(users)} and"
            f" {len(rows)}; take both alike."
        )
    return UserDraws(
        rows, users.draw(n_draws, generator).transpose(0, 1) if n_draws else users.mu.unsqueeze(1)
    )


def decoder_factors(
    network: Autoencoder, z: Tensor, rows: SparseRows, less: SparseRows | None = None
) -> Factors:
    """The gradients of single points over the decoder, as outer products.

    The gradient of layer l at point p is δ_p ⊗ h_p for the weight and δ_p for the bias.

    Args:
        network: A variational autoencoder whose decoder holds no parameters but those of dense
            layers.
        z: ``[n_points, latent_dim]``.
        rows: ``[n_points, n_items]`` the history that each point is to reconstruct.
        less: ``[n_points, n_items]`` histories whose loss at the same points is taken away, before
            differentiating.

    Returns:
        (δ, h) of every layer, ``[n_points, n_out]`` and ``[n_points, n_in]``; the last layer last,
        with δ = n softmax - x.

    Raises:
        NumericalError: if a gradient is not finite.
    """
    calls: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((inputs[0].detach(), output))

    hooks = [
        layer.register_forward_hook(keep)
        for layer in network.modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        with torch.enable_grad():  # of z: the weights may be frozen
            hidden = network.decode_hidden(z.detach().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        weight, bias = network.output.weight, network.output.bias
        delta = torch.softmax(torch.addmm(bias, hidden, weight.t()), dim=1)
        delta *= (rows.counts if less is None else rows.counts - less.counts).unsqueeze(1)
        delta[rows.row, rows.indices] -= 1
        if less is not None:
            delta[less.row, less.indices] += 1
        at_hidden = delta @ weight
    if not bool(at_hidden.isfinite().all()):  # a NaN in any weight of the decoder gets here
        raise NumericalError(
            "gradients must be finite, found NaN or infinity: the decoder's weights are damaged;"
            " train the model again."
        )
    inner = torch.autograd.grad(hidden, [output for _, output in calls], at_hidden) if calls else ()
    return [(grad, h) for grad, (h, _) in zip(inner, calls, strict=True)] + [
        (delta, hidden.detach())
    ]


def factor_products(left: Factors, right: Factors) -> Tensor:
    """Inner products of gradients given as factors, every point of one side with every one of the
    other: ``[…, n, m]``.
    """
    products = [
        (h @ k.mT).add_(1).mul_(a @ b.mT) for (a, h), (b, k) in zip(left, right, strict=True)
    ]
    return sum(products[1:], products[0])


def gradient_transfer(
    network: Autoencoder,
    users: UserDraws,
    others: UserDraws | None = None,
    *,
    progress: Progress = silent,
) -> Tensor:
    """<g_u, g_v> of every user with every other: above 0, a small step on v lowers the loss of u
    (and the other way round).

    g_u is the mean over the user's points. Between users of independent draws the product is an
    unbiased estimate of that of the expected gradients. The product of a user with itself is ‖g_u‖²
    of this very mean, which is larger in expectation.

    Args:
        network: A variational autoencoder.
        users: The rows of the result.
        others: The columns; None = the same users, at half the price.
        progress: Called after every block of users.

    Returns:
        ``[n_users, n_others]`` in nats² per squared unit of the parameters, of the type of
        ``users.z``.

    References:
        "On the Mechanisms of Collaborative Learning in VAE Recommenders" (arXiv 2511.06781), the
        latent sharing radius.

    Example:
        >>> from scipy.sparse import csr_array
        >>> from coterie.lab.collaboration.posteriors import encode_users
        >>> from coterie.models.multvae import MultVAEConfig
        >>> config = MultVAEConfig(hidden_dims=(3,), latent_dim=2)
        >>> network = config.build(4, torch.Generator().manual_seed(1))
        >>> rows = SparseRows.from_csr(csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]))
        >>> users = draw_users(encode_users(network, rows), rows, 0, torch.Generator())
        >>> gradient_transfer(network, users).sign().tolist()
        [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]
    """
    same, columns = others is None, users if others is None else others
    transfer = users.z.new_empty(len(users), len(columns))
    blocks = users.blocks()
    for i, block in enumerate(blocks):
        factors = _factors(network, users.take(block))
        for j, other_block in enumerate(columns.blocks()):
            if same and j < i:
                continue
            other_factors = (
                factors if same and j == i else _factors(network, columns.take(other_block))
            )
            products = factor_products(factors, other_factors)
            means = products.view(
                len(block), users.n_draws, len(other_block), columns.n_draws
            ).mean(dim=(1, 3))
            transfer[block.unsqueeze(1), other_block] = means
            if same:
                transfer[other_block.unsqueeze(1), block] = means.t()
        progress(Update("gradient transfer", i + 1, len(blocks), "blocks"))
    return transfer


def pair_transfer(network: Autoencoder, users: UserDraws, others: UserDraws) -> Tensor:
    """<g_u, g_v> of the first user with the first other, the second with the second, and so on:
    ``[n_pairs]``.

    As `gradient_transfer`, for a few pairs among many users.
    """
    parts = []
    for block in users.blocks():
        left, right = (
            _by_user(_factors(network, side.take(block)), side.n_draws) for side in (users, others)
        )
        parts.append(factor_products(left, right).mean(dim=(1, 2)))
    return torch.cat(parts)


def gradient_norms(
    network: Autoencoder, users: UserDraws, less: SparseRows | None = None
) -> Tensor:
    """‖g_u‖ of every user's mean gradient: the square root of the diagonal of `gradient_transfer`.

    Args:
        network: A variational autoencoder.
        users: Whose norms.
        less: ``[n_users, n_items]`` histories whose loss at the same points is taken away, as in
            `decoder_factors`.

    Returns:
        ``[n_users]`` in nats per unit of the parameters.
    """
    parts = []
    for block in users.blocks():
        away = None if less is None else repeat_rows(less.take(block), users.n_draws)
        factors = _by_user(_factors(network, users.take(block), away), users.n_draws)
        parts.append(factor_products(factors, factors).mean(dim=(1, 2)).clamp(min=0).sqrt())
    return torch.cat(parts)


def _factors(network: Autoencoder, users: UserDraws, less: SparseRows | None = None) -> Factors:
    return decoder_factors(network, *users.points(), less)


def _by_user(factors: Factors, n_draws: int) -> Factors:
    """The points of a user in a dimension of their own: ``[n_users, n_draws, …]``."""
    return [
        (delta.view(-1, n_draws, delta.shape[1]), h.view(-1, n_draws, h.shape[1]))
        for delta, h in factors
    ]
