"""The split by time against a slow re-telling, and that nothing leaks from after a cut."""

import json
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.data.by_time import DAY_SECONDS, Windows
from coterie.data.dataset import Dataset
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import PrepareRules, TimeSplit
from coterie.data.split import BEFORE_HISTORY, TEST_INPUT, Cases, Part
from coterie.errors import ConfigError, DataError
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


def divided_slowly(
    rows: list[Row], asked: PrepareRules
) -> tuple[dict[Pair, tuple[int, int, int, int]], set[Any], Counter[str]]:
    """Part, first time, latest time and count of every pair; who trains; and some counts."""
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

    found = {pair: (TEST_INPUT, *seen) for pair, seen in shown.items()}
    for pair, seen in train.items():
        found[pair] = (0 if pair in shown else BEFORE_HISTORY, *seen)
    found |= {pair: (1, *seen) for pair, seen in to_validate.items()}
    found |= {pair: (2, *seen) for pair, seen in to_test.items()}
    lost = Counter(
        validation=sum(item not in known for _, item in to_validate),
        test=sum(item not in known for _, item in to_test),
    )
    found = {pair: one for pair, one in found.items() if pair[1] in known}
    if split.new_users == "drop":
        for part, inputs in ((1, {0, BEFORE_HISTORY}), (2, {0, 1, TEST_INPUT})):
            has_input = {user for (user, _), one in found.items() if one[0] in inputs}
            for pair, one in list(found.items()):
                if one[0] == part and pair[0] not in has_input:
                    del found[pair]
                    if part == 1:
                        found[pair] = (TEST_INPUT, *one[1:])
    evaluated = {user for (user, _), one in found.items() if one[0] in (1, 2)}
    found = {pair: one for pair, one in found.items() if pair[0] in trainers | evaluated}
    return found, trainers, lost


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
    found, trainers, lost = divided_slowly(rows, asked)
    assert parts(data) == {pair: one[0] for pair, one in found.items()}
    assert times_and_counts(data) == [found[pair][1:] for pair in sorted(found)]
    trains = np.flatnonzero(data.split.user_part == Part.TRAIN)
    assert data.users.ids_of(trains) == sorted(trainers)
    counts = data.provenance["counts"]
    for name, n in lost.items():
        assert counts[f"{name}_held_out_of_new_items"] == n


def test_every_row_is_kept_or_counted_as_lost() -> None:
    lost = (
        "rows_below", "rows_of_", "repeated_rows", "rows_after", "interactions_of",
        "interactions_had", "interactions_taken", "interactions_below", "interactions_in_gaps",
        "interactions_before",
    )  # fmt: skip
    for seed in range(3):
        for merge, negative in (("any", ()), ("latest", (1.0,)), ("sum", ())):
            asked = PrepareRules(3.0, 3, 3, TimeSplit(3, T, 4, 2, 9, "drop"), merge, negative)  # type: ignore[arg-type]
            counts = made(timed_rows(seed, 900), asked).provenance["counts"]
            n_lost = sum(n for name, n in counts.items() if name.startswith(lost))
            assert counts["rows_read"] == counts["interactions"] + n_lost


# Nothing comes from after the cut

FUTURE = st.lists(
    st.tuples(
        st.integers(-3, 30), st.integers(-3, 25), st.integers(1, 5).map(float),
        st.integers(on(23), on(60)),
    ),
    max_size=60,
)  # fmt: skip


@given(FUTURE, st.sampled_from(["any", "latest", "sum"]), st.booleans(), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_what_comes_after_the_cut_changes_nothing_before_it(
    future: list[Row], merge: Any, dislikes: bool, least: int
) -> None:
    past = [row for row in timed_rows(5) if row[3] < on(23)]
    asked = replace(
        rules(validation_days=7), merge=merge, min_rating=3.0, min_item_users=least,
        min_user_items=least, negative_values=(2.0,) if dislikes else (),
    )  # fmt: skip
    alone, together = made(past, asked), made([*past, *future], asked)
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


@given(FUTURE)
@settings(max_examples=20, deadline=None)
def test_what_comes_in_the_test_window_changes_no_validation(future: list[Row]) -> None:
    past = [row for row in timed_rows(6) if row[3] < on(30)]
    later = [(user, item, rating, time + on(7)) for user, item, rating, time in future]
    alone, together = (made(rows, rules(min_rating=2.0)) for rows in (past, [*past, *later]))
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


def test_without_validation_all_before_the_test_trains() -> None:
    data = made(timed_rows(3), rules(gap_days=2))
    last = data.without_validation()
    assert not len(last.cases(Part.VALIDATION).user_index)
    assert last.train.sum() > data.train.sum()
    trains = data.split.user_part == Part.TRAIN
    before, after = data.cases(Part.TEST), last.cases(Part.TEST)
    assert (before.fold_in != after.fold_in).nnz == (before.held_out != after.held_out).nnz == 0
    shown = data.split.folded_in(Part.TEST) & np.repeat(trains, np.diff(data.interactions.indptr))
    assert last.train.sum() == shown.sum()


def test_one_log_is_cut_at_many_dates() -> None:
    rows = timed_rows(8)
    with log_of(rows) as log:
        for week in range(3):
            asked = rules(test_from=T - timedelta(weeks=week), validation_days=3)
            assert prepare(log, asked) == made(rows, asked)


def test_the_folder_keeps_it_all(tmp_path: Path) -> None:
    data = made(timed_rows(9), rules(gap_days=1, history_days=9))
    assert {TEST_INPUT, BEFORE_HISTORY} <= set(data.split.interaction_part.tolist())
    data.save(tmp_path / "data")
    back = Dataset.load(tmp_path / "data")
    assert back == data
    assert back.provenance == data.provenance
    assert told(back, back.cases(Part.TEST)) == told(data, data.cases(Part.TEST))


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
