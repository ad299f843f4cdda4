import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from coterie.data.ids import IdMap
from coterie.errors import ConfigError, DataError
from coterie.evaluation.compare import compare, compare_runs, pool
from coterie.evaluation.inference import holm, spread_between
from coterie.evaluation.report import EvaluationReport

NAME = "ndcg@100"


def report_of(
    values: np.ndarray | list[float],
    users: list[int] | np.ndarray | None = None,
    n_interactions: np.ndarray | None = None,
) -> EvaluationReport:
    ids = np.arange(len(values)) if users is None else np.asarray(users)
    counts = np.full(len(values), 20) if n_interactions is None else n_interactions
    return EvaluationReport(IdMap.of(ids), counts, {NAME: np.asarray(values, dtype=np.float64)})


def test_interval_is_the_normal_one_for_many_users() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(2000)
    b = a + rng.normal(0.01, 0.1, 2000)
    gain = compare(report_of(b), report_of(a), seed=1, n_resamples=4000).overall[NAME]
    error = (b - a).std(ddof=1) / math.sqrt(2000)
    assert gain.difference == pytest.approx((b - a).mean())
    assert gain.relative_difference == pytest.approx((b - a).mean() / a.mean())
    assert gain.low == pytest.approx(gain.difference - 1.96 * error, abs=0.08 * error)
    assert gain.high == pytest.approx(gain.difference + 1.96 * error, abs=0.08 * error)
    assert gain.p_value == pytest.approx(stats.ttest_rel(b, a).pvalue, abs=0.01)


