import json
import math
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from coterie.data.ids import IdMap
from coterie.data.split import Cases
from coterie.errors import ConfigError, DataError
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.metrics import Kind, Metric
from coterie.evaluation.report import EvaluationReport
from coterie.running.progress import Update
from scorer_contract import LinearScorer
from test_metrics import slow_metric

METRICS = (
    *("recall@1", "recall@3", "recall_of_held_out@3", "ndcg@2", "ndcg@50"),
    *("precision@3", "precision@50", "hit_rate@2", "map@3", "map_of_held_out@50"),
)


def random_cases(n: int, n_items: int, seed: int, shown: float = 0.3, repeats: float = 0) -> Cases:
    """Cases of every size: empty fold-ins, and users for whom all items are shown or held out. With
    a share of ``repeats`` of what is held out shown, too, nothing is masked.
    """
    rng = np.random.default_rng(seed)
    held_out = rng.random((n, n_items)) < rng.random((n, 1)) * 0.6
    held_out[np.arange(n), rng.integers(0, n_items, n)] = True
    fold_in = ~held_out & (rng.random((n, n_items)) < shown)
    fold_in[-1] = ~held_out[-1]
    fold_in |= held_out & (rng.random((n, n_items)) < repeats)
    return Cases(
        np.arange(n) * 2,
        csr_array(fold_in.astype(np.float32)),
        csr_array(held_out.astype(np.float32)),
        exclude_seen=not repeats,
    )


def slow_evaluation(
    scorer: LinearScorer, cases: Cases, metrics: tuple[str, ...]
) -> dict[str, list[float]]:
    """One user at a time: sort what was not shown, or all, and look for what was hidden."""
    values: dict[str, list[float]] = {name: [] for name in metrics}
    for scores, shown, hidden in zip(
        scorer.score(cases.fold_in).tolist(),
        cases.fold_in.toarray(),
        cases.held_out.toarray(),
        strict=True,
    ):
        ranked = [
            item
            for _, item in sorted(
                (-score, item)
                for item, score in enumerate(scores)
                if not (cases.exclude_seen and shown[item])
            )
        ]
        for name in metrics:
            kind, k = name.split("@")
            values[name].append(
                slow_metric(kind, int(k), ranked, set(np.flatnonzero(hidden).tolist()))
            )
    return values


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 14), st.integers(0, 1000), st.sampled_from([0, 0.5, 1]))
def test_evaluate_is_the_slow_loop(n: int, n_items: int, seed: int, repeats: float) -> None:
    scorer = LinearScorer.random(n_items, seed, whole=True)
    cases = random_cases(n, n_items, seed, repeats=repeats)
    report = evaluate(scorer, cases, metrics=METRICS, block_size=4)
    for name, expected in slow_evaluation(scorer, cases, METRICS).items():
        assert report.metrics[name].dtype == np.float64
        np.testing.assert_allclose(report.metrics[name], expected, rtol=1e-12)
    had = (cases.fold_in.toarray() > 0) | (cases.held_out.toarray() > 0)
    assert report.n_interactions.tolist() == had.sum(axis=1).tolist()


@pytest.mark.parametrize("block_size", [1, 7, 500])
def test_evaluate_does_not_depend_on_the_block_size(block_size: int) -> None:
    scorer, cases = LinearScorer.random(60, 3, whole=True), random_cases(40, 60, 3)
    one, other = evaluate(scorer, cases), evaluate(scorer, cases, block_size=block_size)
    for name in one.metrics:
        np.testing.assert_array_equal(one.metrics[name], other.metrics[name])


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_k_beyond_the_catalogue_is_a_shorter_list(kind: Kind) -> None:
    scorer, cases = LinearScorer.random(20, 3), random_cases(5, 20, 3)
    whole, beyond = Metric(kind, 20), Metric(kind, 10**30)
    report = evaluate(scorer, cases, metrics=[whole.name, beyond.name])
    shorter = 20 / beyond.k if kind == "precision" else 1
    np.testing.assert_allclose(
        report.metrics[beyond.name], report.metrics[whole.name] * shorter, rtol=1e-12
    )


def test_evaluate_finds_a_planted_item_first() -> None:
    shift = np.roll(np.eye(6), 1, axis=1).astype(np.float32)
    scorer = LinearScorer(shift, IdMap.of(range(6)), np.ones(6))
    cases = Cases(np.arange(6), csr_array(np.eye(6, dtype=np.float32)), csr_array(shift))
    assert evaluate(scorer, cases, metrics=["ndcg@5"]).mean("ndcg@5") == 1.0


