"""Weighted draws without replacement, for many users at once and without a users × items matrix.

Drawing with replacement and dropping repeats is the same as drawing successively without
replacement, and costs a few binary searches an interaction. The users still short after a few
rounds (repeats are many where a user takes much of a niche) are completed exactly: exponential
clocks, one an item, ring in the order of successive draws without replacement.
"""

import numpy as np

CLOCKS_AT_ONCE = 2_000_000
"""Bound of the dense users × items block in which users are completed (16 MB an array)."""

ROUNDS = 3
"""Rounds of draws, each with twice the draws for what is missing, before users are completed."""

_GRID = 2**40


def stream(seed: int, *key: int) -> np.random.Generator:
    """Random numbers of their own for every ``key``: what is made of one does not depend on what is
    made of another, nor on the order.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def normalised(weights: np.ndarray) -> np.ndarray:
    """``[n, m]`` weights not below zero, divided by their row sums."""
    shares: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return shares


def choose(weights: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Marks ``counts`` ``[n]`` columns a row, drawn without replacement by ``[n, m]`` weights.

    Example:
        >>> choose(
        ...     np.array([[0.0, 1, 2], [5, 0, 0]]), np.array([2, 1]), np.random.default_rng(0)
        ... ).tolist()
        [[False, True, True], [True, False, False]]
    """
    rank = np.argsort(np.argsort(_clocks(weights, rng), axis=1), axis=1)
    marked: np.ndarray = rank < counts[:, None]
    return marked


def _clocks(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exponential waiting times at the rates ``weights``; a zero weight never rings."""
    with np.errstate(divide="ignore"):
        waiting: np.ndarray = rng.standard_exponential(weights.shape) / weights
    return waiting


def flat_cumulative(shares: np.ndarray) -> np.ndarray:
    """Lays the cumulative sums of ``[n, m]`` rows one after another: row r rises from r to r +
    1.
    """
    sums = np.cumsum(shares, axis=1)
    sums /= sums[:, -1:]
    sums += np.arange(len(sums))[:, None]
    return sums.ravel()


def draw_columns(
    flat: np.ndarray, n_columns: int, row: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws a column for each of ``[n]`` rows, by the law that `flat_cumulative` laid out."""
    # On this grid row + uniform is exact in float64, so that a draw never slips into the next row.
    at = row + rng.integers(_GRID, size=len(row)) / _GRID
    columns: np.ndarray = np.searchsorted(flat, at, side="right") - row * n_columns
    return columns


def draw_items(
    tastes: np.ndarray,
    n_wanted: np.ndarray,
    phi: np.ndarray,
    flat_phi: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws every user's items successively without replacement from ``tastes @ phi``.

    Args:
        tastes: ``[n_users, n_niches]`` rows that sum to one.
        n_wanted: ``[n_users]`` int64 distinct items to draw, at most the number of items.
        phi: ``[n_niches, n_items]`` positive, rows sum to one.
        flat_phi: ``flat_cumulative(phi)``, made once for many calls.
        rng: Source of all randomness.

    Returns:
        Users ``[n]``, ascending, and items ``[n]``, in the order drawn within a user; n is the sum
        of ``n_wanted``.
    """
    n_items = phi.shape[1]
    flat_tastes = flat_cumulative(tastes)
    row, item, missing = np.empty(0, np.int64), np.empty(0, np.int64), n_wanted
    for turn in range(ROUNDS):
        more = np.repeat(np.arange(len(tastes)), np.where(missing > 0, (missing + 8) << turn, 0))
        niche = draw_columns(flat_tastes, len(phi), more, rng)
        row, item = _join(row, item, more, draw_columns(flat_phi, n_items, niche, rng))
        row, item = _first_occurrences(row, item, n_items, n_wanted)
        missing = n_wanted - np.bincount(row, minlength=len(tastes))
    for short in _portions(np.flatnonzero(missing), n_items):
        row, item = _join(
            row, item, *_complete(short, missing[short], tastes[short] @ phi, row, item, rng)
        )
    return row, item


def _join(
    row: np.ndarray, item: np.ndarray, late_row: np.ndarray, late_item: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Puts later draws behind the earlier ones of the same row."""
    rows = np.concatenate([row, late_row])
    order = np.argsort(rows, kind="stable")
    return rows[order], np.concatenate([item, late_item])[order]


def _first_occurrences(
    row: np.ndarray, item: np.ndarray, n_items: int, n_wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Drops repeats, and what goes beyond ``n_wanted``."""
    _, first = np.unique(row * n_items + item, return_index=True)
    first.sort()
    row, item = row[first], item[first]
    enough = _rank_within(row) < n_wanted[row]
    return row[enough], item[enough]


def _rank_within(row: np.ndarray) -> np.ndarray:
    """``[n]`` position of each entry among those of its row, rows ascending."""
    counts = np.bincount(row)
    rank: np.ndarray = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def _portions(rows: np.ndarray, n_items: int) -> list[np.ndarray]:
    at_once = max(1, CLOCKS_AT_ONCE // n_items)
    return [rows[start : start + at_once] for start in range(0, len(rows), at_once)]


def _complete(
    short: np.ndarray,
    missing: np.ndarray,
    law: np.ndarray,
    row: np.ndarray,
    item: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the ``missing`` items of the users ``short`` among those they do not have yet."""
    position = np.searchsorted(short, row)
    mine = short[np.minimum(position, len(short) - 1)] == row
    law[position[mine], item[mine]] = 0.0
    clocks = _clocks(law, rng)
    most = int(missing.max())
    soonest = np.argpartition(clocks, most - 1, axis=1)[:, :most]
    in_order = np.take_along_axis(
        soonest, np.argsort(np.take_along_axis(clocks, soonest, axis=1), axis=1), axis=1
    )
    wanted = np.arange(most) < missing[:, None]
    return np.repeat(short, missing), in_order[wanted]
