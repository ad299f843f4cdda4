import json
import math

import numpy as np
import pytest
from scipy import stats

from coterie.data.ids import IdMap
from coterie.errors import ConfigError, DataError
from coterie.evaluation.compare import compare, compare_runs, pool
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
    assert (five_times.low, five_times.high, five_times.p_value) == pytest.approx(
        (once.low, once.high, once.p_value)
    )


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
