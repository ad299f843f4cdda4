"""The service that lives keeps its law, its windows and its rates, whatever day is asked for."""

import tracemalloc
from datetime import UTC, date, datetime, timedelta
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coterie.errors import ConfigError
from coterie.running.progress import Update
from coterie.simulation.living import LivingService
from coterie.simulation.watching import HOURS, WEEKDAYS, Seen, draw_unseen
from test_simulate import order_probability

SERVICE = LivingService(n_users=2000, n_items=300, weeks=6, seed=7)
START = SERVICE.first_day
N_DAYS = 7 * SERVICE.weeks


class Log(NamedTuple):
    """Rows as they arrived, one entry each; days are numbers."""

    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    value: np.ndarray
    happened: np.ndarray
    arrived: np.ndarray


def day(number: int) -> date:
    return START + timedelta(days=number)


def log_of(service: LivingService) -> Log:
    days = list(service.arrivals(service.first_day, service.last_day))
    rows = pa.concat_tables([table for _, table in days])
    user, item, timestamp, value = (rows[name].to_numpy() for name in rows.column_names)
    arrived = [np.full(len(table), (on - service.first_day).days) for on, table in days]
    midnight = datetime(*service.first_day.timetuple()[:3], tzinfo=UTC).timestamp()
    happened = (timestamp - int(midnight)) // 86_400
    return Log(user, item, timestamp, value, happened, np.concatenate(arrived))


def only(log: Log, rows: np.ndarray) -> Log:
    return Log(*(column[rows] for column in log))


def watched(log: Log) -> Log:
    """Every row once, as it arrived first."""
    order = np.argsort(log.arrived, kind="stable")
    _, first = np.unique(np.stack(log[:3])[:, order], axis=1, return_index=True)
    return only(log, order[first])


LOG = log_of(SERVICE)
WATCHED = watched(LOG)


# Days.


@pytest.mark.parametrize("number", [0, N_DAYS - 1, 10])
def test_events_are_those_of_the_day_in_any_order_and_company(number: int) -> None:
    alone = LivingService(2000, 300, 6, 7).events(day(number))
    together = [table for on, table in SERVICE.arrivals(day(2), day(10)) if on == day(number)]
    rows = only(LOG, LOG.arrived == number)
    assert alone.equals(SERVICE.events(day(number)))
    assert not together or alone.equals(pa.concat_tables(together))
    for name, column in zip(alone.column_names, rows, strict=False):
        assert np.array_equal(alone[name].to_numpy(), column)


def test_another_seed_is_another_service() -> None:
    other = LivingService(2000, 300, 6, 8)
    assert not other.events(START).equals(SERVICE.events(START))
    assert other.titles(START)["title"] != SERVICE.titles(START)["title"]


def test_events_have_the_stated_columns() -> None:
    schema = SERVICE.events(START).schema
    assert schema.names == ["user_id", "item_id", "timestamp", "value"]
    assert schema.types == [pa.int64(), pa.int64(), pa.int64(), pa.float64()]
    assert (LOG.value > 0).all()
    assert (LOG.value == np.floor(LOG.value)).all()


