"""Every gate at both sides of its bound."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.data.ids import IdMap
from coterie.evaluation.compare import Comparison, compare
from coterie.evaluation.report import EvaluationReport
from coterie.jobs import gates
from coterie.jobs.config import GatesConfig, days_of
from coterie.jobs.events import Day
from coterie.jobs.gates import Gate

MONDAY = date(2026, 2, 2)
WEEK = days_of(MONDAY, MONDAY + timedelta(weeks=1))


def day(when: date, n_events: int) -> Day:
    return Day(when, Path(f"{when}.parquet"), n_events, n_events, 0, "")


def log(week: int, before: int) -> Iterator[Day]:
    """Four weeks of as many events a day, and one."""
    for when in days_of(MONDAY - timedelta(weeks=4), MONDAY):
        yield day(when, before)
    for when in WEEK:
        yield day(when, week)


@pytest.mark.parametrize(
    ("events", "passed"), [(50, True), (49, False), (200, True), (201, False), (100, True)]
)
def test_volume_at_its_bounds(events: int, passed: bool) -> None:
    days = [one if one.day != WEEK[3] else day(WEEK[3], events) for one in log(100, 100)]
    gate = gates.volume(days, WEEK, (0.5, 2.0))
    assert (gate.passed, gate.value) == (passed, events / 100)
    assert events == 100 or str(WEEK[3]) in gate.about


def test_volume_of_a_missing_day_is_none_and_of_a_new_log_unknown() -> None:
    missing = [one for one in log(100, 100) if one.day != WEEK[2]]
    gate = gates.volume(missing, WEEK, (0.5, 2.0))
    assert (gate.value, gate.passed) == (0, False)
    new = gates.volume([day(one, 9) for one in WEEK], WEEK, (0.5, 2.0))
    assert (new.value, new.passed) == (None, True)


@given(st.lists(st.integers(0, 9), min_size=35, max_size=35))
def test_volume_as_a_loop(counts: list[int]) -> None:
    """A count of none is a day that is missing."""
    every = dict(
        zip(days_of(MONDAY - timedelta(weeks=4), WEEK[-1] + timedelta(days=1)), counts, strict=True)
    )
    days = [day(when, count) for when, count in every.items() if count]
    ratios = []
    for when in WEEK:
        before = [every[when - timedelta(weeks=n)] for n in (1, 2, 3, 4)]
        if any(before):
            ratios.append(every[when] / np.median([count for count in before if count]))
    gate = gates.volume(days, WEEK, (0.5, 2.0))
    if ratios:
        assert gate.value is not None
        furthest = max(max(one, 1 / one if one else np.inf) for one in ratios)
        assert max(gate.value, 1 / gate.value if gate.value else np.inf) == furthest
        assert gate.passed == all(0.5 <= one <= 2 for one in ratios)


@pytest.mark.parametrize("make", [gates.at_least, gates.at_most])
@given(value=st.floats(-5, 5), bound=st.floats(-5, 5))
def test_one_sided_gates(make: Any, value: float, bound: float) -> None:
    above = value >= bound if make is gates.at_least else value <= bound
    assert make("name", value, bound, "what").passed == above
    assert make("name", bound, bound, "what").passed
    assert make("name", None, bound, "what").passed


def comparison(gains: list[float], n_items: int = 20) -> Comparison:
    """Of users with some items each, who gain so much over 0.5."""
    n, users = np.full(len(gains), n_items), IdMap.of(range(len(gains)))
    reference = np.full(len(gains), 0.5)
    reports = [
        EvaluationReport(users, n, {"ndcg@20": values})
        for values in (reference + np.array(gains), reference)
    ]
    return compare(*reports, seed=0, n_resamples=500, confidence=0.9)


SOME = comparison([-0.1, 0.02] * 40)


def test_not_inferior_holds_the_lower_end_of_the_interval() -> None:
    low = SOME.overall["ndcg@20"].low / 0.5
    assert low < 2 * SOME.overall["ndcg@20"].difference < 0
    for margin, passed in ((-low, True), (np.nextafter(-low, 0), False)):
        gate = gates.not_inferior("live", {"live": SOME}, "ndcg@20", margin)
        assert gate.passed == passed
        assert gate.value == pytest.approx(low)


def test_not_inferior_takes_the_worst_and_passes_without_any() -> None:
    better = comparison([0.1] * 80)
    found = gates.not_inferior("both", {"ease": better, "popularity": SOME}, "ndcg@20", 0.05)
    assert (found.passed, "over popularity" in found.about) == (False, True)
    assert gates.not_inferior("both", {"ease": better}, "ndcg@20", 0).value == pytest.approx(0.2)
    nothing = gates.not_inferior("both", {}, "ndcg@20", 0)
    assert (nothing.passed, nothing.value) == (True, None)


def test_a_model_that_finds_nothing_is_no_reference() -> None:
    users, n = IdMap.of([1, 2]), np.array([9, 9])
    zero = EvaluationReport(users, n, {"ndcg@20": np.zeros(2)})
    found = {"live": compare(zero, zero, seed=0, n_resamples=10)}
    assert gates.not_inferior("live", found, "ndcg@20", 0).value == 0


def test_no_cohort_lost_holds_the_upper_end_of_the_worst() -> None:
    """A cohort is lost if it certainly loses more than the margin."""
    (cohort,) = SOME.cohorts
    high = SOME.cohorts[cohort]["ndcg@20"].high / 0.5
    assert high < 0
    for margin, passed in ((-high, True), (np.nextafter(-high, 0), False)):
        gate = gates.no_cohort_lost(SOME, "ndcg@20", margin)
        assert gate.passed == passed
        assert gate.value == pytest.approx(high)
        assert f"users with {cohort} items" in gate.about
    assert gates.no_cohort_lost(comparison([-0.4] * 49), "ndcg@20", 0.1).value is None
    assert gates.no_cohort_lost(None, "ndcg@20", 0.1).passed


GOOD = {"distinct": 0.9, "coverage": 0.5, "popularity": 1.0, "turnover": 0.7}


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("distinct", 0.02, 0.019),
        ("coverage", 0.005, 0.0049),
        ("popularity", 3.0, 3.001),
        ("turnover", 0.1, 0.099),
    ],
)
def test_gates_of_lists_each_at_its_bound(name: str, inside: float, outside: float) -> None:
    for value, failed in ((inside, []), (outside, [name]), (None, [])):
        found = gates.of_lists(GatesConfig(), {**GOOD, name: value})
        assert [gate.name for gate in found if not gate.passed] == failed


def test_gates_tell_what_they_found() -> None:
    gate = Gate("volume", 0.25, "0.5 to 2", False, "events of a day")
    assert str(gate) == "volume: events of a day must be 0.5 to 2, found 0.25"
    assert Gate(**gate.to_json()) == gate
    text = gates.table([gate, Gate("live", None, "at least 0", True, "x")])
    assert "FAILED" in text.splitlines()[1]
    assert "passed" in text.splitlines()[2]
