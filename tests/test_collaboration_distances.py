"""Distances between users against optimal transport by POT, quantile integrals and scikit-learn."""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.neighbors import NearestNeighbors

from coterie.errors import ConfigError
from coterie.lab.collaboration.distances import (
    nearest_neighbours,
    sampled_w1,
    w1_bounds,
    w2_distances,
    w2_points,
)
from coterie.lab.collaboration.posteriors import Posteriors
from coterie.running.progress import Update
from test_sparse import DEVICES

cases = given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 999))


def posteriors(
    n: int,
    dim: int,
    seed: int,
    *,
    dtype: torch.dtype = torch.float64,
    centre: float = 0.0,
    device: str = "cpu",
) -> Posteriors:
    rng = np.random.default_rng(seed)
    mu, sigma = centre + rng.normal(size=(n, dim)), rng.uniform(0.05, 2, (n, dim))
    return Posteriors(*(torch.tensor(part, dtype=dtype, device=device) for part in (mu, sigma)))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(0, 999))
def test_w2_is_pot_s_for_full_covariances(dim: int, seed: int) -> None:
    users, others = posteriors(3, dim, seed), posteriors(4, dim, seed + 1)
    found = w2_distances(users, others)
    for i in range(3):
        for j in range(4):
            covariances = [
                torch.diag(sigma.square()).numpy() for sigma in (users.sigma[i], others.sigma[j])
            ]
            expected = ot.gaussian.bures_wasserstein_distance(
                users.mu[i].numpy(), others.mu[j].numpy(), *covariances
            )
            assert found[i, j].item() == pytest.approx(float(expected), rel=1e-7)


@settings(max_examples=30, deadline=None)
@cases
def test_w2_is_a_metric_and_the_bounds_are_in_order(n: int, dim: int, seed: int) -> None:
    users = posteriors(n, dim, seed)
    lower, upper = w1_bounds(users, users)
    assert (lower <= upper).all()
    torch.testing.assert_close(upper, upper.t())
    assert (upper.diagonal() == 0).all()
    assert (
        upper.unsqueeze(2) <= (upper.unsqueeze(0) + upper.unsqueeze(1)).transpose(1, 2) + 1e-7
    ).all()
    parts = [w2_distances(users.take(block), users) for block in torch.split(torch.arange(n), 7)]
    torch.testing.assert_close(torch.cat(parts), upper, atol=0, rtol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_float32_keeps_small_distances_far_from_the_origin(device: str) -> None:
    users = posteriors(200, 50, 1, dtype=torch.float32, centre=100.0, device=device)
    near = Posteriors(users.mu + 1e-2, users.sigma)
    exact = (
        torch.cat([users.mu, users.sigma], 1).double()
        - torch.cat([near.mu, near.sigma], 1).double()
    ).norm(dim=1)
    torch.testing.assert_close(
        w2_distances(users, near).diagonal().double(), exact, rtol=1e-3, atol=0
    )
    assert w2_distances(users, users).diagonal().max() < 1e-4
    assert w2_distances(users, users).dtype == torch.float32


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.5, 1.0), (0.5, 3.0), (3.0, 0.2)])
def test_w1_of_normals_on_a_line_is_between_the_bounds_and_near_the_sample(
    mean: float, deviation: float
) -> None:
    exact = quad(
        lambda u: abs(norm.ppf(u, mean, deviation) - norm.ppf(u)),
        0,
        1,
        points=[0.5],
        limit=200,
        epsabs=1e-6,
    )[0]
    users, others = (
        Posteriors(torch.full((8, 1), m), torch.full((8, 1), s))
        for m, s in ((0.0, 1.0), (mean, deviation))
    )
    lower, upper = w1_bounds(users, others)
    assert lower[0, 0] - 1e-6 <= exact <= upper[0, 0] + 1e-6
    drawn = sampled_w1(users, others, n_draws=400, seed=1)
    # Eight independent pairs; the bias of the estimate on a line is below 0.2 deviations for 400
    # draws.
    assert -3 * drawn.std() / math.sqrt(8) <= drawn.mean() - exact <= 0.2 * deviation


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 30), st.integers(1, 5), st.integers(0, 99))
def test_sampled_w1_is_pot_s_exact_transport_of_the_same_draws(
    n_draws: int, dim: int, seed: int
) -> None:
    user, other = posteriors(1, dim, seed), posteriors(1, dim, seed + 1)
    rng = np.random.default_rng(seed)
    draws = [
        (one.mu + one.sigma * torch.from_numpy(rng.standard_normal((n_draws, dim)))).numpy()
        for one in (user, other)
    ]
    even = np.full(n_draws, 1 / n_draws)
    expected = ot.emd2(even, even, ot.dist(*draws, metric="euclidean"))
    assert sampled_w1(user, other, n_draws, seed)[0] == pytest.approx(expected, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99))
def test_sampled_w1_is_between_the_bounds_but_for_the_bias_of_equal_posteriors(seed: int) -> None:
    users, others = posteriors(12, 3, seed), posteriors(12, 3, seed + 1)
    lower, upper = (bound.diagonal().numpy() for bound in w1_bounds(users, others))
    drawn, noise = sampled_w1(users, others, 100, seed), sampled_w1(users, users, 100, seed)
    assert (noise > 0).all()
    assert lower.mean() - 0.3 <= drawn.mean() <= upper.mean() + noise.mean() + 0.3
    assert len(set(noise)) == 12


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_neighbours_are_scikit_learn_s(dtype: torch.dtype, device: str) -> None:
    users = posteriors(150, 20, 3, dtype=dtype, centre=30.0, device=device)
    indices, distances = nearest_neighbours(w2_points(users), 9, block_size=64)
    assert indices.dtype == torch.int64
    assert distances.dtype == dtype
    oracle, places = (
        NearestNeighbors(n_neighbors=10, algorithm="brute")
        .fit(w2_points(users).cpu().numpy().astype(float))
        .kneighbors()
    )
    np.testing.assert_array_equal(indices.cpu(), places[:, :9])
    np.testing.assert_allclose(distances.cpu(), oracle[:, :9], rtol=1e-5)
    torch.testing.assert_close(
        distances, w2_distances(users, users).gather(1, indices), rtol=1e-5, atol=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(1, 5), st.integers(1, 40), st.data())
def test_neighbours_do_not_depend_on_blocks_and_equal_points_are_at_zero(
    n: int, dim: int, block_size: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, n - 1))
    points = torch.from_numpy(np.random.default_rng(n).integers(-2, 3, (n, dim)).astype(np.float64))
    steps: list[Update] = []
    indices, distances = nearest_neighbours(points, k, block_size=block_size, progress=steps.append)
    assert (steps[-1].done, steps[-1].total) == (n, n)
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(distances, apart.gather(1, indices))
    torch.testing.assert_close(distances, apart.fill_diagonal_(torch.inf).sort(dim=1).values[:, :k])
    assert (indices != torch.arange(n).unsqueeze(1)).all()
    assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 5), (5, 0), (0, 1)])
def test_there_must_be_k_others(n: int, k: int) -> None:
    with pytest.raises(ConfigError, match=f"found k = {k} and {n} users"):
        nearest_neighbours(torch.zeros(n, 2), k)
