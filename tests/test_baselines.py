"""The closed forms against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from coterie.errors import ConfigError, NumericalError
from coterie.models.ease import EaseConfig
from coterie.models.popularity import PopularityConfig
from coterie.networks import sweep
from coterie.networks.popularity import Popularity
from test_sparse import random_dense, sparse


def ridge_without_itself(x: np.ndarray, l2: float) -> np.ndarray:
    """Each item regressed on all the others by least squares on the augmented system: no inverse of
    the Gram matrix.
    """
    n_items = x.shape[1]
    weights = np.zeros((n_items, n_items))
    for item in range(n_items):
        others = np.delete(np.arange(n_items), item)
        system = np.vstack([x[:, others], np.sqrt(l2) * np.eye(n_items - 1)])
        target = np.concatenate([x[:, item], np.zeros(n_items - 1)])
        weights[others, item] = np.linalg.lstsq(system, target, rcond=None)[0]
    return weights


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(2, 30), st.integers(0, 1000), st.floats(0.1, 100))
def test_ease_is_ridge_regression_of_each_item_on_the_others(
    n_users: int, n_items: int, seed: int, l2: float
) -> None:
    x = random_dense(n_users, n_items, seed)
    weight = EaseConfig(l2=l2).fit(csr_array(x.astype(np.float32))).weight
    np.testing.assert_allclose(weight.numpy(), ridge_without_itself(x, l2), rtol=1e-4, atol=1e-5)
    assert (weight.diagonal() == 0).all()


@pytest.mark.parametrize("columns", [1, 3, 20])
@pytest.mark.parametrize("n_users", [50, 14])
def test_ease_is_the_same_whatever_is_filled_at_once(
    monkeypatch: pytest.MonkeyPatch, n_users: int, columns: int
) -> None:
    x = csr_array(random_dense(n_users, 20, 0).astype(np.float32))
    whole = EaseConfig(l2=5).fit(x).weight
    monkeypatch.setattr(sweep, "AT_ONCE", columns)
    assert torch.equal(EaseConfig(l2=5).fit(x).weight, whole)


def test_ease_may_shun_popular_items() -> None:
    dense = random_dense(50, 20, 0).astype(np.float32)
    dense[:, 3] = 0
    x = csr_array(dense)
    plain, shunning = (
        EaseConfig(l2=5, popularity_exponent=exponent).fit(x).weight.numpy()
        for exponent in (0, 0.5)
    )
    np.testing.assert_allclose(
        shunning, plain / np.sqrt(np.maximum(dense.sum(axis=0), 1)), rtol=1e-6
    )


def test_ease_scores_are_the_history_times_its_weights() -> None:
    x, asked = random_dense(50, 20, 0), random_dense(7, 20, 1)
    model = EaseConfig(l2=5).fit(csr_array(x.astype(np.float32)))
    expected = asked @ ridge_without_itself(x, 5)
    np.testing.assert_allclose(model.score(sparse(asked)).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert (model.score(sparse(asked))[0] == 0).all()


def test_ease_item_vectors_are_what_an_item_is_predicted_from() -> None:
    model = EaseConfig(l2=5).fit(csr_array(random_dense(50, 8, 0).astype(np.float32)))
    for item, vector in enumerate(model.item_vectors()):
        one_hot = np.eye(8)
        assert torch.equal(vector, model.score(sparse(one_hot))[:, item])


@pytest.mark.parametrize("x", [np.ones((5, 3)), np.ones((3, 5)), np.eye(3, 5)])
def test_ease_refuses_a_matrix_it_cannot_invert(x: np.ndarray) -> None:
    twins = csr_array(x.astype(np.float32))
    with pytest.raises(NumericalError, match="l2"):
        EaseConfig(l2=1e-300).fit(twins)


def test_popularity_counts_training_users() -> None:
    x = random_dense(40, 9, 3)
    model = PopularityConfig().fit(csr_array(x.astype(np.float32)))
    scores = model.score(sparse(random_dense(4, 9, 0)))
    assert scores.tolist() == [x.sum(axis=0).tolist()] * 4


def test_popularity_answers_belong_to_the_caller() -> None:
    model = PopularityConfig().fit(csr_array(np.ones((2, 3), dtype=np.float32)))
    model.score(sparse(np.ones((2, 3)))).fill_(-1)
    assert model.counts.tolist() == [2, 2, 2]


def test_popularity_has_no_item_vectors() -> None:
    with pytest.raises(ConfigError, match="learned item vectors"):
        Popularity(3).item_vectors()
