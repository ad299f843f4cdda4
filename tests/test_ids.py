"""Ids: every id comes back as it went in, whatever it is."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.data.ids import IdMap
from coterie.errors import DataError

INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, min_size=1)


@given(st.one_of(INTEGERS, TEXTS))
def test_ids_round_trip(ids: list[Any]) -> None:
    map_ = IdMap.of(ids)
    assert map_.ids_of(range(len(ids))) == ids
    assert map_.index_of(ids).tolist() == list(range(len(ids)))
    assert map_.index_of(reversed(ids)).tolist() == list(range(len(ids)))[::-1]


@given(st.lists(st.integers(-(10**18) + 1, 10**18 - 1), unique=True, min_size=1))
def test_integer_ids_are_found_as_text_and_text_ids_as_integers(ids: list[int]) -> None:
    expected = list(range(len(ids)))
    assert IdMap.of(ids).index_of([str(one) for one in ids]).tolist() == expected
    assert IdMap.of([str(one) for one in ids]).index_of(ids).tolist() == expected


def test_unknown_ids_get_minus_one() -> None:
    assert IdMap.of([7, 8]).index_of([8, 9, "x", None, "7", "7.0", ""]).tolist() == [
        1,
        -1,
        -1,
        -1,
        0,
        0,
        -1,
    ]
    others = ["007", "+7", "-0", "00", " 7", "7 ", "-08", "7.5", "٧", "0x7", "7.", "007.0"]
    assert IdMap.of([7, 8, 0, -8]).index_of(others).tolist() == [-1] * len(others)
    assert IdMap.of([7, 8, 0, -8]).index_of(["0", "-8", "7"]).tolist() == [2, 3, 0]
    assert IdMap.of(["a", "007"]).index_of(["007", "7", 7, None]).tolist() == [1, -1, -1, -1]
    assert IdMap.of([1]).index_of([]).tolist() == []


@pytest.mark.parametrize("bad", [["a", "a"], [1, 1], [1, None], ["a", None], [1.5], [True]])
def test_ids_must_be_whole_present_and_distinct(bad: list[Any]) -> None:
    with pytest.raises(DataError):
        IdMap.of(bad)


def test_ids_are_equal_by_value_and_type() -> None:
    assert IdMap.of([1, 2]) == IdMap.of(np.array([1, 2], dtype=np.int32))
    assert IdMap.of(["1"]) == IdMap.of(pa.chunked_array([["1"]], pa.large_string()))
    assert IdMap.of([1]) != IdMap.of(["1"])
    assert IdMap.of([1, 2]) != IdMap.of([2, 1])
    assert IdMap.of([1]).are_integers
    assert not IdMap.of(["1"]).are_integers


def test_take_keeps_order_and_type() -> None:
    taken = IdMap.of([5, 6, 7]).take([2, 0])
    assert taken.type == pa.int64()
    assert taken.to_pylist() == [7, 5]


def test_integers_of_nineteen_digits_are_found_as_text_up_to_the_largest() -> None:
    largest = 2**63 - 1
    ids = IdMap.of([7, largest])
    assert ids.index_of([str(largest), str(largest + 1), "9" * 30, "-" + "9" * 25]).tolist() == [
        1,
        -1,
        -1,
        -1,
    ]


def test_integers_beyond_64_bits_are_unknown() -> None:
    for ids in (IdMap.of([7]), IdMap.of(["7"])):
        assert ids.index_of([10**30, -(10**30), 7]).tolist() == [-1, -1, 0]
        assert ids.index_of(np.array([2**64 - 1, 7], dtype=np.uint64)).tolist() == [-1, 0]
