"""Plans and probabilities: against tea-tasting and closed forms, and what was promised held against
simulated experiments.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt
from scipy import stats

from coterie.errors import ConfigError
from coterie.experiment.statistics import (
    Effect,
    Moments,
    Plan,
    Spending,
    bounds,
    compare,
    crossing,
    probability_better,
)
from coterie.simulation.panel import PanelLaw

PROBE = (1, 2, 4, 7, 14, 28)
NAMES = ("y", "x", "y_before", "x_before")


@pytest.fixture(scope="module")
def columns() -> dict[int, np.ndarray]:
    panel = PanelLaw(n_users=20_000).draw(seed=1)
    return {days: panel.columns("clicks_per_view", days) for days in PROBE}


@pytest.fixture(scope="module")
def plan(columns: dict[int, np.ndarray]) -> Plan:
    return Plan({days: Moments.of(one) for days, one in columns.items()}, share=0.1)


def of_tea_tasting(
    columns: np.ndarray, parameter: Any, *, cuped: bool, **options: Any
) -> tuple[float, float, int]:
    metric = tt.RatioOfMeans(
        *NAMES[: 4 if cuped else 2], equal_var=False, use_t=True, ratio=1, **options
    )
    table = pa.table(dict(zip(NAMES, columns.T, strict=True)))
    (found,) = metric.solve_power(table, parameter)
    return found.power, found.rel_effect_size, found.n_obs


@pytest.mark.parametrize("cuped", [False, True])
@pytest.mark.parametrize("lift", [0.04, -0.1])
def test_power_and_users_are_tea_tastings(
    columns: dict[int, np.ndarray], plan: Plan, lift: float, cuped: bool
) -> None:
    """There a lift is a difference by the level; here it counts as ln(1 + lift)."""
    plan = replace(plan, cuped=cuped)
    options: dict[str, Any] = {"rel_effect_size": math.log1p(lift), "n_obs": (1861,)}
    power, _, _ = of_tea_tasting(columns[28], "power", cuped=cuped, **options)
    assert plan.power(lift, 28, users=1861) == pytest.approx(power, rel=1e-8)
    _, _, n = of_tea_tasting(columns[28], "n_obs", cuped=cuped, power=0.9, **options)
    assert plan.users_needed(lift, 28, power=0.9) == n


@pytest.mark.parametrize("cuped", [False, True])
def test_minimum_lift_is_tea_tastings(
    columns: dict[int, np.ndarray], plan: Plan, cuped: bool
) -> None:
    options: dict[str, Any] = {"power": 0.8, "n_obs": (2500,)}
    _, lift, _ = of_tea_tasting(columns[14], "rel_effect_size", cuped=cuped, **options)
    found = replace(plan, cuped=cuped).minimum_lift(14, users=2500)
    assert math.log1p(found) == pytest.approx(lift, rel=1e-8)


def test_error_is_that_of_an_experiment(columns: dict[int, np.ndarray], plan: Plan) -> None:
    """Held against two halves of the same users."""
    halves = Moments.of(columns[28][::2]), Moments.of(columns[28][1::2])
    effect = compare(*halves)
    n = effect.n_control + effect.n_treatment
    assert plan.error(28, users=n) == pytest.approx(effect.log_error, rel=0.02)
    cuped = replace(plan, cuped=True).error(28, users=n)
    assert cuped == pytest.approx(compare(*halves, cuped=True).log_error, rel=0.02)
    assert cuped < 0.8 * plan.error(28, users=n)


@pytest.mark.parametrize("looking", ["fixed", "planned", "daily"])
def test_minimum_lift_users_and_days_give_the_power_asked_for(plan: Plan, looking: Any) -> None:
    plan = replace(plan, looking=looking, looks=(7, 14, 21))
    lift = plan.minimum_lift(14, power=0.7)
    assert plan.power(lift, 14) == pytest.approx(0.7, abs=1e-6)
    n = plan.users_needed(lift, 14, power=0.7)
    assert n == pytest.approx(plan.users(14), rel=1e-3)
    assert plan.power(lift, 14, users=n) >= 0.7 > plan.power(lift, 14, users=n - 2)
    if looking == "fixed":
        days = plan.days_needed(lift * 1.01, power=0.7)
        assert days in (13, 14)
        assert plan.days_needed(lift / 5, power=0.7) is None


def test_looking_more_costs_more(plan: Plan) -> None:
    ways = [replace(plan, looking=one, looks=(7, 14, 21)) for one in ("fixed", "planned", "daily")]
    fixed, planned, daily = (one.power(0.2, 28) for one in ways)
    assert fixed > planned > fixed - 0.04
    assert daily < planned - 0.1
    assert [one.power(0.0, 28) for one in ways[:2]] == pytest.approx([0.05, 0.05], abs=1e-6)
    assert ways[2].power(0.0, 28) < 0.02
    assert ways[1].expected_days(0.0, 28) == pytest.approx(28, abs=0.5)
    assert ways[1].expected_days(1.0, 28) == pytest.approx(7, abs=0.1)
    assert ways[0].expected_days(1.0, 28) == 28


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_power_of_planned_looks_is_that_of_their_bounds(plan: Plan, spending: Spending) -> None:
    plan = replace(plan, looking="planned", looks=[14, 7, 28, 30], spending=spending)
    assert plan.looks_of(28) == [7, 14, 28]
    fractions = np.array([(plan.error(28) / plan.error(day)) ** 2 for day in (7, 14, 28)])
    np.testing.assert_allclose(plan.fractions(28), fractions)
    drift = math.log(1.1) / plan.error(28)
    expected = crossing(fractions, bounds(fractions, spending=spending), drift).sum()
    assert plan.power(0.1, 28) == pytest.approx(expected)
    assert 1 / 4 < fractions[0] < 0.8


def test_days_between_are_between(plan: Plan) -> None:
    errors = [plan.error(days) for days in range(1, 29)]
    assert (np.diff(errors) < 0).all()
    assert plan.users(28) == pytest.approx(0.1 * plan.history[28].n)
    assert plan.users(4) < plan.users(5) < plan.users(7)


def test_power_is_a_number_at_any_lift(plan: Plan) -> None:
    """SciPy's noncentral t gives none at some lifts that are far beyond what is looked for."""
    curve = plan.power_curve(np.linspace(0, 3, 200), 28)
    assert (np.diff(curve) >= -1e-9).all()
    assert curve[-1] == pytest.approx(1)


