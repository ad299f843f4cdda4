"""The split by time: what is known before a cut, and what is taken up after it.

Nothing from after the cut may change who trains, on what, or which items there are: filters and
items come from the merged rows before it, and each later window is merged by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import numpy as np

from coterie.data.pairs import Divided, Pairs, drop_rare, is_negative, joined, merged
from coterie.data.rules import PrepareRules, TimeSplit
from coterie.data.split import BEFORE_HISTORY, TEST_INPUT, Part, folded_in, to_find

DAY_SECONDS = 86_400
_EVER = -(2**62)
_UNUSED = 255


@dataclass(frozen=True)
class Window:
    """Half-open: seconds since 1970 from ``start`` to before ``stop``."""

    start: int
    stop: int

    def holds(self, timestamp: np.ndarray) -> np.ndarray:
        """``[n]`` bool: whether the ``[n]`` times are in it."""
        inside: np.ndarray = (timestamp >= self.start) & (timestamp < self.stop)
        return inside


@dataclass(frozen=True)
class Windows:
    """The stretches of a time split. ``train`` is validation's input, too.

    Args:
        train: What is trained on.
        validation: Where validation's held-out interactions are; empty without validation.
        test_input: What is shown in the test.
        test: Where the test's held-out interactions are.
    """

    train: Window
    validation: Window
    test_input: Window
    test: Window

    @classmethod
    def of(cls, split: TimeSplit) -> "Windows":
        """The windows of a split whose test date is known.

        Example:
            >>> windows = Windows.of(TimeSplit(test_days=1, test_from=date(1970, 1, 10)))
            >>> [second // DAY_SECONDS for second in (windows.train.stop, windows.test.start)]
            [2, 9]
        """
        day, gap = DAY_SECONDS, split.gap_days * DAY_SECONDS
        test_start = (cast(date, split.test_from) - date(1970, 1, 1)).days
        input_stop = test_start * day - gap
        validation_start = input_stop - split.validation_days * day
        train_stop = validation_start - (gap if split.validation_days else 0)
        return cls(
            _input(train_stop, split.history_days),
            Window(validation_start, input_stop),
            _input(input_stop, split.history_days),
            Window(test_start * day, (test_start + split.test_days) * day),
        )


def _input(stop: int, history_days: int | None) -> Window:
    return Window(_EVER if history_days is None else stop - history_days * DAY_SECONDS, stop)


def last_days(last_timestamp: int, n_days: int) -> date:
    """The first of the last ``n_days`` days, of which the last holds ``last_timestamp``.

    Example:
        >>> last_days(3 * DAY_SECONDS, 1)
        datetime.date(1970, 1, 4)
    """
    return datetime.fromtimestamp(last_timestamp, UTC).date() - timedelta(days=n_days - 1)


def divide_by_time(
    rows: Pairs, rules: PrepareRules, split: TimeSplit, counts: dict[str, int]
) -> tuple[Divided, dict[str, Any]]:
    """Merges, filters and divides; every loss is added to ``counts``.

    Args:
        rows: As `Pairs.ordered` gives them, with times.
        rules: What is kept, nothing left to the log.
        split: With its test date.
        counts: So far.

    Returns:
        The pairs with their parts and users, and what ranking can reach (`_ceiling`).
    """
    windows = Windows.of(split)
    n_users, n_items = (int(codes.max(initial=-1)) + 1 for codes in (rows.user, rows.item))
    until_end = rows.where(_times(rows) < windows.test.stop)
    counts["rows_after_test_window"] = len(rows) - len(until_end)
    trained, parted = _part(until_end, windows, rules, split, counts)
    kept, dropped = drop_rare(trained, rules.min_item_users, rules.min_user_items or 0)
    counts |= {name: n for name, n in dropped.items() if not name.startswith("interactions")}
    known = _mark(kept.item, n_items)
    ceiling = _ceiling(parted, known, counts)
    of_known = _drop_unknown_items(parted, known, _mark(trained.item, n_items), counts)
    divided = _drop_users(of_known, _mark(kept.user, n_users), split, counts)
    return divided, ceiling if split.new_items == "report" else {}


def _part(
    rows: Pairs, windows: Windows, rules: PrepareRules, split: TimeSplit, counts: dict[str, int]
) -> tuple[Pairs, Pairs]:
    """The merged rows of training; and those of all windows as one, with parts."""
    rows = rows.numbered()
    time, positive = _times(rows), ~is_negative(rows, rules.negative_values)
    n_pairs = int(_numbers(rows).max(initial=-1)) + 1
    train, shown, validation, test = (
        merged(rows.where(window.holds(time)), rules)
        for window in (windows.train, windows.test_input, windows.validation, windows.test)
    )
    had_before = np.zeros(n_pairs, dtype=bool)
    held_out = {}
    for part, found in ((Part.VALIDATION, validation), (Part.TEST, test)):
        start = windows.validation.start if part == Part.VALIDATION else windows.test.start
        had = _mark(_numbers(rows)[positive & (time < start)], n_pairs)[_numbers(found)]
        held_out[part] = found if split.repeats == "keep" else found.where(~had)
        counts[f"{part.name.lower()}_repeats"] = int(had.sum())
        had_before[_numbers(found)[had]] = True
    parts = _parts(train, shown, held_out, n_pairs)
    _count_unused(rows, positive, windows, (parts == _UNUSED), had_before, counts)
    later = shown.where(parts[_numbers(shown)] != Part.TRAIN)
    together = joined([train, later, *held_out.values()])
    number = _numbers(together)
    repeats = _repeats(held_out, parts)[number] if split.repeats == "keep" else None
    return train, replace(together, part=parts[number], repeats=repeats)


def _parts(train: Pairs, shown: Pairs, held_out: Mapping[Part, Pairs], n_pairs: int) -> np.ndarray:
    """What trains does so whatever comes later, and what is input of the test is so."""
    parts = np.full(n_pairs, _UNUSED, dtype=np.uint8)
    parts[_numbers(held_out[Part.TEST])] = Part.TEST
    parts[_numbers(shown)] = TEST_INPUT
    parts[_numbers(held_out[Part.VALIDATION])] = Part.VALIDATION
    parts[_numbers(train)] = BEFORE_HISTORY
    in_both = _numbers(shown)[parts[_numbers(shown)] == BEFORE_HISTORY]
    parts[in_both] = Part.TRAIN
    return parts


def _repeats(held_out: Mapping[Part, Pairs], parts: np.ndarray) -> np.ndarray:
    """Where else each pair is to be found, as `Split.repeats`."""
    repeats = np.zeros_like(parts)
    for part, pairs in held_out.items():
        number = _numbers(pairs)
        repeats[number[parts[number] != part]] |= np.uint8(part)
    return repeats


def _count_unused(
    rows: Pairs,
    positive: np.ndarray,
    windows: Windows,
    unused: np.ndarray,
    had_before: np.ndarray,
    counts: dict[str, int],
) -> None:
    """Counts rows that merged, and each pair that has no part by the first reason that holds."""
    pair, time, n_pairs = _numbers(rows), _times(rows), len(unused)
    every = (windows.train, windows.validation, windows.test_input, windows.test)
    inside = np.logical_or.reduce([window.holds(time) for window in every])
    in_window = _mark(pair[positive & inside], n_pairs)
    reasons = {
        "interactions_had_before": had_before,
        "interactions_taken_back": in_window & _mark(pair[~positive], n_pairs),
        "interactions_below_min_rating": in_window,
        "interactions_in_gaps": _mark(pair[positive & (time >= windows.train.start)], n_pairs),
        "interactions_before_history": np.ones(n_pairs, dtype=bool),
    }
    occurs = _mark(pair[positive], n_pairs)
    counts["rows_of_negative_values"] = int((~positive).sum())
    counts["repeated_rows"] = int(positive.sum() - occurs.sum())
    left = occurs & unused
    for name, holds in reasons.items():
        counts[name] = int((left & holds).sum())
        left &= ~holds


def _ceiling(pairs: Pairs, known: np.ndarray, counts: dict[str, int]) -> dict[str, Any]:
    """What ranking can reach where some items to find are not known, by part."""
    reach = {}
    for part in (Part.VALIDATION, Part.TEST):
        held_out = pairs.where(_to_find(part, pairs))
        of_known = held_out.where(known[held_out.item])
        n_users, n_reached = (len(np.unique(one.user)) for one in (held_out, of_known))
        name = part.name.lower()
        counts[f"{name}_held_out_of_new_items"] = len(held_out) - len(of_known)
        counts[f"{name}_users_of_new_items_alone"] = n_users - n_reached
        if n_users:
            reach[name] = {
                "known_item_share": len(of_known) / len(held_out),
                "reachable_user_share": n_reached / n_users,
            }
    return reach


def _drop_unknown_items(
    pairs: Pairs, known: np.ndarray, in_training: np.ndarray, counts: dict[str, int]
) -> Pairs:
    """No model can know an item that no training interaction has; nor one dropped as rare."""
    unknown = pairs.where(~known[pairs.item])
    unseen = unknown.where(~in_training[unknown.item])
    counts["items_unseen_in_training"] = len(np.unique(unseen.item))
    counts["interactions_of_items_unseen_in_training"] = len(unseen)
    counts["interactions_of_items_below_minimum"] = len(unknown) - len(unseen)
    return pairs.where(known[pairs.item])


def _drop_users(
    pairs: Pairs, trains: np.ndarray, split: TimeSplit, counts: dict[str, int]
) -> Divided:
    """Drops new users if they are to go, and who neither trains nor is evaluated."""
    pairs = _without_new_users(pairs, len(trains), counts) if split.new_users == "drop" else pairs
    sought = _to_find(Part.VALIDATION, pairs) | _to_find(Part.TEST, pairs)
    evaluated = _mark(pairs.user[sought], len(trains))
    stays = trains | evaluated
    kept = pairs.where(stays[pairs.user])
    counts["users_evaluated_without_training"] = int((evaluated & ~trains).sum())
    counts["users_not_evaluated"] = len(np.unique(pairs.user[~stays[pairs.user]]))
    counts["interactions_of_users_not_evaluated"] = len(pairs) - len(kept)
    users = np.flatnonzero(stays)
    return Divided(kept, users, np.where(trains[users], Part.TRAIN, Part.TEST).astype(np.uint8))


def _without_new_users(pairs: Pairs, n_users: int, counts: dict[str, int]) -> Pairs:
    """Validation and test without those of whom nothing is shown there; what a new user of the
    validation took up then stays input of the test.
    """
    part, gone = _parts_of(pairs).copy(), {}
    for of in (Part.VALIDATION, Part.TEST):
        has_input = _mark(pairs.user[folded_in(of, part)], n_users)
        gone[of] = _to_find(of, pairs) & ~has_input[pairs.user]
        counts[f"{of.name.lower()}_new_users_dropped"] = len(np.unique(pairs.user[gone[of]]))
    part[gone[Part.VALIDATION]] = TEST_INPUT
    repeats = pairs.repeats
    if repeats is not None:
        repeats = np.where(gone[Part.TEST], repeats & np.uint8(Part.VALIDATION), repeats)
    # What trains and is too old to be shown trains all the same.
    lost = gone[Part.TEST] & (part == Part.TEST)
    counts["interactions_of_new_users"] = int(lost.sum())
    return replace(pairs, part=part, repeats=repeats).where(~lost)


def _mark(codes: np.ndarray, n: int) -> np.ndarray:
    """``[n]`` bool: which of the numbers below ``n`` are among ``codes``."""
    marked = np.zeros(n, dtype=bool)
    marked[codes] = True
    return marked


def _times(rows: Pairs) -> np.ndarray:
    return cast(np.ndarray, rows.timestamp)


def _parts_of(pairs: Pairs) -> np.ndarray:
    return cast(np.ndarray, pairs.part)


def _to_find(part: Part, pairs: Pairs) -> np.ndarray:
    return to_find(part, _parts_of(pairs), pairs.repeats)


def _numbers(pairs: Pairs) -> np.ndarray:
    return cast(np.ndarray, pairs.number)
