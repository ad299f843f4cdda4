"""PIA's variants against sums written out user by user, and trained as the results book does."""

from dataclasses import replace
from pathlib import Path
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
from coterie.lab.ablations.alignment import (
    alignment_parts,
    count_weights,
    nearest_alignment,
    rarity_weights,
    recency_weights,
)
from coterie.lab.ablations.variant import AblationConfig, AlignmentVariant, VariantConfig
from coterie.models.multvae import MultVAEConfig
from coterie.objectives.alignment import alignment
from coterie.running.execution import Execution
from coterie.running.world import World
from coterie.simulation.service import simulate_dataset
from coterie.sparse import SparseRows
from coterie.training.loop import TrainingLoop
from coterie.training.randomness import NOISE, seeded
from coterie.training.step import TrainingStep
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
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


def weighted_alignment(mu: Tensor, logvar: Tensor, anchors: Tensor, rows: SparseRows) -> Tensor:
    return torch.stack(alignment_parts(mu, logvar, anchors, rows)).sum(dim=0)


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
    for some in (rows, even):
        torch.testing.assert_close(
            alignment(mu, logvar, anchors, rows), sum(alignment_parts(mu, logvar, anchors, some))
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
    published = weighted_alignment(mu, logvar, anchors, rows)
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
            weighted_alignment(mu, logvar, anchors, rows)
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
COUNTED = replace(
    DATA,
    interactions=replace(
        DATA.interactions, counts=np.arange(len(DATA.interactions.indices)) % 4 + 1
    ),
)


def vae(**variant: Any) -> VariantConfig:
    return VariantConfig(
        hidden_dims=(8,), latent_dim=4, pia=0.3, variant=AlignmentVariant(**variant)
    )


def run_of(model: VariantConfig, **training: Any) -> AblationConfig:
    return AblationConfig(model=model, training=TrainingConfig(epochs=2, **training))


def first_term(config: MultVAEConfig, rows: SparseRows) -> float:
    return float(TrainingStep(20, config, TrainingConfig(seed=1))(rows)["pia"])


def test_parts_left_out_are_not_in_the_loss() -> None:
    rows = sparse(random_dense(8, 20, 5))
    alone = {
        part: first_term(vae(parts=(part,)), rows)
        for part in ("alignment", "shrinkage", "attraction")
    }
    assert first_term(vae(), rows) == pytest.approx(sum(alone.values()), rel=1e-5)
    assert min(alone.values()) > 0


def test_a_variant_without_difference_is_the_published_loss_to_the_bit() -> None:
    plain = MultVAEConfig(hidden_dims=(8,), latent_dim=4, pia=0.3)
    rows = sparse(random_dense(8, 20, 5))
    one, other = (TrainingStep(20, config) for config in (plain, vae()))
    for _ in range(3):
        one(rows)
        other(rows)
    for name, value in one.state().items():
        assert torch.equal(value, other.state()[name]), name


def test_tied_anchors_are_projections_of_the_layers_weights() -> None:
    for tied, layer in (("encoder", "input"), ("decoder", "output")):
        step = TrainingStep(20, vae(anchors=tied), TrainingConfig(seed=1))
        assert step.alignment is not None
        projection = step.alignment.anchors
        assert projection.shape == (8, 4)
        weight = getattr(step.network, layer).weight
        assert step.anchors is not None
        torch.testing.assert_close(step.anchors, weight @ projection)
        before = weight.detach().clone()
        step(sparse(random_dense(8, 20, 5)))
        assert not torch.equal(before, weight)


def test_schedules_rise_and_fall_linearly_and_stay() -> None:
    rows = sparse(random_dense(8, 20, 5))
    weights: dict[str, list[float]] = {}
    for schedule in ("rise", "fall"):
        step = TrainingStep(20, vae(schedule=schedule, steps=3), TrainingConfig(seed=1))
        assert step.alignment is not None
        weights[schedule] = []
        for _ in range(5):
            weights[schedule].append(step.alignment.weight(step.n_steps))
            terms = step(rows)
            weighed = weights[schedule][-1] * float(terms["pia"])
            beta = 0.2 * (step.n_steps - 1) / 1000
            assert float(terms["loss"]) == pytest.approx(
                float(terms["nll"]) + beta * float(terms["kl"]) + weighed, rel=1e-5
            )
    assert weights["rise"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.3])
    assert weights["fall"] == pytest.approx([0.3, 0.2, 0.1, 0, 0])


def test_activity_weighs_every_users_term() -> None:
    """As much a history as the likelihood: at 1 a sum over its items, as that is."""
    dense = random_dense(8, 20, 5)
    dense[3] = 0
    rows, n = sparse(dense), torch.from_numpy((dense != 0).sum(axis=1)).float()
    mu, logvar = torch.randn(2, 8, 4, generator=seeded(0, NOISE, 0))

    def terms(activity: float) -> torch.Tensor:
        step = TrainingStep(20, vae(activity=activity), TrainingConfig(seed=1))
        assert step.alignment is not None
        return step.alignment.loss(mu, logvar, rows).detach()

    for activity in (0.5, 1.0):
        torch.testing.assert_close(terms(activity), terms(0.0) * n**activity)
    assert terms(1.0)[3] == 0


