"""What lists would have earned, held against closed forms and against worlds whose truth is known;
and what is refused because it cannot be known.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import DataError
from coterie.experiment.attribution import read_events, with_clicks
from coterie.experiment.replay import Estimate, overlap, replay_lists
from small_experiment import SCHEMAS, at, did, seen, window, write

N_TITLES, PLACES = 5, 3
BEST = np.argsort([0, 2, 4, 1, 3])
"""The candidate's list, of everybody."""


def table(**columns: Any) -> pa.Table:
    return pa.table(columns)


def log_of(rows: Sequence[tuple[int, int, int, float | None, int]]) -> tuple[pa.Table, pa.Table]:
    """Views of user, position, title and propensity, each with its number of clicks."""
    users, places, titles, chances, clicks = zip(*rows, strict=True)
    times, cards = list(range(len(rows))), ["home"] * len(rows)
    exposures = table(
        user_id=users, time=times, card=cards, item_id=titles, position=places,
        propensity=pa.array(chances, pa.float64()),
    )  # fmt: skip
    clicked = [n for n, many in enumerate(clicks) for _ in range(many)]
    outcomes = exposures.take(pa.array(clicked, pa.int64())).select(
        ["user_id", "time", "card", "item_id"]
    )
    return exposures, outcomes.append_column("kind", pa.array(["click"] * len(clicked)))


SMALL = log_of(
    [
        (1, 1, 7, 0.5, 1),
        (1, 2, 9, 0.25, 0),
        (1, 1, 8, 0.5, 1),
        (2, 1, 7, 0.5, 0),
        (2, 2, 8, 0.25, 2),
        (2, 2, 7, 0.75, 0),
        (3, 1, 8, 0.5, 0),
        (3, 2, 8, 0.25, 1),
    ]
)
SEVEN_EIGHT = table(user_id=[1, 2, 3], items=[[7, 8]] * 3)


def test_estimates_are_the_closed_forms() -> None:
    """Weights that match: 2, then 2 and 4, then 4; clicks 1, then 0 and 2, then 1."""
    found = replay_lists(*SMALL, SEVEN_EIGHT)
    assert found.ips.value == pytest.approx((2 * 1 + 4 * 2 + 4 * 1) / 8)
    assert found.snips.value == pytest.approx((2 * 1 + 4 * 2 + 4 * 1) / 12)
    assert found.logged.value == pytest.approx(5 / 8)
    assert found.effective_views == pytest.approx(12**2 / (4 + 4 + 16 + 16))
    assert (found.n_users, found.n_views, found.n_matched, found.n_left_out) == (3, 8, 4, 0)
    assert found.mean_weight == pytest.approx(12 / 8)


def test_variance_is_that_of_users_by_the_delta_method() -> None:
    y, x, w = np.array([2.0, 8, 4]), np.array([3.0, 3, 2]), np.array([2.0, 6, 4])
    found = replay_lists(*SMALL, SEVEN_EIGHT)
    for one, below in ((found.ips, x), (found.snips, w)):
        residual = y - y.sum() / below.sum() * below
        variance = residual @ residual / 2 / (3 * below.mean() ** 2)
        assert one.standard_error == pytest.approx(math.sqrt(variance))
        assert one.high - one.value == pytest.approx(4.302652729911275 * math.sqrt(variance))


def test_the_logging_lists_themselves_are_worth_what_they_earned() -> None:
    """Where the candidate is what was drawn with probability one half, twice over."""
    rows = [(u, 1, 7 + (u + n) % 2, 0.5, (u * n) % 3 % 2) for u in range(40) for n in range(4)]
    exposures, outcomes = log_of(rows)
    both = [
        replay_lists(exposures, outcomes, table(user_id=range(40), items=[[title]] * 40)).ips.value
        for title in (7, 8)
    ]
    assert np.mean(both) == pytest.approx(sum(row[-1] for row in rows) / len(rows))


def test_views_without_a_list_a_place_or_a_draw_are_left_out() -> None:
    exposures, outcomes = SMALL
    more = log_of([(9, 1, 7, 0.5, 1), (1, 3, 7, 0.5, 1), (1, 1, 7, None, 1)])
    together = pa.concat_tables([exposures, more[0].set_column(1, "time", pa.array([50, 51, 52]))])
    found = replay_lists(together, outcomes, SEVEN_EIGHT)
    assert found.n_left_out == 3
    assert found.ips == replay_lists(*SMALL, SEVEN_EIGHT).ips