def test_volume_stays_and_activity_has_a_long_tail() -> None:
    weekly = np.bincount(WATCHED.happened // 7)
    assert weekly.min() > 0.85 * weekly.max()
    assert 0.8 < weekly.mean() / (2000 * SERVICE.weekly_items) < 1
    counts = np.sort(np.bincount(WATCHED.user))[::-1]
    assert counts[: len(counts) // 10].sum() > 0.3 * counts.sum()


def test_rhythm_of_hours_and_weekdays() -> None:
    hours = np.bincount(WATCHED.timestamp % 86_400 // 3600, minlength=24)
    assert stats.chisquare(hours, HOURS / HOURS.sum() * hours.sum()).pvalue > 1e-4
    weekday = np.bincount(WATCHED.happened % 7)  # the first day is a Monday
    assert START.weekday() == 0
    np.testing.assert_allclose(weekday / weekday.mean(), WEEKDAYS, rtol=0.05)


def test_weekdays_are_those_of_the_calendar() -> None:
    service = LivingService(3000, 300, 2, first_day=date(2026, 1, 8))
    volumes = np.bincount(watched(log_of(service)).happened)
    weekend = [(date(2026, 1, 8) + timedelta(n)).weekday() in (5, 6) for n in range(14)]
    assert volumes[weekend].min() > volumes[np.logical_not(weekend)].max()


def test_late_rows_and_copies_come_at_the_stated_rates() -> None:
    service = LivingService(3000, 300, 4, late_share=0.2, duplicate_share=0.1)
    log = log_of(service)
    whole = only(log, log.happened < 7 * 4 - 4)
    once = watched(whole)
    delay = once.arrived - once.happened
    n = len(delay)
    assert abs((delay > 0).mean() - 0.2) < 4 * np.sqrt(0.16 / n)
    assert abs((len(whole.user) - n) / n - 0.1) < 4 * np.sqrt(0.09 / n)
    assert stats.chisquare(np.bincount(delay)[1:]).pvalue > 1e-4
    assert np.bincount(whole.arrived - whole.happened, minlength=5)[4] > 0
    assert (whole.arrived - whole.happened).max() == 4


def test_log_without_late_rows_and_copies_is_in_its_days() -> None:
    log = log_of(LivingService(500, 100, 3, late_share=0, duplicate_share=0))
    assert np.array_equal(log.arrived, log.happened)
    assert len(watched(log).user) == len(log.user)


def test_nobody_watches_a_title_twice() -> None:
    pairs = np.unique(np.stack([WATCHED.user, WATCHED.item]), axis=1)
    assert pairs.shape[1] == len(WATCHED.user)


# Titles.


def windows(service: LivingService) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of days, from the table."""
    titles = service.titles(service.last_day)
    found = []
    for name, nothing in (("available_from", -1), ("available_until", 10**6)):
        days = titles[name].to_pylist()
        found.append(
            np.array([nothing if d is None else (d - service.first_day).days for d in days])
        )
    return found[0], found[1]


def test_titles_are_watched_within_their_windows_alone() -> None:
    start, stop = windows(SERVICE)
    assert (start[WATCHED.item - 1] <= WATCHED.happened).all()
    assert (WATCHED.happened < stop[WATCHED.item - 1]).all()


def test_titles_come_and_leave_by_a_few_per_cent_a_week() -> None:
    start, stop = windows(SERVICE)
    assert (start == -1).sum() == 300
    new = np.bincount(start[start >= 0] // 7) / 300
    left = np.bincount(stop[stop < N_DAYS] // 7, minlength=SERVICE.weeks) / 300
    assert 0.02 < new.min() < new.max() < 0.04
    assert 0.01 < left.mean() < 0.04
    assert (stop[start >= 0] - start[start >= 0] >= 28).all()


def test_titles_are_told_a_week_ahead_and_stay_in_the_table() -> None:
    later = SERVICE.titles(day(20))
    assert later.schema == SERVICE.titles(START).schema
    assert later[: SERVICE.titles(START).num_rows].equals(SERVICE.titles(START))
    assert max(filter(None, later["available_from"].to_pylist())) == day(27)
    assert later["item_id"].to_pylist() == list(range(1, later.num_rows + 1))


def test_titles_have_kinds_and_genres_as_features() -> None:
    titles = SERVICE.titles(START).to_pylist()
    assert 0.2 < np.mean([title["kind"] == "series" for title in titles]) < 0.4
    for title in titles:
        marked = {name.removeprefix("genre_") for name in title if title[name] is True}
        assert marked == set(title["genres"].lower().split("|"))


def test_titles_are_watched_most_when_new() -> None:
    start, _ = windows(SERVICE)
    age = WATCHED.happened - start[WATCHED.item - 1]
    of_new = age[(start[WATCHED.item - 1] >= 0) & (start[WATCHED.item - 1] < N_DAYS - 21)]
    first, _, third = np.bincount(of_new // 7)[:3]
    assert first > 1.5 * third


# Users.


def test_users_come_every_day_and_watch_on_their_first() -> None:
    new = np.setdiff1d(SERVICE.users(day(9)), SERVICE.users(day(8)))
    assert len(new) == 6
    first = np.array([WATCHED.happened[WATCHED.user == user].min() for user in new])
    assert (first == 9).all()
    assert set(WATCHED.user[WATCHED.happened == 9]) >= set(new)


def test_users_watch_while_they_are_members_alone() -> None:
    for number in range(0, N_DAYS, 5):
        members = set(SERVICE.users(day(number)).tolist())
        assert set(WATCHED.user[WATCHED.happened == number].tolist()) <= members


def test_users_leave_as_many_as_come() -> None:
    members = [SERVICE.users(day(number)) for number in range(N_DAYS)]
    assert all((np.diff(ids) > 0).all() for ids in members)
    assert all(1900 < len(ids) < 2100 for ids in members)
    gone = np.setdiff1d(members[0], members[-1])
    assert 0.06 < len(gone) / len(members[0]) < 0.18
    assert not np.intersect1d(gone, members[-1]).size


def test_users_and_law_go_over_blocks() -> None:
    service = LivingService(20_000, 60, 2)
    users = service.users(service.first_day)
    assert users.max() == 20_060
    asked = np.array([20_000, 1, 16_384, 16_385])
    alone = np.concatenate([service.probabilities([one], day(3)) for one in asked])
    np.testing.assert_allclose(service.probabilities(asked, day(3)), alone, rtol=1e-12)
    assert service.events(day(3))["user_id"].to_numpy().max() > 16_384


# The law.


def test_probabilities_sum_to_one_over_what_is_available() -> None:
    start, stop = windows(SERVICE)
    for number in (0, 17, N_DAYS - 1):
        law = SERVICE.probabilities([1, 2000, 2100], day(number))
        available = (start <= number) & (number < stop)
        assert law.shape == (3, SERVICE.n_titles)
        np.testing.assert_allclose(law.sum(axis=1), 1, rtol=1e-12)
        assert ((law > 0) == available).all()
    assert SERVICE.probabilities([], START).shape == (0, SERVICE.n_titles)


def seen_before(number: int, users: np.ndarray) -> np.ndarray:
    """``[n, n_titles]`` bool: what each had watched before a day."""
    seen = np.zeros((WATCHED.user.max() + 1, SERVICE.n_titles), bool)
    before = WATCHED.happened < number
    seen[WATCHED.user[before], WATCHED.item[before] - 1] = True
    of_users: np.ndarray = seen[users]
    return of_users


def unseen_law(number: int, of_day: int, users: np.ndarray) -> np.ndarray:
    """The law of one day over what the users had not seen before another."""
    law = SERVICE.probabilities(users, day(of_day)) * ~seen_before(number, users)
    return np.asarray(law / law.sum(axis=1, keepdims=True))


def single_watches(number: int) -> Log:
    """Of those who watched one title that day: the others' titles depend on each other."""
    rows = only(WATCHED, WATCHED.happened == number)
    return only(rows, np.bincount(rows.user)[rows.user] == 1)


@pytest.mark.parametrize("number", [0, 12, N_DAYS - 6])
def test_events_follow_the_law_of_their_day(number: int) -> None:
    rows = single_watches(number)
    law = unseen_law(number, number, rows.user)
    logs = np.log(law, where=law > 0, out=np.zeros_like(law))
    own = logs[np.arange(len(law)), rows.item - 1]
    expected, square = (law * logs).sum(axis=1), (law * logs**2).sum(axis=1)
    spread = np.sqrt((square - expected**2).sum())
    assert abs((own - expected).sum()) < 4 * spread
    others = np.roll(law, 1, axis=0)[np.arange(len(law)), rows.item - 1]
    assert np.log(np.maximum(others, 1e-6)).mean() < own.mean() - 0.3


def test_law_drifts_slowly_and_in_each_users_own_way() -> None:
    users = np.arange(1, 300)
    start, stop = windows(SERVICE)
    old = (start == -1) & (stop > N_DAYS)
    law = [SERVICE.probabilities(users, day(n))[:, old] for n in (0, 7, 35)]
    law = [one / one.sum(axis=1, keepdims=True) for one in law]
    moved = [np.abs(one - law[0]).sum(axis=1) / 2 for one in law]
    assert 0.01 < np.median(moved[1]) < 0.1
    assert 0.1 < np.median(moved[2]) < 0.4
    assert moved[2].std() > 0.03


def recall(scores: np.ndarray, item: np.ndarray, k: int = 20) -> float:
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == item[:, None] - 1).any(axis=1).mean())


def test_law_of_the_day_ranks_above_last_months_and_popularity() -> None:
    number = 34
    rows = only(WATCHED, (WATCHED.happened >= number) & (WATCHED.happened < number + 7))
    seen = seen_before(number, rows.user)
    counts = np.bincount(WATCHED.item[WATCHED.happened < number], minlength=SERVICE.n_titles + 1)
    law, old = (SERVICE.probabilities(rows.user, day(n)) for n in (number, number - 28))
    best, last_month, popular = (
        recall(np.where(seen, -1, scores), rows.item) for scores in (law, old, counts[None, 1:])
    )
    assert best > last_month + 0.05
    assert best > popular + 0.05


def test_draw_unseen_is_successive_draws_without_what_was_seen() -> None:
    n, law = 20_000, np.array([0.4, 0.25, 0.2, 0.1, 0.05])
    seen = Seen(n, 5)
    seen.mark(np.arange(n) * 5)
    rows, wanted, tastes = np.arange(n), np.full(n, 2), np.ones((n, 1))
    row, item = draw_unseen(rows, wanted, tastes, law[None], seen, np.random.default_rng(1))
    marks = seen.has(np.arange(n * 5)).reshape(n, 5)
    assert marks[row, item].all()
    assert marks.sum() == n + len(row)
    whole = np.flatnonzero(np.bincount(row, minlength=n) == 2)
    assert len(whole) > 0.99 * n
    drawn = marks[whole, 1:] @ [1, 2, 4, 8]
    left = law[1:] / law[1:].sum()
    pairs = list(combinations(range(4), 2))
    expected = [sum(order_probability(order, left) for order in permutations(p)) for p in pairs]
    observed = [int((drawn == (1 << a) + (1 << b)).sum()) for a, b in pairs]
    assert stats.chisquare(observed, len(whole) * np.array(expected)).pvalue > 1e-3


def test_draw_unseen_gives_up_where_nothing_is_left() -> None:
    seen = Seen(2, 3)
    seen.mark(np.arange(5))
    row, item = draw_unseen(
        np.arange(2), np.full(2, 5), np.ones((2, 1)), np.full((1, 3), 1 / 3), seen,
        np.random.default_rng(0),
    )  # fmt: skip
    assert (row.tolist(), item.tolist()) == ([1], [2])


# Any size.


@settings(max_examples=15, deadline=None)
@given(
    st.builds(
        LivingService,
        n_users=st.integers(1, 40),
        n_items=st.integers(6, 40),
        weeks=st.integers(1, 4),
        seed=st.integers(0, 2**40),
        late_share=st.sampled_from([0.0, 0.5, 1.0]),
        duplicate_share=st.sampled_from([0.0, 1.0]),
    )
)
def test_small_services_keep_the_rules(service: LivingService) -> None:
    log = log_of(service)
    once = watched(log)
    start, stop = windows(service)
    assert len(np.unique(once.user * 1000 + once.item)) == len(once.user)
    assert (start[once.item - 1] <= once.happened).all()
    assert (once.happened < stop[once.item - 1]).all()
    assert (log.happened <= log.arrived).all()
    assert (log.arrived <= log.happened + 4).all()
    law = service.probabilities(service.users(service.last_day), service.last_day)
    np.testing.assert_allclose(law.sum(axis=1), 1)


def peak_bytes(n_users: int) -> int:
    service = LivingService(n_users, 60, 1)
    assert service.crowd.n_users == n_users
    assert service.n_titles > 60
    tracemalloc.start()
    for _ in service.arrivals(service.first_day, service.last_day):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_days_are_made_in_bounded_memory() -> None:
    assert peak_bytes(100_000) < 1.2 * peak_bytes(17_000)


def test_arrivals_tell_how_far_they_are() -> None:
    updates: list[Update] = []
    service = LivingService(20_000, 60, 1)
    for _ in service.arrivals(START, START, updates.append):
        pass
    assert [(one.done, one.total) for one in updates] == [(16_384, 20_060), (20_060, 20_060)]


# What is refused.


@pytest.mark.parametrize(
    "fields",
    [
        {"n_users": 0},
        {"n_items": 3},
        {"n_niches": 3},
        {"weeks": 0},
        {"seed": -1},
        {"late_share": 1.5},
        {"duplicate_share": -0.1},
        {"weekly_items": 30.0},
        {"weekly_items": -1.0},
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        LivingService(**{"n_users": 10, "n_items": 100, **fields})  # type: ignore[arg-type]


def test_days_and_users_that_are_not_of_the_service_are_refused() -> None:
    with pytest.raises(ConfigError, match="days must be from 2026-01-05 to 2026-02-15"):
        SERVICE.events(date(2026, 2, 16))
    with pytest.raises(ConfigError, match="first must not be after last"):
        next(SERVICE.arrivals(day(3), day(2)))
    for user in (0, 3000):
        with pytest.raises(ConfigError, match="user ids must be in"):
            SERVICE.probabilities([user], START)
