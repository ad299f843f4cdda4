"""What lists look like beyond hits: against one list at a time, and against other libraries."""

import json
import math
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, csr_matrix
from sklearn.metrics.pairwise import cosine_distances
from torch import Tensor

from coterie.data.ids import IdMap
from coterie.data.split import Cases, Part
from coterie.errors import ConfigError, DataError
from coterie.evaluation.compare import compare, compare_runs, pool
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.lists import (
    STRATA,
    Lists,
    TrainingItems,
    of_all,
    per_list,
    popularity_strata,
)
from coterie.evaluation.metrics import Kind, ListKind, ListMetric, metric_of
from coterie.evaluation.report import EvaluationReport
from coterie.extras import require
from coterie.simulation.service import simulate_dataset
from scorer_contract import LinearScorer
from test_evaluation import random_cases

KINDS = [kind for kind in get_args(ListKind) if kind != "popularity_of_history"]


def slow_strata(n_users_of: list[int]) -> list[str]:
    """An item at a time: what share of the interactions do more popular items hold?"""
    total, names = sum(n_users_of), []
    for own in n_users_of:
        before = sum(other for other in n_users_of if other > own)
        if before == 0 or 3 * before < total:
            names.append("head")
        else:
            names.append("middle" if 3 * before < 2 * total else "tail")
    return names


def mean_share(train: np.ndarray, items: list[int]) -> float:
    return sum(float(train[:, item].mean()) for item in items) / len(items) if items else math.nan


def slow_list_metric(
    kind: str, shown: list[int], had: list[int], to_find: list[int], train: np.ndarray
) -> float:
    """One list at a time, as the definitions read."""
    n_users_of = train.sum(axis=0).astype(int).tolist()
    if kind == "novelty":
        bits = [-math.log2(max(n_users_of[item], 1) / len(train)) for item in shown]
        return sum(bits) / len(shown) if shown else math.nan
    if kind == "popularity":
        return mean_share(train, shown)
    if kind == "popularity_of_history":
        return mean_share(train, had)
    if kind == "diversity":
        n, distances = len(shown), cosine_distances(train.T)
        pairs = [float(distances[a, b]) for i, a in enumerate(shown) for b in shown[:i]]
        return sum(pairs) / (n * (n - 1) / 2) if n > 1 else math.nan
    strata = slow_strata(n_users_of)
    wanted = [item for item in to_find if strata[item] == kind.removesuffix("_recall")]
    return len(set(wanted) & set(shown)) / len(wanted) if wanted else math.nan


def slow_gini(shown: list[int]) -> float:
    """Half the mean difference of all ordered pairs of items, in units of the mean, with n (n - 1)
    pairs.
    """
    n, total = len(shown), sum(shown)
    differences = sum(abs(a - b) for a in shown for b in shown)
    return differences / (2 * n * (n - 1) * total / n) if n > 1 and total else math.nan


@dataclass(frozen=True, eq=False)
class FixedScores:
    """Gives row i to the i-th user of the only block."""

    scores: np.ndarray

    @property
    def n_items(self) -> int:
        return len(self.scores[0])

    def score(self, histories: csr_array) -> Tensor:
        assert histories.shape == self.scores.shape
        return torch.from_numpy(self.scores.astype(np.float32))


def random_train(n_users: int, n_items: int, seed: int) -> csr_array:
    """Items of very different popularity, the last of nobody's."""
    rng = np.random.default_rng(seed)
    dense = rng.random((n_users, n_items)) < rng.random(n_items) ** 2
    dense[:, -1] = False
    return csr_array(dense.astype(np.float32))


def lists_of(scorer: LinearScorer, cases: Cases, k: int) -> list[list[int]]:
    scores = scorer.score(cases.fold_in).tolist()
    return [
        sorted(np.flatnonzero(~shown).tolist(), key=lambda item: (-line[item], item))[:k]
        for line, shown in zip(scores, cases.fold_in.toarray().astype(bool), strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 14), st.integers(1, 20), st.integers(0, 1000))