def test_lists_may_differ_by_card() -> None:
    exposures, outcomes = SMALL
    cards = pa.array(["home"] * 4 + ["movie"] * 4)
    exposures = exposures.set_column(2, "card", cards)
    lists = table(user_id=[1, 2, 2, 3], card=["home", "home", "movie", "movie"], items=[[7, 8]] * 4)
    assert replay_lists(exposures, outcomes, lists).n_views == 8
    assert replay_lists(exposures, outcomes, lists.slice(0, 3)).n_left_out == 2


def world(rng: np.random.Generator, n_users: int = 250) -> tuple[pa.Table, pa.Table]:
    """Lists in uniformly random order; users differ in how much they look and click."""
    looks = 1 + rng.poisson(rng.lognormal(0.5, 0.7, n_users))
    user = np.repeat(np.arange(n_users), looks)
    rates = rng.beta(2, 6, n_users)[user, None]
    order = np.argsort(rng.random((len(user), N_TITLES)), axis=1)[:, :PLACES]
    clicked = rng.random(order.shape) < rates * appeal(order, np.arange(PLACES))
    rows = np.broadcast_to(user[:, None], order.shape)
    places = np.broadcast_to(np.arange(1, PLACES + 1), order.shape)
    exposures = table(
        user_id=rows.ravel(),
        time=np.arange(order.size),
        card=["home"] * order.size,
        item_id=order.ravel(),
        position=places.ravel(),
        propensity=np.full(order.size, 1 / N_TITLES),
    )
    outcomes = exposures.filter(pa.array(clicked.ravel())).drop_columns(["position", "propensity"])
    return exposures, outcomes.append_column("kind", pa.array(["click"] * int(clicked.sum())))


