import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    ndcg_score,
)

from coterie.errors import ConfigError
from coterie.evaluation.cohorts import cohort_members
from coterie.evaluation.measure import per_user
from coterie.evaluation.metrics import Kind, Metric


def slow_metric(kind: str, k: int, ranked: list[int], held_out: set[int]) -> float:
    """One user at a time, as the definitions read."""
    hits = [item in held_out for item in ranked[:k]]
    if kind == "recall":
        return sum(hits) / min(k, len(held_out))
    if kind == "recall_of_held_out":
        return sum(hits) / len(held_out)
    if kind == "mrr":
        return next((1 / rank for rank, hit in enumerate(hits, start=1) if hit), 0.0)
    if kind == "precision":
        return sum(hits) / k
    if kind == "hit_rate":
        return float(any(hits))
    if kind in ("map", "map_of_held_out"):
        precisions = [sum(hits[:rank]) / rank for rank in range(1, len(hits) + 1) if hits[rank - 1]]
        return sum(precisions) / (min(k, len(held_out)) if kind == "map" else len(held_out))
    gained = sum(hit / math.log2(rank + 1) for rank, hit in enumerate(hits, start=1))
    return gained / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(held_out)) + 1))


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[list[int]], list[set[int]], int]:
    n_items, n = draw(st.integers(1, 10)), draw(st.integers(1, 5))
    ranked = [draw(st.permutations(range(n_items))) for _ in range(n)]
    held_out = [draw(st.sets(st.integers(0, n_items - 1), min_size=1)) for _ in range(n)]
    return ranked, held_out, draw(st.integers(1, n_items))


@settings(max_examples=100, deadline=None)
@given(rankings(), st.sampled_from(get_args(Kind)))
def test_per_user_is_the_definition(
    problem: tuple[list[list[int]], list[set[int]], int], kind: str
) -> None:
    ranked, held_out, k = problem
    hits = torch.tensor(
        [[item in found for item in line] for line, found in zip(ranked, held_out, strict=True)]
    )
    values = per_user(
        Metric.parse(f"{kind}@{k}"), hits, torch.tensor([len(found) for found in held_out])
    )
    assert values.dtype == torch.float64
    expected = [
        slow_metric(kind, k, line, found) for line, found in zip(ranked, held_out, strict=True)
    ]
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12)
    assert values.max() <= 1.0


@pytest.mark.parametrize("k", [1, 5, 40])
def test_ndcg_is_scikit_learns(k: int) -> None:
    rng = np.random.default_rng(k)
    relevant = rng.random((50, 40)) < 0.2
    relevant[:, 0] = True
    scores = rng.permuted(np.tile(np.arange(40.0), (50, 1)), axis=1)
    hits = np.take_along_axis(relevant, np.argsort(-scores, axis=1), axis=1)
    values = per_user(
        Metric("ndcg", k), torch.from_numpy(hits), torch.from_numpy(relevant.sum(axis=1))
    )
    expected = [ndcg_score(relevant[[i]].astype(float), scores[[i]], k=k) for i in range(50)]
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12)


def test_mrr_with_one_held_out_item_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    relevant = np.eye(40, dtype=bool)[rng.integers(0, 40, 50)]
    scores = rng.permuted(np.tile(np.arange(40.0), (50, 1)), axis=1)
    hits = np.take_along_axis(relevant, np.argsort(-scores, axis=1), axis=1)
    values = per_user(Metric("mrr", 40), torch.from_numpy(hits), torch.ones(50, dtype=torch.int64))
    # With one relevant item, average precision is its reciprocal rank.
    expected = label_ranking_average_precision_score(relevant, scores)
    assert float(values.mean()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["map", "map_of_held_out"])
