"""Mutual information, aggregate KL and active units against closed forms, quadrature and
torch.distributions.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from torch.distributions import Independent, Normal, kl_divergence

from coterie.errors import ConfigError, DataError
from coterie.lab.collaboration.bottleneck import Bottleneck, measure_bottleneck
from coterie.lab.collaboration.posteriors import Posteriors


def random_users(
    n_users: int, latent_dim: int, seed: int, *, spread: float = 1.0, width: float = 0.5
) -> Posteriors:
    generator = torch.Generator().manual_seed(seed)
    mu = spread * torch.randn(n_users, latent_dim, generator=generator, dtype=torch.float64)
    return Posteriors(
        mu,
        width * (0.5 + torch.rand(n_users, latent_dim, generator=generator, dtype=torch.float64)),
    )


def all_finite(found: Bottleneck) -> bool:
    return all(np.isfinite(value).all() for value in vars(found).values())


@pytest.mark.parametrize("n_users", [2, 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_far_groups_of_equal_users_tell_one_bit(n_users: int, dtype: torch.dtype) -> None:
    group = (torch.arange(n_users) % 2).to(dtype)
    users = Posteriors(
        (200 * group - 100).unsqueeze(1).expand(-1, 5), torch.full((n_users, 5), 0.7, dtype=dtype)
    )
    found = measure_bottleneck(users, n_draws=3, seed=1, block_size=7)
    assert found.information_nats == pytest.approx(math.log(2), abs=1e-9)
    assert found.information_error == pytest.approx(0, abs=1e-9)
    assert found.own_probability == pytest.approx(2 / n_users, abs=1e-9)
    assert found.n_active == 5
    np.testing.assert_allclose(found.mean_variance, 100.0**2)


def test_overlapping_users_on_a_line_against_quadrature() -> None:
    mu, sigma = np.array([-1.0, 0.2, 0.5, 2.0]), np.array([0.6, 0.3, 1.1, 0.5])

    def log_mixture(z: float) -> float:
        return math.log(norm.pdf(z, mu, sigma).mean())

    def told(z: float, m: float, s: float) -> float:
        return float(norm.pdf(z, m, s) * (norm.logpdf(z, m, s) - log_mixture(z)))

    def from_prior(z: float) -> float:
        return float(math.exp(log_mixture(z)) * (log_mixture(z) - norm.logpdf(z)))

    information = np.mean(
        [quad(told, m - 9 * s, m + 9 * s, args=(m, s))[0] for m, s in zip(mu, sigma, strict=True)]
    )
    aggregate = quad(from_prior, -9, 12, limit=200, points=list(mu))[0]
    # Fifty alike of each: the same mixture and the same information, and more draws at once.
    users = Posteriors(*(torch.from_numpy(one).repeat(50).unsqueeze(1) for one in (mu, sigma)))
    found = measure_bottleneck(users, n_draws=800, seed=2)
    # 160,000 draws whose terms deviate by less than one: four standard errors are below 0.01.
    assert found.information_nats == pytest.approx(information, abs=0.01)
    assert found.aggregate_kl_nats == pytest.approx(aggregate, abs=0.01)
    assert found.mean_kl_nats == pytest.approx(information + aggregate, abs=1e-6)


@pytest.mark.parametrize("block_size", [1, 3, 100])
def test_the_same_draws_against_densities_of_torch(block_size: int) -> None:
    users = random_users(7, 3, seed=3)
    users = Posteriors(users.mu + 2, users.sigma)
    found = measure_bottleneck(users, n_draws=2, seed=4, block_size=block_size)
    generator = torch.Generator().manual_seed(4)
    centred = Posteriors(users.mu - users.mu.mean(dim=0), users.sigma)
    z = torch.cat([centred.draw(1, generator) for _ in range(2)])
    log_density = Independent(Normal(centred.mu, centred.sigma), 1).log_prob(z.unsqueeze(2))  # type: ignore[no-untyped-call]
    own = log_density.diagonal(dim1=1, dim2=2) - log_density.logsumexp(dim=2)
    of_users = own.mean(dim=0) + math.log(7)
    kl = kl_divergence(
        Independent(Normal(users.mu, users.sigma), 1),
        Independent(Normal(torch.zeros(3), torch.ones(3)), 1),
    )
    assert found.information_nats == pytest.approx(of_users.mean().item(), abs=1e-12)
    assert found.information_error == pytest.approx(
        of_users.std(correction=0).item() / math.sqrt(7), abs=1e-12
    )
    assert found.own_probability == pytest.approx(own.exp().mean().item(), abs=1e-12)
    without = log_density.masked_fill(torch.eye(7, dtype=torch.bool), -math.inf).logsumexp(
        dim=2
    ) - math.log(6)
    at_most = (log_density.diagonal(dim1=1, dim2=2) - without).mean().item()
    assert found.information_at_most_nats == pytest.approx(at_most, abs=1e-12)
    assert at_most < found.mean_kl_nats
    assert found.mean_kl_nats == pytest.approx(kl.mean().item(), abs=1e-12)
    assert found.mean_kl_error == pytest.approx(
        kl.std(correction=0).item() / math.sqrt(7), abs=1e-12
    )
    assert found.kl_by_dimension_nats.sum() == pytest.approx(kl.mean().item(), abs=1e-12)
    assert found.aggregate_kl_nats == pytest.approx((kl - of_users).mean().item(), abs=1e-12)
    assert found.aggregate_kl_error == pytest.approx(
        (kl - of_users).std(correction=0).item() / math.sqrt(7), abs=1e-12
    )


@settings(max_examples=40, deadline=None)
@example(n_users=9, latent_dim=1, seed=0, spread=1e-6, width=0.0, dtype=torch.float32)
@given(
    n_users=st.integers(1, 12),
    latent_dim=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.0, 1e-6, 1.0, 1e6]),
    width=st.sampled_from([0.0, 1e-20, 1e-8, 1e-3, 1.0, 1e6]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_information_is_finite_and_never_above_the_ceiling(
    n_users: int, latent_dim: int, seed: int, spread: float, width: float, dtype: torch.dtype
) -> None:
    users = random_users(n_users, latent_dim, seed, spread=spread, width=width)
    found = measure_bottleneck(
        Posteriors(users.mu.to(dtype), users.sigma.to(dtype)), n_draws=2, seed=seed, block_size=5
    )
    assert all_finite(found)
    assert found.information_nats <= found.ceiling_nats
    assert 0 <= found.own_probability <= 1
    assert found.information_at_most_nats <= found.mean_kl_nats
    assert found.mean_kl_nats >= 0
    assert found.aggregate_kl_nats == pytest.approx(found.mean_kl_nats - found.information_nats)


def test_users_far_from_the_origin_and_narrow_keep_their_digits() -> None:
    # z²/σ² is 1e16 here, more than float32 and nearly more than float64 could subtract; around the
    # mean it is 1e4 at most.
    near = random_users(6, 3, seed=5, spread=1e-4, width=1e-4)
    far = Posteriors(near.mu + 1e4, near.sigma)
    found, expected = (measure_bottleneck(users, n_draws=50, seed=6) for users in (far, near))
    assert found.information_nats == pytest.approx(expected.information_nats, abs=1e-6)
    assert 0.1 < found.information_nats < found.ceiling_nats - 0.1


def test_a_collapsed_model_tells_nothing() -> None:
    found = measure_bottleneck(Posteriors(torch.zeros(50, 8), torch.ones(50, 8)), n_draws=2, seed=1)
    assert found.information_nats == pytest.approx(0, abs=1e-12)
    assert found.own_probability == pytest.approx(1 / 50)
    assert (
        found.mean_kl_nats,
        found.n_active,
        found.mean_variance.sum(),
        found.kl_by_dimension_nats.sum(),
    ) == (0, 0, 0, 0)
    assert found.aggregate_kl_nats == pytest.approx(0, abs=1e-12)


def test_one_user_tells_nothing_but_is_far_from_the_prior() -> None:
    found = measure_bottleneck(
        Posteriors(torch.tensor([[2.0, 0.0]]), torch.ones(1, 2)), n_draws=3, seed=1
    )
    assert found.information_nats == pytest.approx(0, abs=1e-12)
    assert (found.ceiling_nats, found.mean_kl_nats, found.mean_kl_error, found.n_active) == (
        0,
        2,
        0,
        0,
    )
    assert found.information_at_most_nats == 2
    assert found.aggregate_kl_nats == pytest.approx(2, abs=1e-12)


def test_information_reaches_the_ceiling_when_everybody_is_told_apart() -> None:
    found = measure_bottleneck(
        random_users(40, 30, seed=7, spread=10, width=0.1), n_draws=2, seed=1, block_size=16
    )
    assert (
        found.information_nats == pytest.approx(found.ceiling_nats) == pytest.approx(math.log(40))
    )
    assert found.own_probability == pytest.approx(1)


def test_the_bounds_close_in_on_the_information_of_a_gaussian_channel() -> None:
    # Means from N(0, I) and noise of deviation 0.5: a channel of known capacity, d/2 log(1 +
    # 1/0.25).
    truth = 4 / 2 * math.log(1 + 1 / 0.25)
    found = []
    for n_users in (10, 100, 1000):
        # Far from the prior, whose KL would bound more tightly than the users do.
        mu = 5 + torch.randn(n_users, 4, generator=torch.Generator().manual_seed(8))
        found.append(
            measure_bottleneck(Posteriors(mu, torch.full_like(mu, 0.5)), n_draws=4, seed=1)
        )
    few, some, many = found
    assert few.information_nats < some.information_nats < many.information_nats < truth
    assert (
        truth
        < many.information_at_most_nats
        < some.information_at_most_nats
        < few.information_at_most_nats
    )
    assert many.information_at_most_nats - many.information_nats < 0.5
    assert many.aggregate_kl_nats < few.aggregate_kl_nats - 0.5


def test_an_underflowed_deviation_has_a_finite_kl() -> None:
    found = measure_bottleneck(Posteriors(torch.zeros(3, 1), torch.zeros(3, 1)), n_draws=1, seed=1)
    assert found.mean_kl_nats == pytest.approx(30 * math.log(10) - 0.5)
    assert found.information_nats == pytest.approx(0, abs=1e-12)


def test_only_dimensions_whose_mean_varies_beside_their_noise_are_alive() -> None:
    mu = torch.tensor([[-1.0, 0.09, 3.0], [1.0, -0.09, 3.0]])
    found = measure_bottleneck(Posteriors(mu, torch.ones(2, 3)), n_draws=1, seed=1)
    np.testing.assert_allclose(found.mean_variance, [1, 0.0081, 0], rtol=1e-6)
    assert found.n_active == 1
    narrow = measure_bottleneck(Posteriors(mu, torch.full((2, 3), 0.5)), n_draws=1, seed=1)
    np.testing.assert_allclose(narrow.activity, 4 * found.activity, rtol=1e-6)
    assert narrow.n_active == 2


def test_no_scale_of_the_latent_space_changes_what_is_alive() -> None:
    users = random_users(30, 4, seed=9)
    scale = torch.tensor([1e-3, 0.1, 10.0, 1e3])
    scaled = Posteriors(users.mu * scale, users.sigma * scale)
    one, other = (measure_bottleneck(some, n_draws=1, seed=1) for some in (users, scaled))
    np.testing.assert_allclose(other.activity, one.activity, rtol=1e-5)
    assert other.n_active == one.n_active == 4
    assert other.capacity_nats == pytest.approx(one.capacity_nats)


def test_the_kl_is_that_of_means_and_that_of_variances() -> None:
    users = random_users(30, 4, seed=9)
    found = measure_bottleneck(users, n_draws=1, seed=1)
    mu, variance = users.mu.double(), users.sigma.double().square()
    assert found.kl_of_means_nats == pytest.approx(float((mu**2 / 2).sum(dim=1).mean()))
    of_variances = float(((variance - 1 - variance.log()) / 2).sum(dim=1).mean())
    assert found.kl_of_variances_nats == pytest.approx(of_variances)
    assert found.mean_kl_nats == pytest.approx(found.kl_of_means_nats + of_variances)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    users = random_users(30, 4, seed=9)
    first, again, other = (
        measure_bottleneck(users, n_draws=2, seed=seed).information_nats for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(("n_draws", "block_size"), [(0, 8), (1, 0)])
def test_numbers_below_one_are_refused(n_draws: int, block_size: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        measure_bottleneck(
            random_users(3, 2, seed=1), n_draws=n_draws, seed=1, block_size=block_size
        )


def test_nobody_is_refused() -> None:
    with pytest.raises(DataError, match="at least one user"):
        measure_bottleneck(Posteriors(torch.zeros(0, 2), torch.zeros(0, 2)), n_draws=1, seed=1)
