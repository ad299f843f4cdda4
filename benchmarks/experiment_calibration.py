"""Whether the statistics of experiments keep what they promise, on simulated ones: false positives
without a lift, power and coverage with a known one, what CUPED saves, what a broken split shows.

    python benchmarks/experiment_calibration.py [--experiments 2000] [--json FILE]

2,000 experiments of each kind take about four minutes of one core. Everything is planned from a
history of 100,000 users who are in none of them. Beside the statistics of Coterie stand two that
are wrong: looking every day at a 5 % test, and taking views as independent.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from scipy import special, stats

from coterie.experiment.statistics import (
    Effect,
    Moments,
    Plan,
    compare,
    information_fractions,
    look,
    sample_ratio,
    watch,
)
from coterie.simulation.panel import Panel, PanelLaw, PanelMetric

METRICS = get_args(PanelMetric)
DAYS = 28
LOOKS = (7, 14, 21, 28)
ALPHA = 0.05
HISTORY_USERS = 100_000
SPLIT_USERS = 200_000
PROBE = (1, 2, 3, 5, 7, 10, 14, 21, 28)
"""Days of history that the plan sees; it goes straight between them."""


@dataclass
class Found:
    """What the experiments of one kind gave for one metric, an entry an experiment.

    ``planned``, ``naive`` and ``daily`` say who found a difference; ``crossed_on`` at which look,
    or the last day; ``ended_on`` which look was the last one, also for want of alpha; ``held``
    whose interval held the truth: of the end, of the look that ended it, of every day.
    """

    p: list[float] = field(default_factory=list)
    log_lift: list[float] = field(default_factory=list)
    reduction: list[float] = field(default_factory=list)
    planned: list[bool] = field(default_factory=list)
    crossed_on: list[int] = field(default_factory=list)
    ended_on: list[int] = field(default_factory=list)
    naive: list[bool] = field(default_factory=list)
    daily: list[bool] = field(default_factory=list)
    held: dict[str, list[bool]] = field(
        default_factory=lambda: {"fixed": [], "planned": [], "daily": []}
    )

    def at_end(self, effect: Effect, lift: float) -> None:
        """One look, at the end."""
        self.p.append(effect.p_value)
        self.log_lift.append(np.log1p(effect.lift))
        self.reduction.append(effect.variance_reduction)
        self.held["fixed"].append(effect.lift_low <= lift <= effect.lift_high)

    def at_looks(self, effects: dict[int, Effect], error: float, lift: float) -> None:
        """Planned looks, until one says stop."""
        fractions = information_fractions([effects[day].log_error for day in LOOKS], error)
        for number, day in enumerate(LOOKS, start=1):
            seen = look(effects[day], fractions[:number].tolist(), ALPHA, last=day == DAYS)
            if seen.stop:
                break
        self.planned.append(seen.crossed)
        self.crossed_on.append(day if seen.crossed else DAYS)
        self.ended_on.append(day)
        self.held["planned"].append(seen.effect.lift_low <= lift <= seen.effect.lift_high)

    def every_day(self, effects: dict[int, Effect], error: float, lift: float) -> None:
        """Looks on each day, the wrong way and by the confidence sequence."""
        fractions = information_fractions([one.log_error for one in effects.values()], error)
        seen = [
            watch(one, fraction, ALPHA)
            for one, fraction in zip(effects.values(), fractions.tolist(), strict=True)
        ]
        self.naive.append(any(one.p_value < ALPHA for one in effects.values()))
        self.daily.append(any(one.crossed for one in seen))
        within = [one.effect.lift_low <= lift <= one.effect.lift_high for one in seen]
        self.held["daily"].append(all(within))


def effects_of(
    panel: Panel, metric: PanelMetric, days: Iterable[int]
) -> dict[str, dict[int, Effect]]:
    """Effects by day: without CUPED on each of the days, with it at the looks."""
    plain, cuped = {}, {}
    for day in days:
        arms = [Moments.of(panel.columns(metric, day, treated=arm)) for arm in (True, False)]
        plain[day] = compare(*arms)
        if day in LOOKS:
            cuped[day] = compare(*arms, cuped=True)
    return {metric: plain, f"{metric} with CUPED": cuped}


def run(
    law: PanelLaw, plans: dict[str, Plan], seeds: range, watched: Sequence[str]
) -> tuple[dict[str, Found], list[bool]]:
    """Runs experiments of one kind; also who was found by taking views as independent.

    Metrics that are ``watched`` are looked at on every day.
    """
    found = {name: Found() for name in plans}
    independent = []
    for seed in seeds:
        panel = law.draw(seed)
        for metric in METRICS:
            days = range(1, DAYS + 1) if metric in watched else LOOKS
            for name, effects in effects_of(panel, metric, days).items():
                one, error = found[name], plans[name].error(DAYS)
                one.at_end(effects[DAYS], law.lift)
                one.at_looks(effects, error, law.lift)
                if name in watched:
                    one.every_day(effects, error, law.lift)
        independent.append(proportions_p(panel) < ALPHA)
    return found, independent


def proportions_p(panel: Panel) -> float:
    """The wrong way: clicks of views as if each view were drawn by itself."""
    sums = [panel.columns(METRICS[0], DAYS, treated=arm).sum(axis=0) for arm in (True, False)]
    (clicks, views, *_), (other_clicks, other_views, *_) = sums
    rate = (clicks + other_clicks) / (views + other_views)
    error = np.sqrt(rate * (1 - rate) * (1 / views + 1 / other_views))
    return float(2 * special.ndtr(-abs(clicks / views - other_clicks / other_views) / error))


def history_of(law: PanelLaw, seed: int) -> tuple[dict[str, Plan], dict[str, float]]:
    """Plans by metric, and 1 - ρ² of each, from many users who are in no experiment."""
    panel = replace(law, n_users=HISTORY_USERS, lift=0.0).draw(seed)
    plans, left = {}, {}
    for metric in METRICS:
        past = {day: Moments.of(panel.columns(metric, day)) for day in PROBE}
        plan = Plan(past, alpha=ALPHA, share=law.n_users / HISTORY_USERS, looks=LOOKS)
        plans[metric] = plan
        plans[f"{metric} with CUPED"] = replace(plan, cuped=True)
        left[metric] = 1 - correlation(panel.columns(metric, DAYS)) ** 2
    return plans, left


def correlation(columns: np.ndarray) -> float:
    """Of the linearised ratio with that of before, user by user."""
    y, x, y_before, x_before = columns.T
    now = y - y.sum() / x.sum() * x
    before = y_before - y_before.sum() / x_before.sum() * x_before
    return float(np.corrcoef(now, before)[0, 1])


def without_lift(found: Found) -> dict[str, Any]:
    return {
        "false_positives_fixed": share(np.array(found.p) < ALPHA),
        "false_positives_planned_looks": share(found.planned),
        **({"false_positives_daily_sequence": share(found.daily)} if found.daily else {}),
        **({"false_positives_naive_daily": share(found.naive)} if found.naive else {}),
        "ks_p": float(stats.kstest(found.p, "uniform").pvalue),
    }


def with_lift(found: Found, plan: Plan, lift: float) -> dict[str, Any]:
    planned = replace(plan, looking="planned")
    daily = replace(plan, looking="daily").power(lift, DAYS) if found.daily else None
    return {
        "power_planned": plan.power(lift, DAYS),
        "power_found": share(np.array(found.p) < ALPHA),
        "power_planned_looks": planned.power(lift, DAYS),
        "power_found_looks": share(found.planned),
        "stop_planned": planned.expected_days(lift, DAYS),
        "stop_found": share(found.crossed_on),
        "end_found": share(found.ended_on),
        **(
            {"power_planned_daily": daily, "power_found_daily": share(found.daily)} if daily else {}
        ),
        "coverage": share(found.held["fixed"]),
        "coverage_at_stop": share(found.held["planned"]),
        **({"coverage_every_day": share(found.held["daily"])} if daily else {}),
    }


def cuped(kinds: list[dict[str, Found]], left: dict[str, float]) -> dict[str, Any]:
    """Variance of estimates with CUPED by that without, beside 1 - ρ²."""
    return {
        metric: {
            "found": variance(kinds, f"{metric} with CUPED") / variance(kinds, metric),
            "estimated": 1 - share([one[f"{metric} with CUPED"].reduction for one in kinds]),
            "1-rho2": left[metric],
        }
        for metric in METRICS
    }


def variance(kinds: list[dict[str, Found]], name: str) -> float:
    """Of estimates among experiments of a kind."""
    return share([np.var(one[name].log_lift) for one in kinds])


def broken_split(n: int, seed: int) -> dict[str, Any]:
    """How often a 50.5/49.5 split is found, and how often a right one is suspected."""
    rng = np.random.default_rng(seed)

    def suspected(chance: float, level: float) -> float:
        counts = rng.binomial(SPLIT_USERS, chance, n)
        return share([sample_ratio([a, SPLIT_USERS - a], [1, 1]) < level for a in counts.tolist()])

    exact = round(0.505 * SPLIT_USERS)
    return {
        "srm_p": sample_ratio([exact, SPLIT_USERS - exact], [1, 1]),
        "srm_found": suspected(0.505, 0.001),
        "srm_found_at_1_percent": suspected(0.505, 0.01),
        "srm_false": suspected(0.5, 0.001),
    }


def share(values: Any) -> float:
    return float(np.mean(values))


def figures(n: int, users: int, seed: int) -> dict[str, Any]:
    law = PanelLaw(n_users=users)
    plans, left = history_of(law, seed)
    primary = METRICS[0]
    lift = plans[primary].minimum_lift(DAYS)
    none, independent = run(law, plans, range(seed + 1, seed + 1 + n), METRICS)
    some, _ = run(replace(law, lift=lift), plans, range(seed + 1 + n, seed + 1 + 2 * n), [primary])
    by_metric = {
        name: {**without_lift(none[name]), **with_lift(some[name], plan, lift)}
        for name, plan in plans.items()
    }
    return {
        "experiments": n,
        "users": users,
        "seen_users": plans[primary].users(DAYS),
        "lift": lift,
        "fractions": dict(zip(LOOKS, looking_fractions(plans[primary]), strict=True)),
        "primary": primary,
        **{key: value for key, value in by_metric[primary].items() if key != "ks_p"},
        "ks_p": {name: one["ks_p"] for name, one in by_metric.items()},
        "false_positives_iid": share(independent),
        "cuped_variance_ratio": cuped([none, some], left),
        **broken_split(n, seed),
        "by_metric": by_metric,
    }


def looking_fractions(plan: Plan) -> list[float]:
    return list(map(float, replace(plan, looking="planned").fractions(DAYS)))


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The figures as text, rates in percent."""
    for name, one in found["by_metric"].items():
        yield name
        yield from (f"  {key:32} {value:.4f}" for key, value in one.items())
    for key, value in found.items():
        if key != "by_metric":
            yield f"{key}: {value}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    begin = time.perf_counter(), time.process_time()
    found = figures(args.experiments, args.users, args.seed)
    found["seconds"] = time.perf_counter() - begin[0]
    found["processor_seconds"] = time.process_time() - begin[1]
    print("\n".join(lines(found)))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
