"""Sums of an experiment against the rules, taken a row at a time."""

import shutil
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import ConfigError, DataError
from coterie.experiment import Arms, Cap, Metric, Sums, card_metrics, sum_up
from coterie.experiment.statistics.moments import Moments
from coterie.experiment.sums import Measure
from small_experiment import (
    FIRST,
    NAME,
    WEIGHTS,
    Row,
    arms_of,
    at,
    columns_by_hand,
    did,
    in_time,
    seen,
    window,
    write,
)

CARDS = ("movie", "home")
METRICS = (
    *card_metrics(CARDS),
    Metric("clicks", "views"),
    Metric("view_days", "users", "home"),
    Metric("unseen_days", "click_days", "movie"),
)
ARMS = {1: "control", 2: "treatment", 3: "control", 4: "treatment", 5: None, 6: "elsewhere"}


def assert_same(found: Moments, columns: np.ndarray) -> None:
    expected = Moments.of(columns)
    assert found.n == expected.n
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9, atol=1e-9)


# Brute force.

moment = st.tuples(st.integers(-2, 3), st.integers(0, 3)).map(lambda one: at(one[0], one[1]))
delay = st.sampled_from([0, 0, 0, 1, 2, 3, -1])
common = {
    "user_id": st.sampled_from([1, 1, 2, 3, 4, 5, 6, 7, None]),
    "time": moment,
    "card": st.sampled_from(["movie", "home", "other"]),
    "item_id": st.integers(1, 2),
}
exposure = st.fixed_dictionaries(
    common
    | {
        "experiment": st.sampled_from([NAME, "another", None]),
        "arm": st.sampled_from(["control", "treatment", None]),
    }
)
outcome = st.one_of(
    st.fixed_dictionaries(common | {"kind": st.just("click")}),
    st.fixed_dictionaries(
        common
        | {
            "kind": st.sampled_from(["watch", "watch", "like"]),
            "value": st.sampled_from([None, -1.0, 0.125, 60.5, 3600.0, 9e6]),
        }
    ),
)


def arriving(rows: Any) -> Any:
    """Rows with the number of the day on which each arrives, some of them again."""

    def with_days(pairs: list[tuple[Row, int, bool]]) -> list[tuple[int, Row]]:
        out = []
        for row, late, again in pairs:
            day = (row["time"] - at(0, 0)) // 86_400 + late
            out += [(day, row)] * (1 + again)
        return out

    return st.lists(st.tuples(rows, delay, st.booleans()), max_size=40).map(with_days)


@settings(max_examples=25, deadline=None)
@given(arriving(exposure), arriving(outcome), st.integers(1, 3), st.integers(0, 3))
def test_moments_are_those_of_the_rules_a_row_at_a_time(
    exposures: list[tuple[int, Row]], outcomes: list[tuple[int, Row]], until: int, cap: int
) -> None:
    exposures = [*exposures, *in_time([seen(1, 0), seen(2, 0)])]
    with TemporaryDirectory() as folder:
        sources = write(Path(folder), exposures, outcomes)
        with sum_up(sources, window(3, 1), arms_of(ARMS), cap=Cap(daily_views=cap + 1)) as sums:
            for metric in METRICS:
                for arm in WEIGHTS:
                    expected = columns_by_hand(
                        exposures, outcomes, ARMS, metric, arm,
                        days=window(3, 1), until=until - 1, cap=cap + 1,
                    )  # fmt: skip
                    found = sums.moments(metric, arm, until=FIRST + timedelta(days=until - 1))
                    assert_same(found, expected)
            assert_rows_are_accounted_for(sums, exposures, outcomes)


def assert_rows_are_accounted_for(
    sums: Sums, exposures: list[tuple[int, Row]], outcomes: list[tuple[int, Row]]
) -> None:
    for kind, rows in (("exposures", exposures), ("outcomes", outcomes)):
        told = sums.counts[kind].to_json()  # type: ignore[index]
        in_files = [row for day, row in rows if -1 <= day <= 2 + 2]
        assert told.pop("read") == len(in_files) == sum(told.values())


