"""Checks of experiments: planted faults are found, and healthy experiments are left in peace."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from coterie.experiment import Arms, Cap, EventSources, Sums, sum_up
from coterie.experiment.checks import (
    Check,
    check,
    days_before,
    same_ratio,
    sample_ratio,
    sample_ratio_by_first_day,
    sample_ratio_by_segment,
    unseen_clicks,
    unseen_users,
    viewers_by_day,
    views_a_day,
)
from coterie.experiment.statistics.moments import Moments
from small_experiment import FIRST, NAME, WEIGHTS, arms_of, at, in_time, seen, window, write

N_USERS, BEFORE, DAYS = 4000, 3, 4


@dataclass(frozen=True)
class Log:
    """Views, and a click of each view that has one; arms by user."""

    user: np.ndarray
    day: np.ndarray
    second: np.ndarray
    is_clicked: np.ndarray
    is_lost: np.ndarray  # the exposure, not the click
    logged: np.ndarray  # the arm that the exposure names
    arm: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Log":
        parts = {name: one[rows] for name, one in vars(self).items() if name != "arm"}
        return Log(**parts, arm=self.arm)

    def times(self) -> np.ndarray:
        times: np.ndarray = at(0, 0) + self.day * 86_400 + self.second
        return times


def healthy(seed: int = 0) -> Log:
    """People who come and click in ways of their own, which arms do not change."""
    rng = np.random.default_rng(seed)
    activity, rate = rng.lognormal(-0.6, 0.8, N_USERS), rng.beta(2, 18, N_USERS)
    visits = rng.poisson(activity[:, None], (N_USERS, BEFORE + DAYS))
    user, day = np.nonzero(visits)
    n_views = 5 * visits[user, day]
    user, day = np.repeat(user, n_views), np.repeat(day, n_views) - BEFORE
    arm = rng.integers(2, size=N_USERS)
    return Log(
        user=user,
        day=day,
        second=np.arange(len(user)) * 80_000 // len(user),
        is_clicked=rng.random(len(user)) < rate[user],
        is_lost=np.zeros(len(user), bool),
        logged=arm[user],
        arm=arm,
    )


def save(log: Log, folder: Path) -> EventSources:
    for number in range(-BEFORE, DAYS):
        views = log[(log.day == number) & ~log.is_lost]
        clicks = log[(log.day == number) & log.is_clicked]
        place = f"day={FIRST + timedelta(days=number)}"
        tables = {
            "exposures": {"experiment": [NAME] * len(views.user), "arm": names_of(views.logged)},
            "outcomes": {"kind": ["click"] * len(clicks.user)},
        }
        for (kind, more), of in zip(tables.items(), (views, clicks), strict=True):
            common = {
                "user_id": of.user,
                "time": of.times() + (kind == "outcomes"),
                "card": np.array(["movie", "home"])[of.second % 2].tolist(),
                "item_id": np.arange(len(of.user)),
            }
            (folder / kind / place).mkdir(parents=True)
            pq.write_table(pa.table(common | more), folder / kind / place / "part-0.parquet")
    return EventSources(
        exposures=f"{folder}/exposures/day=%Y-%m-%d", outcomes=f"{folder}/outcomes/day=%Y-%m-%d"
    )


def names_of(arm: np.ndarray) -> list[str]:
    return [list(WEIGHTS)[one] for one in arm.tolist()]


def summed(log: Log, folder: Path, cap: Cap | None = None) -> Sums:
    users = pa.table({"user_id": np.arange(N_USERS), "arm": names_of(log.arm)})
    arms = Arms(NAME, WEIGHTS, users)
    return sum_up(save(log, folder), window(DAYS, BEFORE), arms, cap=cap)


def alarms(found: list[Check]) -> set[str]:
    return {one.name for one in found if not one.ok}


def some(log: Log, share: float, *, by: np.ndarray) -> np.ndarray:
    """``[n]`` bool: of the treatment, a share of what ``by`` numbers."""
    rng = np.random.default_rng(1)
    chosen = rng.random(int(by.max()) + 1) < share
    found: np.ndarray = chosen[by] & (log.arm[log.user] == 1) & (log.day >= 0)
    return found


# Healthy.


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sums]:
    with summed(healthy(), tmp_path_factory.mktemp("healthy")) as found:
        yield found


def test_a_healthy_experiment_passes_all_checks(sums: Sums) -> None:
    earlier = pa.table({"user_id": np.arange(N_USERS), "arm": np.arange(N_USERS) % 3 % 2})
    found = check(sums, earlier=earlier)
    assert alarms(found) == set()
    assert len({one.name for one in found}) == len(found) == 14
    assert all(one.words and one.words.endswith(".") for one in found)
    assert {one.to_json()["name"] for one in found} == {one.name for one in found}


def test_healthy_experiments_alarm_at_the_level(tmp_path: Path) -> None:
    """The same people in arms drawn anew, 100 times; lost clicks are there, in both arms alike."""
    log = healthy(5)
    users_lost, days_lost = (
        np.random.default_rng(2).random(int(by.max()) + 1)[by] < 0.1
        for by in (log.user, (log.day + BEFORE) * N_USERS + log.user)
    )
    made: list[Callable[[Sums, float], Check]] = [
        sample_ratio, sample_ratio_by_segment, sample_ratio_by_first_day, viewers_by_day,
        unseen_clicks, unseen_users, views_a_day, days_before,
    ]  # fmt: skip
    level, n = 0.1, 100
    found = np.zeros(len(made))
    with summed(replace(log, is_lost=users_lost | days_lost), tmp_path) as sums:
        for seed in range(n):
            for table in ("members", "arms"):
                sums.rows(f"UPDATE {table} SET arm = hash(user_id * 1009 + {seed}) % 2")
            sums._looks.clear()
            found += [one(sums, level).p < level for one in made]  # type: ignore[operator]
    most = stats.binom.ppf(1 - 1e-4, n, level)
    assert (found <= most).all(), found
    # Those of one question have the level as their rate; Holm's of many may have less.
    assert (found[[0, 5, 6]] >= stats.binom.ppf(1e-3, n, level)).all(), found
    assert found.sum() > 0.4 * level * n * len(made)


@pytest.mark.parametrize("n_arms", [2, 3])
def test_same_ratio_is_uniform_where_nothing_differs(n_arms: int) -> None:
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(400):
        views = np.ceil(rng.lognormal(1, 1, (n_arms, 300)))
        clicks = rng.binomial(views.astype(int), rng.beta(2, 8, views.shape))
        columns = np.stack([clicks, views], axis=2).astype(np.float64)
        p_values.append(same_ratio([Moments.of(one) for one in columns]))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_same_ratio_of_two_arms_is_student_s_on_linearised_sums() -> None:
    rng = np.random.default_rng(4)
    columns = rng.poisson([[[3, 10]], [[4, 10]]], (2, 200, 2)).astype(np.float64)
    ratio = columns[..., 0].sum() / columns[..., 1].sum()
    linear = columns[..., 0] - ratio * columns[..., 1]
    expected = stats.ttest_ind(*linear).pvalue
    assert same_ratio([Moments.of(one) for one in columns]) == pytest.approx(expected, rel=0.02)


def test_same_ratio_without_any_variance() -> None:
    flat, other = (Moments.of(np.full((5, 2), one)) for one in (1.0, 2.0))
    assert same_ratio([flat, flat]) == same_ratio([flat, other]) == 1.0
    only_one = Moments.of(np.array([[1.0, 1.0], [0.0, 1.0]] * 50))
    assert same_ratio([Moments.of(np.array([[0.0, 1.0]] * 100)), only_one]) < 1e-9


# Planted faults.


def of_many(n_control: int, n_treatment: int, folder: Path) -> Sums:
    n = n_control + n_treatment
    (folder / f"exposures/day={FIRST}").mkdir(parents=True)
    columns = {"user_id": np.arange(n), "time": np.full(n, at(0)), "card": ["movie"] * n}
    table = pa.table(columns | {"item_id": np.ones(n, np.int64)})
    pq.write_table(table, folder / f"exposures/day={FIRST}/part-0.parquet")
    arm = pa.array(["control"] * n_control + ["treatment"] * n_treatment)
    sources = EventSources(exposures=f"{folder}/exposures/day=%Y-%m-%d", outcomes=f"{folder}/%Y")
    users = pa.table({"user_id": np.arange(n), "arm": arm})
    return sum_up(sources, window(1), Arms(NAME, WEIGHTS, users))


def test_a_split_of_505_to_495_is_found_at_200_000_users(tmp_path: Path) -> None:
    with of_many(101_000, 99_000, tmp_path) as sums:
        found = sample_ratio(sums)
    assert not found.ok
    assert found.p == pytest.approx(stats.chisquare([101_000, 99_000]).pvalue)
    assert "control 101,000, treatment 99,000, planned 0.5 / 0.5" in found.words


def test_a_split_by_chance_is_healthy(tmp_path: Path) -> None:
    with of_many(100_300, 99_700, tmp_path) as sums:
        assert sample_ratio(sums).ok


def lose_days(log: Log) -> Log:
    days = (log.day + BEFORE) * N_USERS + log.user
    return replace(log, is_lost=some(log, 0.05, by=days))


def lose_users(log: Log) -> Log:
    return replace(log, is_lost=some(log, 0.05, by=log.user))


def lose_rows(log: Log) -> Log:
    return replace(log, is_lost=some(log, 0.15, by=np.arange(len(log.user))))


def lose_a_day(log: Log) -> Log:
    return replace(log, is_lost=(log.day == 2) & (log.arm[log.user] == 1))


def change_before(log: Log) -> Log:
    """What the experiment before did to those who are the treatment again."""
    before = (log.day < 0) & (log.arm[log.user] == 1)
    more = np.random.default_rng(6).random(len(before)) < 0.03
    return replace(log, is_clicked=log.is_clicked | (before & more))


def cross(log: Log) -> Log:
    return replace(log, logged=np.where(some(log, 0.04, by=log.user), 0, log.logged))


LOGS = {"clicks without a view", "users without a view", "views a day"}
"""Lost logs show in more than one of these."""

FAULTS: dict[str, tuple[Callable[[Log], Log], set[str], set[str]]] = {
    "days": (lose_days, {"clicks without a view"}, LOGS),
    "users": (lose_users, {"users without a view"}, LOGS),
    "rows": (lose_rows, {"views a day"}, LOGS),
    "a day": (lose_a_day, {"viewers by day", "days", "clicks without a view"}, LOGS),
    # Cohorts are of what was done before, too.
    "before": (change_before, {"days before"}, {"sample ratio by segment"}),
    "crossings": (cross, {"crossings"}, set()),
}
"""What plants each, the checks that must alarm, and those that may."""


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault: str, tmp_path: Path) -> None:
    plant, must, may = FAULTS[fault]
    with summed(plant(healthy()), tmp_path) as sums:
        found = alarms(check(sums))
    assert must <= found <= must | may | {"sample ratio by first day"}


def test_crossings_are_counted_by_arm(tmp_path: Path) -> None:
    rows = [seen(user, 0, experiment=NAME, arm="control") for user in range(1, 9)]
    rows += [seen(8, 1, experiment="another", arm="treatment")]
    arms = dict.fromkeys(range(1, 7), "control") | dict.fromkeys((7, 8), "treatment")
    with sum_up(write(tmp_path, in_time(rows)), window(2), arms_of(dict(arms))) as sums:
        (found,) = [one for one in check(sums) if one.name == "crossings"]
    assert (found.ok, found.figure) == (False, 0.25)
    assert "control 0, treatment 2, 25.00% of all" in found.words


def test_exposures_that_name_no_arm_are_told(tmp_path: Path) -> None:
    with sum_up(
        write(tmp_path, in_time([seen(1, 0), seen(2, 0)])),
        window(1),
        arms_of({1: "control", 2: "treatment"}),
    ) as sums:
        (found,) = [one for one in check(sums) if one.name == "crossings"]
    assert not found.ok
    assert "cannot be seen" in found.words


@pytest.mark.parametrize(("same", "ok"), [(True, False), (False, True)])
def test_carry_over_is_found_where_arms_follow_those_before(
    sums: Sums, same: bool, ok: bool
) -> None:
    arm = healthy().arm if same else np.random.default_rng(9).integers(2, size=N_USERS)
    names = [["old", "new"][one] for one in arm.tolist()]
    earlier = pa.table({"user_id": pa.array(np.arange(N_USERS)).cast(pa.string()), "arm": names})
    (found,) = [one for one in check(sums, earlier=earlier) if one.name == "carry-over"]
    assert found.ok == ok
    assert "of new control" in found.words


def with_bot(log: Log) -> Log:
    """One user who looks at 5,000 cards on a day, and clicks on most of them."""
    n = 5000
    bot = {"user": np.full(n, 3), "day": np.zeros(n, int), "second": np.arange(n)}
    more = {"is_clicked": np.arange(n) % 5 > 0, "is_lost": np.zeros(n, bool)}
    parts = bot | more | {"logged": np.full(n, log.arm[3])}
    joined = {name: np.concatenate([getattr(log, name), one]) for name, one in parts.items()}
    return Log(**joined, arm=log.arm)


def test_a_bot_is_left_out_and_told(tmp_path: Path) -> None:
    log = healthy()
    with summed(with_bot(log), tmp_path) as sums:
        found = {one.name: one for one in check(sums)}
        n = sum(sums.moments(sums.metrics[0], arm).n for arm in WEIGHTS)
        (n_members,) = sums.rows("SELECT count(*) FROM members")[0]
    assert n == n_members - 1
    assert found["users above the cap"].figure == 1
    assert "views on a day: control" in found["users above the cap"].words
    assert alarms(list(found.values())) == set()


def test_a_bot_below_the_cap_is_one_user_of_too_much_weight(tmp_path: Path) -> None:
    with summed(with_bot(healthy()), tmp_path, Cap(daily_views=10_000)) as sums:
        found = {one.name: one for one in check(sums)}
    assert not found["one user"].ok
    assert found["one user"].figure > 0.5  # type: ignore[operator]
    assert "lower the cap" in found["one user"].words


def test_days_without_views_and_rows_that_were_dropped_are_told(tmp_path: Path) -> None:
    rows: list[tuple[int, Any]] = [*in_time([seen(1, 0), seen(2, 2)]), (6, seen(2, 2))]
    arms = arms_of({1: "control", 2: "treatment"})
    with sum_up(write(tmp_path, rows), window(4), arms) as sums:
        assert sums.counts["exposures"].read == 2
    with sum_up(write(tmp_path, [*rows, (3, seen(1, 0))]), window(4), arms) as sums:
        found = {one.name: one for one in check(sums)}
    assert "2026-03-03, 2026-03-05" in found["days"].words
    assert found["days"].figure == 2
    assert found["dropped rows"].figure == pytest.approx(1 / 3)
    assert "33.33% of exposures late" in found["dropped rows"].words