def test_power_curve_rises_with_the_lift_and_the_share(plan: Plan) -> None:
    lifts = np.linspace(0, 0.5, 8)
    curve = plan.power_curve(lifts, 28)
    assert curve[0] == pytest.approx(0.05)
    assert (np.diff(curve) > 0).all()
    assert plan.power_curve([0.1], 28)[0] == plan.power(0.1, 28)
    assert replace(plan, share=0.2).power(0.1, 28) > plan.power(0.1, 28)
    assert replace(plan, treated=0.1).power(0.1, 28) < plan.power(0.1, 28)
    assert replace(plan, alpha=0.1).power(0.1, 28) > plan.power(0.1, 28)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"history": {}}, "history must hold"),
        ({"alpha": 1.0}, "alpha and treated"),
        ({"share": 1.5}, "share above 0"),
        ({"treated": 0.0}, "alpha and treated"),
        ({"looks": (0, 7)}, "looks must be days"),
    ],
)
def test_plans_out_of_range_are_refused(plan: Plan, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(plan, **change)


def test_questions_out_of_range_are_refused(plan: Plan) -> None:
    with pytest.raises(ConfigError, match="within those of history, 1 to 28"):
        plan.error(29)
    with pytest.raises(ConfigError, match="above -1"):
        plan.power(-1.0, 28)
    with pytest.raises(ConfigError, match="power must be"):
        plan.minimum_lift(28, power=1.0)
    with pytest.raises(ConfigError, match="not found by any number"):
        plan.users_needed(0.0, 28)


def test_planned_power_is_found() -> None:
    """300 experiments have a standard error of 2.4 points; the benchmark runs 2,000."""
    law = PanelLaw(n_users=800, before_days=7)
    past = replace(law, n_users=40_000).draw(0).columns("clicks_per_view", 28)
    plan = Plan({28: Moments.of(past)}, share=800 / 40_000)
    lift = plan.minimum_lift(28)
    found = [effect_in(replace(law, lift=lift), seed) for seed in range(300)]
    assert np.mean([one.p_value < 0.05 for one in found]) == pytest.approx(0.8, abs=0.08)
    held = [one.lift_low < lift < one.lift_high for one in found]
    assert np.mean(held) == pytest.approx(0.95, abs=0.04)


def effect_in(law: PanelLaw, seed: int) -> Effect:
    panel = law.draw(seed)
    arms = (panel.columns("clicks_per_view", 28, treated=arm) for arm in (True, False))
    return compare(*map(Moments.of, arms))


def effect_with(log_lift: float, log_error: float) -> Effect:
    rng = np.random.default_rng(0)
    made = (Moments.of(np.stack([rng.random(50), np.ones(50)], axis=1)) for _ in range(2))
    return replace(compare(*made), lift=math.expm1(log_lift), log_error=log_error)


def test_probability_better_is_the_normal_model() -> None:
    effect = effect_with(0.06, 0.04)
    belief = probability_better(effect, prior_sd=0.05, margin=0.02, confidence=0.9)
    weight = 0.05**2 / (0.05**2 + 0.04**2)
    law = stats.norm(weight * 0.06, math.sqrt(weight) * 0.04)
    assert belief.better == pytest.approx(law.sf(0))
    assert belief.beyond_margin == pytest.approx(law.sf(math.log(1.02)))
    low, high = np.expm1(law.interval(0.9))
    assert (belief.low, belief.high) == pytest.approx((low, high))
    assert belief.lift == pytest.approx(math.expm1(law.mean()))
    assert (belief.prior_sd, belief.margin, belief.confidence) == (0.05, 0.02, 0.9)


def test_probability_better_with_a_flat_prior_is_the_one_sided_p_value() -> None:
    law = PanelLaw(n_users=3000, lift=0.08)
    effect = effect_in(law, 3)
    belief = probability_better(effect, prior_sd=math.inf)
    assert belief.lift == pytest.approx(effect.lift)
    assert belief.better == pytest.approx(
        stats.norm.cdf(math.log1p(effect.lift), 0, effect.log_error)
    )
    one_sided = effect.p_value / 2 if effect.lift > 0 else 1 - effect.p_value / 2
    assert belief.better == pytest.approx(1 - one_sided, abs=0.003)


def test_probability_better_draws_small_experiments_to_the_prior() -> None:
    surprising = effect_with(0.5, 0.3)
    strict, loose = (probability_better(surprising, sd).better for sd in (0.01, 1.0))
    assert 0.5 < strict < 0.53 < 0.9 < loose
    assert probability_better(surprising, 0.01).lift < 0.001


def test_probability_better_is_how_often_it_is_better() -> None:
    """Lifts from the prior: among experiments said to be better with p, a share of p is."""
    rng = np.random.default_rng(0)
    lifts = rng.normal(0, 0.05, 3000)
    seen = rng.normal(lifts, 0.06)
    said = np.array([probability_better(effect_with(x, 0.06), 0.05).better for x in seen])
    for low, high in ((0.0, 0.3), (0.3, 0.6), (0.6, 0.8), (0.8, 1.0)):
        among = (low <= said) & (said < high)
        assert (lifts[among] > 0).mean() == pytest.approx(said[among].mean(), abs=0.05)


@pytest.mark.parametrize("log_error", [math.nan, 0.0])
def test_probability_better_is_unknown_without_a_standard_error(log_error: float) -> None:
    assert math.isnan(probability_better(effect_with(0.1, log_error), 0.1).better)


@pytest.mark.parametrize("options", [{"prior_sd": 0.0}, {"margin": -1.0}, {"confidence": 1.0}])
def test_probability_better_refuses(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="prior_sd must be above 0"):
        probability_better(effect_with(0.1, 0.1), **{"prior_sd": 0.1, **options})
