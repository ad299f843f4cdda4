"""The latent sharing radius: which users a step on somebody helps, predicted and then tried.

A step of rate η on v changes the loss of u by -η <g_u, g_v> + O(η²), and

    <g_u, g_v> ≥ ‖g_u‖ (‖g_u‖ - ‖g_v - g_u‖),      ‖g_v - g_u‖ ≤ Δ_x(u,v) + L_θz W1(q_u, q_v),

so that it helps u for certain, to first order, where W1 is below the radius

    r_share(u,v) = [‖g_u‖ - Δ_x(u,v)]₊ / L_θz.

What of this is exact, what is estimated and what is a bound is said by `KINDS`. The gradients are
those of the given draws; the inequality with L_θz is about expectations, so draws can break it by
chance. The first one holds for any gradients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from coterie.errors import ConfigError, DataError
from coterie.lab.collaboration.posteriors import Posteriors
from coterie.lab.collaboration.transfer import (
    UserDraws,
    decoder_factors,
    gradient_norms,
    pair_transfer,
)
from coterie.networks.autoencoder import Autoencoder
from coterie.objectives.likelihood import multinomial_nll
from coterie.running.progress import Progress, Update, silent
from coterie.sparse import SparseRows

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "gradient_norm": "exact for the draws",
        "other_norm": "exact for the draws",
        "transfer": "exact for the draws",
        "gradient_distance": "exact for the draws",
        "mismatch": "exact for the draws",
        "lipschitz": "bound",  # a lower one: the largest slope that was met
        "radius": "estimated",  # from above: it divides by that lower bound
        "w1_low": "bound",
        "w1_high": "bound",
    }
)
"""What each number of `SharingPairs` is: ``exact for the draws``, ``estimated`` or a ``bound``."""

NEAR_STEP = 0.01
"""Of the way to another point, for slopes between near points."""

LEAST_DISTANCE = 1e-3
"""Of ‖z‖: between nearer points the difference of two gradients would be rounding."""


@dataclass(frozen=True)
class SharingPairs:
    """The sharing radius and its parts, for ordered pairs (u, v): does a step on v help u?

    Every array is ``[n_pairs]``, float64 but for the two of positions. Gradients are in nats per
    unit of the parameters, distances in units of the latent space.

    Args:
        user: u, its position among the users; int64.
        other: v; int64.
        gradient_norm: ‖g_u‖.
        other_norm: ‖g_v‖.
        transfer: <g_u, g_v>.
        mismatch: Δ_x(u,v), how far the gradients of the two histories are apart at the same latent
            points, those of v.
        w1_low: ‖mu_u - mu_v‖, a lower bound of W1(q_u, q_v).
        w1_high: W2(q_u, q_v), an upper bound of it.
        lipschitz: L_θz, one number: a lower bound of the constant.
    """

    user: np.ndarray
    other: np.ndarray
    gradient_norm: np.ndarray
    other_norm: np.ndarray
    transfer: np.ndarray
    mismatch: np.ndarray
    w1_low: np.ndarray
    w1_high: np.ndarray
    lipschitz: float

    @property
    def radius(self) -> np.ndarray:
        """r_share(u,v), an estimate from above because L_θz is one from below."""
        radius: np.ndarray = np.maximum(self.gradient_norm - self.mismatch, 0) / self.lipschitz
        return radius

    @property
    def inside(self) -> np.ndarray:
        """Whether v lies inside u's radius for certain, given that radius: W2 < r_share; bool."""
        inside: np.ndarray = self.w1_high < self.radius
        return inside

    @property
    def gradient_distance(self) -> np.ndarray:
        """‖g_v - g_u‖; as a difference of larger numbers it holds to about √ε ‖g‖, 3e-4 ‖g‖ in
        float32.
        """
        distance: np.ndarray = np.sqrt(
            np.maximum(self.gradient_norm**2 + self.other_norm**2 - 2 * self.transfer, 0)
        )
        return distance

    @property
    def cosine(self) -> np.ndarray:
        """Of the two gradients; 0 where one is."""
        sizes = self.gradient_norm * self.other_norm
        cosine: np.ndarray = np.divide(
            self.transfer, sizes, out=np.zeros_like(sizes), where=sizes > 0
        )
        return cosine

    @property
    def needed_cosine(self) -> np.ndarray:
        """‖g_v‖ / (2 ‖g_u‖), which the cosine must exceed for ‖g_v - g_u‖ < ‖g_u‖.

        ‖g_v - g_u‖² < ‖g_u‖² is ‖g_v‖² < 2 <g_u, g_v>. So the condition asks how long v's gradient
        is beside u's, not only where it points: of two users that agree wholly it fails the one
        with half as long a gradient, and any pair with a cosine above 0 meets it once v's step is
        short enough. What a small step does has the sign of the cosine.
        """
        needed: np.ndarray = np.divide(
            self.other_norm,
            2 * self.gradient_norm,
            out=np.full_like(self.other_norm, np.inf),
            where=self.gradient_norm > 0,
        )
        return needed

    @property
    def n_others(self) -> int:
        """How many different v there are."""
        return len(np.unique(self.other))

    @property
    def inside_exactly(self) -> np.ndarray:
        """Whether ‖g_v - g_u‖ < ‖g_u‖, of which the radius is a sufficient condition in the latent
        space; bool.
        """
        inside: np.ndarray = self.gradient_distance < self.gradient_norm
        return inside


