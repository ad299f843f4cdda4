"""ImplicitSLIM against its dense objective, and in training."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from coterie.models.multvae import MultVAEConfig
from coterie.networks.implicit_slim import draw_together, implicit_slim
from coterie.running.progress import Update
from coterie.training.step import TrainingStep
from coterie.training.trainer import train
from test_sparse import random_dense
from test_training import DATA, QUICK_DAE, QUICK_REC, QUICK_VAE, config, same_weights

MODELS = {"vae": QUICK_VAE, "dae": QUICK_DAE, "recvae": QUICK_REC}


def metric_of(dense: np.ndarray, l2: float) -> np.ndarray:
    """(I - B)(I - B)ᵀ of EASE, with 1 / (n_i + λ) as the diagonal of the inverse."""
    inverse = np.linalg.inv(dense.T @ dense + l2 * np.eye(dense.shape[1]))
    rebuilt = inverse * (dense.sum(axis=0) + l2)
    matrix: np.ndarray = rebuilt @ rebuilt.T
    return matrix


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(1, 3), st.floats(0.5, 50), st.integers(0, 10_000))
def test_nothing_that_stays_in_place_is_rebuilt_better(
    n_items: int, dim: int, l2: float, seed: int
) -> None:
    dense = random_dense(20, n_items, seed, density=0.4).astype(float)
    vectors = np.random.default_rng(seed).standard_normal((n_items, min(dim, n_items)))
    drawn, metric = implicit_slim(vectors, csr_array(dense), l2), metric_of(dense, l2)
    np.testing.assert_allclose(vectors.T @ drawn, vectors.T @ vectors, rtol=1e-6, atol=1e-8)
    # At the least, the gradient has no part along which WᵀV stays what it is.
    basis = np.linalg.qr(vectors)[0]
    gradient = metric @ drawn
    along = gradient - basis @ (basis.T @ gradient)
    assert np.abs(along).max() <= 1e-6 * max(np.abs(gradient).max(), 1e-3)


def test_items_that_nobody_has_together_stay_as_they_are() -> None:
    vectors = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
    drawn = implicit_slim(vectors, csr_array(np.eye(4, dtype=np.float32)), l2=3.0)
    np.testing.assert_allclose(drawn, vectors, atol=1e-6)


def test_items_of_one_taste_come_together() -> None:
    dense = np.kron(np.eye(2), np.ones((10, 4)))
    vectors = np.random.default_rng(1).standard_normal((8, 3))
    spread = [
        np.square(groups - groups.mean(axis=1, keepdims=True)).sum()
        for groups in (
            vectors.reshape(2, 4, 3),
            implicit_slim(vectors, csr_array(dense), l2=1.0).reshape(2, 4, 3),
        )
    ]
    assert spread[1] < 0.5 * spread[0]


def test_a_dimension_of_zeros_stays_zero() -> None:
    vectors = np.random.default_rng(2).standard_normal((6, 3))
    vectors[:, 1] = 0
    drawn = implicit_slim(vectors, csr_array(random_dense(9, 6, 1).astype(float)), l2=2.0)
    assert np.isfinite(drawn).all()
    np.testing.assert_allclose(drawn[:, 1], 0, atol=1e-9)


def test_both_layers_of_items_are_drawn() -> None:
    model = config(QUICK_VAE).model
    assert isinstance(model, MultVAEConfig)
    network = TrainingStep(DATA.n_items, model).network
    before = [layer.weight.detach().numpy().copy() for layer in (network.input, network.output)]
    draw_together(network, DATA.train, l2=10.0)
    ones = DATA.train.astype(np.float32)
    for layer, weight in zip((network.input, network.output), before, strict=True):
        expected = implicit_slim(weight, ones, 10.0)
        np.testing.assert_array_equal(layer.weight.detach().numpy(), expected)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("stopped_after", [2.0, 2.4])
def test_a_run_that_stops_goes_on_to_the_same_bits(
    name: str, stopped_after: float, tmp_path: Path
) -> None:
    asked = config(MODELS[name], epochs=4, implicit_slim=2, slim_l2=10.0)
    whole = train(DATA, asked)

    def leave(update: Update) -> None:
        if update.done >= stopped_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(DATA, asked, out=tmp_path, progress=leave, checkpoint_seconds=0)
    assert same_weights(train(DATA, asked, out=tmp_path, resume=True), whole)
    assert not same_weights(train(DATA, config(MODELS[name], epochs=4)), whole)
