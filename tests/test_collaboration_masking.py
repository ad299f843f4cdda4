"""Masks: distances against all masks of tiny users written out, drift against sets and sums written
out.
"""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.spatial.distance import pdist, squareform
from scipy.stats import binom
from sklearn.neighbors import NearestNeighbors

from coterie.errors import ConfigError, CoterieError, DataError, NumericalError
from coterie.lab.collaboration.drift import (
    Drift,
    implied_curvature,
    implied_tau,
    neighbourhood_drift,
    predicted_tau,
)
from coterie.lab.collaboration.masking import (
    contraction_line,
    contraction_probability,
    expansion_probability,
    expected_masked_distance,
    hoeffding_bounds,
    masking_geometry,
    nearest_pairs,
    pair_overlaps,
    random_pairs,
    simulate_masked_distance,
)
from coterie.lab.collaboration.posteriors import encode_users
from coterie.models.multvae import MultVAEConfig
from coterie.networks.multvae import MultVAE
from coterie.sparse import SparseRows
from test_sparse import DEVICES, sparse

keep_probs = st.sampled_from([0.1, 0.29, 0.5, 0.8, 1.0])
deltas = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
sizes = st.integers(0, 300)


def distribution(one: list[int], two: list[int], keep_prob: float) -> np.ndarray:
    """P(D_h = 0, 1, …) by every mask of both histories."""
    chance = np.zeros(len(one) + len(two) + 1)
    for mask in product((False, True), repeat=len(one) + len(two)):
        kept, other = (
            {i for i, keep in zip(items, part, strict=True) if keep}
            for items, part in ((one, mask[: len(one)]), (two, mask[len(one) :]))
        )
        chance[len(kept ^ other)] += keep_prob ** sum(mask) * (1 - keep_prob) ** (
            len(mask) - sum(mask)
        )
    return chance


@pytest.mark.parametrize("keep_prob", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(
    ("one", "two"),
    [([0, 1, 2], [2, 3, 4, 5, 6]), ([0, 1, 2, 3], [0, 1, 2, 3]), ([0, 1], [2]), ([], [1, 2])],
)
def test_probabilities_are_those_of_all_masks(
    one: list[int], two: list[int], keep_prob: float
) -> None:
    chance = distribution(one, two, keep_prob)
    distance = np.arange(len(chance))
    d, s = len(set(one) ^ set(two)), len(set(one) & set(two))
    assert expected_masked_distance(np.array(d), np.array(s), keep_prob) == pytest.approx(
        chance @ distance
    )
    for tenths in range(11):
        below, above = 10 * distance <= (10 - tenths) * d, 10 * distance >= (10 + tenths) * d
        assert contraction_probability(
            np.array(d), np.array(s), keep_prob, tenths / 10
        ) == pytest.approx(chance[below].sum())
        assert expansion_probability(
            np.array(d), np.array(s), keep_prob, tenths / 10
        ) == pytest.approx(chance[above].sum(), abs=1e-15)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, keep_probs, deltas)
