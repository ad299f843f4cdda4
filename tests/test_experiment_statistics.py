"""Moments and ratios: against tea-tasting, NumPy and SciPy, then what must hold of any numbers."""

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coterie.errors import ConfigError, DataError
from coterie.experiment.statistics import Effect, Moments, compare, sample_ratio
from coterie.experiment.statistics.ratios import adjustment, level

NAMES = ("y", "x", "y_before", "x_before")
WELCH = {"equal_var": False, "use_t": True}


def users(n: int, lift: float, seed: int) -> np.ndarray:
    """Clicks and views of users who differ, now and before; some were not there before."""
    rng = np.random.default_rng(seed)
    often, rate = rng.lognormal(2, 1, n), rng.beta(2, 18, n)
    views, before = 1 + rng.poisson(often), rng.poisson(often) * (rng.random(n) < 0.8)
    clicks = rng.binomial(views, np.minimum(rate * (1 + lift), 1))
    return np.stack([clicks, views, rng.binomial(before, rate), before], axis=1).astype(float)


def arms(seed: int) -> tuple[np.ndarray, np.ndarray]:
    return users(700, 0.2, seed), users(900, 0.0, seed + 1000)


def oracle(
    metric: tt.Mean | tt.RatioOfMeans, treatment: np.ndarray, control: np.ndarray
) -> dict[str, float]:
    table = {name: np.r_[control[:, i], treatment[:, i]] for i, name in enumerate(NAMES)}
    table["variant"] = np.repeat([0, 1], [len(control), len(treatment)])
    return dict(tt.Experiment(metric=metric).analyze(pa.table(table))["metric"]._asdict())


def as_oracle(effect: Effect) -> dict[str, float]:
    return {
        "control": effect.control,
        "treatment": effect.treatment,
        "effect_size": effect.difference,
        "effect_size_ci_lower": effect.low,
        "effect_size_ci_upper": effect.high,
        "rel_effect_size": effect.lift,
        "rel_effect_size_ci_lower": effect.lift_low,
        "rel_effect_size_ci_upper": effect.lift_high,
        "pvalue": effect.p_value,
        "statistic": effect.statistic,
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cuped", [False, True])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_compare_of_ratios_is_tea_tastings(seed: int, cuped: bool, confidence: float) -> None:
    treatment, control = arms(seed)
    metric = tt.RatioOfMeans(*NAMES[: 4 if cuped else 2], confidence_level=confidence, **WELCH)
    found = compare(Moments.of(treatment), Moments.of(control), confidence=confidence, cuped=cuped)
    expected = oracle(metric, treatment, control)
    assert as_oracle(found) == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("cuped", [False, True])
def test_compare_of_means_is_tea_tastings(cuped: bool) -> None:
    treatment, control = arms(7)
    for one in (treatment, control):
        one[:, [1, 3]] = 1
    metric = tt.Mean("y", "y_before" if cuped else None, **WELCH)
    found = compare(Moments.of(treatment), Moments.of(control), cuped=cuped)
    expected = oracle(metric, treatment, control)
    assert as_oracle(found) == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_compare_of_means_is_scipys_welch() -> None:
    treatment, control = arms(8)
    for one in (treatment, control):
        one[:, 1] = 1
    effect = compare(Moments.of(treatment[:, :2]), Moments.of(control[:, :2]))
    expected = stats.ttest_ind(treatment[:, 0], control[:, 0], equal_var=False)
    found = effect.statistic, effect.p_value, effect.degrees
    assert found == pytest.approx((expected.statistic, expected.pvalue, expected.df), rel=1e-9)
    interval = expected.confidence_interval()
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_level_has_the_variance_of_linearised_users() -> None:
    columns, _ = arms(1)
    y, x = columns[:, 0], columns[:, 1]
    found = level(Moments.of(columns[:, :2]))
    residual = y - y.sum() / x.sum() * x
    assert found.value == pytest.approx(y.sum() / x.sum(), rel=1e-12)
    assert found.variance == pytest.approx(residual.var(ddof=1) / x.mean() ** 2, rel=1e-9)


def test_cuped_takes_away_what_is_correlated() -> None:
    both = users(20_000, 0.0, 3)
    effect = compare(Moments.of(both[:10_000]), Moments.of(both[10_000:]), cuped=True)
    y, x, y_before, x_before = both.T
    now = y - y.sum() / x.sum() * x
    before = y_before - y_before.sum() / x_before.sum() * x_before
    rho = np.corrcoef(now, before)[0, 1]
    assert rho > 0.3
    assert effect.variance_reduction == pytest.approx(rho**2, abs=0.01)


@pytest.mark.parametrize("before", [(0.0, 0.0), (0.0, 1.0), (1.0, 2.0)])
def test_cuped_subtracts_nothing_where_before_says_nothing(before: tuple[float, float]) -> None:
    treatment, control = arms(2)
    for one in (treatment, control):
        one[:, 2:] = before
    moments = Moments.of(treatment), Moments.of(control)
    assert compare(*moments, cuped=True) == compare(*moments)


def test_cuped_needs_days_before() -> None:
    treatment, control = (Moments.of(one[:, :2]) for one in arms(2))
    with pytest.raises(ConfigError, match="CUPED needs four columns"):
        compare(treatment, control, cuped=True)
    with pytest.raises(ConfigError, match="CUPED needs four columns"):
        adjustment(control)


@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(0.01, 100))
@settings(max_examples=25, deadline=None)
def test_compare_is_alike_in_other_units_and_mirrored(seed: int, up: float, down: float) -> None:
    treatment, control = map(Moments.of, arms(seed))
    effect, mirrored = compare(treatment, control), compare(control, treatment)
    units = np.array([up, down, 1, 1])
    scaled = compare(*(Moments.of(one * units) for one in arms(seed)))
    for name in ("lift", "lift_low", "lift_high", "p_value", "statistic", "degrees"):
        assert getattr(scaled, name) == pytest.approx(getattr(effect, name), rel=1e-6, abs=1e-9)
    assert mirrored.p_value == pytest.approx(effect.p_value)
    assert mirrored.lift_low == pytest.approx(1 / (1 + effect.lift_high) - 1)