def test_weights_of_the_centroid_reach_the_step() -> None:
    rarity, recency, often, none = (
        TrainingLoop(COUNTED, run_of(vae(**options)), Execution("cpu")).rows.values
        for options in ({"rarity": 0.5}, {"half_life": 30.0}, {"counts": 2.0}, {})
    )
    assert rarity is not None
    assert recency is not None
    assert often is not None
    assert none is None
    popularity = np.asarray(DATA.train.sum(axis=0))
    np.testing.assert_allclose(rarity.numpy(), popularity[DATA.train.indices] ** -0.5, rtol=1e-6)
    assert DATA.train_timestamps is not None
    row = int(np.argmax(np.diff(DATA.train.indptr)))
    span = slice(*DATA.train.indptr[row : row + 2])
    days = (DATA.train_timestamps[span].max() - DATA.train_timestamps[span]) / 86400
    np.testing.assert_allclose(recency.numpy()[span], 0.5 ** (days / 30), rtol=1e-5)
    assert COUNTED.train_counts is not None
    np.testing.assert_array_equal(often.numpy(), COUNTED.train_counts**2)


@pytest.mark.parametrize("size", [2, 7])
def test_weighted_terms_of_all_shares_add_up(size: int) -> None:
    """Several processes: each takes the weights of its own users along."""
    rows = sparse(random_dense(5, 20, 0))
    weights = torch.rand(len(rows.indices), generator=torch.Generator().manual_seed(1)) + 0.1
    batch = SparseRows(rows.indices, rows.offsets, 20, weights)

    def term(world: World) -> Tensor:
        step = TrainingStep(20, vae(), execution=Execution("cpu", world=world))
        return step.objective(batch, 0.5, seeded(0, NOISE, 0), 0)[1]["pia"]

    shares = [term(World(rank, size)) for rank in range(size)]
    torch.testing.assert_close(torch.stack(shares).sum(), term(World()))


def test_recency_needs_times() -> None:
    x = DATA.interactions
    timeless = Dataset(type(x)(x.users, x.items, x.indptr, x.indices), DATA.split)
    with pytest.raises(ConfigError, match="needs times"):
        train(timeless, run_of(vae(half_life=3.0)))


def test_counts_need_repetitions() -> None:
    with pytest.raises(ConfigError, match="more than once"):
        train(DATA, run_of(vae(counts=1.0)))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"pia": 0}, "pia"),
        ({"variant": {"schedule": "rise"}}, "go together"),
        ({"variant": {"steps": 3}}, "go together"),
        ({"variant": {"temperature": 1.0, "parts": ["alignment"]}}, "needs all parts"),
        ({"variant": {"parts": ["alignment", "alignment"]}}, "each part once"),
        ({"variant": {"parts": []}}, "parts"),
        ({"variant": {"anchors": "both"}}, "anchors"),
        ({"variant": {"rarety": 1.0}}, "rarety"),
    ],
)
def test_options_that_would_be_ignored_or_contradict_are_refused(
    values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        AblationConfig.of({"model": {"name": "mult-vae", **values}})


def test_tied_anchors_are_refused_with_sparse_updates() -> None:
    with pytest.raises(ConfigError, match="anchors of their own"):
        run_of(vae(anchors="encoder"), sparse_updates=True)


BASE = {"schedule": "rise", "steps": 8}
OTHER: dict[str, Any] = {
    "parts": ("alignment", "attraction"),
    "schedule": "fall",
    "steps": 6,
    "rarity": 0.5,
    "half_life": 7.0,
    "counts": 1.0,
    "activity": 0.5,
    "temperature": 1.0,
    "anchors": "encoder",
}


def weights_of(**variant: Any) -> dict[str, Tensor]:
    return train(COUNTED, run_of(vae(**variant), batch_size=60)).network.state_dict()


@pytest.mark.parametrize("field", list(AlignmentVariant.model_fields))
def test_changing_any_field_of_a_variant_changes_something(field: str) -> None:
    before, after = weights_of(**BASE), weights_of(**{**BASE, field: OTHER[field]})
    assert all(torch.equal(value, weights_of(**BASE)[name]) for name, value in before.items())
    assert not all(torch.equal(value, after[name]) for name, value in before.items())


def test_what_a_variant_trained_is_served_as_a_plain_model(tmp_path: Path) -> None:
    config = run_of(vae(anchors="decoder"))
    model = train(DATA, config, out=tmp_path / "run")
    loaded = TrainedModel.load(tmp_path / "run")
    assert type(loaded.config) is RunConfig
    assert loaded.config.model == MultVAEConfig(hidden_dims=(8,), latent_dim=4, pia=0.3)
    assert torch.equal(loaded.score(DATA.train[:5]), model.score(DATA.train[:5]))
    # The run itself is of that variant and of no other.
    assert train(DATA, config, out=tmp_path / "run", resume=True).config == loaded.config
    with pytest.raises(ConfigError, match="anchors was 'decoder', now 'encoder'"):
        train(DATA, run_of(vae(anchors="encoder")), out=tmp_path / "run", resume=True)