def broken_implications(
    gradient_norm: np.ndarray, gradient_distance: np.ndarray, transfer: np.ndarray
) -> int:
    """How many pairs break ‖g_v - g_u‖ < ‖g_u‖ ⇒ <g_u, g_v> > 0: none ever does, whatever the
    model.

    Args:
        gradient_norm: ``[n_pairs]`` ‖g_u‖.
        gradient_distance: ``[n_pairs]`` ‖g_v - g_u‖.
        transfer: ``[n_pairs]`` <g_u, g_v>.
    """
    return int(np.count_nonzero((gradient_distance < gradient_norm) & (transfer <= 0)))


def draw_pairs(
    n_users: int, n_pairs: int, seed: int, *, n_others: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ordered pairs of two different users, evenly and with replacement.

    Args:
        n_users: Users to draw from.
        n_pairs: Pairs to draw.
        seed: Of the draw.
        n_others: Different users, chosen first, that the second of a pair is taken from; None =
            all. Few of them make `theorem_table` cheap, which takes a step for each.

    Returns:
        Positions u and v, each ``[n_pairs]`` int64.

    Raises:
        DataError: with fewer than two users.

    Example:
        >>> user, other = draw_pairs(10, 1000, seed=1, n_others=3)
        >>> bool((user != other).all()), len(set(other.tolist()))
        (True, 3)
    """
    if n_users < 2:
        raise DataError(f"pairs need at least two users, found {n_users}; take more users.")
    rng = np.random.default_rng(seed)
    candidates = rng.permutation(n_users)[:n_others]
    other = candidates[rng.integers(len(candidates), size=n_pairs)]
    return (other + 1 + rng.integers(n_users - 1, size=n_pairs)) % n_users, other


def content_mismatch(network: Autoencoder, rows: SparseRows, others: UserDraws) -> Tensor:
    """Δ_x(u,v) = ‖E_{z~q_v}[∇ℓ(x_v, z) - ∇ℓ(x_u, z)]‖ of pairs: what u and v want to be different
    at the same latent points.

    Args:
        network: A variational autoencoder.
        rows: ``[n_pairs, n_items]`` the history of u of each pair.
        others: v of each pair, whose points are taken.

    Returns:
        ``[n_pairs]`` in nats per unit of the parameters; 0 for equal histories.
    """
    return gradient_norms(network, others, less=rows)


def lipschitz_estimate(
    network: Autoencoder,
    users: Posteriors,
    rows: SparseRows,
    n_points: int,
    generator: torch.Generator,
) -> float:
    """The largest slope ‖∇_θ ℓ(x_u, z) - ∇_θ ℓ(x_u, z')‖ / ‖z - z'‖ that was met: a LOWER bound of
    L_θz.

    A radius divided by it is therefore an estimate from above.

    Args:
        network: A variational autoencoder.
        users: Posteriors to draw points from.
        rows: ``[n_users, n_items]`` their histories.
        n_points: Points to draw; three slopes come from each, see `lipschitz_points`.
        generator: On the device of the posteriors.

    Raises:
        DataError: if all points coincide, or there are none.
    """
    user, z, other_z = lipschitz_points(users, n_points, generator)
    if len(z) == 0:
        raise DataError(
            f"a slope needs two different latent points, found none among {n_points} drawn; take"
            " more users."
        )
    return float(gradient_slopes(network, rows, user, z, other_z).max())


def lipschitz_points(
    users: Posteriors, n_points: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Latent points z and z' at which the gradient of u's loss is to be compared.

    z is drawn from q_u. z' is another draw of it, then a draw from another user's posterior; then
    both lie on the way from the one to the other, a small step apart: nothing between two points is
    as steep as the steepest place on the way.

    Pairs nearer than `LEAST_DISTANCE` times ‖z‖ are left out.

    Returns:
        Positions of users ``[m]``, z and z' ``[m, latent_dim]``, with m ≤ 3 · ``n_points``.
    """
    device, dtype = users.mu.device, users.mu.dtype
    user, other = (
        torch.randint(len(users), (n_points,), generator=generator, device=device) for _ in range(2)
    )
    z, again, far = (users.take(who).draw(1, generator)[0] for who in (user, user, other))
    way = far - z
    between = z + torch.rand((n_points, 1), generator=generator, device=device, dtype=dtype) * way
    user, z, other_z = (
        user.repeat(3),
        torch.cat([z, z, between]),
        torch.cat([again, far, between + NEAR_STEP * way]),
    )
    apart = (other_z - z).norm(dim=1) > LEAST_DISTANCE * z.norm(dim=1)
    return user[apart], z[apart], other_z[apart]


def gradient_slopes(
    network: Autoencoder, rows: SparseRows, user: Tensor, z: Tensor, other_z: Tensor
) -> Tensor:
    """‖∇_θ ℓ(x_u, z) - ∇_θ ℓ(x_u, z')‖ / ‖z - z'‖ over the decoder.

    Args:
        network: A variational autoencoder.
        rows: ``[n_users, n_items]`` histories.
        user: ``[m]`` int64 whose loss it is.
        z: ``[m, latent_dim]``.
        other_z: ``[m, latent_dim]`` z', different from z.

    Returns:
        ``[m]``.
    """
    parts = []
    for block in UserDraws(rows.take(user), z.unsqueeze(1)).blocks():
        histories = rows.take(user[block])
        square = z.new_zeros(len(block))
        layers = zip(
            decoder_factors(network, z[block], histories),
            decoder_factors(network, other_z[block], histories),
            strict=True,
        )
        for (delta, h), (other_delta, other_h) in layers:
            # δ⊗h - δ'⊗h' = (δ - δ')⊗h + δ'⊗(h - h'): near points lose no digits as ‖g‖² + ‖g'‖² -
            # 2<g, g'> would.
            by_delta, by_h = delta - other_delta, h - other_h
            square += _dot(by_delta, by_delta) * (_dot(h, h) + 1) + _dot(
                other_delta, other_delta
            ) * _dot(by_h, by_h)
            square += 2 * _dot(by_delta, other_delta) * _dot(h, by_h)
        parts.append(square.clamp(min=0).sqrt() / (z[block] - other_z[block]).norm(dim=1))
    return torch.cat(parts)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dim=1)


def sharing_pairs(
    network: Autoencoder,
    posteriors: Posteriors,
    users: UserDraws,
    user: np.ndarray,
    other: np.ndarray,
    lipschitz: float,
) -> SharingPairs:
    """Measures the sharing radius of ordered pairs of users, and all its parts on the same draws.

    Args:
        network: A variational autoencoder.
        posteriors: Of all users.
        users: The same users, with the points at which their gradients are taken.
        user: ``[n_pairs]`` positions of u.
        other: ``[n_pairs]`` positions of v.
        lipschitz: From `lipschitz_estimate`.

    Raises:
        ConfigError: if ``lipschitz`` is not above 0.

    Example:
        >>> from scipy.sparse import csr_array
        >>> from coterie.lab.collaboration.posteriors import encode_users
        >>> from coterie.lab.collaboration.transfer import draw_users
        >>> from coterie.models.multvae import MultVAEConfig
        >>> generator = torch.Generator().manual_seed(1)
        >>> network = MultVAEConfig(hidden_dims=(3,), latent_dim=2).build(4, generator)
        >>> rows = SparseRows.from_csr(csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]))
        >>> posteriors = encode_users(network, rows)
        >>> users, lipschitz = (
        ...     draw_users(posteriors, rows, 0, generator),
        ...     lipschitz_estimate(network, posteriors, rows, 9, generator),
        ... )
        >>> pairs = sharing_pairs(
        ...     network, posteriors, users, np.array([0, 0]), np.array([1, 2]), lipschitz
        ... )
        >>> pairs.inside.tolist(), (pairs.transfer > 0).tolist()
        ([True, False], [True, False])
    """
    if not lipschitz > 0:
        raise ConfigError(
            f"the Lipschitz constant must be above 0, found {lipschitz}; take it from"
            " lipschitz_estimate."
        )
    u, v = (torch.from_numpy(one).to(users.z.device) for one in (user, other))
    norms = _array(gradient_norms(network, users))
    between_means = (posteriors.mu[u] - posteriors.mu[v]).norm(dim=1)
    between_sigmas = (posteriors.sigma[u] - posteriors.sigma[v]).norm(dim=1)
    return SharingPairs(
        user,
        other,
        gradient_norm=norms[user],
        other_norm=norms[other],
        transfer=_array(pair_transfer(network, users.take(u), users.take(v))),
        mismatch=_array(content_mismatch(network, users.rows.take(u), users.take(v))),
        w1_low=_array(between_means),
        w1_high=_array(torch.hypot(between_means, between_sigmas)),
        lipschitz=lipschitz,
    )


def _array(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.cpu().numpy().astype(np.float64)
    return array


@dataclass(frozen=True)
class TheoremTable:
    """What steps on v really did to the losses of u, beside what was predicted.

    A loss is the mean over the user's draws of the reconstruction, in nats.

    Args:
        learning_rates: ``[n_rates]`` η.
        change: ``[n_rates, n_pairs]`` L_u(θ - η g_v) - L_u(θ), measured in float64.
        predicted: ``[n_rates, n_pairs]`` its first order, -η <g_u, g_v>.
        by_radius: ``[n_rates, 2, 2]`` int64 numbers of pairs: inside of the radius, then outside;
            u's loss fell, then did not.
        by_distance: ``[n_rates, 2, 2]`` the same with ‖g_v - g_u‖ < ‖g_u‖ as the inside.
        by_transfer: ``[n_rates, 2, 2]`` the same with <g_u, g_v> > 0 as the inside.
    """

    learning_rates: np.ndarray
    change: np.ndarray
    predicted: np.ndarray
    by_radius: np.ndarray
    by_distance: np.ndarray
    by_transfer: np.ndarray


def theorem_table(
    network: Autoencoder,
    users: UserDraws,
    pairs: SharingPairs,
    learning_rates: np.ndarray,
    *,
    progress: Progress = silent,
) -> TheoremTable:
    """Takes the real step θ - η g_v for every v of the pairs and measures each u's loss before and
    after, on the same draws.

    The gradient of v is written out by autograd, apart from the factors that predict it. All is
    computed in float64, with weights of its own: the network does not change. Memory: three copies
    of the decoder in float64.

    Args:
        network: A variational autoencoder.
        users: As for ``pairs``.
        pairs: From `sharing_pairs`; the fewer different v, the fewer steps (see `draw_pairs`).
        learning_rates: ``[n_rates]`` η, above 0.
        progress: Called after every user v.
    """
    loss, users = _UserLoss(network), UserDraws(users.rows, users.z.double())
    decoder = {
        name: value.detach().double()
        for name, value in loss.named_parameters()
        if name.split(".")[1] in ("decoder", "output")
    }
    change = np.zeros((len(learning_rates), len(pairs.user)))
    others = np.unique(pairs.other)
    for done, other in enumerate(others, start=1):
        of_other = np.flatnonzero(pairs.other == other)
        helped = users.take(torch.from_numpy(pairs.user[of_other]).to(users.z.device))
        gradient = _gradient(
            loss, decoder, users.take(torch.tensor([other], device=users.z.device))
        )
        before = _losses(loss, decoder, helped)
        for r, rate in enumerate(learning_rates.tolist()):
            moved = {name: value - rate * gradient[name] for name, value in decoder.items()}
            change[r, of_other] = _array(_losses(loss, moved, helped) - before)
        progress(Update("steps taken", done, len(others), "users"))
    tables = (
        _two_by_two(inside, change < 0)
        for inside in (pairs.inside, pairs.inside_exactly, pairs.transfer > 0)
    )
    return TheoremTable(learning_rates, change, -learning_rates[:, None] * pairs.transfer, *tables)


class _UserLoss(nn.Module):
    """L_u of every user, as a module whose parameters `functional_call` can take the place of."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, users: UserDraws) -> Tensor:
        z, rows = users.points()
        output = self.network.output
        nll = multinomial_nll(self.network.decode_hidden(z), output.weight, output.bias, rows)
        return nll.view(len(users), users.n_draws).mean(dim=1)


def _gradient(loss: _UserLoss, decoder: Mapping[str, Tensor], user: UserDraws) -> dict[str, Tensor]:
    with torch.enable_grad():
        weights: dict[str, Any] = {
            name: value.clone().requires_grad_() for name, value in decoder.items()
        }
        gradients = torch.autograd.grad(
            functional_call(loss, weights, (user,)).sum(), list(weights.values())
        )
    return dict(zip(weights, gradients, strict=True))


def _losses(loss: _UserLoss, decoder: dict[str, Tensor], users: UserDraws) -> Tensor:
    with torch.no_grad():
        return torch.cat(
            [functional_call(loss, decoder, (users.take(block),)) for block in users.blocks()]
        )


def _two_by_two(inside: np.ndarray, fell: np.ndarray) -> np.ndarray:
    """``[n_rates, 2, 2]`` counts of ``[n_pairs]`` inside or not, ``[n_rates, n_pairs]`` fell or
    not.
    """
    return np.stack(
        [
            np.stack([(side & what).sum(axis=1) for what in (fell, ~fell)], axis=1)
            for side in (inside, ~inside)
        ],
        axis=1,
    )