def test_evaluate_is_one_list_at_a_time(n: int, n_items: int, n_users: int, seed: int) -> None:
    scorer, cases = LinearScorer.random(n_items, seed, whole=True), random_cases(n, n_items, seed)
    train = random_train(n_users, n_items, seed)
    names = [f"{kind}@{k}" for kind in KINDS for k in (1, 3, 50)]
    report = evaluate(scorer, cases, metrics=names, train=train, block_size=4)
    for name, values in report.metrics.items():
        kind, _, cut = name.partition("@")
        expected = [
            slow_list_metric(kind, *user, train.toarray().astype(float))
            for user in zip(
                lists_of(scorer, cases, int(cut or 0)),
                (np.flatnonzero(row).tolist() for row in cases.fold_in.toarray()),
                (np.flatnonzero(row).tolist() for row in cases.held_out.toarray()),
                strict=True,
            )
        ]
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)
    for k in (1, 3, 50):
        shown = [item for one in lists_of(scorer, cases, k) for item in one]
        counts = [shown.count(item) for item in range(n_items)]
        assert report.of_all_lists[f"coverage@{k}"] == len(set(shown)) / n_items
        np.testing.assert_allclose(report.of_all_lists[f"gini@{k}"], slow_gini(counts), atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_strata_are_thirds_of_the_interactions(n_users_of: list[int]) -> None:
    strata = popularity_strata(np.array(n_users_of))
    assert [STRATA[place] for place in strata] == slow_strata(n_users_of)
    assert (strata == 0).any()


def test_strata_of_a_million_items_do_not_overflow() -> None:
    strata = popularity_strata(np.arange(1_000_000))
    held = np.bincount(strata, np.arange(1_000_000))
    np.testing.assert_allclose(held / held.sum(), 1 / 3, atol=1e-5)


def test_gini_is_nought_if_all_are_shown_alike_and_one_if_one_takes_all() -> None:
    gini = ListMetric("gini", 5)
    assert of_all(gini, np.full(7, 3)) == 0
    assert of_all(gini, np.array([0, 9, 0])) == 1
    assert math.isnan(of_all(gini, np.array([4])))
    assert math.isnan(of_all(gini, np.zeros(4)))


def test_coverage_gini_and_accuracy_are_irspacks() -> None:
    """A live oracle. Its Gini coefficient is divided by n, ours by n - 1."""
    rng = np.random.default_rng(3)
    held_out = rng.random((60, 30)) < 0.2
    held_out[np.arange(60), rng.integers(0, 30, 60)] = True
    scores = rng.permuted(np.tile(np.arange(30.0), (60, 1)), axis=1) + 1.37 * np.arange(30)
    evaluator = require("irspack", "baselines", "comparing").Evaluator(
        csr_matrix(held_out, dtype=float), cutoff=7
    )
    theirs = evaluator.get_score_from_score_matrix(scores)
    shared = {"recall": "recall_of_held_out", "hit": "hit_rate", "precision": "precision"}
    shared |= {"ndcg": "ndcg", "map": "map_of_held_out"}
    cases = Cases(np.arange(60), csr_array((60, 30), dtype=np.float32), csr_array(held_out))
    names = [f"{kind}@7" for kind in (*shared.values(), "coverage", "gini")]
    ours = evaluate(FixedScores(scores), cases, metrics=names, block_size=60)
    for name, kind in shared.items():
        assert ours.mean(f"{kind}@7") == pytest.approx(theirs[name], rel=1e-12), kind
    assert ours.of_all_lists["coverage@7"] == pytest.approx(theirs["catalog_coverage"])
    assert ours.of_all_lists["gini@7"] == pytest.approx(theirs["gini_index"] * 30 / 29)
    assert 0 < ours.of_all_lists["gini@7"] < 1


# Six users and nine items, the last of which nobody trained with; lists are cut at four.
TRAIN = (
    *("110110110", "111011000", "010100000", "001111000"),
    *("110111000", "111100010", "011111100", "101100100"),
)
RANKED = (
    *([5, 8, 0, 1, 6, 2, 3, 4, 7], [5, 8, 1, 0, 7, 4, 6, 2, 3], [2, 8, 3, 6, 7, 0, 1, 5, 4]),
    *([5, 7, 1, 3, 6, 0, 8, 4, 2], [3, 0, 4, 8, 7, 6, 2, 5, 1], [8, 3, 0, 2, 5, 4, 1, 7, 6]),
)
HELD_OUT = (
    *([1, 3, 5, 6, 8], [2, 4, 6, 7, 8], [3, 5]),
    *([0, 1, 6, 8], [0, 2, 6, 7], [0, 1, 3, 4, 7]),
)
# RecTools 0.19.0, and where it has the metric ranx 0.3.21, which agreed; run on 2026-11-25.
# RecTools counts popularity in users, here divided by the eight, and coverage in items.
THEIRS = {
    "precision@4": [0.75, 0.25, 0.25, 0.25, 0.25, 0.5],
    "hit_rate@4": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    "recall_of_held_out@4": [0.6, 0.2, 0.5, 0.25, 0.25, 0.4],
    "map_of_held_out@4": [0.55, 0.1, 1 / 6, 1 / 12, 0.125, 0.7 / 3],
    "mrr@4": [1.0, 0.5, 1 / 3, 1 / 3, 0.5, 0.5],
    "novelty@4": [
        *(1.273277351098, 1.273277351098, 1.321438620583),
        *(0.901920644305, 1.137197222042, 1.137197222042),
    ],
    "popularity@4": [3.75 / 8, 3.75 / 8, 3.75 / 8, 4.75 / 8, 4.25 / 8, 4.25 / 8],
    "diversity@4": [
        *(0.701686204244, 0.701686204244, 0.692137524336),
        *(0.489548558661, 0.674625532072, 0.674625532072),
    ],
}
RANX_NDCG = [
    *(0.804809975004, 0.246302388741, 0.306573596383),
    *(0.195190024996, 0.246302388741, 0.441492413737),
]


def test_a_small_case_is_rectools_and_ranxs() -> None:
    train = np.array([[int(one) for one in row] for row in TRAIN])
    scores, held_out = np.empty((6, 9)), np.zeros((6, 9))
    for user, (ranked, to_find) in enumerate(zip(RANKED, HELD_OUT, strict=True)):
        scores[user, ranked], held_out[user, to_find] = -np.arange(9), 1
    cases = Cases(np.arange(6), csr_array((6, 9)), csr_array(held_out))
    names = [*THEIRS, "ndcg@4", "coverage@4"]
    report = evaluate(FixedScores(scores), cases, metrics=names, train=csr_array(train))
    for name, expected in (THEIRS | {"ndcg@4": RANX_NDCG}).items():
        np.testing.assert_allclose(report.metrics[name], expected, rtol=1e-11, err_msg=name)
    assert report.of_all_lists["coverage@4"] == 9 / 9


@pytest.mark.parametrize("block_size", [1, 7, 500])
def test_nothing_depends_on_the_block_size(block_size: int) -> None:
    scorer, cases = LinearScorer.random(30, 3, whole=True), random_cases(20, 30, 3)
    names, train = [f"{kind}@5" for kind in KINDS], random_train(50, 30, 3)
    one, other = (
        evaluate(scorer, cases, metrics=names, train=train, block_size=size)
        for size in (20, block_size)
    )
    for name in one.metrics:
        np.testing.assert_allclose(one.metrics[name], other.metrics[name], rtol=1e-12)
    assert one.of_all_lists == other.of_all_lists


def test_diversity_is_one_between_strangers_and_nought_between_twins() -> None:
    train = csr_array(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], dtype=np.float32))
    scores = np.array([[4.0, 3, 2, 1], [4, 1, 3, 2], [1, 2, 3, 4]])
    cases = Cases(np.arange(3), csr_array((3, 4)), csr_array(np.eye(3, 4)))
    report = evaluate(FixedScores(scores), cases, metrics=["diversity@2"], train=train)
    np.testing.assert_allclose(report.metrics["diversity@2"], [0, 1, 1], atol=1e-12)


