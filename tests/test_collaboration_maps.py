"""Maps against planted clusters, scikit-learn's and SciPy's own, and movements that are known."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from coterie.errors import ConfigError, DataError, NumericalError
from coterie.lab.collaboration.maps import align, cohort_picks, pca_map, tsne_map

needs_opentsne = pytest.mark.usefixtures("_opentsne")


@pytest.fixture(scope="module")
def _opentsne() -> None:
    pytest.importorskip("openTSNE")


def clusters(
    n_each: int, latent_dim: int = 20, n_clusters: int = 4, seed: int = 0
) -> tuple[Tensor, np.ndarray, Tensor]:
    """Users of planted clusters, their cluster, and the centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(n_clusters, latent_dim, generator=generator)
    cluster = torch.arange(n_clusters).repeat_interleave(n_each)
    return (
        centres[cluster] + 0.5 * torch.randn(len(cluster), latent_dim, generator=generator),
        cluster.numpy(),
        centres,
    )


def agreement(points: np.ndarray, cluster: np.ndarray) -> float:
    """Share of users whose five nearest in the map are mostly of their own cluster."""
    vote = KNeighborsClassifier(5).fit(points, cluster)
    return float((vote.predict(points) == cluster).mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pca_is_that_of_scikit_learn(dtype: torch.dtype) -> None:
    points = clusters(30)[0].to(dtype)
    found, expected = pca_map(points), PCA(2, svd_solver="full").fit(points.double().numpy())
    turned = expected.transform(points.double().numpy())
    np.testing.assert_allclose(
        found.points, turned * np.sign((turned * found.points).sum(axis=0)), atol=1e-9
    )
    np.testing.assert_allclose(found.shares, expected.explained_variance_ratio_, atol=1e-12)
    np.testing.assert_allclose(found.axes.T @ found.axes, np.eye(2), atol=1e-12)
    assert (found.axes[np.abs(found.axes).argmax(axis=0), [0, 1]] > 0).all()


def test_pca_places_further_points_as_its_own() -> None:
    points, _, centres = clusters(30)
    found = pca_map(points)
    np.testing.assert_array_equal(found.transform(points), found.points)
    assert found.transform(centres).shape == (4, 2)
    assert found.transform(centres[:0]).shape == (0, 2)


def test_pca_of_one_user_of_equal_users_and_of_one_dimension() -> None:
    for points in (torch.full((1, 3), 0.1), torch.full((9, 3), 0.1)):
        found = pca_map(points)
        assert not found.points.any()
        assert not found.shares.any()
    line = pca_map(torch.tensor([[1.0], [3.0]]))
    assert (line.points.tolist(), line.shares.tolist()) == ([[-1.0, 0.0], [1.0, 0.0]], [1.0, 0.0])


@needs_opentsne
def test_tsne_keeps_planted_clusters_apart_and_puts_anchors_among_their_own() -> None:
    points, cluster, centres = clusters(60)
    found = tsne_map(points, seed=1)
    assert agreement(found.points, cluster) > 0.99
    anchors = found.transform(centres)
    assert (cluster[cdist(anchors, found.points).argmin(axis=1)] == np.arange(4)).all()
    own = np.array([found.points[cluster == c].mean(axis=0) for c in range(4)])
    assert (cdist(anchors, own).diagonal() < 0.2 * np.ptp(found.points, axis=0).max()).all()
    # Placing points leaves the map where it was, and is the same a second time.
    np.testing.assert_allclose(found.transform(centres), anchors, atol=1e-9)
    np.testing.assert_allclose(found.embedding, found.points, atol=1e-12)
    assert found.transform(centres[:0]).shape == (0, 2)
    assert found.transform(centres[:1]).shape == (1, 2)


@needs_opentsne
def test_tsne_on_the_grid_for_many_users() -> None:
    points, cluster, centres = clusters(500)
    found = tsne_map(points, seed=1)
    assert agreement(found.points, cluster) > 0.99
    assert (
        cluster[cdist(found.transform(centres), found.points).argmin(axis=1)] == np.arange(4)
    ).all()


@needs_opentsne
def test_tsne_repeats_bit_for_bit_with_a_seed() -> None:
    points = clusters(20)[0]
    first, again, other = (tsne_map(points, perplexity=10, seed=seed).points for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@needs_opentsne
@pytest.mark.parametrize("factor", [1e-12, 1e9])
def test_tsne_does_not_depend_on_the_unit_of_latent_space(factor: float) -> None:
    points, cluster, _ = clusters(20)
    assert (
        agreement(tsne_map(factor * points + factor, perplexity=10, seed=1).points, cluster) > 0.99
    )


@needs_opentsne
def test_tsne_from_another_map_keeps_its_layout() -> None:
    points, _, _ = clusters(40)
    first = tsne_map(points, seed=1).points
    turned = first @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    apart, alike = (
        tsne_map(points, seed=2).points,
        tsne_map(points, seed=2, initial=1000 * turned).points,
    )
    assert np.corrcoef(alike.ravel(), turned.ravel())[0, 1] > 0.9
    assert np.corrcoef(apart.ravel(), turned.ravel())[0, 1] < 0.5


@needs_opentsne
@pytest.mark.parametrize("n", [10, 11, 13, 31])
def test_tsne_of_few_users_lowers_perplexity_and_says_so(n: int) -> None:
    points = torch.randn(n, 3, generator=torch.Generator().manual_seed(n))
    found = tsne_map(points, seed=1)
    assert found.points.shape == (n, 2)
    assert np.isfinite(found.points).all()
    assert np.isfinite(found.transform(points[:2])).all()
    assert found.perplexity == (n - 1) / 3


@needs_opentsne
@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_tsne_of_a_collapsed_model_is_one_point(noise: float) -> None:
    points = 0.1 + noise * torch.randn(
        50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    found = tsne_map(points, seed=1)
    assert not found.points.any()
    assert not found.transform(torch.ones(3, 4)).any()


@needs_opentsne
def test_tsne_stands_users_who_are_equal() -> None:
    points = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).repeat_interleave(
        30, dim=0
    )
    found = tsne_map(points, perplexity=5, seed=1, initial=np.zeros((120, 2)))
    assert np.isfinite(found.points).all()
    assert agreement(found.points, np.arange(4).repeat(30)) > 0.99
    one_apart = torch.zeros(60, 5)
    one_apart[7] = 1.0
    assert np.isfinite(tsne_map(one_apart, perplexity=5, seed=1).points).all()


@needs_opentsne
def test_tsne_refuses_what_it_cannot_draw() -> None:
    points = clusters(5)[0]
    with pytest.raises(DataError, match="at least 10 users, found 9"):
        tsne_map(points[:9], seed=1)
    with pytest.raises(ConfigError, match="perplexity must be at least 1"):
        tsne_map(points, perplexity=0.5, seed=1)
    with pytest.raises(ConfigError, match="initial map"):
        tsne_map(points, seed=1, initial=np.zeros((3, 2)))
    with pytest.raises(ConfigError, match="initial map"):
        tsne_map(points, seed=1, initial=np.full((20, 2), np.nan))
    with pytest.raises(NumericalError, match="must be finite"):
        tsne_map(points * torch.nan, seed=1)


def test_tsne_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    with pytest.raises(ConfigError, match=r"pip install 'coterie\[analysis\]'"):
        tsne_map(clusters(5)[0], seed=1)


def test_pca_refuses_nobody_and_what_is_not_finite() -> None:
    with pytest.raises(DataError, match="at least one user"):
        pca_map(torch.zeros(0, 3))
    with pytest.raises(NumericalError, match="must be finite"):
        pca_map(torch.tensor([[1.0, torch.inf]]))


@settings(max_examples=50, deadline=None)
@given(
    angle=st.floats(0, 2 * np.pi),
    mirrored=st.booleans(),
    scale=st.floats(1e-6, 1e6),
    shift=st.floats(-1e3, 1e3),
    seed=st.integers(0, 1000),
)
def test_align_undoes_any_movement(
    angle: float, mirrored: bool, scale: float, shift: float, seed: int
) -> None:
    reference = np.random.default_rng(seed).normal(loc=3, size=(12, 2))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) @ np.diag(
        [1, -1 if mirrored else 1]
    )
    moved = scale * (reference @ turn + [shift, -shift])
    move = align(moved, reference)
    # Coordinates around 1e3 lose three digits when the shift is subtracted again.
    np.testing.assert_allclose(move.apply(moved), reference, atol=1e-10)
    assert move.disparity == pytest.approx(0, abs=1e-10)
    assert move.scale == pytest.approx(1 / scale)


def test_align_has_the_disparity_of_scipy_and_does_not_shrink_what_disagrees() -> None:
    points, reference = np.random.default_rng(1).normal(size=(2, 40, 2))
    move = align(points, 5 * reference)
    assert move.disparity == pytest.approx(procrustes(reference, points)[2])
    assert move.disparity > 0.5
    placed = move.apply(points)
    np.testing.assert_allclose(placed.mean(axis=0), 5 * reference.mean(axis=0))
    assert np.square(placed - placed.mean(axis=0)).sum() == pytest.approx(
        25 * np.square(reference - reference.mean(axis=0)).sum()
    )


def test_align_may_keep_lengths() -> None:
    reference = np.random.default_rng(1).normal(size=(40, 2))
    move = align(reference / 10, reference, rescale=False)
    assert move.scale == 1
    assert move.disparity == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(
        cdist(move.apply(reference / 10), move.apply(reference / 10)),
        cdist(reference, reference) / 10,
    )


def test_align_of_a_single_point_only_shifts() -> None:
    healthy, collapsed = np.random.default_rng(1).normal(size=(20, 2)), np.full((20, 2), 0.1)
    np.testing.assert_allclose(
        align(collapsed, healthy).apply(collapsed), np.tile(healthy.mean(axis=0), (20, 1))
    )
    np.testing.assert_allclose(
        align(healthy, collapsed).apply(healthy), healthy - healthy.mean(axis=0) + 0.1
    )
    assert align(healthy, collapsed).disparity == align(collapsed, collapsed).disparity == 1


def test_align_refuses_maps_of_other_users() -> None:
    with pytest.raises(DataError, match="of the same users"):
        align(np.zeros((3, 2)), np.zeros((4, 2)))


def test_cohort_picks_are_the_closest_and_of_equals_the_lowest() -> None:
    n_interactions = np.array([5, 700, 5, 49, 51, 5, 350, 340])
    picks = {
        target: rows.tolist() for target, rows in cohort_picks(n_interactions, n_each=2).items()
    }
    assert picks == {5: [0, 2], 50: [3, 4], 350: [6, 7]}
    assert cohort_picks(n_interactions, (5,), n_each=99)[5].shape == (8,)
    with pytest.raises(ConfigError, match="n_each must be at least 1"):
        cohort_picks(n_interactions, n_each=0)
