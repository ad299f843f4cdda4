"""PIA's variants against sums written out user by user."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import Tensor

from coterie.config import RunConfig, TrainingConfig
from coterie.data.dataset import Dataset
from coterie.errors import ConfigError
from coterie.models.multvae import MultVAEConfig
from coterie.objectives.alignment import (
    alignment,
    alignment_parts,
    count_weights,
    nearest_alignment,
    rarity_weights,
    recency_weights,
)
from coterie.running.execution import Execution
from coterie.simulation.service import simulate_dataset
from coterie.sparse import SparseRows
from coterie.training.step import TrainingStep
from coterie.training.trainer import Descent, train
from test_sparse import random_dense, sparse

sizes = given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 5), st.integers(0, 999))


def case(
    n_users: int, n_items: int, latent_dim: int, seed: int, *, weighted: bool = True
) -> tuple[Tensor, Tensor, Tensor, SparseRows]:
    rng = np.random.default_rng(seed)
    mu, logvar = (torch.tensor(rng.normal(size=(n_users, latent_dim))) for _ in range(2))
    rows = sparse(random_dense(n_users, n_items, seed))
    values = torch.tensor(rng.uniform(0.1, 3, len(rows.indices))) if weighted else None
    return (
        mu,
        logvar,
        torch.tensor(rng.normal(size=(n_items, latent_dim))),
        SparseRows(rows.indices, rows.offsets, n_items, values),
    )


def users(rows: SparseRows) -> list[tuple[np.ndarray, np.ndarray]]:
    """Items and normalised weights of every user."""
    values = np.ones(len(rows.indices)) if rows.values is None else rows.values.numpy()
    spans = zip(rows.offsets[:-1].tolist(), rows.offsets[1:].tolist(), strict=True)
    return [
        (rows.indices[a:b].numpy(), values[a:b] / values[a:b].sum() if b > a else values[a:b])
        for a, b in spans
    ]


@settings(max_examples=40, deadline=None)
@sizes
def test_weighted_parts_are_the_sums_written_out(
    n_users: int, n_items: int, latent_dim: int, seed: int
) -> None:
    mu, logvar, anchors, rows = case(n_users, n_items, latent_dim, seed)
    found = alignment_parts(mu, logvar, anchors, rows)
    for user, (items, weight) in enumerate(users(rows)):
        own = anchors[items].numpy()
        centroid = weight @ own
        scatter = weight @ (own - centroid).__pow__(2).sum(axis=1) if len(items) else 0.0
        expected = (
            [((mu[user].numpy() - centroid) ** 2).sum(), logvar[user].exp().sum().item(), scatter]
            if len(items)
            else [0, 0, 0]
        )
        np.testing.assert_allclose(
            [part[user].item() for part in found], expected, rtol=1e-9, atol=1e-9
        )


@settings(max_examples=40, deadline=None)
@sizes
def test_alignment_is_the_sum_of_its_parts_and_even_weights_are_none(
    n_users: int, n_items: int, latent_dim: int, seed: int
) -> None:
    mu, logvar, anchors, rows = case(n_users, n_items, latent_dim, seed, weighted=False)
    even = SparseRows(
        rows.indices,
        rows.offsets,
        n_items,
        torch.full((len(rows.indices),), 2.5, dtype=torch.float64),
    )
    torch.testing.assert_close(
        alignment(mu, logvar, anchors, rows), sum(alignment_parts(mu, logvar, anchors, rows))
    )
    torch.testing.assert_close(
        alignment(mu, logvar, anchors, rows), alignment(mu, logvar, anchors, even)
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(0, 999),
    st.floats(1e-2, 1e3),
)
def test_nearest_alignment_is_the_soft_minimum(
    n_users: int, n_items: int, latent_dim: int, seed: int, temperature: float
) -> None:
    mu, logvar, anchors, rows = case(n_users, n_items, latent_dim, seed)
    found = nearest_alignment(mu, logvar, anchors, rows, temperature)
    for user, (items, weight) in enumerate(users(rows)):
        distance = ((mu[user] - anchors[items]) ** 2).sum(dim=1).numpy()
        expected = (
            -temperature * logsumexp(-distance / temperature, b=weight)
            + logvar[user].exp().sum().item()
            if len(items)
            else 0.0
        )
        assert found[user].item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_nearest_alignment_runs_from_the_nearest_anchor_to_the_published_loss() -> None:
    mu, logvar, anchors, rows = case(20, 9, 4, 3)
    hot, cold = (
        nearest_alignment(mu, logvar, anchors, rows, 1e7),
        nearest_alignment(mu, logvar, anchors, rows, 1e-4),
    )
    published = alignment(mu, logvar, anchors, rows)
    torch.testing.assert_close(hot, published, rtol=1e-4, atol=1e-4)
    assert (cold <= published + 1e-9).all()
    for user, (items, _) in enumerate(users(rows)):
        if len(items):
            nearest = ((mu[user] - anchors[items]) ** 2).sum(dim=1).min() + logvar[user].exp().sum()
            assert cold[user].item() == pytest.approx(nearest.item(), abs=1e-2)


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_variants_have_the_numerical_gradient_also_with_an_empty_history(
    temperature: float | None,
) -> None:
    mu, logvar, anchors, rows = case(5, 7, 3, 11)
    assert 0 in rows.counts

    def loss(mu: Tensor, logvar: Tensor, anchors: Tensor) -> Tensor:
        return (
            alignment(mu, logvar, anchors, rows)
            if temperature is None
            else nearest_alignment(mu, logvar, anchors, rows, temperature)
        )

    leaves = [leaf.requires_grad_() for leaf in (mu, logvar, anchors)]
    assert torch.autograd.gradcheck(loss, leaves)


def test_rarity_weights_are_powers_of_the_popularity() -> None:
    np.testing.assert_allclose(rarity_weights(np.array([0, 1, 4, 100]), 0.5), [1, 1, 0.5, 0.1])
    np.testing.assert_array_equal(rarity_weights(np.array([3, 7]), 0.0), [1, 1])


def test_recency_weights_halve_with_every_half_life_before_the_last() -> None:
    days = np.array([5, 2, 8, 1, 1]) * 86400
    found = recency_weights(days, np.array([0, 0, 3, 3, 5, 5]), half_life=3.0)
    np.testing.assert_allclose(found, [0.5, 0.25, 1, 1, 1])
    assert (recency_weights(np.array([0, 10**9]), np.array([0, 2]), half_life=0.001) > 0).all()


def test_count_weights_are_powers_of_the_counts() -> None:
    np.testing.assert_allclose(count_weights(np.array([1, 4, 100]), 0.5), [1, 2, 10])
    np.testing.assert_array_equal(count_weights(np.array([3, 7]), 0.0), [1, 1])


# In the step.

DATA = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=2)


def vae(**pia: Any) -> MultVAEConfig:
    return MultVAEConfig(hidden_dims=(8,), latent_dim=4, pia=0.3, **pia)


def first_term(config: MultVAEConfig, rows: SparseRows, step: TrainingStep | None = None) -> float:
    return float((step or TrainingStep(20, config, TrainingConfig(seed=1)))(rows)["pia"])


def test_parts_left_out_are_not_in_the_loss() -> None:
    rows = sparse(random_dense(8, 20, 5))
    alone = {
        part: first_term(vae(pia_parts=(part,)), rows)
        for part in ("alignment", "shrinkage", "attraction")
    }
    assert first_term(vae(), rows) == pytest.approx(sum(alone.values()), rel=1e-5)
    assert min(alone.values()) > 0


def test_tied_anchors_are_projections_of_the_layers_weights() -> None:
    for tied, layer in (("encoder", "input"), ("decoder", "output")):
        step = TrainingStep(20, vae(pia_anchors=tied), TrainingConfig(seed=1))
        assert step.anchors is not None
        assert step.anchors.shape == (8, 4)
        weight = getattr(step.network, layer).weight
        torch.testing.assert_close(step.anchor_points(), weight @ step.anchors)
        before = weight.detach().clone()
        step(sparse(random_dense(8, 20, 5)))
        assert not torch.equal(before, weight)


def test_schedules_rise_and_fall_linearly_and_stay() -> None:
    rows = sparse(random_dense(8, 20, 5))
    told: dict[str, list[float]] = {}
    for schedule in ("rise", "fall"):
        step = TrainingStep(20, vae(pia_schedule=schedule, pia_steps=3), TrainingConfig(seed=1))
        told[schedule] = []
        for _ in range(5):
            told[schedule].append(step.pia_weight)
            terms = step(rows)
            weighed = told[schedule][-1] * float(terms["pia"])
            beta = 0.2 * (step.n_steps - 1) / 1000
            assert float(terms["loss"]) == pytest.approx(
                float(terms["nll"]) + beta * float(terms["kl"]) + weighed, rel=1e-5
            )
    assert told["rise"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.3])
    assert told["fall"] == pytest.approx([0.3, 0.2, 0.1, 0, 0])


def test_weights_of_the_centroid_reach_the_step() -> None:
    counts = np.arange(len(DATA.interactions.indices)) % 4 + 1
    counted = replace(DATA, interactions=replace(DATA.interactions, counts=counts))
    rarity, recency, often = (
        Descent(counted, RunConfig(model=vae(**options)), Execution("cpu")).rows.values
        for options in ({"pia_rarity": 0.5}, {"pia_half_life": 30.0}, {"pia_counts": 2.0})
    )
    assert rarity is not None
    assert recency is not None
    assert often is not None
    popularity = np.asarray(DATA.train.sum(axis=0))
    np.testing.assert_allclose(rarity.numpy(), popularity[DATA.train.indices] ** -0.5, rtol=1e-6)
    assert DATA.train_timestamps is not None
    row = int(np.argmax(np.diff(DATA.train.indptr)))
    span = slice(*DATA.train.indptr[row : row + 2])
    days = (DATA.train_timestamps[span].max() - DATA.train_timestamps[span]) / 86400
    np.testing.assert_allclose(recency.numpy()[span], 0.5 ** (days / 30), rtol=1e-5)
    assert counted.train_counts is not None
    np.testing.assert_array_equal(often.numpy(), counted.train_counts**2)


def test_recency_needs_times() -> None:
    x = DATA.interactions
    timeless = Dataset(type(x)(x.users, x.items, x.indptr, x.indices), DATA.split)
    with pytest.raises(ConfigError, match="needs times"):
        train(timeless, RunConfig(model=vae(pia_half_life=3.0)))


def test_counts_need_repetitions() -> None:
    with pytest.raises(ConfigError, match="more than once"):
        train(DATA, RunConfig(model=vae(pia_counts=1.0)))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"pia": 0, "pia_rarity": 0.5}, "needs pia above 0"),
        ({"pia_rarity": 0.5}, "needs pia above 0"),
        ({"pia": 1, "pia_schedule": "rise"}, "go together"),
        ({"pia": 1, "pia_steps": 3}, "go together"),
        ({"pia": 1, "pia_temperature": 1.0, "pia_parts": ["alignment"]}, "needs all of pia_parts"),
        ({"pia": 1, "pia_parts": ["alignment", "alignment"]}, "each part once"),
        ({"pia": 1, "pia_parts": []}, "pia_parts"),
        ({"pia": 1, "pia_anchors": "both"}, "pia_anchors"),
    ],
)
def test_options_that_would_be_ignored_or_contradict_are_refused(
    values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        RunConfig.of({"model": {"name": "mult-vae", **values}})


def test_tied_anchors_are_refused_with_sparse_updates() -> None:
    with pytest.raises(ConfigError, match="anchors of their own"):
        TrainingStep(20, vae(pia_anchors="encoder"), TrainingConfig(sparse_updates=True))
