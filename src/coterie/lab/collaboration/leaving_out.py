"""Leaving training users out, to train once more without them: the measure nobody can argue with.

What a group of users teaches everybody else is what is lost without them, beside what is lost
without as many drawn at random.
"""

from dataclasses import replace

import numpy as np

from coterie.data.dataset import Dataset, Interactions
from coterie.data.ids import IdMap
from coterie.data.split import Part, Split
from coterie.errors import DataError


def without_users(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The same data set without some training users; all items, and everybody else, stay.

    Args:
        dataset: With its split.
        rows: ``[m]`` rows of its training matrix.

    Raises:
        DataError: if nobody would be left to train on.

    Example:
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> fewer = without_users(data, np.arange(20))
        >>> fewer.train.shape[0] - data.train.shape[0], fewer.n_items == data.n_items
        (-20, True)
    """
    x, split = dataset.interactions, dataset.split
    keep = np.ones(x.n_users, dtype=bool)
    keep[np.flatnonzero(split.user_part == Part.TRAIN)[rows]] = False
    if not (keep & (split.user_part == Part.TRAIN)).any():
        raise DataError("somebody must be left to train on, found nobody; leave fewer users out.")
    counts = np.diff(x.indptr)
    kept = np.repeat(keep, counts)
    interactions = Interactions(
        IdMap.of(dataset.users.take(np.flatnonzero(keep))),
        x.items,
        np.concatenate([[0], counts[keep].cumsum()]).astype(np.int64),
        x.indices[kept],
        **{name: column[kept] for name, column in x.columns.items()},
    )
    repeats = None if split.repeats is None else split.repeats[kept]
    parts = Split(split.user_part[keep], split.interaction_part[kept], repeats)
    return replace(dataset, interactions=interactions, split=parts, provenance={}, folder=None)


def groups_to_leave_out(
    dataset: Dataset, *, heavy: int, light: int, seed: int
) -> dict[str, np.ndarray]:
    """Rows of the training matrix: heavy users, light users, and for each as many at random.

    Random users have fewer interactions than as many heavy ones. So there is a third group of
    random users, who together have about as many interactions as the heavy ones.

    Args:
        dataset: With its split.
        heavy: Users of more interactions than this are heavy.
        light: Users of fewer are light.
        seed: Of the random ones.
    """
    counts = np.diff(dataset.train.indptr)
    order = np.random.default_rng(seed).permutation(len(counts))
    groups = {"heavy": np.flatnonzero(counts > heavy), "light": np.flatnonzero(counts < light)}
    as_many = {f"as many as {name}": np.sort(order[: len(one)]) for name, one in groups.items()}
    enough = np.searchsorted(counts[order].cumsum(), counts[groups["heavy"]].sum()) + 1
    return groups | as_many | {"as much as heavy": np.sort(order[:enough])}