def test_probabilities_are_those_of_two_binomials_convolved(
    d: int, s: int, keep_prob: float, delta: float
) -> None:
    chance = np.convolve(
        binom.pmf(np.arange(d + 1), d, keep_prob),
        binom.pmf(np.arange(s + 1), s, 2 * keep_prob * (1 - keep_prob)),
    )
    tenths, distance = round(10 * delta), np.arange(len(chance))
    below, above = (
        chance[10 * distance <= (10 - tenths) * d].sum(),
        chance[10 * distance >= (10 + tenths) * d].sum(),
    )
    pair = np.array([d]), np.array([s]), keep_prob, delta
    np.testing.assert_allclose(contraction_probability(*pair), below, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(expansion_probability(*pair), above, rtol=1e-9, atol=1e-14)
    contraction_bound, expansion_bound = hoeffding_bounds(*pair)
    assert contraction_probability(*pair) <= contraction_bound + 1e-12
    assert expansion_probability(*pair) <= expansion_bound + 1e-12
    mean = expected_masked_distance(*pair[:3])
    if (1 - delta) * d >= mean + 1:
        assert contraction_bound == 1


def test_hoeffding_s_bound_is_its_formula() -> None:
    below, above = hoeffding_bounds(
        np.array([100, 100]), np.array([0, 60]), 0.5, 0.7
    )  # means 50 and 80, events up to 30 and from 170 on
    np.testing.assert_allclose(below, np.exp([-2 * 20**2 / 100, -2 * 50**2 / 160]))
    np.testing.assert_allclose(above, np.exp([-2 * 120**2 / 100, -2 * 90**2 / 160]))


def test_pairs_of_any_shape_are_answered_one_by_one() -> None:
    rng = np.random.default_rng(1)
    d, s = rng.integers(0, 3000, (2, 50)), rng.integers(0, 600, 50)
    found = contraction_probability(d, s, 0.5, 0.3)
    assert found.shape == (2, 50)
    np.testing.assert_array_equal(found[1, 7], contraction_probability(d[1, 7], s[7], 0.5, 0.3))
    assert ((found >= 0) & (found <= 1)).all()


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.sampled_from([0.15, 0.29, 0.5, 0.8]))
def test_a_pair_comes_closer_in_the_mean_above_the_line(d: int, s: int, keep_prob: float) -> None:
    above = d > contraction_line(np.array(s), keep_prob)
    hundredths = round(100 * keep_prob)
    assert above == (hundredths * d * 100 + 2 * hundredths * (100 - hundredths) * s < 100 * 100 * d)
    assert contraction_line(np.array(50), 0.29) == 29


def test_one_shared_mask_never_pushes_apart() -> None:
    one, two = (
        sparse(np.array([[1, 1, 1, 1, 0, 0, 0.0]])),
        sparse(np.array([[0, 0, 1, 1, 1, 1, 1.0]])),
    )
    rng, keep_prob, d = np.random.default_rng(1), 0.6, 5
    masks = rng.random((20_000, 7)) < keep_prob
    drawn = (masks & np.isin(np.arange(7), [2, 3], invert=True)).sum(axis=1)
    assert (drawn <= d).all()
    assert expansion_probability(np.array(d), np.array(0), keep_prob, 0.1) == 0
    assert (drawn <= 4).mean() == pytest.approx(
        contraction_probability(np.array(d), np.array(0), keep_prob, 0.2).item(), abs=0.02
    )
    independent = simulate_masked_distance(
        one, two, keep_prob, 300, torch.Generator().manual_seed(1)
    )
    assert (independent > d).any()


@pytest.mark.parametrize("device", DEVICES)
def test_masked_histories_are_as_far_apart_as_the_exact_distribution_says(device: str) -> None:
    dense = np.random.default_rng(2).random((2, 3, 40)) < 0.4
    users, others = (sparse(side.astype(float), device) for side in dense)
    drawn = simulate_masked_distance(
        users, others, 0.3, 3000, torch.Generator(device).manual_seed(1)
    )
    assert drawn.shape == (3000, 3)
    for pair in range(3):
        d, s = (dense[0, pair] ^ dense[1, pair]).sum(), (dense[0, pair] & dense[1, pair]).sum()
        mean, spread = expected_masked_distance(d, s, 0.3), drawn[:, pair].std() / np.sqrt(3000)
        assert abs(drawn[:, pair].mean() - mean) < 4 * spread
        for delta in (0.5, 0.7, 0.8):
            exact = contraction_probability(d, s, 0.3, delta)
            assert (drawn[:, pair] <= (1 - delta) * d + 1e-9).mean() == pytest.approx(
                exact.item(), abs=0.04
            )
    assert (
        simulate_masked_distance(users, others, 1, 2, torch.Generator(device))
        == (dense[0] ^ dense[1]).sum(axis=1)
    ).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 12), st.integers(0, 999))
def test_overlaps_are_those_of_sets(n: int, m: int, n_items: int, seed: int) -> None:
    dense = np.random.default_rng(seed).random((n + m, n_items)) < 0.4
    d, s = pair_overlaps(csr_array(7.0 * dense[:n]), csr_array(dense[n:]))
    np.testing.assert_array_equal(d, (dense[:n, None] ^ dense[None, n:]).sum(axis=2))
    np.testing.assert_array_equal(s, (dense[:n, None] & dense[None, n:]).sum(axis=2))


