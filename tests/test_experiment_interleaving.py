"""Interleaving: both arms have the same chances at every place, and a preference is found with
fewer users than an experiment needs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coterie.errors import DataError
from coterie.experiment.assignment import bucket
from coterie.experiment.interleaving import (
    FIRST,
    NEITHER,
    SECOND,
    clicks_by_arm,
    coins,
    interleave,
    preference,
    team_draft,
)
from coterie.experiment.statistics import Moments, compare

DAY = date(2027, 1, 18)
ARMS = ("new", "old")

orders = st.lists(st.integers(0, 7), unique=True, min_size=1, max_size=6)
heads = st.lists(st.booleans(), min_size=6, max_size=6)


@given(orders, orders, heads, st.integers(0, 10))
def test_each_pick_is_the_teams_best_title_that_is_not_there(
    first: list[int], second: list[int], coins: list[bool], k: int
) -> None:
    titles, teams = team_draft(first, second, coins, k)
    assert len(set(titles)) == len(titles) == len(teams) == min(k, len(first), len(second))
    for place, (title, team) in enumerate(zip(titles, teams, strict=True)):
        if team == NEITHER:
            assert first[place] == second[place] == title
        else:
            mine = (first, second)[team]
            assert title == next(one for one in mine if one not in titles[:place])


@given(orders, orders, heads, st.integers(0, 10))
def test_a_shorter_list_is_the_longer_ones_beginning(
    first: list[int], second: list[int], coins: list[bool], k: int
) -> None:
    longer, teams = team_draft(first, second, coins, 10)
    shorter, its_teams = team_draft(first, second, coins, k)
    assert (shorter, its_teams) == (longer[:k], teams[:k])


@given(orders, orders, heads)
def test_exchanged_lists_exchange_teams(
    first: list[int], second: list[int], coins: list[bool]
) -> None:
    titles, teams = team_draft(first, second, coins, 10)
    other_titles, other_teams = team_draft(second, first, [not one for one in coins], 10)
    assert other_titles == titles
    assert other_teams == [team if team == NEITHER else 1 - team for team in teams]


@given(orders, orders)
@settings(max_examples=60)
def test_over_all_coins_both_arms_have_each_place_equally_often(
    first: list[int], second: list[int]
) -> None:
    """So clicks that mind the place alone prefer nobody."""
    places = np.zeros((10, 2))
    for tossed in product([False, True], repeat=5):
        for place, team in enumerate(team_draft(first, second, tossed, 10)[1]):
            if team != NEITHER:
                places[place, team] += 1
    np.testing.assert_array_equal(places[:, FIRST], places[:, SECOND])


@given(orders, heads)
def test_of_alike_lists_no_title_is_anybodys(order: list[int], coins: list[bool]) -> None:
    titles, teams = team_draft(order, order, coins, 10)
    assert titles == order
    assert teams == [NEITHER] * len(order)


def test_a_title_that_is_there_twice_counts_once() -> None:
    twice = team_draft([1, 1, 2, 3], [2, 2, 1, 3], [True, False], 4)
    assert twice == team_draft([1, 2, 3], [2, 1, 3], [True, False], 4)


def test_coins_are_fair_independent_and_those_of_the_hash() -> None:
    drawn = coins("one", DAY, range(20_000), 4)
    assert drawn[7, 2] == (bucket(f"draft:one:{DAY}:2", 7) < 0.5)
    leads = drawn.sum(axis=0)
    assert stats.chisquare(np.stack([leads, 20_000 - leads]), axis=0).pvalue.min() > 0.001
    for n, other in (
        (1, drawn[:, 1]),
        (0, coins("one", date(2027, 1, 19), range(20_000), 1)[:, 0]),
    ):
        table = np.histogram2d(drawn[:, 0], other, bins=2)[0]
        assert stats.chi2_contingency(table).pvalue > 0.001, n
    assert coins("one", DAY, ["7"], 4).tolist() == drawn[7:8].tolist()
    assert coins("one", DAY, [], 4).shape == (0, 4)
    assert coins("one", DAY, [1, 2], 0).shape == (2, 0)


def lists_of(orders: np.ndarray) -> pa.Table:
    return pa.table({"user_id": np.arange(len(orders)), "items": orders.tolist()})


def test_arms_hold_the_same_places_among_many_users() -> None:
    rng = np.random.default_rng(0)
    first, second = (np.argsort(rng.random((4000, 9)), axis=1) for _ in ARMS)
    found = interleave(lists_of(first), lists_of(second), ARMS, salt="x", day=DAY, k=7)
    arms = np.array(found["arms"].to_pylist(), dtype=object)
    counts = np.array([[(arms[:, place] == arm).sum() for arm in ARMS] for place in range(7)])
    assert (
        stats.chisquare(counts, counts.sum(axis=1, keepdims=True) / 2, axis=1).pvalue.min() > 0.001
    )
    assert counts.sum(axis=1)[-1] > 3900


def test_interleaved_lists_are_drafts_and_the_same_again() -> None:
    first, second = np.array([[0, 1, 2, 3]] * 50), np.array([[0, 3, 2, 1]] * 50)
    other = lists_of(second).slice(10)
    found = interleave(lists_of(first), other, ARMS, salt="x", day=DAY, k=4)
    assert found["user_id"].to_pylist() == list(range(10, 50))
    drawn = coins("x", DAY, range(10, 50), 2)
    for row, tossed in zip(found.to_pylist(), drawn.tolist(), strict=True):
        titles, teams = team_draft([0, 1, 2, 3], [0, 3, 2, 1], tossed, 4)
        assert row["items"] == titles
        assert row["arms"] == [[*ARMS, None][team] for team in teams]
    again = interleave(
        lists_of(first), other.take(list(range(39, -1, -1))), ARMS, salt="x", day=DAY, k=4
    )
    assert again == found
    tomorrow = interleave(lists_of(first), other, ARMS, salt="x", day=date(2027, 1, 19), k=4)
    assert tomorrow != found


def test_clicks_count_for_the_arm_whose_title_was_seen() -> None:
    seen = [(1, 7, "new"), (1, 8, "old"), (1, 9, None), (2, 7, "old"), (2, 8, "new"), (3, 7, "new")]
    users, titles, arms = zip(*seen, strict=True)
    exposures = pa.table(
        {"user_id": users, "time": [1] * 6, "card": ["home"] * 6, "item_id": titles, "arm": arms}
    )
    clicked = [(1, 7), (1, 7), (1, 9), (2, 7), (2, 8), (4, 7)]
    outcomes = pa.table(
        {
            "user_id": [user for user, _ in clicked],
            "time": [2] * 6,
            "card": ["home"] * 6,
            "item_id": [title for _, title in clicked],
            "kind": ["click"] * 6,
        }
    )
    assert clicks_by_arm(exposures, outcomes, ARMS).tolist() == [[2, 0], [1, 1], [0, 0]]
    with pytest.raises(DataError, match="log whose title it was"):
        clicks_by_arm(exposures, outcomes, ("a", "b"))
    with pytest.raises(DataError, match="add arm"):
        clicks_by_arm(exposures.drop_columns(["arm"]), outcomes, ARMS)


def test_preference_is_the_closed_form_and_the_sign_test() -> None:
    clicks = np.array([[3, 1], [2, 0], [1, 1], [0, 2], [5, 1], [0, 0], [1, 0]])
    found = preference(clicks)
    apart, both = clicks[:, 0] - clicks[:, 1], clicks.sum(axis=1)
    residual = apart - found.preference * both
    error = math.sqrt(residual @ residual / 6 / 7) / both.mean()
    assert found.preference == pytest.approx(7 / 17)
    assert found.statistic == pytest.approx(7 / 17 / error)
    assert found.p_value == pytest.approx(2 * stats.t.sf(7 / 17 / error, 6))
    assert (found.prefer_first, found.prefer_second, found.n_users) == (4, 1, 7)
    assert found.sign_p_value == pytest.approx(stats.binomtest(4, 5).pvalue)
    turned = preference(clicks[:, ::-1])
    assert (turned.preference, turned.low) == pytest.approx((-found.preference, -found.high))


def test_nobody_minds_or_nobody_clicks() -> None:
    found = preference(np.array([[1, 1], [2, 2]]))
    assert (found.preference, found.p_value, found.sign_p_value) == (0, 1, 1)
    for clicks in ([[0, 0], [0, 0]], [[1, 0]]):
        with pytest.raises(DataError, match="two users and a click"):
            preference(np.array(clicks))
    with pytest.raises(DataError, match="found none"):
        interleave(
            lists_of(np.array([[1]])),
            lists_of(np.array([[1]])).slice(1),
            ARMS,
            salt="",
            day=DAY,
            k=1,
        )


N_USERS, N_TITLES, LENGTH = 8000, 20, 6


@dataclass
class World:
    """People with tastes of their own, who come and click as those of the panel do, and two
    models that guess their tastes, one better.
    """

    rng: np.random.Generator

    def __post_init__(self) -> None:
        tastes = self.rng.normal(0, 1, (N_USERS, N_TITLES))
        self.first, self.second = (
            np.argsort(-(tastes + self.rng.normal(0, noise, tastes.shape)), axis=1)
            for noise in (1.0, 1.5)
        )
        self.visits = 1 + self.rng.poisson(self.rng.lognormal(0.3, 1.0, N_USERS))
        rates = self.rng.beta(1.7, 12.3, N_USERS)[:, None]
        self.chances = np.minimum(rates * np.exp(tastes / 2), 1)

    def clicks(self, lists: np.ndarray) -> np.ndarray:
        """``[n, length]`` clicks at each place of a list, of all visits."""
        places = 1 / (1 + 0.3 * np.arange(LENGTH))
        chances = np.take_along_axis(self.chances, lists[:, :LENGTH], axis=1) * places
        return self.rng.binomial(self.visits[:, None], chances)

    def both_arms(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """``[n, 2]`` clicks on each arm's titles of the interleaved list."""
        found = interleave(lists_of(first), lists_of(second), ARMS, salt="w", day=DAY, k=LENGTH)
        clicks = self.clicks(np.array(found["items"].to_pylist()))
        arms = np.array(found["arms"].to_pylist(), dtype=object)
        return np.stack([(clicks * (arms == arm)).sum(axis=1) for arm in ARMS], axis=1)

    def alone(self, lists: np.ndarray) -> np.ndarray:
        """``[n, 2]`` clicks and views if all saw one arm's list."""
        return np.stack([self.clicks(lists).sum(axis=1), LENGTH * self.visits], axis=1)


