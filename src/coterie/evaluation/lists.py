"""What lists look like beyond hits: how new, popular, alike and widely spread what they show is,
and whether they find the items of the head or of the tail.

Apart from `measure` because it reads the interactions of training users, and in NumPy because it
comes after the ranking, on lists alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from scipy.sparse import csr_array

from coterie.evaluation.metrics import ListKind, ListMetric

STRATA = ("head", "middle", "tail")

# Entries of the product of lists and training users that live at once, 64 MiB.
_ENTRIES_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Lists:
    """The lists of a block of users, beside what these have and should find.

    Args:
        items: ``[n, K]`` int64 item indices, best first, -1 where a list is shorter.
        hits: ``[n, K]`` bool, whether the item at each rank was held out.
        fold_in: ``[n, n_items]`` what the user has.
        held_out: ``[n, n_items]`` what the user should find.
    """

    items: np.ndarray
    hits: np.ndarray
    fold_in: csr_array
    held_out: csr_array


@dataclass(frozen=True, eq=False)
class TrainingItems:
    """What the training users say of each item.

    Args:
        train: ``[n_users, n_items]`` binary interactions, of one user or more.
    """

    train: csr_array

    @cached_property
    def n_users_of(self) -> np.ndarray:
        """``[n_items]`` int64 training users of each item."""
        return np.bincount(self.train.indices, minlength=self.train.shape[1])

    @cached_property
    def share(self) -> np.ndarray:
        """``[n_items]`` share of the training users who have the item."""
        share: np.ndarray = self.n_users_of / self.train.shape[0]
        return share

    @cached_property
    def self_information(self) -> np.ndarray:
        """``[n_items]`` bits; an item that nobody has is as new as one that one user has."""
        bits: np.ndarray = np.log2(self.train.shape[0] / np.maximum(self.n_users_of, 1))
        return bits

    @cached_property
    def stratum(self) -> np.ndarray:
        """``[n_items]`` place in `STRATA`."""
        return popularity_strata(self.n_users_of)

    @cached_property
    def columns(self) -> csr_array:
        """``[n_items, n_users]`` the column of each item, scaled to length one; zeros stay."""
        by_item = csr_array(self.train.T)
        length = np.sqrt(np.diff(by_item.indptr))
        values = 1 / np.repeat(length, np.diff(by_item.indptr))
        return csr_array((values, by_item.indices, by_item.indptr), shape=by_item.shape)


def popularity_strata(n_users_of: np.ndarray) -> np.ndarray:
    """Head, middle and tail of a catalogue: thirds of the training interactions.

    An item is of the head if the items with more users than it hold less than a third of all
    interactions, of the middle if less than two thirds, else of the tail. So the head is never
    empty, and items with equally many users are of one stratum.

    Args:
        n_users_of: ``[n_items]`` int64 training users of each item.

    Returns:
        ``[n_items]`` int64, 0 head, 1 middle, 2 tail.

    Example:
        >>> popularity_strata(np.array([1, 6, 2, 4, 0, 2])).tolist()
        [2, 0, 2, 1, 2, 2]
    """
    fewer_first, place, n_equals = np.unique(n_users_of, return_inverse=True, return_counts=True)
    held = (fewer_first * n_equals)[::-1]
    before = (np.cumsum(held) - held)[::-1][place]
    third: np.ndarray = np.minimum(3 * before // max(int(held.sum()), 1), 2)
    return third


def per_list(metric: ListMetric, lists: Lists, training: TrainingItems) -> np.ndarray:
    """A metric of each user.

    Args:
        metric: One that is each user's own.
        lists: K ≥ min(k, n_items) places.
        training: Of the same catalogue.

    Returns:
        ``[n]`` float64, NaN where the metric is undefined.

    Example:
        >>> training = TrainingItems(csr_array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]))
        >>> none = csr_array((1, 3))
        >>> lists = Lists(np.array([[1, 0, -1]]), np.zeros((1, 3), dtype=bool), none, none)
        >>> per_list(ListMetric("novelty", 2), lists, training).tolist()
        [0.5]
    """
    with np.errstate(invalid="ignore"):  # 0 / 0 is what undefined means
        return _FORMULAS[metric.kind](lists, metric.k, training)


def exposure(items: np.ndarray, n_items: int) -> np.ndarray:
    """``[n_items]`` how often each item is shown by ``[n, k]`` lists, -1 being no item."""
    return np.bincount(items[items >= 0], minlength=n_items)


def of_all(metric: ListMetric, shown: np.ndarray) -> float:
    """A metric of all lists together.

    Args:
        metric: One that no user has alone.
        shown: ``[n_items]`` how often each item is shown.

    Returns:
        A number in [0, 1]; NaN if it is undefined.

    Example:
        >>> of_all(ListMetric("coverage", 1), np.array([4, 0, 0, 0]))
        0.25
        >>> of_all(ListMetric("gini", 1), np.array([4, 0, 0, 0]))
        1.0
    """
    return _coverage(shown) if metric.kind == "coverage" else _gini(shown)


def _coverage(shown: np.ndarray) -> float:
    return float((shown > 0).mean())


def _gini(shown: np.ndarray) -> float:
    """Shani and Gunawardana (2011), section 8.3.3: divided by n - 1, so that one item is 1."""
    n, total = len(shown), float(shown.sum())
    if n < 2 or total == 0:
        return float("nan")
    return float((2 * np.arange(1.0, n + 1) - n - 1) @ np.sort(shown) / ((n - 1) * total))


def _mean(values: np.ndarray, items: np.ndarray) -> np.ndarray:
    """``[n]`` mean of ``[n_items]`` values over each list."""
    there = items >= 0
    mean: np.ndarray = (values[items] * there).sum(axis=1) / there.sum(axis=1)
    return mean


def _mean_of_history(lists: Lists, _: int, training: TrainingItems) -> np.ndarray:
    counts = np.diff(lists.fold_in.indptr)
    shares = training.share[lists.fold_in.indices]
    mean: np.ndarray = np.bincount(_rows(lists.fold_in), shares, len(counts)) / counts
    return mean


def _recall(stratum: int, lists: Lists, k: int, training: TrainingItems) -> np.ndarray:
    """Of the held-out items of one stratum."""
    of = training.stratum == stratum
    found = (lists.hits & of[lists.items])[:, :k].sum(axis=1)
    to_find = np.bincount(
        _rows(lists.held_out)[of[lists.held_out.indices]], minlength=lists.held_out.shape[0]
    )
    recall: np.ndarray = found / to_find
    return recall


def _diversity(items: np.ndarray, columns: csr_array) -> np.ndarray:
    """1 - mean cosine of the pairs of each list: ‖Σ v‖² = Σ ‖v‖² + 2 Σ cosines of pairs."""
    there = items >= 0
    lengths = there.sum(axis=1)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    shown = csr_array(
        (np.ones(starts[-1]), items[there], starts), shape=(len(items), columns.shape[0])
    )
    known = np.diff(columns.indptr) > 0
    cosines = (_squared_lengths(shown, columns) - shown @ known) / 2
    pairs = np.where(lengths > 1, lengths * (lengths - 1) / 2, np.nan)
    # No cosine is below zero; rounding must not say so.
    diversity: np.ndarray = 1 - np.maximum(cosines, 0) / pairs
    return diversity


def _squared_lengths(rows: csr_array, columns: csr_array) -> np.ndarray:
    """``[n]`` squared lengths of the rows of a product, of which only some live at once."""
    at_once = max(_ENTRIES_AT_ONCE // columns.shape[1], 1)
    pieces = (rows[start : start + at_once] for start in range(0, rows.shape[0], at_once))
    return np.concatenate([(piece @ columns).power(2).sum(axis=1) for piece in pieces])


def _rows(matrix: csr_array) -> np.ndarray:
    """``[n_ones]`` row of each one."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


_FORMULAS: dict[ListKind, Callable[[Lists, int, TrainingItems], np.ndarray]] = {
    "novelty": lambda lists, k, of: _mean(of.self_information, lists.items[:, :k]),
    "popularity": lambda lists, k, of: _mean(of.share, lists.items[:, :k]),
    "popularity_of_history": _mean_of_history,
    "diversity": lambda lists, k, of: _diversity(lists.items[:, :k], of.columns),
    "head_recall": partial(_recall, 0),
    "middle_recall": partial(_recall, 1),
    "tail_recall": partial(_recall, 2),
}
