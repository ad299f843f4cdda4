"""Assignment: the same in Python, DuckDB and PostgreSQL; uniform, independent, and people stay."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from coterie.errors import ConflictError
from coterie.experiment import (
    Allocation,
    Assigner,
    Assignment,
    Holdout,
    bucket,
    bucket_sql,
    buckets,
)
from coterie.experiment.assignment import Dialect

USERS = range(200_000)
HALVES = {"a": 1.0, "b": 1.0}
WHOLE = Allocation("one", "lists", "one", 0.0, 1.0, HALVES)
# PostgreSQL's text holds no NUL.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
IDS = st.one_of(*(st.lists(ids, min_size=1, max_size=8, unique=True) for ids in (INTEGERS, TEXT)))
SHARES = st.floats(0, 1)


def in_duckdb(sql: str, user_ids: Sequence[Any]) -> list[Any]:
    users = pa.table({"place": range(len(user_ids)), "user_id": pa.array(user_ids)})
    with duckdb.connect() as database:
        database.register("users", users)
        query = f"SELECT {sql} FROM users ORDER BY place"
        return [row[0] for row in database.execute(query).fetchall()]


def in_postgres(server: str, sql: str, user_ids: Sequence[Any]) -> list[Any]:
    import psycopg  # noqa: PLC0415

    kind = "bigint" if isinstance(user_ids[0], int) else "text"
    with psycopg.connect(server) as connection:
        connection.execute(f"CREATE TEMPORARY TABLE users (place int, user_id {kind})")
        with connection.cursor() as cursor:
            rows = list(enumerate(user_ids))
            cursor.executemany("INSERT INTO users VALUES (%s, %s)", rows)
        found = connection.execute(f"SELECT {sql} FROM users ORDER BY place".encode())
        return [row[0] for row in found.fetchall()]


def test_a_bucket_is_the_hash_by_its_definition() -> None:
    for salt, user in (("a", "7"), ("", ""), ("é:'", "Ω 🦄"), ("x" * 200, "y" * 5000)):
        digits = hashlib.md5(f"{salt}:{user}".encode()).hexdigest()[:8]
        assert bucket(salt, user) == int(digits, 16) / 2**32
    assert bucket("a", 7) == bucket("a", "7")
    assert 0 <= bucket("a", "\ud800") < 1
    assert buckets("a", []).shape == (0,)


@given(TEXT, IDS)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_buckets_are_the_same_in_python_and_sql(
    postgres_server: str, salt: str, user_ids: list[Any]
) -> None:
    expected = buckets(salt, user_ids).tolist()
    assert in_duckdb(bucket_sql(salt, "user_id", "duckdb"), user_ids) == expected
    sql = bucket_sql(salt, "user_id", "postgresql")
    assert in_postgres(postgres_server, sql, user_ids) == expected


ALLOCATIONS = st.builds(
    lambda salt, ends, weights, holdout: Allocation(
        "one",
        salt,
        salt,
        min(ends),
        max(ends) - min(ends),
        {f"arm '{n}": weight for n, weight in enumerate(weights)},
        Holdout(holdout, salt),
    ),
    TEXT,
    st.tuples(SHARES, SHARES),
    st.lists(st.floats(0.01, 10), min_size=2, max_size=4),
    SHARES,
)


@given(ALLOCATIONS, IDS)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_arms_are_the_same_in_python_and_sql(
    postgres_server: str, allocation: Allocation, user_ids: list[Any]
) -> None:
    expected = allocation.arms(user_ids)
    assert in_duckdb(allocation.sql("user_id", "duckdb"), user_ids) == expected
    sql = allocation.sql("user_id", "postgresql")
    assert in_postgres(postgres_server, sql, user_ids) == expected


def test_many_users_are_the_same_in_python_and_sql(postgres_server: str) -> None:
    """With every arm, some outside and some held out."""
    allocation = Allocation(
        "one", "lists", "one", 0.25, 0.5, {"a": 1, "b": 2, "c": 1}, Holdout(0.1)
    )
    user_ids = list(USERS[:3000])
    expected = allocation.arms(user_ids)
    assert set(expected) == {"a", "b", "c", None}
    dialects: list[Dialect] = ["duckdb", "postgresql"]
    mine, theirs = (allocation.sql("user_id", dialect) for dialect in dialects)
    assert in_duckdb(mine, user_ids) == expected
    assert in_postgres(postgres_server, theirs, user_ids) == expected


def test_nobody_has_no_arm_in_sql() -> None:
    assert in_duckdb(WHOLE.sql("user_id", "duckdb"), [None, 7]) == [None, *WHOLE.arms([7])]


@pytest.mark.parametrize("salt", ["one", "layer:lists", "2027"])
def test_buckets_are_uniform(salt: str) -> None:
    found = buckets(salt, USERS)
    assert found.min() >= 0
    assert found.max() < 1
    assert stats.chisquare(np.histogram(found, 100, (0, 1))[0]).pvalue > 0.001
    # The finest of them, too.
    assert stats.chisquare(np.bincount((found * 2**32).astype(np.int64) % 64)).pvalue > 0.001


def test_arms_have_their_weights() -> None:
    counts = Counter(replace(WHOLE, weights={"a": 1, "b": 2, "c": 5}).arms(USERS))
    assert set(counts) == {"a", "b", "c"}
    expected = np.array([1, 2, 5]) / 8 * len(USERS)
    assert stats.chisquare([counts["a"], counts["b"], counts["c"]], expected).pvalue > 0.001


def crossed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    return table


@pytest.mark.parametrize(
    "other",
    [replace(WHOLE, salt="two"), replace(WHOLE, layer="colours", salt="colours")],
    ids=["one after the other", "of two layers"],
)
def test_arms_of_two_experiments_are_independent(other: Allocation) -> None:
    table = crossed(WHOLE.codes(USERS), other.codes(USERS))
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_the_place_in_a_layer_says_nothing_of_the_arm_or_of_another_layer() -> None:
    places = (buckets("layer:lists", USERS) * 10).astype(int)
    others = (buckets("layer:colours", USERS) * 10).astype(int)
    for table in (crossed(places, WHOLE.codes(USERS)), crossed(places, others)):
        assert stats.chi2_contingency(table).pvalue > 0.001


@given(st.floats(0.0, 0.5), st.floats(0.0, 0.5), st.floats(0.0, 0.5), SHARES)
@settings(max_examples=25, deadline=None)
def test_a_larger_share_keeps_everybody(
    first: float, share: float, more: float, held: float
) -> None:
    small = replace(WHOLE, first=first, share=share, holdout=Holdout(held))
    large = replace(small, share=min(share + more, 1 - first))
    before, after = (one.codes(USERS[:2000]) for one in (small, large))
    assert (after[before >= 0] == before[before >= 0]).all()


def test_a_share_is_a_share() -> None:
    inside = replace(WHOLE, first=0.3, share=0.2).codes(USERS) >= 0
    assert stats.binomtest(int(inside.sum()), len(USERS), 0.2).pvalue > 0.001


def test_who_is_held_out_is_in_no_experiment_of_any_layer() -> None:
    holdout = Holdout(0.05, "service")
    held = holdout.holds(USERS)
    assert stats.binomtest(int(held.sum()), len(USERS), 0.05).pvalue > 0.001
    for layer in ("lists", "colours"):
        codes = replace(WHOLE, layer=layer, holdout=holdout).codes(USERS)
        assert ((codes < 0) == held).all()


def test_neighbours_in_a_layer_share_nobody() -> None:
    """Ends that rounding could part or join."""
    edges = [0.0, 0.1, 0.30000000000000004, 0.7, 1.0]
    parts = [
        replace(WHOLE, experiment=f"part-{n}", first=first, share=last - first)
        for n, (first, last) in enumerate(pairwise(edges))
    ]
    inside = np.stack([part.codes(USERS) >= 0 for part in parts])
    assert (inside.sum(axis=0) == 1).all()
    found = Assigner(parts).arms(USERS[:100])["lists"]
    assert {one.experiment for one in found if one} == {part.experiment for part in parts}


def test_the_assigner_says_for_each_layer_experiment_and_arm() -> None:
    first = replace(WHOLE, experiment="first", share=0.5)
    second = replace(WHOLE, experiment="second", salt="second", first=0.5, share=0.3)
    colours = replace(WHOLE, experiment="colours", layer="colours")
    assigner = Assigner([first, colours, second])
    found = assigner.arms(USERS[:1000])
    assert list(found) == ["lists", "colours"]
    for place, user in enumerate(USERS[:1000]):
        for one in (first, second, colours):
            (arm,) = one.arms([user])
            is_in = found[one.layer][place] == (arm and Assignment(one.experiment, arm))
            assert is_in or (arm is None)
    inside = [one for one in found["lists"] if one is not None]
    assert {one.experiment for one in inside} == {"first", "second"}
    assert len(inside) == sum(
        arm is not None for one in (first, second) for arm in one.arms(USERS[:1000])
    )
    assert Assigner([]).arms([1]) == {}


def test_the_assigner_refuses_two_that_overlap() -> None:
    with pytest.raises(ConflictError, match="must not overlap"):
        Assigner([WHOLE, replace(WHOLE, experiment="two", first=0.9, share=0.1)])


@given(ALLOCATIONS)
@settings(max_examples=25, deadline=None)
def test_an_allocation_comes_back_from_json_whoever_sorts_its_names(allocation: Allocation) -> None:
    told = json.loads(json.dumps(allocation.to_json(), sort_keys=True))
    again = Allocation.of_json({**told, "more": 1})
    assert again == allocation
    assert list(again.weights) == list(allocation.weights)
    assert again.arms(range(50)) == allocation.arms(range(50))
