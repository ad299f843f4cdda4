"""The split by time against a slow re-telling, and that nothing leaks from after a cut."""

import json
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.data.by_time import DAY_SECONDS, Windows
from coterie.data.dataset import Dataset
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import PrepareRules, TimeSplit
from coterie.data.split import BEFORE_HISTORY, TEST_INPUT, Cases, Part, PartName, Split
from coterie.errors import ConfigError, DataError
from coterie.evaluation.evaluate import evaluate
from coterie.models.ease import EaseConfig
from coterie.models.multvae import MultVAEConfig
from coterie.training.trainer import train
from test_prepare import Row, kept, log_of, made, parts, real

EPOCH = date(1970, 1, 1)
T = EPOCH + timedelta(days=30)
"""First day of the test window in most of these logs."""


def on(day: float) -> int:
    return int(day * DAY_SECONDS)


def rules(min_rating: float | None = None, **split: Any) -> PrepareRules:
    return PrepareRules(min_rating, min_user_items=0, split=TimeSplit(**{"test_from": T, **split}))


# The definition, slowly

Pair = tuple[Any, Any]
Seen = dict[Pair, tuple[int, int, int]]
"""First time, latest time and count of each pair."""


def merged_slowly(rows: list[Row], start: float, stop: float, given: PrepareRules) -> Seen:
    """What is left of the rows in a window, a pair at a time."""
    events: dict[Pair, list[tuple[int, int, float]]] = {}
    for place, (user, item, rating, time) in enumerate(rows):
        if start <= time < stop:
            events.setdefault((user, item), []).append((time, place, rating))
    result: Seen = {}
    for pair, of_pair in events.items():
        left: list[tuple[int, int, float]] = []
        for event in sorted(of_pair):
            left = [] if event[2] in given.negative_values else [*left, event]
        least = -np.inf if given.min_rating is None else given.min_rating
        if given.merge == "any":
            left = [event for event in left if event[2] >= least]
        values = [event[2] for event in left]
        value = {"any": np.inf, "sum": sum(values), "latest": [0, *values][-1]}[str(given.merge)]
        if left and value >= least:
            times = [event[0] for event in left]
            count = int(sum(values)) if given.merge == "sum" else len(left)
            result[pair] = min(times), max(times), count
    return result


class Slow(NamedTuple):
    """Part, first time, latest time and count of every pair; who trains; some counts; and the
    pairs that are shown and those that are to be found, by part.
    """

    found: dict[Pair, tuple[int, int, int, int]]
    trainers: set[Any]
    lost: Counter[str]
    shown: dict[Part, set[Pair]]
    sought: dict[Part, set[Pair]]


def divided_slowly(rows: list[Row], asked: PrepareRules) -> Slow:
    """The split as it is defined, on dicts and sets."""
    split = asked.split
    assert isinstance(split, TimeSplit)
    assert split.test_from is not None
    begin, gap = (split.test_from - EPOCH).days, split.gap_days
    input_stop = begin - gap
    validation = input_stop - split.validation_days
    train_stop = validation - gap if split.validation_days else validation
    length = split.history_days or 10**6

    def window(start: float, stop: float) -> Seen:
        return merged_slowly(rows, on(start), on(stop), asked)

    def had(before: float) -> set[Pair]:
        if split.repeats == "keep":
            return set()

        def counts(rating: float) -> bool:
            low = asked.merge == "any" and rating < (asked.min_rating or 0)
            return rating not in asked.negative_values and not low

        return {(u, i) for u, i, rating, time in rows if time < on(before) and counts(rating)}

    train = window(train_stop - length, train_stop)
    shown = window(input_stop - length, input_stop)
    to_validate = {
        pair: seen
        for pair, seen in window(validation, input_stop).items()
        if pair not in had(validation)
    }
    to_test = {
        pair: seen
        for pair, seen in window(begin, begin + split.test_days).items()
        if pair not in had(begin)
    }
    n_users = Counter(item for _, item in train)
    common = {pair for pair in train if n_users[pair[1]] >= asked.min_item_users}
    n_items = Counter(user for user, _ in common)
    trained = {pair for pair in common if n_items[pair[0]] >= (asked.min_user_items or 0)}
    trainers, known = {user for user, _ in trained}, {item for _, item in trained}

    found = {pair: (2, *seen) for pair, seen in to_test.items()}
    found |= {pair: (TEST_INPUT, *seen) for pair, seen in shown.items()}
    found |= {pair: (1, *shown[pair]) for pair in to_validate}
    for pair, seen in train.items():
        found[pair] = (0 if pair in shown else BEFORE_HISTORY, *seen)
    sought = {Part.VALIDATION: set(to_validate), Part.TEST: set(to_test)}
    inputs = {Part.VALIDATION: set(train), Part.TEST: set(shown)}
    lost = Counter(
        validation=sum(item not in known for _, item in to_validate),
        test=sum(item not in known for _, item in to_test),
    )
    found = {pair: one for pair, one in found.items() if pair[1] in known}
    for pairs in (*sought.values(), *inputs.values()):
        pairs.intersection_update(found)
    if split.new_users == "drop":
        for part, pairs in sought.items():
            has_input = {user for user, _ in inputs[part]}
            for pair in [pair for pair in pairs if pair[0] not in has_input]:
                pairs.remove(pair)
                one = found.pop(pair)
                if pair in train or pair in shown:
                    found[pair] = (TEST_INPUT if one[0] == 1 else one[0], *one[1:])
    stay = trainers | {user for pairs in sought.values() for user, _ in pairs}
    found = {pair: one for pair, one in found.items() if pair[0] in stay}
    for pairs in inputs.values():
        pairs.intersection_update(found)
    return Slow(found, trainers, lost, inputs, sought)