def random_events(
    rng: np.random.Generator, n_users: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    users = rng.integers(n_users, size=40 * n_users).tolist()
    views = [
        seen(user, int(rng.integers(-7, 14)), str(rng.choice(CARDS)), item_id=i)
        for i, user in enumerate(users)
    ]
    acts = [
        row | ({"kind": "watch", "value": float(rng.integers(9000)) / 8} if i % 3 else {})
        for i, view in enumerate(views)
        if rng.random() < 0.3
        for row in [did(view["user_id"], 0, time=view["time"] + 5, card=view["card"], item_id=i)]
    ]
    return views, acts


@pytest.fixture(scope="module")
def crowd() -> tuple[list[tuple[int, Row]], list[tuple[int, Row]], dict[int, str | None]]:
    views, acts = random_events(np.random.default_rng(4), 60)
    arms = {user: ("control", "treatment")[user % 2] for user in range(60)}
    return in_time(views), in_time(acts), dict(arms)


@pytest.fixture(scope="module")
def summed(crowd: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    exposures, outcomes, arms = crowd
    sources = write(tmp_path_factory.mktemp("crowd"), exposures, outcomes)
    with sum_up(sources, window(14, 7), arms_of(arms)) as sums:
        yield sums


@pytest.mark.parametrize("until", [0, 6, 13])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_moments_of_a_crowd_are_those_of_the_rules(
    crowd: Any, summed: Sums, metric: Metric, until: int
) -> None:
    for arm in WEIGHTS:
        exposures, outcomes, arms = crowd
        expected = columns_by_hand(
            exposures, outcomes, arms, metric, arm, days=window(14, 7), until=until
        )
        assert_same(summed.moments(metric, arm, until=FIRST + timedelta(days=until)), expected)


def test_segments_add_up_to_all_and_days_are_looks(summed: Sums) -> None:
    metric = Metric("clicks", "views")
    parts = [summed.moments(metric, "control", one) for one in summed.segments]
    whole = summed.moments(metric, "control")
    assert {"warm", "heavy"} <= set(summed.segments) <= {"cold", "warm", "heavy"}
    added = sum(parts[1:], start=parts[0])
    assert added.n == whole.n
    np.testing.assert_allclose(added.covariance, whole.covariance, rtol=1e-12)
    looks = summed.by_day(metric, "control")
    assert len(looks) == 14
    assert looks[-1].mean.tolist() == whole.mean.tolist()


def test_heavy_users_are_the_fifth_who_did_most_before(crowd: Any, summed: Sums) -> None:
    _, outcomes, arms = crowd
    n_before = dict.fromkeys(arms, 0)
    for day, row in outcomes:
        n_before[row["user_id"]] += day < 0
    bound = np.sort([n for n in n_before.values() if n])
    bound = bound[int(np.ceil(0.8 * len(bound))) - 1]
    found = dict(summed.rows("SELECT user_id, segment FROM members"))
    for user, segment in found.items():
        n = n_before[user]
        assert segment == ("cold" if not n else "heavy" if n > bound else "warm")


def test_sums_do_not_depend_on_the_order_of_rows_and_files(crowd: Any, tmp_path: Path) -> None:
    exposures, outcomes, arms = crowd
    found = []
    for turn in (1, -1):
        folder = tmp_path / str(turn)
        sources = write(folder, exposures[::turn], outcomes[::turn])
        for path in folder.glob("*/*/part-0.parquet"):
            # A file that comes again is all repeated.
            shutil.copy(path, path.with_name("part-1.parquet"))
        with sum_up(sources, window(14, 7), arms_of(arms)) as sums:
            found.append([sums.moments(one, "treatment").covariance.tolist() for one in METRICS])
    assert found[0] == found[1]


# Who counts.


def one_click(folder: Path, arms: Arms, **options: Any) -> Sums:
    """Users 1 to 4 see a card on two days and click on the second."""
    views = [seen(user, day, experiment=NAME) for user in range(1, 5) for day in (0, 1)]
    sources = write(folder, in_time(views), in_time([did(user, 1) for user in range(1, 5)]))
    return sum_up(sources, window(2), arms, **options)


def test_arms_may_be_sql_over_the_user(tmp_path: Path) -> None:
    sql = "CASE WHEN CAST(user_id AS INTEGER) % 2 = 0 THEN 'treatment' WHEN user_id = '1' THEN"
    with one_click(tmp_path, Arms(NAME, WEIGHTS, sql + " 'control' END")) as sums:
        assert [sums.moments(METRICS[0], arm).n for arm in WEIGHTS] == [1, 2]
        assert sums.users_without_arm == 1
        assert sums.segments == ("unknown",)


def test_text_ids_of_arms_meet_whole_numbers_of_events(tmp_path: Path) -> None:
    users = pa.table({"user_id": ["1", "2", "3", "x"], "arm": ["control"] * 2 + ["treatment"] * 2})
    with one_click(tmp_path, Arms(NAME, WEIGHTS, users)) as sums:
        assert [sums.moments(METRICS[0], arm).n for arm in WEIGHTS] == [2, 1]


def test_a_user_counts_from_the_day_of_joining(tmp_path: Path) -> None:
    since = [FIRST, FIRST + timedelta(days=1), FIRST + timedelta(days=2), None]
    arms = arms_of(dict.fromkeys(range(1, 5), "control"), since=pa.array(since, pa.date32()))
    with one_click(tmp_path, arms) as sums:
        views = Metric("views", "users")
        assert sums.moments(views, "control").n == 3
        assert sums.moments(views, "control").mean[0] == pytest.approx(5 / 3)
        assert sums.moments(views, "control", until=FIRST).n == 2


def test_segments_may_be_given(tmp_path: Path) -> None:
    arms = arms_of(dict.fromkeys(range(1, 5), "control"), segment=["a", "a", "b", "b"])
    with one_click(tmp_path, arms) as sums:
        assert sums.segments == ("a", "b")
        assert sums.moments(METRICS[0], "control", "b").n == 2


def test_winsorising_cuts_numerators_of_both_arms_alike(tmp_path: Path) -> None:
    times = [(user, n) for user in range(1, 11) for n in range(1 if user < 10 else 50)]
    acts = [did(user, 0, "watch", value=10.0, item_id=n) for user, n in times]
    sources = write(tmp_path, in_time([seen(user, 0) for user in range(1, 11)]), in_time(acts))
    arms = arms_of({user: ("control", "treatment")[user % 2] for user in range(1, 11)})
    watch = Metric("watch", "users")
    for quantile, mean in ((None, 108.0), (0.9, 10.0)):
        with sum_up(sources, window(1), arms, cap=Cap(winsorise=quantile)) as sums:
            assert sums.moments(watch, "control").mean[0] == mean
            assert sums.moments(watch, "treatment").mean[0] == 10.0


def test_sums_are_exact_where_floats_would_not_be(tmp_path: Path) -> None:
    """A week of milliseconds, squared, and 28 days of them."""
    week = 7 * 86_400.0
    acts = [did(user, 0, "watch", value=week - user / 1000, item_id=n)
            for user in (1, 2) for n in range(200)]  # fmt: skip
    sources = write(tmp_path, in_time([seen(1, 0), seen(2, 0)]), in_time(acts))
    with sum_up(sources, window(1), arms_of({1: "control", 2: "control"})) as sums:
        found = sums.moments(Metric("watch", "users"), "control")
    assert found.mean[0] == 200 * week - 0.3
    assert found.covariance[0, 0] == 0.02


# Refusals.


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"arm": "other"}, "arm must be one of control, treatment"),
        ({"segment": "cold"}, "segment must be one of unknown"),
        ({"metric": Metric("clicks", "views", "shelf")}, "card must be one of movie, home"),
        ({"until": date(2026, 3, 4)}, "a look must be from 2026-03-02 to 2026-03-03"),
    ],
)
def test_moments_refuse_what_is_not_of_the_experiment(
    tmp_path: Path, question: dict[str, Any], words: str
) -> None:
    with (
        one_click(tmp_path, arms_of(ARMS)) as sums,
        pytest.raises(ConfigError, match=words),
    ):
        sums.moments(**{"metric": METRICS[0], "arm": "control", **question})


def test_unknown_measures_are_refused() -> None:
    unknown: Any = "likes"
    assert unknown not in get_args(Measure)
    with pytest.raises(ConfigError, match="'likes' per 'views'"):
        Metric(unknown, "views")


def test_tables_of_arms_are_checked(tmp_path: Path) -> None:
    twice = pa.table({"user_id": [1, 1], "arm": ["control", "treatment"]})
    with pytest.raises(DataError, match="2 rows of 1 users"):
        one_click(tmp_path, Arms(NAME, WEIGHTS, twice))
    with pytest.raises(ConfigError, match="must have user_id and arm, found user, arm"):
        one_click(tmp_path, Arms(NAME, WEIGHTS, twice.rename_columns(["user", "arm"])))
    with pytest.raises(ConfigError, match="two arms or more"):
        Arms(NAME, {"control": 1.0}, twice)


def test_an_experiment_that_nobody_saw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found 4 users with some and none of them in an arm"):
        one_click(tmp_path, arms_of({17: "control"}))