@pytest.fixture(scope="module")
def world() -> World:
    return World(np.random.default_rng(0))


def rate(p_values: Sequence[float]) -> float:
    return float(np.mean(np.array(p_values) < 0.05))


def test_lists_that_are_alike_good_are_told_apart_in_one_case_of_twenty(world: World) -> None:
    """Two orders of one model's six titles; people differ, and click more than once."""
    six = world.first[:, :LENGTH]
    turned = world.rng.permuted(six, axis=1), world.rng.permuted(six, axis=1)
    clicks = world.both_arms(*turned)
    samples = [clicks[world.rng.choice(N_USERS, 400, replace=False)] for _ in range(400)]
    centred = preference(clicks)
    assert abs(centred.statistic) < 3
    # Halves of a population that prefers nobody: teams are turned at random.
    turns = world.rng.random((400, 400)) < 0.5
    found = [
        preference(np.where(turn[:, None], one, one[:, ::-1]))
        for one, turn in zip(samples, turns, strict=True)
    ]
    assert 0.02 < rate([one.p_value for one in found]) < 0.08
    assert 0.01 < rate([one.sign_p_value for one in found]) < 0.08


def needed(effect: float, variance: float) -> float:
    """Users for a power of 80 % at 5 %."""
    return (1.959964 + 0.841621) ** 2 * variance / effect**2


def test_a_planted_preference_needs_fewer_users_than_an_experiment(world: World) -> None:
    clicks = world.both_arms(world.first, world.second)
    whole = preference(clicks)
    assert whole.preference > 0
    error = whole.preference / whole.statistic
    n_interleaved = needed(whole.preference, error**2 * N_USERS)
    first, second = world.alone(world.first), world.alone(world.second)
    between = compare(Moments.of(first), Moments.of(second))
    n_experiment = needed(between.difference, 2 * between.standard_error**2 * N_USERS)
    print(f"\nusers: {n_interleaved:.0f} interleaved, {n_experiment:.0f} in an experiment")
    assert n_experiment > 5 * n_interleaved
    n, found, missed = round(n_interleaved), [], []
    for _ in range(200):
        some = world.rng.choice(N_USERS, n, replace=False)
        half = n // 2
        sides = first[some[:half]], second[some[half:]]
        found.append(preference(clicks[some]).p_value)
        missed.append(compare(*map(Moments.of, sides)).p_value)
    assert rate(found) > 0.65
    assert rate(missed) < 0.4
