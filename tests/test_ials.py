"""iALS: the fold-in against the library's own and against plain normal equations, the fit against
its loss.
"""

import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_array, csr_matrix

from coterie.errors import ConfigError, NumericalError
from coterie.models.ials import IalsConfig
from coterie.networks import ials
from test_sparse import DEVICES, random_dense, sparse

CONFIG = IalsConfig(factors=6, regularization=0.7, alpha=4, iterations=8, seed=3)
X = random_dense(120, 25, 0)
TRAIN = csr_array(X.astype(np.float32))


def normal_equations(
    factors: np.ndarray, history: np.ndarray, alpha: float, regularization: float
) -> np.ndarray:
    """The least squares problem itself, a weight for every item, without any shortcut."""
    y = factors.astype(np.float64)
    weight = np.where(history > 0, alpha, 1.0)
    return np.linalg.solve(
        y.T @ (weight[:, None] * y) + regularization * np.eye(y.shape[1]), y.T @ (weight * history)
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("alpha", [0.3, 1, 4, 100])
@pytest.mark.parametrize("regularization", [0.1, 30])
def test_user_factors_solve_the_normal_equations(
    device: str, alpha: float, regularization: float
) -> None:
    config = CONFIG.model_copy(update={"alpha": alpha, "regularization": regularization})
    model, asked = config.fit(TRAIN).to(device), random_dense(9, 25, 1)
    factors = model.factors.cpu().numpy()
    expected = np.stack(
        [normal_equations(factors, history, alpha, regularization) for history in asked]
    )
    found = model.user_factors(sparse(asked, device)).cpu().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(
        model.score(sparse(asked, device)).cpu().numpy(), expected @ factors.T, rtol=1e-3, atol=1e-4
    )


def test_user_factors_are_the_librarys() -> None:
    model, asked = CONFIG.fit(TRAIN), random_dense(9, 25, 1)
    library = AlternatingLeastSquares(factors=6, regularization=0.7, alpha=4, num_threads=1)
    library.item_factors = model.factors.numpy()
    expected = library.recalculate_user(np.arange(9), csr_matrix(asked, dtype=np.float32))
    np.testing.assert_allclose(
        model.user_factors(sparse(asked)).numpy(), expected, rtol=1e-3, atol=1e-5
    )


def loss(x: np.ndarray, users: np.ndarray, items: np.ndarray, config: IalsConfig) -> float:
    errors = np.where(x > 0, config.alpha, 1) * (x - users @ items.T) ** 2
    return float(errors.sum() + config.regularization * ((users**2).sum() + (items**2).sum()))


def test_fit_minimises_the_loss() -> None:
    """Item factors, too, solve their own equations in the end, given the users' of the fold-in."""
    model = CONFIG.model_copy(update={"iterations": 300}).fit(TRAIN)
    users, items = model.user_factors(sparse(X)).numpy(), model.factors.numpy()
    best = np.stack(
        [normal_equations(users, column, CONFIG.alpha, CONFIG.regularization) for column in X.T]
    )
    np.testing.assert_allclose(items, best, atol=0.01 * np.abs(best).max())
    assert loss(X, users, items, CONFIG) <= 1.0001 * loss(X, users, best, CONFIG)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 1000))
def test_a_users_factors_are_exactly_the_same_in_any_block(n_users: int, seed: int) -> None:
    model, asked = CONFIG.fit(TRAIN), random_dense(n_users, 25, seed)
    together = model.user_factors(sparse(asked))
    assert together.shape == (n_users, 6)
    for row, history in enumerate(asked):
        assert torch.equal(model.user_factors(sparse(history[None]))[0], together[row])


def test_users_are_solved_for_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = CONFIG.fit(TRAIN), sparse(random_dense(23, 25, 5))
    whole = model.user_factors(rows)
    for numbers in (1, 36 * 4):
        monkeypatch.setattr(ials, "_NUMBERS_AT_ONCE", numbers)
        assert torch.equal(model.user_factors(rows), whole)


def test_an_empty_history_scores_zero() -> None:
    assert (CONFIG.fit(TRAIN).score(sparse(np.zeros((2, 25)))) == 0).all()


def test_fit_is_a_function_of_the_seed_alone() -> None:
    one, threads = CONFIG.fit(TRAIN), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        again = CONFIG.fit(TRAIN)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.factors, again.factors)
    assert not torch.equal(one.factors, CONFIG.model_copy(update={"seed": 4}).fit(TRAIN).factors)


def test_fit_changes_no_argument_and_warns_of_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = TRAIN.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CONFIG.fit(TRAIN)
    assert (before != TRAIN).nnz == 0
    assert capfd.readouterr() == ("", "")


def test_equations_beyond_float32_are_a_numerical_error() -> None:
    model = IalsConfig(factors=2, regularization=1e-30).empty(4)
    model.gram.zero_()
    with pytest.raises(NumericalError, match="regularization = 1e-30"):
        model.score(sparse(np.eye(4)))


def test_a_missing_package_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(
        ConfigError, match=r"needs the package implicit; pip install 'coterie\[baselines\]'"
    ):
        CONFIG.fit(TRAIN)
