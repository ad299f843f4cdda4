"""Bounds of planned looks and the confidence sequence: published tables, SciPy, simulated paths."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from coterie.errors import ConfigError
from coterie.experiment.statistics import (
    Effect,
    Moments,
    Spending,
    always_valid_p,
    bounds,
    compare,
    crossing,
    information_fractions,
    look,
    sequence_bounds,
    spent,
    watch,
)

FIVE = [0.2, 0.4, 0.6, 0.8, 1.0]

rising = st.lists(st.floats(0.02, 0.3), min_size=1, max_size=6).map(np.cumsum)


def effect_of(shift: float, n: int = 400, seed: int = 0) -> Effect:
    rng = np.random.default_rng(seed)
    made = (rng.normal(1 + one, 1, n) for one in (shift, 0))
    return compare(*(Moments.of(np.stack([one, np.ones(n)], axis=1)) for one in made))


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        ("obrien-fleming", [4.877, 3.357, 2.680, 2.290, 2.031]),
        ("pocock", [2.438, 2.427, 2.410, 2.397, 2.386]),
    ],
)
def test_bounds_are_the_published_ones(spending: Spending, published: list[float]) -> None:
    """Proschan, Lan and Wittes (2006), Statistical Monitoring of Clinical Trials, for 5 looks."""
    np.testing.assert_allclose(bounds(FIVE, 0.05, spending), published, atol=6e-4)


@pytest.mark.parametrize(
    ("n_looks", "pocock", "obrien_fleming"),
    [
        (1, 1.960, 1.960),
        (2, 2.178, 1.977),
        (3, 2.289, 2.004),
        (5, 2.413, 2.040),
        (10, 2.555, 2.087),
    ],
)
def test_crossing_is_five_percent_of_the_classical_constants(
    n_looks: int, pocock: float, obrien_fleming: float
) -> None:
    """Jennison and Turnbull (2000), Group Sequential Methods, tables 2.1 and 2.3."""
    fractions = np.arange(1, n_looks + 1) / n_looks
    for critical in (np.full(n_looks, pocock), obrien_fleming / np.sqrt(fractions)):
        assert crossing(fractions, critical, 0.0).sum() == pytest.approx(0.05, abs=1.5e-4)


@pytest.mark.parametrize("drift", [0.0, 2.5, -4.0])
def test_crossing_is_that_of_the_multivariate_normal_law(drift: float) -> None:
    fractions, critical = np.array([0.3, 0.45, 1.0]), np.array([2.6, 2.3, 2.0])
    correlation = np.sqrt(np.minimum.outer(fractions, fractions) / np.maximum.outer(
        fractions, fractions
    ))  # fmt: skip
    mean = drift * np.sqrt(fractions)
    inside = stats.multivariate_normal.cdf(
        critical, mean, correlation, abseps=1e-7, lower_limit=-critical
    )
    assert crossing(fractions, critical, drift).sum() == pytest.approx(1 - inside, abs=1e-5)


def test_crossing_is_that_of_simulated_paths() -> None:
    fractions, critical = np.array([0.59, 0.82, 0.93, 1.0]), bounds([0.59, 0.82, 0.93, 1.0])
    rng = np.random.default_rng(0)
    steps = np.diff(fractions, prepend=0)
    paths = np.cumsum(rng.normal(2.0 * steps, np.sqrt(steps), (100_000, 4)), axis=1)
    beyond = np.abs(paths / np.sqrt(fractions)) >= critical
    first = [(beyond.argmax(axis=1)[beyond.any(axis=1)] == k).sum() / 1e5 for k in range(4)]
    np.testing.assert_allclose(crossing(fractions, critical, 2.0), first, atol=0.006)


@given(rising, st.floats(0.001, 0.3), st.sampled_from(["obrien-fleming", "pocock"]))
@settings(max_examples=40, deadline=None)
def test_bounds_spend_what_is_due(fractions: np.ndarray, alpha: float, spending: Spending) -> None:
    used = np.cumsum(crossing(fractions, bounds(fractions, alpha, spending), 0.0))
    np.testing.assert_allclose(used, spent(fractions, alpha, spending), atol=1e-8)
    ended = crossing(fractions, bounds(fractions, alpha, spending, last=True), 0.0)
    assert ended.sum() == pytest.approx(alpha, abs=1e-8)


@given(rising)
@settings(max_examples=20, deadline=None)
def test_bounds_do_not_depend_on_later_looks(fractions: np.ndarray) -> None:
    whole = bounds(fractions)
    for n in range(1, len(fractions) + 1):
        np.testing.assert_array_equal(bounds(fractions[:n]), whole[:n])


def test_spent_rises_to_alpha() -> None:
    for spending in ("obrien-fleming", "pocock"):
        used = spent(np.linspace(0.01, 1.5, 50), 0.05, spending)
        assert (np.diff(used) >= 0).all()
        assert used[-1] == pytest.approx(0.05)
    z = stats.norm.isf(0.05 / 4)
    assert spent([0.4])[0] == pytest.approx(4 - 4 * stats.norm.cdf(z / math.sqrt(0.4)))


def test_one_look_is_a_fixed_horizon() -> None:
    assert bounds([1.0])[0] == pytest.approx(stats.norm.isf(0.025))
    assert bounds([0.6], last=True)[0] == pytest.approx(stats.norm.isf(0.025))
    assert crossing([1.0], bounds([1.0]), 2.8).sum() == pytest.approx(
        stats.norm.sf(1.96 - 2.8), abs=1e-3
    )


def test_over_running_spends_the_rest_and_leaves_nothing() -> None:
    found = bounds([0.5, 1.2, 1.3])
    assert np.isinf(found[2])
    assert crossing([0.5, 1.2], found[:2], 0.0).sum() == pytest.approx(0.05)


@pytest.mark.parametrize("n_looks", [2, 3, 10])
@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_looks_without_new_information_hold_alpha(n_looks: int, spending: Spending) -> None:
    """One statistic, seen again and again, crosses where it is beyond the lowest bound."""
    found = bounds([0.5] * n_looks, 0.05, spending, last=True)
    assert np.isfinite(found[-1])
    assert 0.045 < 2 * stats.norm.sf(found.min()) < 0.0505


def test_a_very_early_look_cannot_stop() -> None:
    assert bounds([0.0001, 1.0])[0] == math.inf
    assert bounds([0.0001, 1.0])[1] == pytest.approx(1.96, abs=1e-3)
    outcome = look(effect_of(1.0), [0.0001])
    assert not outcome.stop
    assert outcome.effect.low == -math.inf
    certain = replace(effect_of(1.0), p_value=0.0)
    assert not look(certain, [0.0001]).crossed
    assert look(certain, [0.4]).crossed


@pytest.mark.parametrize("fractions", [[], [0.0, 1.0], [0.5, 0.4]])
def test_bounds_refuse_fractions_that_are_none(fractions: list[float]) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        bounds(fractions)


def test_bounds_and_sequences_refuse_an_alpha_of_one() -> None:
    for one in (bounds, sequence_bounds):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            one([0.5], 1.0)


@pytest.mark.parametrize("errors", [[], [0.1, 0.0], [math.nan]])
def test_information_refuses_errors_that_are_none(errors: list[float]) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        information_fractions(errors, 0.1)


def test_information_never_falls() -> None:
    found = information_fractions([0.2, 0.1, 0.11, 0.05], 0.1)
    np.testing.assert_allclose(found, [0.25, 1.0, 1.0, 4.0])


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.15, 0.2, 0.3])
@pytest.mark.parametrize("fraction", [0.3, 0.7, 1.0])
def test_a_look_crosses_where_its_interval_leaves_zero_out(shift: float, fraction: float) -> None:
    effect = effect_of(shift)
    for outcome in (look(effect, [0.2, fraction]), watch(effect, fraction)):
        assert outcome.crossed == (outcome.effect.low > 0 or outcome.effect.high < 0)
        assert outcome.crossed == (abs(outcome.statistic) >= outcome.bound)
        assert outcome.effect.difference == effect.difference
        assert outcome.effect.high - outcome.effect.low > effect.high - effect.low


def test_a_look_is_final_at_the_planned_information_or_where_it_is_the_last() -> None:
    effect = effect_of(0.0)
    assert not look(effect, [0.5, 0.9]).stop
    assert look(effect, [0.5, 1.01]).final
    assert look(effect, [0.5, 0.9], last=True).stop
    assert not watch(effect, 5.0).final


def test_sequence_is_the_published_boundary() -> None:
    """Waudby-Smith et al. (2024), eq. 8, for a mean of t observations with unit variance."""
    t, alpha = np.array([50.0, 400.0, 3000.0]), 0.05
    rho2 = (optimize.brentq(lambda tau: tau - math.log((1 + tau) / alpha**2), 1, 100)) / 400
    radius = np.sqrt(2 * (t * rho2 + 1) / (t**2 * rho2) * np.log(np.sqrt(t * rho2 + 1) / alpha))
    np.testing.assert_allclose(sequence_bounds(t / 400, alpha), radius * np.sqrt(t), rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_sequence_is_tightest_at_the_planned_information(alpha: float) -> None:
    near = sequence_bounds([0.9, 1.0, 1.1], alpha)
    assert near[1] < min(near[0], near[2])
    assert near[1] > stats.norm.isf(alpha / 2)


def test_sequence_is_wrong_in_at_most_alpha_however_often_one_looks() -> None:
    daily = np.arange(1, 29) / 28
    assert crossing(daily, sequence_bounds(daily), 0.0).sum() < 0.02
    often = np.geomspace(1e-4, 1e4, 200)
    for alpha in (0.05, 0.2):
        wrong = crossing(often, sequence_bounds(often, alpha), 0.0).sum()
        assert 0.5 * alpha < wrong < alpha


@given(st.floats(0.01, 6), st.floats(0.05, 3), st.sampled_from([0.01, 0.05, 0.2]))
def test_always_valid_p_agrees_with_the_sequence(z: float, fraction: float, alpha: float) -> None:
    p = always_valid_p(z, fraction, alpha)
    assert 0 < p <= 1
    assert p == always_valid_p(-z, fraction, alpha)
    assert always_valid_p(z + 0.1, fraction, alpha) <= p
    bound = sequence_bounds([fraction], alpha)[0]
    assert always_valid_p(bound, fraction, alpha) == pytest.approx(alpha)