def test_at_level_is_the_interval_of_that_confidence() -> None:
    treatment, control = map(Moments.of, arms(4))
    effect = compare(treatment, control)
    expected = compare(treatment, control, confidence=0.8)
    assert vars(effect.at_level(0.2)) == pytest.approx(vars(expected), rel=1e-12)
    boundary = effect.at_level(effect.p_value)
    assert min(abs(boundary.low), abs(boundary.high)) == pytest.approx(0, abs=1e-9)
    assert effect.at_level(0.0).low == -math.inf
    assert effect.at_level(0.0).lift_low == -1


def test_normal_statistic_has_the_same_p_value() -> None:
    effect = compare(*map(Moments.of, arms(5)))
    assert 2 * stats.norm.sf(abs(effect.normal_statistic)) == pytest.approx(effect.p_value)
    assert np.sign(effect.normal_statistic) == np.sign(effect.difference)


def test_compare_without_a_click_says_nothing() -> None:
    nothing = Moments.of(np.stack([np.zeros(50), np.arange(1.0, 51)], axis=1))
    clicks = Moments.of(np.stack([np.arange(50) % 2, np.arange(1.0, 51)], axis=1))
    effect = compare(nothing, nothing)
    assert (effect.difference, effect.p_value, effect.statistic) == (0, 1, 0)
    assert math.isnan(effect.lift)
    from_nothing = compare(clicks, nothing)
    assert math.isnan(from_nothing.lift)
    assert math.isnan(from_nothing.lift_high)
    assert from_nothing.p_value < 0.01
    to_nothing = compare(nothing, clicks)
    assert to_nothing.lift == -1
    assert math.isnan(to_nothing.lift_low)


def test_compare_without_spread_is_certain() -> None:
    one, two = (Moments.of(np.full((9, 2), [clicks, 10.0])) for clicks in (1.0, 2.0))
    effect = compare(two, one)
    assert (effect.p_value, effect.low, effect.lift_low) == (0, effect.difference, 1)


@pytest.mark.parametrize("columns", [np.ones((1, 2)), np.zeros((5, 2)), np.empty((0, 2))])
def test_compare_refuses_an_arm_without_users_or_views(columns: np.ndarray) -> None:
    _, control = arms(0)
    with pytest.raises(DataError, match="two users at least"):
        compare(Moments.of(columns), Moments.of(control[:, :2]))


def test_compare_refuses_a_confidence_of_one() -> None:
    treatment, control = map(Moments.of, arms(0))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        compare(treatment, control, confidence=1.0)


@pytest.mark.parametrize(("counts", "ratio"), [((5100, 4900), 1), ((40_000, 21_000), 0.5)])
def test_sample_ratio_is_tea_tastings(counts: tuple[int, int], ratio: float) -> None:
    table = pa.table({"variant": np.repeat([0, 1], counts)})
    metric = tt.SampleRatio(ratio, method="norm", correction=False)
    expected = tt.Experiment(metric=metric).analyze(table)["metric"].pvalue
    assert sample_ratio(counts, [1, ratio]) == pytest.approx(expected, rel=1e-8)


def test_sample_ratio_of_three_arms_is_scipys() -> None:
    counts, weights = [500, 260, 240], [2, 1, 1]
    expected = stats.chisquare(counts, np.array(weights) * 250).pvalue
    assert sample_ratio(counts, weights) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("counts", "weights"), [([5], [1]), ([5, 5], [1]), ([5, 5], [1, 0]), ([0, 0], [1, 1])]
)
def test_sample_ratio_refuses(counts: list[int], weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="a sample ratio needs"):
        sample_ratio(counts, weights)


def test_moments_are_numpys() -> None:
    columns, _ = arms(6)
    found = Moments.of(columns)
    assert (found.n, found.k) == (700, 4)
    np.testing.assert_allclose(found.mean, columns.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(columns, rowvar=False), rtol=1e-10)


@given(st.lists(st.integers(0, 60), max_size=4), st.integers(0, 1000), st.floats(-1e7, 1e7))
@settings(deadline=None)
def test_moments_of_parts_add_up(cuts: list[int], seed: int, far: float) -> None:
    """Also where means are far from zero, and with empty parts and parts of one user."""
    columns = np.random.default_rng(seed).normal(size=(60, 3)) + far
    parts = [Moments.of(part) for part in np.split(columns, sorted(cuts))]
    total, whole = sum(parts[1:], parts[0]), Moments.of(columns)
    assert total.n == whole.n
    np.testing.assert_allclose(total.mean, whole.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(total.covariance, whole.covariance, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Moments.of(np.ones(3)), r"\[users, columns\]"),
        (lambda: Moments.of(np.array([[1.0, math.nan]])), "must be finite"),
        (lambda: Moments(3, np.ones(2), np.ones((3, 3))), r"\[k, k\]"),
        (lambda: Moments.of(np.ones((3, 2))) + Moments.of(np.ones((3, 4))), "same columns"),
    ],
)
def test_moments_refuse(make: Callable[[], Moments], words: str) -> None:
    with pytest.raises(DataError, match=words):
        make()