def test_geometry_tells_of_each_pair_and_agrees_with_simulation() -> None:
    dense = np.random.default_rng(3).random((60, 50)) < np.random.default_rng(4).uniform(
        0.05, 0.6, (60, 1)
    )
    found = masking_geometry(csr_array(dense), 0.5, random_pairs(60, 400, 1), seed=1, delta=0.3)
    user, other = found.pairs.T
    assert (user != other).all()
    assert len(set(user)) == len(set(other)) == 60
    np.testing.assert_array_equal(found.d, (dense[user] ^ dense[other]).sum(axis=1))
    np.testing.assert_array_equal(found.s, (dense[user] & dense[other]).sum(axis=1))
    np.testing.assert_array_equal(
        found.contraction, contraction_probability(found.d, found.s, 0.5, 0.3)
    )
    np.testing.assert_array_equal(
        found.expansion, expansion_probability(found.d, found.s, 0.5, 0.3)
    )
    assert (found.contraction <= found.contraction_bound).all()
    assert (found.expansion <= found.expansion_bound).all()
    assert (found.shared_contraction >= found.contraction - 1e-12).all()
    assert found.share_contracting == (found.expected < found.d).mean()
    assert 0 < found.share_contracting < 1
    assert found.mean_contraction == pytest.approx(found.contraction.mean())
    assert found.mean_expansion == pytest.approx(found.expansion.mean())
    exact = np.stack([found.contraction, found.expansion], axis=1)[: len(found.simulated)]
    assert found.simulation_gap == pytest.approx(np.abs(found.simulated - exact).mean())
    assert 0.5 < found.simulation_gap / found.simulation_error < 1.2


def test_clean_histories_stay_where_they_are() -> None:
    found = masking_geometry(
        csr_array(np.eye(5) + np.ones((5, 5)) * (np.arange(5) < 2)),
        1.0,
        random_pairs(5, 10, 1),
        seed=1,
    )
    assert (found.contraction == 1).all()
    assert (found.simulated == 1).all()
    assert found.share_contracting == 0
    assert (found.expected == found.d).all()


def test_nearest_pairs_are_the_most_alike() -> None:
    dense = np.random.default_rng(3).random((30, 20)) < 0.3
    dense[:, 0] = True
    jaccard = pdist(dense, "jaccard")
    nearest = np.where(np.eye(30, dtype=bool), np.inf, squareform(jaccard)).argmin(axis=1)
    np.testing.assert_array_equal(
        nearest_pairs(csr_array(dense)), np.stack([np.arange(30), nearest], axis=1)
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"keep_prob": 0.0}, ConfigError),
        ({"keep_prob": 1.1}, ConfigError),
        ({"delta": -0.1}, ConfigError),
        ({"n_pairs": 0}, DataError),
    ],
)
def test_geometry_refuses_what_it_cannot_honour(
    arguments: dict[str, float], error: type[CoterieError]
) -> None:
    asked = {"keep_prob": 0.5, "delta": 0.0, "n_pairs": 3} | arguments
    with pytest.raises(error, match="found"):
        masking_geometry(
            csr_array(np.ones((3, 4))),
            asked["keep_prob"],
            random_pairs(3, int(asked["n_pairs"]), 1),
            seed=1,
            delta=asked["delta"],
        )


def test_one_user_makes_no_pair() -> None:
    with pytest.raises(DataError, match="found 1"):
        random_pairs(1, 3, 1)
    with pytest.raises(DataError, match="found 1"):
        nearest_pairs(csr_array(np.ones((1, 4))))


def network_and_rows(n_users: int = 12, device: str = "cpu") -> tuple[MultVAE, SparseRows]:
    network = (
        MultVAEConfig(hidden_dims=(8,), latent_dim=4)
        .build(30, torch.Generator().manual_seed(1))
        .double()
        .to(device)
    )
    dense = np.random.default_rng(5).random((n_users, 30)) < 0.4
    dense[:, 0] = True
    return network, sparse(dense.astype(float), device)


def drift(
    keep_prob: float = 0.5, k: int = 3, n_draws: int = 4, *, n_users: int = 12, device: str = "cpu"
) -> Drift:
    network, rows = network_and_rows(n_users, device)
    centroids = torch.ones(n_users, 4, dtype=torch.float64, device=device)
    return neighbourhood_drift(
        network, rows, keep_prob=keep_prob, k=k, n_draws=n_draws, seed=3, centroids=centroids
    )