def pairs_where(data: Dataset, holds: np.ndarray) -> set[Pair]:
    return {pair for pair, one in zip(sorted(parts(data)), holds.tolist(), strict=True) if one}


def times_and_counts(data: Dataset) -> list[tuple[int, int, int]]:
    x = data.interactions
    assert x.timestamps is not None
    first = x.timestamps if x.first_timestamps is None else x.first_timestamps
    count = np.ones(len(first), int) if x.counts is None else x.counts
    return list(zip(first.tolist(), x.timestamps.tolist(), count.tolist(), strict=True))


def timed_rows(seed: int, n: int = 400) -> list[Row]:
    """Ratings of whole numbers over 40 days: few users and items, so that pairs come again."""
    draw = np.random.default_rng(seed)
    columns = (
        draw.integers(0, 25, n), (18 * draw.random(n) ** 2).astype(int), draw.integers(1, 6, n),
        draw.integers(0, 40 * 24, n) * 3600,
    )  # fmt: skip
    return [
        (user, item, float(rating), time)
        for user, item, rating, time in zip(*(one.tolist() for one in columns), strict=True)
    ]


@pytest.mark.parametrize(
    "split",
    [
        {}, {"validation_days": 0}, {"gap_days": 2}, {"history_days": 8, "validation_days": 5},
        {"history_days": 12, "gap_days": 3, "test_days": 4, "new_users": "drop"},
        {"validation_days": 0, "gap_days": 1, "history_days": 5},
        {"repeats": "keep"}, {"repeats": "keep", "validation_days": 0},
        {"repeats": "keep", "gap_days": 4, "new_users": "drop"},
        {"repeats": "keep", "history_days": 7, "gap_days": 3, "new_users": "drop"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "kept_by",
    [
        {"merge": "any"}, {"merge": "any", "min_rating": 3.0, "min_user_items": 3},
        {"merge": "latest", "min_rating": 3.0, "min_item_users": 4},
        {"merge": "sum", "min_rating": 5},
        {"merge": "latest", "negative_values": (1.0,)},
        {"merge": "sum", "negative_values": (1.0,), "min_rating": 4, "min_user_items": 2},
    ],
)  # fmt: skip
def test_division_follows_the_definition(split: dict[str, Any], kept_by: dict[str, Any]) -> None:
    rows = timed_rows(1, 900)
    asked = replace(rules(**split), **kept_by)
    data = made(rows, asked)
    slow = divided_slowly(rows, asked)
    assert parts(data) == {pair: one[0] for pair, one in slow.found.items()}
    assert times_and_counts(data) == [slow.found[pair][1:] for pair in sorted(slow.found)]
    trains = np.flatnonzero(data.split.user_part == Part.TRAIN)
    assert data.users.ids_of(trains) == sorted(slow.trainers)
    for part, sought in slow.sought.items():
        assert pairs_where(data, data.split.to_find(part)) == sought
        assert pairs_where(data, data.split.folded_in(part)) == slow.shown[part]
    counts = data.provenance["counts"]
    for name, n in slow.lost.items():
        assert counts[f"{name}_held_out_of_new_items"] == n


def test_every_row_is_kept_or_counted_as_lost() -> None:
    lost = (
        "rows_below", "rows_of_", "repeated_rows", "rows_after", "interactions_of",
        "interactions_had", "interactions_taken", "interactions_below", "interactions_in_gaps",
        "interactions_before",
    )  # fmt: skip
    for seed, repeats in ((0, "drop"), (1, "drop"), (2, "drop"), (0, "keep"), (1, "keep")):
        for merge, negative in (("any", ()), ("latest", (1.0,)), ("sum", ())):
            split = TimeSplit(3, T, 4, 2, 9, "drop", repeats=repeats)  # type: ignore[arg-type]
            asked = PrepareRules(3.0, 3, 3, split, merge, negative)  # type: ignore[arg-type]
            counts = made(timed_rows(seed, 900), asked).provenance["counts"]
            n_lost = sum(n for name, n in counts.items() if name.startswith(lost))
            assert counts["rows_read"] == counts["interactions"] + n_lost


# Nothing comes from after the cut

PAST = [row for row in timed_rows(5) if row[3] < on(23)]
RATINGS = st.integers(1, 5).map(float)
FUTURE = st.lists(
    st.tuples(st.integers(-3, 30), st.integers(-3, 25), RATINGS, st.integers(on(23), on(60)))
    | st.builds(
        lambda row, *seen: (*row[:2], *seen),
        st.sampled_from(PAST), RATINGS, st.integers(on(23), on(37)),
    ),
    max_size=60,
)  # fmt: skip
"""Rows after the cut, many of them of pairs from before it."""


REPEATS = st.sampled_from(["drop", "keep"])


@given(FUTURE, st.sampled_from(["any", "latest", "sum"]), st.booleans(), st.integers(0, 4), REPEATS)
@settings(max_examples=40, deadline=None)
def test_what_comes_after_the_cut_changes_nothing_before_it(
    future: list[Row], merge: Any, dislikes: bool, least: int, repeats: str
) -> None:
    asked = replace(
        rules(validation_days=7, repeats=repeats), merge=merge, min_rating=3.0,
        min_item_users=least, min_user_items=least, negative_values=(2.0,) if dislikes else (),
    )  # fmt: skip
    alone, together = made(PAST, asked), made([*PAST, *future], asked)
    assert together.items == alone.items
    assert bytes_of_training(together) == bytes_of_training(alone)
    trained = [
        one.users.ids_of(np.flatnonzero(one.split.user_part == Part.TRAIN))
        for one in (alone, together)
    ]
    assert trained[0] == trained[1]


def bytes_of_training(data: Dataset) -> list[tuple[Any, bytes] | None]:
    """All that a model is trained on."""
    columns = data.train.indptr, data.train.indices, data.train_timestamps, data.train_counts
    return [None if one is None else (one.dtype, one.tobytes()) for one in columns]


@given(FUTURE, REPEATS)
@settings(max_examples=30, deadline=None)
def test_what_comes_in_the_test_window_changes_no_validation(
    future: list[Row], repeats: str
) -> None:
    past = [row for row in timed_rows(6) if row[3] < on(30)]
    later = [(user, item, rating, time + on(7)) for user, item, rating, time in future]
    asked = rules(2.0, repeats=repeats)
    alone, together = (made(rows, asked) for rows in (past, [*past, *later]))
    for find in (Dataset.cases, Dataset.new_user_cases):
        assert told(alone, find(alone, Part.VALIDATION)) == told(
            together, find(together, Part.VALIDATION)
        )


def told(data: Dataset, cases: Cases) -> list[tuple[Any, list[int], list[int]]]:
    """Cases by the users' ids."""
    return [
        (user, shown.indices.tolist(), hidden.indices.tolist())
        for user, shown, hidden in zip(
            data.users.ids_of(cases.user_index), cases.fold_in, cases.held_out, strict=True
        )
    ]


def test_an_item_that_only_later_events_make_common_is_not_known() -> None:
    """Filters over the whole log would keep item 9, and user 8 in training."""
    rows = [(user, item, None, on(1)) for user in range(6) for item in range(3)]
    rows += [(0, 9, None, on(2)), *((user, 9, None, on(31)) for user in range(1, 6))]
    rows += [(8, 0, None, on(2)), *((8, item, None, on(32)) for item in (1, 2))]
    asked = replace(rules(), min_item_users=3, min_user_items=3)
    data = made(rows, asked)
    assert data.items.ids_of(range(data.n_items)) == [0, 1, 2]
    assert data.train.shape[0] == 6
    assert told(data, data.cases(Part.TEST)) == [(8, [0], [1, 2])]
    counts = data.provenance["counts"]
    assert counts["users_evaluated_without_training"] == 1
    assert counts["test_held_out_of_new_items"] == 5
    assert counts["test_users_of_new_items_alone"] == 5
    assert data.provenance["ceiling"]["test"] == {
        "known_item_share": 2 / 7,
        "reachable_user_share": 1 / 6,
    }
    silent = replace(asked, split=TimeSplit(test_from=T, new_items="drop"))
    assert "ceiling" not in made(rows, silent).provenance


# Windows

BASE: list[Row] = [(user, item, None, on(1)) for user in range(4) for item in range(6)]


def test_windows_are_half_open_days() -> None:
    windows = Windows.of(TimeSplit(3, T, 5, 2, 10))
    days = [
        (window.start // DAY_SECONDS, window.stop // DAY_SECONDS)
        for window in (windows.train, windows.validation, windows.test_input, windows.test)
    ]
    assert days == [(11, 21), (23, 28), (18, 28), (30, 33)]
    edges = [on(30) - 1, on(30), on(37) - 1, on(37)]
    rows = [*BASE, *((9, item, None, time) for item, time in enumerate(edges))]
    data = made(rows, rules())
    assert told(data, data.cases(Part.TEST)) == [(9, [0], [1, 2])]
    assert data.provenance["counts"]["rows_after_test_window"] == 1


def test_the_last_days_of_the_log_are_the_default() -> None:
    rows = [*BASE, (0, 9, None, on(40.7)), (7, 1, None, on(39.2)), (8, 1, None, on(38.9))]
    split = TimeSplit(test_days=2, validation_days=0)
    data = made(rows, PrepareRules(min_user_items=0, split=split))
    assert data.provenance["rules"]["test_from"] == "1970-02-09"
    assert data.provenance["rules"]["split"] == "time"
    assert told(data, data.new_user_cases(Part.TEST)) == [(7, [], [1])]
    assert 8 in data.users.ids_of(range(data.n_users))


def test_what_was_had_is_not_to_be_found_again() -> None:
    rows = [
        *BASE, (0, 1, None, on(31)), (0, 2, None, on(29)), (0, 2, None, on(31)),
        (9, 3, None, on(2)), (9, 4, None, on(29.5)), (9, 4, None, on(31)), (9, 5, None, on(31)),
    ]  # fmt: skip
    data = made(rows, rules(gap_days=1, validation_days=0))
    assert told(data, data.cases(Part.TEST)) == [(9, [3], [5])]
    assert data.provenance["counts"]["test_repeats"] == 3
    assert data.provenance["counts"]["interactions_had_before"] == 1


# Repeats

BOUGHT: list[Row] = [
    *BASE, (0, 1, None, on(25)), (0, 1, None, on(31)), (0, 2, None, on(31)), (9, 3, None, on(2)),
    (9, 4, None, on(21.5)), (9, 4, None, on(24)), (9, 5, None, on(26)), (9, 5, None, on(32)),
]  # fmt: skip
"""User 0 had items 1 and 2 in training, 9 had 4 in the gap before validation."""


def test_repeats_that_are_kept_are_to_be_found_and_shown() -> None:
    data = made(BOUGHT, rules(repeats="keep", gap_days=1))
    before, after = data.cases(Part.VALIDATION), data.cases(Part.TEST)
    everything = [0, 1, 2, 3, 4, 5]
    assert told(data, before) == [(0, everything, [1]), (9, [3], [4, 5])]
    assert told(data, after) == [(0, everything, [1, 2]), (9, [3, 4, 5], [5])]
    assert not before.exclude_seen
    assert not after.exclude_seen
    counts = data.provenance["counts"]
    assert (counts["validation_repeats"], counts["test_repeats"]) == (2, 3)
    assert (counts["validation_cases"], counts["test_cases"]) == (2, 2)
    assert data.provenance["rules"]["repeats"] == "keep"
    dropped = made(BOUGHT, rules(gap_days=1))
    assert told(dropped, dropped.cases(Part.VALIDATION)) == [(9, [3], [5])]
    assert not len(dropped.cases(Part.TEST).user_index)
    assert "repeats" not in dropped.provenance["rules"]


@given(st.integers(0, 10**6), st.sampled_from(["any", "latest", "sum"]))
@settings(max_examples=25, deadline=None)
def test_what_is_not_a_repeat_is_what_is_to_be_found_without_them(seed: int, merge: Any) -> None:
    drop, keep = (
        made(timed_rows(seed), replace(rules(repeats=repeats), merge=merge, min_user_items=2))
        for repeats in ("drop", "keep")
    )
    assert bytes_of_training(drop) == bytes_of_training(keep)
    assert drop.items == keep.items
    for part in (Part.VALIDATION, Part.TEST):
        new = [
            (user, shown, sorted(set(hidden) - set(shown)))
            for user, shown, hidden in told(keep, keep.cases(part))
        ]
        assert told(drop, drop.cases(part)) == [one for one in new if one[2]]


def test_what_trains_but_is_too_old_to_be_shown_trains_when_new_users_go() -> None:
    """With a short history who trained may be new in the test, and take up what they trained on."""
    rows = [(user, item, None, on(18)) for user in range(4) for item in range(6)]
    rows += [(0, 1, None, on(31)), (1, 2, None, on(29)), (1, 2, None, on(31))]
    reported, dropped = (
        made(rows, rules(repeats="keep", history_days=8, gap_days=1, new_users=new_users))
        for new_users in ("report", "drop")
    )
    assert told(reported, reported.new_user_cases(Part.TEST)) == [(0, [], [1]), (1, [], [2])]
    assert not len(dropped.new_user_cases(Part.TEST).user_index)
    assert bytes_of_training(dropped) == bytes_of_training(reported)
    assert dropped.provenance["counts"]["interactions_of_new_users"] == 0
    assert dropped.provenance["counts"]["test_new_users_dropped"] == 2


def test_models_are_chosen_and_measured_on_lists_that_leave_out_nothing() -> None:
    data = made(timed_rows(2, 700), rules(repeats="keep"))
    config = MultVAEConfig(hidden_dims=(8,), latent_dim=4)
    model = train(data, config, epochs=3, batch_size=8, metric="recall@5")
    report = evaluate(model, data, Part.VALIDATION, metrics=["recall@5"])
    assert model.provenance["best_validation"] == pytest.approx(report.mean("recall@5"))
    for one in (model, train(data, EaseConfig(l2=5.0))):
        cases = data.cases(Part.TEST)
        lists = one.recommend(
            {user: data.items.ids_of(row.indices) for user, row in enumerate(cases.fold_in)},
            k=5, exclude_seen=False,
        )  # fmt: skip
        served: dict[Any, set[Any]] = {}
        for row in lists.table.to_pylist():
            served.setdefault(row["user_id"], set()).add(row["item_id"])
        recalls = [
            len(served[user] & set(hidden)) / min(5, len(hidden))
            for user, (_, _, hidden) in enumerate(told_by_id(data, cases))
        ]
        measured = evaluate(one, data, "test", metrics=["recall@5"]).metrics["recall@5"]
        np.testing.assert_allclose(measured, recalls, rtol=1e-12)


def told_by_id(data: Dataset, cases: Cases) -> list[tuple[Any, list[Any], list[Any]]]:
    """As `told`, items by their ids."""
    return [(u, *map(data.items.ids_of, both)) for u, *both in told(data, cases)]


def test_new_users_are_apart_or_dropped() -> None:
    rows = [
        *BASE,
        (5, 1, None, on(25)),
        (5, 2, None, on(31)),
        (6, 3, None, on(31)),
        (0, 99, None, on(31)),
    ]
    data = made(rows, rules())
    assert told(data, data.new_user_cases(Part.VALIDATION)) == [(5, [], [1])]
    assert told(data, data.cases(Part.TEST)) == [(5, [1], [2])]
    assert told(data, data.new_user_cases(Part.TEST)) == [(6, [], [3])]
    counts = data.provenance["counts"]
    assert (counts["test_cases"], counts["test_new_user_cases"]) == (1, 1)
    assert (counts["validation_cases"], counts["validation_new_user_cases"]) == (0, 1)
    gone = made(rows, rules(new_users="drop"))
    assert not len(gone.new_user_cases(Part.TEST).user_index)
    assert not len(gone.new_user_cases(Part.VALIDATION).user_index)
    assert told(gone, gone.cases(Part.TEST)) == [(5, [1], [2])]
    assert gone.provenance["counts"]["test_new_users_dropped"] == 1
    assert gone.provenance["counts"]["validation_new_users_dropped"] == 1


@pytest.mark.parametrize("repeats", ["drop", "keep"])
def test_without_validation_all_before_the_test_trains(repeats: str) -> None:
    data = made(timed_rows(3), rules(gap_days=2, repeats=repeats))
    last = data.without_validation()
    assert not len(last.cases(Part.VALIDATION).user_index)
    assert last.train.sum() > data.train.sum()
    trains = data.split.user_part == Part.TRAIN
    before, after = data.cases(Part.TEST), last.cases(Part.TEST)
    assert (before.fold_in != after.fold_in).nnz == (before.held_out != after.held_out).nnz == 0
    assert before.exclude_seen == after.exclude_seen == (repeats == "drop")
    assert data.for_refit().split.repeats is None
    shown = data.split.folded_in(Part.TEST) & np.repeat(trains, np.diff(data.interactions.indptr))
    assert last.train.sum() == shown.sum()


def test_one_log_is_cut_at_many_dates() -> None:
    rows = timed_rows(8)
    with log_of(rows) as log:
        for week in range(3):
            asked = rules(test_from=T - timedelta(weeks=week), validation_days=3)
            assert prepare(log, asked) == made(rows, asked)


@pytest.mark.parametrize(
    ("split", "kept_by", "fingerprint"),
    [
        ({"gap_days": 2, "history_days": 12, "validation_days": 5}, {}, "9c94c8655df0f78b"),
        ({"new_users": "drop"}, {"merge": "sum", "negative_values": (1.0,), "min_rating": 4},
         "93f96171d1ad3ce7"),
        ({}, {"min_item_users": 3}, "0d6d844e8e6e0b56"),
    ],
)  # fmt: skip
def test_without_repeats_the_bytes_are_what_they_were(
    split: dict[str, Any], kept_by: dict[str, Any], fingerprint: str
) -> None:
    """Fingerprints from before repeats could be kept."""
    data = made(timed_rows(4, 900), replace(rules(**split), **kept_by))
    assert data.fingerprint.startswith(fingerprint)
    again = made(timed_rows(4, 900), replace(rules(repeats="keep", **split), **kept_by))
    assert again.fingerprint != data.fingerprint


@pytest.mark.parametrize("repeats", ["drop", "keep"])
def test_the_folder_keeps_it_all(tmp_path: Path, repeats: str) -> None:
    data = made(timed_rows(9), rules(gap_days=1, history_days=9, repeats=repeats))
    assert {TEST_INPUT, BEFORE_HISTORY} <= set(data.split.interaction_part.tolist())
    data.save(tmp_path / "data")
    back = Dataset.load(tmp_path / "data")
    assert back == data
    assert back.provenance == data.provenance
    assert told(back, back.cases(Part.TEST)) == told(data, data.cases(Part.TEST))
    assert back.cases(Part.TEST).exclude_seen == (repeats == "drop")
    masked = Split(data.split.user_part, data.split.interaction_part)
    assert (replace(data, split=masked) == data) == (repeats == "drop")


def test_repeats_that_are_no_parts_are_refused() -> None:
    data = made(BOUGHT, rules(repeats="keep"))
    assert data.split.repeats is not None
    for repeats in (data.split.repeats[1:], data.split.repeats + 4):
        with pytest.raises(DataError, match="repeats must hold"):
            replace(data, split=replace(data.split, repeats=repeats))


def test_a_split_by_time_needs_times_and_a_past() -> None:
    with pytest.raises(ConfigError, match="needs a log with times"):
        made([(1, 2), (2, 2)], rules())
    with pytest.raises(DataError, match="at least one interaction must be left"):
        made([(1, 2, None, on(31)), (2, 2, None, on(31))], rules())


def test_ml_latest_small_is_cut_where_it_says() -> None:
    with read_log(real("ml-latest-small")) as log:
        data = prepare(log, PrepareRules(4, split=TimeSplit(365, validation_days=365)))
    assert data.train_timestamps is not None
    counts = data.provenance["counts"]
    cut = (date.fromisoformat(data.provenance["rules"]["test_from"]) - EPOCH).days - 365
    assert data.train_timestamps.max() < on(cut)
    assert counts["test_cases"] > 10
    assert counts["test_new_user_cases"] > 10


def test_the_command_line_reports_new_users_apart(
    tmp_path: Path, run_coterie: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["userId,movieId,rating,timestamp", *(f"{u},{i},4,{on(1)}" for u, i, *_ in BASE)]
    lines += [f"5,{item},4,{on(time)}" for item, time in ((0, 2), (1, 32), (2, 32))]
    lines += [f"{user},0,4,{on(33)}" for user in (6, 7)]
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    data, run, result = (tmp_path / name for name in ("data", "run", "result.json"))
    split = ["--split", "time", "--test-from", T.isoformat(), "--validation-days", "0"]
    assert run_coterie("prepare", tmp_path / "ratings.csv", *split, "--out", data) == 0
    assert run_coterie("train", data, "--model", "popularity", "--out", run) == 0
    assert run_coterie("evaluate", run, "--metric", "recall@1", "--json", result) == 0
    assert "users with nothing known before, answered by popularity" in capsys.readouterr().out
    found = json.loads(result.read_text())
    assert (found["users"], found["new_users"]["users"]) == (1, 2)
    # All six items are of four users; of equals the first is ranked first, and nothing is masked.
    assert found["new_users"]["metrics"]["recall@1"]["mean"] == 1.0
    assert found["metrics"]["recall@1"]["mean"] == 1.0
    assert json.loads((data / "manifest.json").read_text())["rules"]["test_from"] == "1970-01-31"
    keep = ["prepare", tmp_path / "ratings.csv", *split, "--out", data, "--repeats"]
    assert run_coterie(*keep, "keep") == 0
    assert json.loads((data / "manifest.json").read_text())["rules"]["repeats"] == "keep"
    assert not Dataset.load(data).cases(Part.TEST).exclude_seen
    assert run_coterie(*keep, "often") == 2
    assert "repeats must be one of drop, keep, found 'often'" in capsys.readouterr().err


def test_the_command_line_takes_the_rules_of_merging(
    tmp_path: Path, run_coterie: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(u, i, 4, on(1)) for u, i, *_ in BASE] + [(0, 0, 1, on(2)), (1, 1, 2, on(2))]
    lines = ["userId,movieId,rating,timestamp", *(",".join(map(str, row)) for row in rows)]
    source, data = tmp_path / "ratings.csv", tmp_path / "data"
    source.write_text("\n".join(lines) + "\n")
    asked = ["prepare", source, "--held-out-users", "0", "--out", data]
    assert run_coterie(*asked, "--negative-value", "1,2", "--min-user-items", "0") == 0
    assert kept(Dataset.load(data)) == {(u, i) for u, i, *_ in BASE} - {(0, 0), (1, 1)}
    stated = json.loads((data / "manifest.json").read_text())["rules"]
    assert (stated["merge"], stated["negative_values"]) == ("latest", [1.0, 2.0])
    for wrong in (["--negative-value", "x"], ["--merge", "first"], ["--split", "random"],
                  ["--last-n", "1"], ["--split", "given"]):  # fmt: skip
        assert run_coterie(*asked, *wrong) == 2
    assert capsys.readouterr().err.count("error: ") == 5


@pytest.mark.parametrize("part", ["validation", "test"])
def test_where_all_are_new_they_are_reported(
    part: PartName, tmp_path: Path, run_coterie: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """User k takes six items on day k, so that each window has users of its own."""
    day = 86_400
    plays = [(f"u{k}", (k + j) % 20, 1, (20_000 + k) * day) for k in range(60) for j in range(6)]
    data = prepare(plays, PrepareRules(split=TimeSplit()))
    assert not len(data.cases(Part.of(part)).user_index)
    data.save(tmp_path / "data")
    run = tmp_path / "run"
    train(data, EaseConfig(), out=run)
    told = tmp_path / "told.json"
    asked = ("evaluate", run, "--data", tmp_path / "data", "--split", part)
    assert run_coterie(*asked, "--metric", "recall@5,ndcg@50", "--json", told) == 0
    report = json.loads(told.read_text())
    assert (report["users"], report["new_users"]["users"]) == (0, 7)
    assert report["metrics"]["recall@5"]["mean"] is None
    assert 0 < report["new_users"]["metrics"]["recall@5"]["mean"] <= 1
    shown = capsys.readouterr().out
    assert "users with nothing known before" in shown
    assert "k exceeds the 20 items of the data set: ndcg@50" in shown
    assert run_coterie("compare", run, run, "--data", tmp_path / "data", "--split", part) == 3
