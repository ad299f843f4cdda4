"""Models beside each other on the items that both know, against loops over users."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pytest
from scipy.sparse import csr_array

from coterie.data.ids import IdMap
from coterie.data.split import Cases
from coterie.errors import DataError
from coterie.jobs.trial import OnItems, Trial, sampled
from scorer_contract import LinearScorer

N_ITEMS, N_USERS, K = 12, 40, 3
ITEMS = IdMap.of([f"item {number}" for number in range(N_ITEMS)])


@dataclass(frozen=True, eq=False)
class Planted:
    """A model of some of the items, in an order of its own, and some that are not there."""

    scorer: LinearScorer
    known: list[int]

    @classmethod
    def of(cls, seed: int, n_known: int) -> "Planted":
        rng = np.random.default_rng(seed)
        known = rng.permutation(N_ITEMS)[:n_known].tolist()
        ids = [f"item {number}" for number in known] + ["elsewhere", "gone"]
        weights = rng.normal(size=(len(ids), len(ids))).astype(np.float32)
        return cls(LinearScorer(weights, IdMap.of(ids), np.ones(len(ids), np.int64)), known)

    def score(self, history: set[int], item: int) -> float:
        """Of one item: the sum over what it knows of a history."""
        row, weights = self.known.index(item), self.scorer.weights
        return float(
            sum(weights[self.known.index(one), row] for one in history if one in self.known)
        )

    def ranked(self, history: set[int], among: set[int], *, leave_out: bool = True) -> list[int]:
        """Best first, what was seen left out."""
        kept = among - history if leave_out else among
        return sorted(kept, key=lambda item: -self.score(history, item))


ONE, OTHER = Planted.of(1, 9), Planted.of(2, 8)
BOTH = set(ONE.known) & set(OTHER.known)


def make_cases(seed: int = 3) -> tuple[Cases, list[tuple[set[int], set[int]]]]:
    """Cases of users 0, 2, 4, …, and the same as sets: shown, to be found."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(N_ITEMS) for _ in range(N_USERS)]
    sets = [(set(one[:4].tolist()), set(one[4:6].tolist())) for one in drawn]
    fold_in, held_out = (matrix([pair[side] for pair in sets]) for side in (0, 1))
    return Cases(2 * np.arange(N_USERS), fold_in, held_out), sets


def matrix(rows: list[set[int]]) -> csr_array:
    dense = np.zeros((len(rows), N_ITEMS), np.float32)
    for number, row in enumerate(rows):
        dense[number, sorted(row)] = 1
    return csr_array(dense)


CASES, SETS = make_cases()
TRIAL = Trial(CASES, ITEMS, IdMap.of([f"user {n}" for n in range(N_USERS)]), f"ndcg@{K}")


def ndcg(ranked: list[int], wanted: set[int]) -> float:
    gain = sum(1 / np.log2(place + 2) for place, item in enumerate(ranked[:K]) if item in wanted)
    return float(gain / sum(1 / np.log2(place + 2) for place in range(min(K, len(wanted)))))


def by_hand(model: Planted, among: set[int]) -> dict[str, float]:
    return {
        f"user {number}": ndcg(model.ranked(shown, among), wanted & among)
        for number, (shown, wanted) in enumerate(SETS)
        if wanted & among
    }


@pytest.mark.parametrize(("model", "other"), [(ONE, OTHER), (OTHER, ONE), (ONE, None)])
def test_a_report_is_of_shared_items_and_of_whoever_took_one_up(
    model: Planted, other: Planted | None
) -> None:
    report = TRIAL.report(model.scorer, None if other is None else other.scorer)
    expected = by_hand(model, set(model.known) if other is None else BOTH)
    ids = report.users.ids_of(range(len(report)))
    found = dict(zip(ids, report.metrics[TRIAL.metric], strict=True))
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