def test_p_value_is_the_exact_sign_flip_one_for_few_users() -> None:
    gains = np.array([0.3, 0.1, -0.05, 0.2, 0.15, 0.02])
    exact = stats.permutation_test(
        (gains,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    gain = compare(report_of(gains), report_of(np.zeros(6)), seed=3, n_resamples=20_000).overall[
        NAME
    ]
    assert gain.p_value == pytest.approx(exact, abs=0.01)
    assert math.isnan(gain.relative_difference)


def test_p_values_are_uniform_when_neither_is_better() -> None:
    rng = np.random.default_rng(5)
    zero = report_of(np.zeros(30))
    p = [
        compare(report_of(rng.normal(size=30)), zero, seed=seed, n_resamples=200)
        .overall[NAME]
        .p_value
        for seed in range(150)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_equal_reports_differ_by_nothing() -> None:
    gain = compare(
        report_of(np.full(9, 0.4)), report_of(np.full(9, 0.4)), seed=0, n_resamples=100
    ).overall[NAME]
    assert (gain.difference, gain.low, gain.high, gain.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_compare_pairs_by_user_not_by_place() -> None:
    rng = np.random.default_rng(2)
    a, b, order = rng.random(50), rng.random(50), rng.permutation(50)
    straight = compare(report_of(b), report_of(a), seed=4, n_resamples=300)
    shuffled = compare(report_of(b[order], order), report_of(a), seed=4, n_resamples=300)
    assert straight.to_json() == shuffled.to_json()


def test_compare_is_reproducible_by_its_seed() -> None:
    rng = np.random.default_rng(8)
    a, b = report_of(rng.random(40)), report_of(rng.random(40))
    first, again, other = (
        compare(b, a, seed=seed, n_resamples=200).to_json() for seed in (1, 1, 2)
    )
    assert first == again
    assert first["metrics"][NAME]["low"] != other["metrics"][NAME]["low"]


def test_compare_by_cohort_sees_only_its_users() -> None:
    counts = np.repeat([7, 70], 20)
    b = np.repeat([0.2, 0.6], 20) + np.random.default_rng(0).normal(0, 0.01, 40)
    comparison = compare(
        report_of(b, n_interactions=counts),
        report_of(np.full(40, 0.2), n_interactions=counts),
        seed=0,
        n_resamples=200,
    )
    assert list(comparison.cohorts) == ["5-10", "51-100"]
    assert comparison.cohorts["51-100"][NAME].difference == pytest.approx(b[20:].mean() - 0.2)
    assert comparison.cohorts["51-100"][NAME].users == 20
    assert comparison.cohorts["51-100"][NAME].low > comparison.cohorts["5-10"][NAME].high


def test_compare_of_one_user_is_valid_json() -> None:
    summary = json.loads(
        json.dumps(
            compare(report_of([0.5]), report_of([0.0]), seed=0, n_resamples=50).to_json(),
            allow_nan=False,
        )
    )
    one = summary["metrics"][NAME]
    assert (
        one["difference"],
        one["low"],
        one["high"],
        one["relative_difference"],
        one["p_value"],
    ) == (0.5, None, None, None, 1.0)
    assert summary["cohorts"]["11-50"][NAME]["users"] == 1


def test_comparison_prints_each_metric_and_cohort() -> None:
    text = str(compare(report_of([0.5, 0.5]), report_of([0.25, 0.25]), seed=0, n_resamples=50))
    assert "95% interval" in text
    assert "[+0.2500, +0.2500]" in text
    assert "11-50" in text


def test_compare_refuses_other_users_and_metrics() -> None:
    a = report_of(np.zeros(3))
    with pytest.raises(DataError, match="found 3 and 3 with 2 in common"):
        compare(report_of(np.zeros(3), [1, 2, 3]), a, seed=0)
    with pytest.raises(DataError, match="found 3 and 4 with 3 in common"):
        compare(report_of(np.zeros(4)), a, seed=0)
    with pytest.raises(DataError, match="share a metric"):
        compare(EvaluationReport(a.users, a.n_interactions, {"recall@5": np.zeros(3)}), a, seed=0)
    for options in ({"n_resamples": 0}, {"confidence": 1.0}):
        with pytest.raises(ConfigError, match="n_resamples must be at least 1"):
            compare(a, a, seed=0, **options)


def test_pool_averages_a_user_over_their_runs() -> None:
    pooled = pool(
        [
            report_of([0.2, 0.4], [1, 2], np.array([9, 9])),
            report_of([0.8, 1.0], [2, 3], np.array([11, 5])),
        ]
    )
    assert pooled.users.ids_of(range(3)) == [1, 2, 3]
    assert pooled.metrics[NAME].tolist() == pytest.approx([0.2, 0.6, 1.0])
    assert pooled.n_interactions.tolist() == [9, 11, 5]


def test_compare_runs_keeps_the_user_the_unit() -> None:
    rng = np.random.default_rng(1)
    a, b = report_of(rng.random(60)), report_of(rng.random(60))
    once = compare(b, a, seed=0, n_resamples=300).overall[NAME]
    five_times = compare_runs([b] * 5, [a] * 5, seed=0, n_resamples=300).overall[NAME]
    assert five_times.users == 60
    width = once.high - once.low
    assert five_times.low == pytest.approx(once.low, abs=0.05 * width)
    assert five_times.high == pytest.approx(once.high, abs=0.05 * width)
    assert five_times.by_run == pytest.approx([once.difference] * 5)


def test_compare_runs_of_disjoint_splits_pools_all_users() -> None:
    rng = np.random.default_rng(1)
    splits = [np.arange(start, start + 30) for start in (0, 30, 60)]
    a = [report_of(rng.random(30), users) for users in splits]
    b = [report_of(rng.random(30), users) for users in splits]
    gain = compare_runs(b, a, seed=0, n_resamples=100).overall[NAME]
    assert gain.users == 90
    assert gain.difference == pytest.approx(
        np.mean([y.mean(NAME) - x.mean(NAME) for x, y in zip(a, b, strict=True)])
    )


def test_compare_runs_refuses_runs_that_do_not_pair() -> None:
    a, b = report_of(np.zeros(3)), report_of(np.zeros(3), [4, 5, 6])
    with pytest.raises(DataError, match="found 1 and 2"):
        compare_runs([a], [a, a], seed=0)
    with pytest.raises(DataError, match="0 in common"):
        compare_runs([b, a], [a, b], seed=0)
    with pytest.raises(DataError, match="one or more reports"):
        pool([])


def test_one_run_says_that_it_holds_users_only() -> None:
    rng = np.random.default_rng(1)
    a, b = report_of(rng.random(60)), report_of(rng.random(60))
    alone, in_runs = (
        compare(b, a, seed=0, n_resamples=99),
        compare_runs([b], [a], seed=0, n_resamples=99),
    )
    assert alone.to_json() == in_runs.to_json()
    assert alone.overall[NAME].by_run == ()
    assert "one run, users only" in str(alone)


def test_runs_on_other_splits_are_corrected_as_nadeau_and_bengio_have_it() -> None:
    rng, splits = np.random.default_rng(1), [np.arange(start, start + 40) for start in (0, 10, 20)]
    a = [report_of(np.zeros(40), users) for users in splits]
    b = [report_of(rng.normal(0.1 * run, 0.01, 40), users) for run, users in enumerate(splits)]
    found = compare_runs(b, a, seed=0, n_resamples=99, test_to_train=0.25)
    gain, means = found.overall[NAME], [one.mean(NAME) for one in b]
    error = math.sqrt(np.var(means, ddof=1) * (1 / 3 + 0.25))
    half = float(stats.t(2).ppf(0.975)) * error
    assert (gain.low, gain.high) == pytest.approx((gain.difference - half, gain.difference + half))
    assert gain.p_value == pytest.approx(2 * stats.t(2).sf(gain.difference / error))
    assert gain.by_run == pytest.approx(means)
    assert "by run: " in str(found)
    assert found.to_json()["runs"] == 3


def test_a_run_without_users_of_a_cohort_is_left_out_of_its_interval() -> None:
    rng, counts = np.random.default_rng(1), [np.array([7, 60, 60]), np.array([60, 60, 60])]
    a = [report_of(np.zeros(3), [3 * i, 1, 2], counts[i]) for i in range(2)]
    b = [report_of(rng.random(3), [3 * i, 1, 2], counts[i]) for i in range(2)]
    found = compare_runs(b, a, seed=0, n_resamples=99)
    assert found.cohorts["5-10"][NAME].by_run == ()
    assert len(found.cohorts["51-100"][NAME].by_run) == 2


def planted(rng: np.random.Generator, *, of_split: float, splits: int) -> list[EvaluationReport]:
    """Gains of truth 0: of 400 users, a tenth of whom is tested in each split. A user's own share
    is the same wherever they are tested, a split's is that of all its users.
    """
    of_user, runs = rng.normal(0, 1, 400), []
    for _ in range(splits):
        users = np.sort(rng.permutation(400)[:40])
        noise = rng.normal(0, of_split) + rng.normal(0, 0.5, 40)
        runs.append(report_of(of_user[users] + noise, users))
    return runs


def coverage(of_split: float, splits: int = 5, worlds: int = 250) -> tuple[float, float]:
    """How often the truth is in the interval over runs, and in that of the pooled users."""
    rng, held = np.random.default_rng(3), np.zeros(2)
    for _ in range(worlds):
        runs = planted(rng, of_split=of_split, splits=splits)
        nothing = [
            EvaluationReport(one.users, one.n_interactions, {NAME: np.zeros(len(one))})
            for one in runs
        ]
        options = {"seed": 0, "n_resamples": 100}
        found = (
            compare_runs(runs, nothing, **options),
            compare(pool(runs), pool(nothing), **options),
        )
        held += [one.overall[NAME].low <= 0 <= one.overall[NAME].high for one in found]
    return float(held[0] / worlds), float(held[1] / worlds)


def test_intervals_over_runs_hold_the_truth_and_those_of_pooled_users_do_not() -> None:
    over_runs, of_users = coverage(of_split=0.25)
    assert 0.93 <= over_runs <= 0.99
    assert of_users < 0.85


def test_intervals_over_runs_hold_the_truth_where_splits_bring_nothing() -> None:
    over_runs, of_users = coverage(of_split=0.0)
    assert over_runs >= 0.95
    assert of_users >= 0.9


def test_intervals_over_seeds_on_the_same_users_hold_users_and_seeds() -> None:
    rng, worlds, held, of_seeds_alone = np.random.default_rng(5), 400, 0, 0
    for _ in range(worlds):
        of_user = rng.normal(0, 1, 60)
        gains = of_user + rng.normal(0, 0.2, (3, 1)) + rng.normal(0, 0.5, (3, 60))
        spread = spread_between(gains)
        assert spread is not None
        held += abs(gains.mean()) <= spread.half_width(0.95)
        means = gains.mean(axis=1)
        of_seeds_alone += abs(means.mean()) <= 4.303 * means.std(ddof=1) / math.sqrt(3)
    assert 0.92 <= held / worlds <= 0.98
    assert of_seeds_alone / worlds < held / worlds


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_definition(p_values: list[float]) -> None:
    found, m = holm(p_values), len(p_values)
    ordered = sorted(p_values)
    for p, adjusted in zip(p_values, found, strict=True):
        last = max(place for place, one in enumerate(ordered) if one == p)
        wanted = max(min(1.0, (m - place) * ordered[place]) for place in range(last + 1))
        assert adjusted == pytest.approx(wanted)