def test_diversity_of_many_training_users_keeps_its_memory() -> None:
    """The whole product of lists and training users would be 480 MB."""
    rng = np.random.default_rng(0)
    n_users, items = 200_000, rng.integers(0, 50, 200_000)
    train = csr_array((np.ones(n_users, np.float32), items, np.arange(n_users + 1)))
    lists = np.stack([rng.permutation(50)[:20] for _ in range(200)])
    training = TrainingItems(train)
    assert training.columns.shape == (50, n_users)
    none = csr_array((200, 50))
    tracemalloc.start()
    diversity = per_list(ListMetric("diversity", 20), Lists(lists, lists < 0, none, none), training)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
    np.testing.assert_allclose(diversity, 1, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_k_beyond_the_catalogue_is_a_shorter_list(kind: ListKind) -> None:
    scorer, cases, train = (
        LinearScorer.random(20, 3),
        random_cases(5, 20, 3),
        random_train(9, 20, 3),
    )
    whole, beyond = f"{kind}@20", f"{kind}@1000000000"
    report = evaluate(scorer, cases, metrics=[whole, beyond], train=train)
    values = {**report.metrics, **report.of_all_lists}
    np.testing.assert_array_equal(values[whole], values[beyond])


def test_popularity_brings_that_of_the_history() -> None:
    scorer, cases, train = (
        LinearScorer.random(20, 3),
        random_cases(5, 20, 3),
        random_train(9, 20, 3),
    )
    found = evaluate(scorer, cases, metrics=["popularity@5", "ndcg@5"], train=train).metrics
    assert list(found) == ["popularity@5", "popularity_of_history", "ndcg@5"]
    alone = evaluate(scorer, cases, metrics=["popularity_of_history"], train=train).metrics
    np.testing.assert_array_equal(alone["popularity_of_history"], found["popularity_of_history"])


def test_a_data_set_brings_its_training_users() -> None:
    data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
    scorer, names = LinearScorer.random(data.n_items, 0), ["tail_recall@5", "novelty@5"]
    by_data = evaluate(scorer, data, "test", metrics=names)
    by_cases = evaluate(scorer, data.cases(Part.TEST), metrics=names, train=data.train)
    for name in names:
        np.testing.assert_array_equal(by_data.metrics[name], by_cases.metrics[name])


def test_evaluate_refuses_training_it_cannot_use() -> None:
    scorer, cases = LinearScorer.random(5, 0), random_cases(3, 5, 0)
    with pytest.raises(ConfigError, match=r"novelty@3 must be told the training interactions"):
        evaluate(scorer, cases, metrics=["coverage@3", "novelty@3"])
    for shape in ((3, 4), (0, 5)):
        with pytest.raises(DataError, match="one user or more over the scorer's 5 items"):
            evaluate(scorer, cases, metrics=["novelty@3"], train=csr_array(shape))


# Reports, files and comparisons.


def report_of(values: list[float], coverage: float = 0.25) -> EvaluationReport:
    return EvaluationReport(
        IdMap.of(range(len(values))),
        np.full(len(values), 7),
        {"diversity@5": np.array(values)},
        of_all_lists={"coverage@5": coverage, "gini@5": math.nan},
    )


def test_report_leaves_out_who_defines_nothing() -> None:
    report = report_of([0.5, math.nan, 1.0])
    assert report.mean("diversity@5") == 0.75
    assert report.standard_error("diversity@5") == 0.25
    summary = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert summary["metrics"]["diversity@5"]["users"] == 2
    assert summary["of_all_lists"] == {
        "coverage@5": {"label": "Coverage@5", "value": 0.25},
        "gini@5": {"label": "Gini@5", "value": None},
    }
    assert "Diversity@5: defined by 2 of 3 users" in str(report)
    assert "Coverage@5 of all lists: 0.2500" in str(report)


def test_report_of_everything_is_within_a_terminal() -> None:
    scorer, cases, train = (
        LinearScorer.random(20, 3),
        random_cases(9, 20, 3),
        random_train(9, 20, 3),
    )
    kinds = [*KINDS, *get_args(Kind)]
    report = evaluate(scorer, cases, metrics=[f"{kind}@100" for kind in kinds], train=train)
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 100
    for name in (*report.metrics, *report.of_all_lists):
        assert metric_of(name).label in str(report)
    assert str(evaluate(scorer, cases, metrics=["coverage@5"])).startswith("cohort")


def test_per_user_file_comes_back_with_what_is_of_all_lists(tmp_path: Path) -> None:
    report = report_of([0.5, math.nan, 1.0])
    pq.write_table(report.per_user_table(), tmp_path / "per-user.parquet")
    again = EvaluationReport.from_table(pq.read_table(tmp_path / "per-user.parquet"))
    assert again.to_json() == report.to_json()
    plain = report.per_user_table().replace_schema_metadata(None)
    assert EvaluationReport.from_table(plain).of_all_lists == {}


def test_compare_pairs_users_who_define_a_metric_on_both_sides() -> None:
    candidate = report_of([0.5, math.nan, 1.0, 0.7, math.nan], 0.5)
    reference = report_of([0.4, 0.3, math.nan, 0.4, math.nan], 0.25)
    comparison = compare(candidate, reference, seed=1, n_resamples=100)
    gain = comparison.overall["diversity@5"]
    assert gain.users == 2
    assert (gain.candidate_mean, gain.reference_mean) == (0.6, 0.4)
    assert gain.difference == pytest.approx(0.2)
    alone = report_of([0.5, 0.7]), report_of([0.4, 0.4])
    assert compare(*alone, seed=1, n_resamples=100).overall["diversity@5"] == gain
    json.dumps(comparison.to_json(), allow_nan=False)


def test_compare_shows_all_lists_without_an_interval() -> None:
    comparison = compare(report_of([0.5], 0.5), report_of([0.5], 0.25), seed=1, n_resamples=100)
    coverage = comparison.overall["coverage@5"]
    assert (coverage.candidate_mean, coverage.reference_mean) == (0.5, 0.25)
    assert (coverage.difference, coverage.relative_difference) == (0.25, 1.0)
    assert math.isnan(coverage.low)
    assert math.isnan(coverage.p_value)
    assert "coverage@5" not in comparison.cohorts["5-10"]
    assert comparison.to_json()["metrics"]["coverage@5"]["p_value"] is None
    assert "Coverage@5" in str(comparison)
    assert "nan" not in str(comparison)


def test_compare_of_users_who_define_nothing_is_empty() -> None:
    nobody = compare(report_of([math.nan]), report_of([0.5]), seed=1, n_resamples=100)
    assert nobody.overall["diversity@5"].users == 0
    assert math.isnan(nobody.overall["diversity@5"].p_value)


def test_runs_are_averaged_over_those_that_define_a_metric() -> None:
    runs = [report_of([0.5, math.nan, math.nan], 0.5), report_of([0.7, 0.3, math.nan], 0.25)]
    pooled = pool(runs)
    np.testing.assert_allclose(pooled.metrics["diversity@5"], [0.6, 0.3, math.nan])
    assert pooled.of_all_lists["coverage@5"] == 0.375
    gain = compare_runs(runs, runs, seed=0, n_resamples=100).overall
    assert (gain["diversity@5"].users, gain["coverage@5"].difference) == (2, 0.0)


@pytest.mark.parametrize("name", ["coverage", "popularity_of_history@5", "gini@0", "novelty@x"])
def test_metric_of_refuses_what_is_none(name: str) -> None:
    with pytest.raises(ConfigError, match=r"recall@k, .* coverage@k or gini@k with k ≥ 1"):
        metric_of(name)
