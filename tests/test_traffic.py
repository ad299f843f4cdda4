"""Simulated people who look at lists: what was planted comes out."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from coterie.errors import ConfigError, DataError
from coterie.experiment import Arms, EventSources, Metric, Window, sum_up
from coterie.experiment.checks import check, same_ratio
from coterie.simulation.living import LivingService
from coterie.simulation.traffic import ArmEffect, DayOfTraffic, Habits, Traffic
from coterie.simulation.watching import WEEKDAYS

SERVICE = LivingService(n_users=6000, n_items=200, weeks=4, seed=5)
START = SERVICE.first_day + timedelta(days=7)
K = 8
EAGER = Habits(visits=2.0, patience=1.0, position_bias=0.0, fatigue=0.0)


def day(number: int) -> date:
    return START + timedelta(days=number)


def arm_of(user: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(2).random(20_000)[user] < 0.5, "control", "treatment")


def random_lists(seed: int, users: np.ndarray | None = None) -> pa.Table:
    """Lists that know nothing of anybody's taste, the same law in each arm."""
    users = SERVICE.users(START) if users is None else users
    rng = np.random.default_rng(seed)
    items = np.argsort(rng.random((2 * len(users), 150)), axis=1)[:, :K] + 1
    user = np.tile(users, 2)
    return pa.table(
        {
            "user_id": user,
            "row": np.repeat(["movie", "home"], len(users)),
            "items": pa.array(items.tolist(), pa.list_(pa.int64())),
            "experiment": ["lists"] * len(user),
            "arm": arm_of(user),
            "model_version": arm_of(user),
        }
    )


def play(n_days: int, effects: Mapping[str, ArmEffect], habits: Habits) -> list[DayOfTraffic]:
    traffic = Traffic(SERVICE, 1, START, effects, habits)
    return [traffic.day(day(number), random_lists(number)) for number in range(n_days)]


def n_clicks(played: DayOfTraffic) -> int:
    return int(pc.sum(pc.equal(played.outcomes["kind"], "click")).as_py())


def clicked(played: DayOfTraffic) -> np.ndarray:
    """``[n]`` bool of the exposures: each click comes a second after its view."""
    acts = played.outcomes.filter(pc.equal(played.outcomes["kind"], "click"))
    key = {
        (row["user_id"], row["time"] - 1, row["card"], row["item_id"]) for row in acts.to_pylist()
    }
    seen = played.exposures.to_pylist()
    return np.array(
        [(row["user_id"], row["time"], row["card"], row["item_id"]) in key for row in seen]
    )