def test_models_are_compared_user_by_user() -> None:
    found = TRIAL.against(ONE.scorer, OTHER.scorer).overall[TRIAL.metric]
    one, other = by_hand(ONE, BOTH), by_hand(OTHER, BOTH)
    assert found.users == len(one) < N_USERS
    assert found.candidate_mean == pytest.approx(np.mean(list(one.values())))
    assert found.reference_mean == pytest.approx(np.mean(list(other.values())))
    assert found.low < found.difference < found.high
    same = TRIAL.against(ONE.scorer, ONE.scorer).overall[TRIAL.metric]
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_a_permuted_catalogue_is_the_same_model() -> None:
    order = np.random.default_rng(5).permutation(len(ONE.scorer.items))
    ids = IdMap.of(ONE.scorer.items.ids_of(order))
    weights = ONE.scorer.weights[np.ix_(order, order)]
    permuted = LinearScorer(weights, ids, ONE.scorer.popularity[order])
    expected = TRIAL.report(ONE.scorer, OTHER.scorer).metrics[TRIAL.metric]
    found = TRIAL.report(permuted, OTHER.scorer).metrics[TRIAL.metric]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert TRIAL.overlap(permuted, ONE.scorer, K) == 1


def test_overlap_is_the_share_of_places_that_both_fill() -> None:
    k = 2
    shares = [
        len(set(ONE.ranked(shown, BOTH)[:k]) & set(OTHER.ranked(shown, BOTH)[:k])) / k
        for shown, _ in SETS
    ]
    assert all(len(BOTH - shown) >= k for shown, _ in SETS)
    assert TRIAL.overlap(ONE.scorer, OTHER.scorer, k) == pytest.approx(np.mean(shares))


def test_distinct_is_what_one_list_has_and_another_has_not() -> None:
    known = set(ONE.known)
    lists = [set(ONE.ranked(shown, known, leave_out=False)[:K]) for shown, _ in SETS]
    shares = [len(one - other) / K for one, other in permutations(lists, 2)]
    assert 0 < np.mean(shares) < 1
    assert TRIAL.distinct(ONE.scorer, K) == pytest.approx(np.mean(shares))


def test_a_model_that_tells_nobody_apart_has_no_distinct_list() -> None:
    """Whatever users have seen."""
    flat = np.tile(np.arange(N_ITEMS, dtype=np.float32), (N_ITEMS, 1))
    scorer = LinearScorer(flat, ITEMS, np.ones(N_ITEMS, np.int64))
    assert TRIAL.distinct(scorer, K) == 0


def test_scores_are_the_models_own_in_the_columns_of_the_histories() -> None:
    ranked = np.isin(np.arange(N_ITEMS), sorted(BOTH))
    scorer = OnItems(ONE.scorer, ITEMS, ranked)
    found = scorer.score(CASES.fold_in).numpy()
    assert found.shape == (N_USERS, N_ITEMS)
    for row, (shown, _) in zip(found, SETS, strict=True):
        for item in range(N_ITEMS):
            if item in BOTH:
                assert row[item] == pytest.approx(ONE.score(shown, item), abs=1e-5)
            else:
                assert row[item] == np.finfo(np.float32).min


def test_models_without_a_shared_item_that_was_taken_up_are_refused() -> None:
    strangers = IdMap.of(["elsewhere", "gone"])
    scorer = LinearScorer(np.ones((2, 2), np.float32), strangers, np.ones(2, np.int64))
    with pytest.raises(DataError, match="look at the item ids"):
        TRIAL.report(ONE.scorer, scorer)


def test_sampled_cases_are_drawn_once_each_and_stay_in_order() -> None:
    some = sampled(CASES, 7)
    assert len(some.user_index) == 7
    assert (np.diff(some.user_index) > 0).all()
    assert sampled(CASES, 7).user_index.tolist() == some.user_index.tolist()
    assert sampled(CASES, 1000).user_index.tolist() == CASES.user_index.tolist()