def test_drift_is_that_of_sets_and_sums_written_out() -> None:
    network, rows = network_and_rows()
    generator = torch.Generator().manual_seed(3)
    mu = np.stack(
        [
            encode_users(network, rows, keep_prob=0.5, generator=generator).mu.numpy()
            for _ in range(4)
        ]
    )

    def near(points: np.ndarray) -> list[set[int]]:
        return [
            set(row)
            for row in NearestNeighbors(n_neighbors=3).fit(points).kneighbors(return_distance=False)
        ]

    def jaccard(one: list[set[int]], two: list[set[int]]) -> list[float]:
        return [len(a & b) / len(a | b) for a, b in zip(one, two, strict=True)]

    found, masked, clean = (
        drift(),
        [near(one) for one in mu],
        near(encode_users(network, rows).mu.numpy()),
    )
    np.testing.assert_allclose(
        found.overlap, np.mean([jaccard(*pair) for pair in combinations(masked, 2)], axis=0)
    )
    np.testing.assert_allclose(
        found.clean_overlap, np.mean([jaccard(one, clean) for one in masked], axis=0)
    )
    variance = ((mu - mu.mean(axis=0)) ** 2).sum(axis=2).sum(axis=0) / 3
    np.testing.assert_allclose(found.variance, variance)
    assert found.within == pytest.approx(np.sqrt(variance.mean()))
    assert found.between == pytest.approx(np.sqrt((pdist(mu.mean(axis=0)) ** 2).mean()))
    assert found.ratio == pytest.approx(found.within / found.between)
    assert found.centroid_distance is not None
    np.testing.assert_allclose(found.centroid_distance, np.linalg.norm(mu - 1, axis=2).mean(axis=0))
    assert 0 < found.overlap.mean() < 1


@pytest.mark.parametrize("device", DEVICES)
def test_clean_inputs_do_not_drift(device: str) -> None:
    found = drift(keep_prob=1, n_draws=7, device=device)
    assert (found.overlap == 1).all()
    assert (found.clean_overlap == 1).all()
    assert found.within == found.ratio == 0
    assert found.between > 0


def test_harder_masks_drift_more() -> None:
    mild, hard = drift(keep_prob=0.9, n_draws=8), drift(keep_prob=0.3, n_draws=8)
    assert hard.overlap.mean() < mild.overlap.mean()
    assert hard.ratio > mild.ratio


def test_a_collapsed_model_has_no_ratio() -> None:
    network, rows = network_and_rows()
    with torch.no_grad():
        for weights in network.encoder.parameters():
            weights.zero_()
    found = neighbourhood_drift(network, rows, keep_prob=0.5, k=3, n_draws=2, seed=1)
    assert found.between == 0
    assert np.isnan(found.ratio)
    assert found.centroid_distance is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"k": 12},
        {"k": 0},
        {"n_users": 1},
        {"n_draws": 1},
        {"keep_prob": 0.0},
        {"keep_prob": 1.5},
        {"keep_prob": -0.5},
    ],
)
def test_drift_refuses_what_it_cannot_honour(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="found"):
        drift(**arguments)  # type: ignore[arg-type]


@given(st.floats(0.01, 100), st.floats(0.01, 10), st.floats(0.1, 10))
def test_curvature_fitted_at_one_weight_predicts_the_others(
    curvature: float, fitted: float, other: float
) -> None:
    tau = curvature / (curvature + 2 * fitted)
    assert implied_tau(3.0, 3.0 * tau**2) == pytest.approx(tau)
    found = implied_curvature(tau, fitted)
    assert found == pytest.approx(curvature)
    assert predicted_tau(found, other) == pytest.approx(curvature / (curvature + 2 * other))


def test_where_nothing_shrank_nothing_is_predicted_to() -> None:
    assert predicted_tau(implied_curvature(implied_tau(1.0, 1.2), 1.0), 5.0) == 1
    with pytest.raises(NumericalError, match=r"found 0.0 without"):
        implied_tau(0.0, 0.0)