def rate(of: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error, relative."""
    return float(of.mean()), float(np.sqrt((1 - of.mean()) / of.sum()))


def test_a_planted_lift_comes_out() -> None:
    played = play(3, {"treatment": ArmEffect(lift=0.3)}, EAGER)
    on = np.concatenate([clicked(one) for one in played])
    arm = np.concatenate([one.exposures["arm"].to_numpy(zero_copy_only=False) for one in played])
    (control, error), (treatment, other) = (
        rate(on[arm == one]) for one in ("control", "treatment")
    )
    # Users differ, so that clicks of one are alike: three times the error of independent ones.
    assert treatment / control == pytest.approx(1.3, abs=3 * 1.3 * np.hypot(error, other) * 1.5)
    assert abs(treatment / control - 1) > 6 * np.hypot(error, other)


def test_position_bias_comes_out() -> None:
    (played,) = play(1, {}, Habits(visits=6.0, patience=1.0, position_bias=0.7, fatigue=0.0))
    on, position = clicked(played), played.exposures["position"].to_numpy()
    rates = np.array([rate(on[position == one]) for one in range(1, K + 1)])
    expected = np.arange(1, K + 1) ** -0.7
    found = rates[:, 0] / rates[0, 0]
    assert (np.abs(found - expected) < 4 * expected * np.hypot(rates[:, 1], rates[0, 1])).all()
    slope = np.polyfit(np.log(np.arange(1, K + 1)), np.log(found), 1)[0]
    assert slope == pytest.approx(-0.7, abs=0.1)


def test_people_look_from_the_top_and_lose_patience() -> None:
    (played,) = play(1, {}, Habits(visits=3.0, patience=0.6))
    counts = np.bincount(played.exposures["position"].to_numpy())[1:]
    np.testing.assert_allclose(counts / counts[0], 0.6 ** np.arange(K), atol=0.02)


def test_novelty_decays_as_planted() -> None:
    effect = ArmEffect(novelty=1.0, novelty_days=3.0)
    found = []
    for effects in ({}, {"treatment": effect}):
        traffic = Traffic(SERVICE, 1, START, effects, EAGER)
        counts = []
        for number in (0, 3, 9):
            played = traffic.day(day(number), random_lists(number))
            arm = played.exposures["arm"].to_numpy(zero_copy_only=False)
            counts.append(clicked(played)[arm == "treatment"].sum())
        found.append(counts)
    # The same draws, so that only the effect differs.
    ratio = np.array(found[1]) / np.array(found[0])
    np.testing.assert_allclose(ratio, 1 + np.exp(-np.array([0, 3, 9]) / 3), rtol=0.08)


def test_people_tire_of_what_they_were_shown() -> None:
    """The same lists every day, with the same draws: only fatigue differs."""
    lists = random_lists(0)
    fresh, tired = (
        Traffic(SERVICE, 1, START, {}, Habits(visits=4.0, patience=1.0, fatigue=one))
        for one in (0.0, 0.5)
    )
    times: dict[tuple[int, int], int] = {}
    tally = np.zeros((2, 4))
    for number in range(4):
        both = [one.day(day(number), lists) for one in (fresh, tired)]
        keys = [(row["user_id"], row["item_id"]) for row in both[0].exposures.to_pylist()]
        before = np.array([times.get(key, 0) for key in keys])
        for one, played in enumerate(both):
            tally[one] += np.bincount(np.minimum(before, 3)[clicked(played)], minlength=4)
        for key in keys:
            times[key] = times.get(key, 0) + 1
    ratio = (tally[1] / tally[0])[:3]
    np.testing.assert_allclose(ratio, 1 / (1 + 0.5 * np.arange(3)), rtol=0.1)


def test_weekdays_and_a_few_heavy_users() -> None:
    played = play(14, {}, EAGER)
    volume = np.array([len(one.exposures) for one in played], dtype=np.float64)
    np.testing.assert_allclose(volume / volume.mean(), np.tile(WEEKDAYS, 2), rtol=0.06)
    users = np.concatenate([one.exposures["user_id"].to_numpy() for one in played])
    counts = np.sort(np.bincount(users))[::-1]
    assert counts[:600].sum() > 0.3 * counts.sum()


def test_better_lists_have_more_clicks() -> None:
    users = SERVICE.users(START)
    best = np.argsort(-SERVICE.probabilities(users, START), axis=1)[:, :K] + 1
    lists = random_lists(0).to_pydict() | {"items": [*best.tolist(), *best.tolist()]}
    good = Traffic(SERVICE, 1, START).day(START, pa.table(lists))
    bad = Traffic(SERVICE, 1, START).day(START, random_lists(0))
    assert n_clicks(good) > 1.5 * n_clicks(bad)


def test_watches_follow_clicks() -> None:
    (played,) = play(1, {}, EAGER)
    rows = played.outcomes.to_pylist()
    clicks = {(r["user_id"], r["time"], r["item_id"]) for r in rows if r["kind"] == "click"}
    watches = [r for r in rows if r["kind"] == "watch"]
    assert len(watches) / len(clicks) == pytest.approx(0.7, abs=0.05)
    assert all((r["user_id"], r["time"] - 1, r["item_id"]) in clicks for r in watches)
    assert all(r["value"] > 0 for r in watches)
    assert all(r["value"] is None for r in rows if r["kind"] == "click")


def test_the_same_seed_plays_the_same_day() -> None:
    first, second = (play(2, {}, Habits())[1] for _ in range(2))
    assert first.exposures.equals(second.exposures)
    assert first.outcomes.equals(second.outcomes)


def test_nobody_sees_a_list_that_is_not_theirs_or_not_there() -> None:
    users = SERVICE.users(START)[:50]
    lists = random_lists(0, users)
    (wanted,) = [Traffic(SERVICE, 1, START, {}, EAGER).day(START, lists).exposures]
    shown = {(row["user_id"], row["row"]): row["items"] for row in lists.to_pylist()}
    for row in wanted.to_pylist():
        assert shown[row["user_id"], row["row"]][row["position"] - 1] == row["item_id"]
    none = Traffic(SERVICE, 1, START).day(START, lists.slice(0, 0))
    assert len(none.exposures) == len(none.outcomes) == 0
    assert none.exposures.schema == wanted.schema


def test_days_out_of_order_and_bad_lists_are_refused() -> None:
    traffic = Traffic(SERVICE, 1, START)
    traffic.day(day(1), random_lists(0))
    with pytest.raises(ConfigError, match="in their order"):
        traffic.day(day(1), random_lists(0))
    with pytest.raises(ConfigError, match="days must be from"):
        traffic.day(date(2030, 1, 1), random_lists(0))
    with pytest.raises(DataError, match="lists must have row"):
        traffic.day(day(2), random_lists(0).drop_columns(["row"]))
    with pytest.raises(ConfigError, match="from 0 to 1"):
        Habits(patience=1.5)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A week before an experiment, without effects, and a week of it."""
    folder = tmp_path_factory.mktemp("traffic")
    traffic = Traffic(SERVICE, 1, START, {"treatment": ArmEffect(lift=0.25)}, Habits(fatigue=0.0))
    for number in range(-7, 7):
        lists = random_lists(number + 7)
        if number < 0:
            lists = lists.drop_columns(["experiment", "arm"])
        traffic.day(day(number), lists).write(folder, day(number))
    return folder


def sums_of(folder: Path) -> Any:
    users = SERVICE.users(START)
    arms = pa.table({"user_id": users, "arm": arm_of(users)})
    sources = EventSources(
        exposures=f"{folder}/exposures/day=%Y-%m-%d", outcomes=f"{folder}/outcomes/day=%Y-%m-%d"
    )
    weights = {"control": 0.5, "treatment": 0.5}
    return sum_up(sources, Window(START, day(6), 7), Arms("lists", weights, users=arms))


def test_traffic_is_read_by_the_experiment_and_is_healthy(played: Path) -> None:
    exposures = [pq.read_table(file) for file in played.glob("exposures/*/*.parquet")]
    with sums_of(played) as sums:
        counts = sums.counts["exposures"]
        assert counts.read == sum(map(len, exposures))
        # Who comes twice in one second sees one list once.
        assert counts.repeated < 1e-4 * counts.read
        assert sums.counts["outcomes"].too_early == 0
        assert [one.name for one in check(sums) if not one.ok] == []
        metric = Metric("clicks", "views")
        arms = [sums.moments(metric, arm) for arm in sums.arms.names]
        lift = np.divide.reduce([one.mean[0] / one.mean[1] for one in arms[::-1]]) - 1
        assert lift == pytest.approx(0.25, abs=0.08)
        assert same_ratio(arms) < 1e-6
        assert same_ratio(arms, first=2) > 0.01