def appeal(title: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Of the chance of a click: better titles have smaller numbers, lower places count less."""
    found: np.ndarray = 2.0 ** (-title / 2) / (1 + 0.4 * place)
    return found


TRUTH = 0.25 * appeal(BEST[:PLACES], np.arange(PLACES)).mean()
"""Clicks per view of the candidate: users do not look more where they click more."""


@pytest.fixture(scope="module")
def runs() -> list[Any]:
    rng = np.random.default_rng(0)
    lists = table(user_id=range(250), items=[BEST.tolist()] * 250)
    return [replay_lists(*world(rng), lists) for _ in range(150)]


def test_ips_is_unbiased_and_both_intervals_cover(runs: list[Any]) -> None:
    for name in ("ips", "snips"):
        found = [getattr(one, name) for one in runs]
        values = np.array([one.value for one in found])
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - TRUTH) < 3.5 * error
        covered = np.mean([one.low <= TRUTH <= one.high for one in found])
        assert 0.90 < covered < 0.99
        told = np.mean([one.standard_error for one in found])
        assert told == pytest.approx(values.std(ddof=1), rel=0.18)


def test_snips_varies_less_and_the_log_itself_is_worth_something_else(runs: list[Any]) -> None:
    spread = {name: np.std([getattr(one, name).value for one in runs]) for name in ("ips", "snips")}
    assert spread["snips"] < spread["ips"]
    logged = np.mean([one.logged.value for one in runs])
    assert abs(logged - TRUTH) > 5 * spread["ips"] / math.sqrt(len(runs))
    for one in runs:
        assert one.effective_views == pytest.approx(one.n_matched)


def test_taking_views_as_independent_would_be_too_sure() -> None:
    """Users who look at one thing a hundred times: standard errors are those of users."""
    rng = np.random.default_rng(1)
    rows = []
    for user, keen in enumerate(rng.random(60) < 0.5):
        rows += [(user, 1, int(t), 0.5, int(keen and t)) for t in rng.integers(0, 2, 100)]
    found = replay_lists(*log_of(rows), table(user_id=range(60), items=[[1]] * 60)).ips
    weighed = np.array([2.0 * row[-1] for row in rows])
    assert found.standard_error > 5 * weighed.std() / math.sqrt(len(rows))


def refused(exposures: pa.Table, outcomes: pa.Table, lists: pa.Table = SEVEN_EIGHT) -> str:
    with pytest.raises(DataError) as error:
        replay_lists(exposures, outcomes, lists)
    return str(error.value)


def test_a_log_that_nothing_was_drawn_in_is_refused_with_the_overlap() -> None:
    exposures, outcomes = SMALL
    nothing = exposures.set_column(5, "propensity", pa.array([None] * 8, pa.float64()))
    for log in (exposures.drop_columns(["propensity"]), nothing):
        told = refused(log, outcomes)
        assert "no propensity" in told
        assert "is not in the log" in told
        assert "83.3% of the candidate's titles" in told
    certain = exposures.set_column(5, "propensity", pa.array([1.0] * 8))
    assert "every propensity to be 1" in refused(certain, outcomes)


def test_overlap_counts_titles_shown_to_the_user_on_the_card() -> None:
    exposures, _ = SMALL
    assert overlap(exposures, SEVEN_EIGHT) == pytest.approx(5 / 6)
    other = table(user_id=[1, 2], card=["home", "movie"], items=[[7, 8], [7, 8]])
    assert overlap(exposures, other) == 0.5
    assert math.isnan(overlap(exposures, SEVEN_EIGHT.slice(0, 0)))


def test_titles_that_could_not_be_shown_are_found_by_the_mean_weight() -> None:
    rng = np.random.default_rng(2)
    rows = [
        (user, place, int(rng.integers(7, 9)), 0.5, int(rng.random() < 0.2))
        for user in range(200)
        for place in (1, 2)
    ]
    lists = table(user_id=range(200), items=[[7, 99]] * 200)
    assert "weights must have a mean of 1" in refused(*log_of(rows), lists)
    assert (
        replay_lists(*log_of(rows), table(user_id=range(200), items=[[7, 8]] * 200)).n_views == 400
    )


def test_wrong_propensities_are_found() -> None:
    exposures, outcomes = world(np.random.default_rng(3))
    lists = table(user_id=range(250), items=[BEST.tolist()] * 250)
    wrong = exposures.set_column(5, "propensity", pa.array([0.5] * len(exposures)))
    assert "mean of 1" in refused(wrong, outcomes, lists)
    for value in (0.0, 1.5, math.nan):
        values = pa.array([value, *[0.5] * (len(exposures) - 1)])
        assert "above 0 and at most 1" in refused(
            exposures.set_column(5, "propensity", values), outcomes, lists
        )


def test_tables_that_do_not_fit_are_refused() -> None:
    exposures, outcomes = SMALL
    assert "add position" in refused(exposures.drop_columns(["position"]), outcomes)
    assert "add items" in refused(exposures, outcomes, table(user_id=[1]))
    assert "one list for each" in refused(exposures, outcomes, pa.concat_tables([SEVEN_EIGHT] * 2))
    assert "found none of 8 views" in refused(exposures, outcomes, table(user_id=[5], items=[[7]]))


views = st.lists(
    st.tuples(st.integers(1, 2), st.integers(0, 9), st.integers(1, 2)), min_size=1, max_size=12
)


@given(views, views)
@settings(max_examples=40, deadline=None)
def test_a_click_is_that_of_the_latest_view(
    shown: list[tuple[int, int, int]], clicked: list[tuple[int, int, int]]
) -> None:
    names = ("user_id", "time", "item_id")
    exposures = table(**dict(zip(names, zip(*shown, strict=True), strict=True)))
    outcomes = table(**dict(zip(names, zip(*clicked, strict=True), strict=True)))
    cards = [pa.array(["home"] * len(one)) for one in (shown, clicked)]
    found = with_clicks(
        exposures.append_column("card", cards[0]),
        outcomes.append_column("card", cards[1]).append_column(
            "kind", pa.array(["click"] * len(clicked))
        ),
    )["clicks"].to_pylist()
    expected = [0] * len(shown)
    for user, time, title in clicked:
        mine = [
            (-view[1], place)
            for place, view in enumerate(shown)
            if view[0] == user and view[2] == title and view[1] <= time
        ]
        if mine:
            expected[min(mine)[1]] += 1
    assert found == expected


def test_events_are_read_from_files_as_the_rules_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"position": pa.int64(), "propensity": pa.float64()}
    schema = pa.schema([*SCHEMAS["exposures"], *more.items()])
    monkeypatch.setitem(SCHEMAS, "exposures", schema)
    rows = [
        seen(user, day, item_id=(user + day) % 2, position=1, propensity=0.5)
        for user in range(20)
        for day in range(4)
    ]
    done = [did(user, 2, item_id=user % 2, time=at(2) + 9) for user in range(0, 20, 3)]
    twice = [(int((row["time"] - at(0, 0)) // 86_400), row) for row in [*rows, *rows]]
    sources = write(tmp_path, twice, [(2, row) for row in done])
    events = read_events(sources, window(4))
    assert events["exposures"].num_rows == 80
    lists = table(user_id=range(20), items=[[0]] * 20)
    found = replay_lists(events["exposures"], events["outcomes"], lists)
    assert found.n_views == 80
    assert found.ips.value == pytest.approx(
        2 * len([u for u in range(0, 20, 3) if u % 2 == 0]) / 80
    )


def test_an_estimate_needs_two_users() -> None:
    with pytest.raises(DataError, match="two users"):
        Estimate.of(np.array([[1.0, 2.0]]))