def test_average_precision_of_whole_lists_is_scikit_learns(kind: Kind) -> None:
    rng = np.random.default_rng(5)
    relevant = rng.random((50, 40)) < 0.2
    relevant[:, 0] = True
    scores = rng.permuted(np.tile(np.arange(40.0), (50, 1)), axis=1)
    hits = np.take_along_axis(relevant, np.argsort(-scores, axis=1), axis=1)
    values = per_user(
        Metric(kind, 40), torch.from_numpy(hits), torch.from_numpy(relevant.sum(axis=1))
    )
    expected = [average_precision_score(*user) for user in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12)


def test_precision_divides_by_k_where_the_list_is_shorter() -> None:
    hits = torch.tensor([[True, False, True]])
    assert per_user(Metric("precision", 8), hits, torch.tensor([3])).tolist() == [0.25]
    assert per_user(Metric("map", 8), hits, torch.tensor([3])).tolist() == [(1 + 2 / 3) / 3]


@pytest.mark.parametrize("n_held_out", [1, 3, 100, 500])
def test_ndcg_of_a_perfect_ranking_is_exactly_one(n_held_out: int) -> None:
    hits = torch.arange(100)[None] < n_held_out
    assert per_user(Metric("ndcg", 100), hits, torch.tensor([n_held_out])).tolist() == [1.0]


def test_label_names_the_divisor() -> None:
    assert Metric.parse("recall@20").label == "Recall@20 ÷ min(20, n)"
    assert Metric.parse("recall_of_held_out@5").label == "Recall@5 ÷ n"
    assert Metric.parse("ndcg@100").label == "NDCG@100"
    assert Metric.parse("mrr@10").label == "MRR@10"
    assert Metric.parse("precision@5").label == "Precision@5"
    assert Metric.parse("hit_rate@5").label == "Hit rate@5"
    assert Metric.parse("map@5").label == "MAP@5 ÷ min(5, n)"
    assert Metric.parse("map_of_held_out@5").label == "MAP@5 ÷ n"
    assert Metric.parse("recall_of_held_out@5").name == "recall_of_held_out@5"


@pytest.mark.parametrize(
    "name",
    ["", "ndcg", "ndcg@0", "ndcg@-1", "accuracy@5", "NDCG@5", "recall@5 ", "recall@1.5"],
)
def test_parse_refuses_what_is_no_metric(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"recall@k, recall_of_held_out@k, ndcg@k, mrr@k, .* or map_of_held_out@k"
    ):
        Metric.parse(name)


def test_parse_refuses_a_cut_off_beyond_numbers_and_what_no_model_is_chosen_by() -> None:
    longest = Metric.parse("precision@" + 300 * "9")
    assert per_user(longest, torch.tensor([[True]]), torch.tensor([1])).item() == 1e-300
    for name in ("ndcg@1" + 300 * "0", "ndcg@" + 5000 * "9", "coverage@5"):
        with pytest.raises(ConfigError, match="at most 300 digits"):
            Metric.parse(name)


@given(
    st.lists(st.integers(1, 300), min_size=1), st.sets(st.integers(1, 200), min_size=1).map(sorted)
)
def test_cohorts_hold_every_user_once(counts: list[int], bounds: list[int]) -> None:
    members = np.stack(list(cohort_members(np.array(counts), bounds).values()))
    assert (members.sum(axis=0) == 1).all()


def test_cohorts_are_cut_at_their_bounds() -> None:
    members = cohort_members(np.array([5, 10, 11, 50, 51, 100, 101, 9999]))
    assert list(members) == ["5-10", "11-50", "51-100", "101+"]
    assert [mask.sum() for mask in members.values()] == [2, 2, 2, 2]
    assert next(iter(cohort_members(np.array([4, 5])))) == "1-4"
    assert list(cohort_members(np.array([1]), [1, 2, 3])) == ["1", "2", "3+"]


@pytest.mark.parametrize("bounds", [(), (0, 5), (5, 5), (11, 5)])
def test_cohorts_refuse_bounds_that_do_not_ascend(bounds: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="ascending lower bounds"):
        cohort_members(np.array([7]), bounds)