def test_evaluate_counts_interactions_and_names_users() -> None:
    fold_in, held_out = np.zeros((2, 20)), np.zeros((2, 20))
    fold_in[0, :3], held_out[0, 3] = 1, 1
    fold_in[1, :12], held_out[1, 12:15] = 1, 1
    cases = Cases(np.array([2, 0]), csr_array(fold_in), csr_array(held_out))
    updates: list[Update] = []
    report = evaluate(
        LinearScorer.random(20, 0),
        cases,
        user_ids=IdMap.of(["c", "b", "a"]),
        block_size=1,
        progress=updates.append,
    )
    assert [(one.done, one.total) for one in updates] == [(1, 2), (2, 2)]
    assert report.users.ids_of([0, 1]) == ["a", "c"]
    assert report.n_interactions.tolist() == [4, 15]
    assert {name: len(part) for name, part in report.cohorts().items()} == {
        "1-4": 1,
        "5-10": 0,
        "11-50": 1,
        "51-100": 0,
        "101+": 0,
    }


def _refused(cases: Cases, **options: Any) -> None:
    evaluate(LinearScorer.random(5, 0), cases, **options)


def test_evaluate_refuses_what_it_cannot_honour() -> None:
    cases = random_cases(3, 5, 0)
    for metrics in ([], "ndcg@5", ["ndcg@5", "ndcg@5"]):
        with pytest.raises(ConfigError, match="one or more different names in a list"):
            _refused(cases, metrics=metrics)
    with pytest.raises(ConfigError, match="block_size"):
        _refused(cases, block_size=0)
    with pytest.raises(ConfigError, match="ascending"):
        _refused(cases, cohorts=(5, 5))


def test_evaluate_refuses_unsound_cases() -> None:
    eye, none = csr_array(np.eye(2, 5, dtype=np.float32)), csr_array((2, 5), dtype=np.float32)
    with pytest.raises(DataError, match="may be folded in and masked, found 2"):
        _refused(Cases(np.arange(2), eye, eye))
    with pytest.raises(DataError, match="must have an item to find, found 2 without"):
        _refused(Cases(np.arange(2), eye, none))
    with pytest.raises(DataError, match="scorer's 5 items"):
        _refused(random_cases(2, 4, 0))
    with pytest.raises(DataError, match="at least one case"):
        _refused(Cases(np.arange(0), csr_array((0, 5)), csr_array((0, 5))))


def report_of(
    values: list[float], n_interactions: list[int] | None = None, name: str = "ndcg@10"
) -> EvaluationReport:
    counts = np.array(n_interactions or [7] * len(values), dtype=np.int64)
    return EvaluationReport(IdMap.of(np.arange(len(values))), counts, {name: np.array(values)})


def test_standard_error_is_the_textbooks() -> None:
    values = [0.1, 0.4, 0.4, 0.9]
    report = report_of(values)
    mean = sum(values) / 4
    assert report.mean("ndcg@10") == pytest.approx(mean)
    assert report.standard_error("ndcg@10") == pytest.approx(
        math.sqrt(sum((v - mean) ** 2 for v in values) / 3 / 4)
    )
    with pytest.raises(DataError, match=r"one of ndcg@10, found 'recall@5'"):
        report.mean("recall@5")


def test_to_json_is_valid_where_users_are_too_few() -> None:
    summary = json.loads(json.dumps(report_of([0.5], [7]).to_json(), allow_nan=False))
    assert summary["users"] == 1
    assert summary["metrics"]["ndcg@10"] == {
        "users": 1,
        "mean": 0.5,
        "standard_error": None,
        "label": "NDCG@10",
    }
    assert summary["cohorts"]["5-10"] == {"users": 1, "metrics": summary["metrics"]}
    assert summary["cohorts"]["101+"]["metrics"]["ndcg@10"] == {
        "users": 0,
        "mean": None,
        "standard_error": None,
        "label": "NDCG@10",
    }


def test_cohort_means_average_to_the_mean() -> None:
    rng = np.random.default_rng(0)
    report = report_of(rng.random(200).tolist(), rng.integers(1, 200, 200).tolist())
    parts = report.cohorts().values()
    assert sum(len(part) * part.mean("ndcg@10") for part in parts) / 200 == pytest.approx(
        report.mean("ndcg@10")
    )


def test_per_user_table_comes_back() -> None:
    report = report_of([0.25, 0.5, 1.0], [3, 40, 500])
    table = report.per_user_table()
    assert table.column_names == ["user_id", "n_interactions", "ndcg@10"]
    assert EvaluationReport.from_table(table).to_json() == report.to_json()
    with pytest.raises(DataError, match="n_interactions"):
        EvaluationReport.from_table(pa.table({"user_id": [1]}))


def test_report_refuses_values_that_do_not_align() -> None:
    with pytest.raises(
        DataError, match=r"recall@5 must have one value a user \(2\), found shape \(3,\)"
    ):
        EvaluationReport(IdMap.of([1, 2]), np.array([5, 5]), {"recall@5": np.zeros(3)})
