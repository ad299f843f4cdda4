"""The split: who is held out, what is hidden, and that nothing leaks."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from coterie.data.split import (
    Part,
    Split,
    cases_of,
    check_split,
    choose_users,
    hide_items,
    hide_validation_items,
    hold_out_trainers,
    select,
)
from coterie.errors import ConfigError, DataError

ROW_SIZES = st.lists(st.integers(0, 12), min_size=3, max_size=30)
N_ITEMS = 15


def matrix(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    rows = [np.sort(draw.choice(N_ITEMS, size, replace=False)) for size in sizes]
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), np.concatenate(rows).astype(
        np.int32
    )


@given(st.integers(3, 200), st.integers(1, 99), st.integers(0, 2**32 - 1))
def test_choose_users_takes_the_two_last_stretches_of_the_permutation(
    n_users: int, held_out: int, seed: int
) -> None:
    held_out = min(held_out, (n_users - 1) // 2)
    parts = choose_users(n_users, held_out, seed)
    order = np.random.RandomState(seed).permutation(n_users).tolist()
    assert {*np.flatnonzero(parts == Part.TEST)} == set(order[-held_out:])
    assert {*np.flatnonzero(parts == Part.VALIDATION)} == set(order[-2 * held_out : -held_out])


@pytest.mark.parametrize(("n_users", "held_out"), [(0, 0), (10, -1), (10, 5), (0, 1), (2, 1)])
def test_choose_users_must_leave_someone(n_users: int, held_out: int) -> None:
    with pytest.raises(ConfigError, match="leave someone"):
        choose_users(n_users, held_out, 1)


@given(ROW_SIZES, st.integers(0, 100), st.floats(0, 0.99), st.integers(0, 7))
@settings(deadline=None)
def test_hide_items_hides_the_share_of_held_out_users_alone(
    sizes: list[int], seed: int, share: float, min_items: int
) -> None:
    indptr, _ = matrix(sizes)
    user_part = choose_users(len(sizes), 1, seed)
    parts = hide_items(indptr, user_part, seed, share, min_items)
    for user, size in enumerate(sizes):
        mine = parts[indptr[user] : indptr[user + 1]]
        hidden = int(share * size) if size >= min_items and user_part[user] != Part.TRAIN else 0
        assert (mine != Part.TRAIN).sum() == hidden
        assert set(mine[mine != Part.TRAIN]) <= {user_part[user]}


@given(ROW_SIZES, st.integers(0, 100), st.floats(0, 0.99))
@settings(deadline=None)
def test_hide_validation_items_takes_the_share_of_training_alone(
    sizes: list[int], seed: int, share: float
) -> None:
    indptr, indices = matrix(sizes)
    given_part = np.where(
        np.random.default_rng(seed).random(len(indices)) < 0.3, Part.TEST, Part.TRAIN
    ).astype(np.uint8)
    parts = hide_validation_items(indptr, given_part, seed, share)
    np.testing.assert_array_equal(parts == Part.TEST, given_part == Part.TEST)
    for start, end in pairwise(indptr):
        n_training = (given_part[start:end] == Part.TRAIN).sum()
        assert (parts[start:end] == Part.VALIDATION).sum() == int(np.floor(share * n_training))


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan")])
def test_shares_must_be_below_one(share: float) -> None:
    indptr, indices = matrix([6, 6, 6])
    with pytest.raises(ConfigError, match="share"):
        hide_items(indptr, choose_users(3, 1, 0), 0, share)
    with pytest.raises(ConfigError, match="share"):
        hide_validation_items(indptr, np.zeros(len(indices), np.uint8), 0, share)


@given(ROW_SIZES, st.integers(0, 100))
@settings(deadline=None)
def test_cases_fold_in_and_held_out_are_disjoint_and_whole(sizes: list[int], seed: int) -> None:
    indptr, indices = matrix(sizes, seed)
    user_part = choose_users(len(sizes), 1, seed)
    split = Split(user_part, hide_items(indptr, user_part, seed, 0.5, 2))
    whole = csr_array(
        (np.ones(len(indices)), indices, indptr), shape=(len(sizes), N_ITEMS)
    ).toarray()
    for part in (Part.VALIDATION, Part.TEST):
        cases = cases_of(part, indptr, indices, N_ITEMS, split)
        np.testing.assert_array_equal(
            cases.fold_in.toarray() + cases.held_out.toarray(), whole[cases.user_index]
        )
        assert (np.diff(cases.held_out.indptr) >= 1).all()
        assert (user_part[cases.user_index] == part).all()


def test_validation_items_are_input_of_the_test_and_not_the_other_way() -> None:
    indptr, indices = np.array([0, 4]), np.array([1, 4, 6, 9], np.int32)
    split = Split(np.zeros(1, np.uint8), np.array([0, 1, 2, 0], np.uint8))
    validation, test = (
        cases_of(part, indptr, indices, 10, split) for part in (Part.VALIDATION, Part.TEST)
    )
    assert validation.fold_in.indices.tolist() == [1, 9]
    assert validation.held_out.indices.tolist() == [4]
    assert test.fold_in.indices.tolist() == [1, 4, 9]
    assert test.held_out.indices.tolist() == [6]


def test_select_keeps_every_row() -> None:
    indptr, indices = matrix([3, 0, 2])
    chosen = select(indptr, indices, N_ITEMS, np.array([False, True, False, False, True]))
    assert chosen.shape == (3, N_ITEMS)
    assert chosen.indptr.tolist() == [0, 1, 1, 2]
    assert chosen.indices.tolist() == [indices[1], indices[4]]
    assert chosen.data.dtype == np.float32


def test_check_split_refuses_what_cannot_be_one() -> None:
    indptr = np.array([0, 2, 3])
    users, parts = np.array([0, 1], np.uint8), np.array([0, 0, 1], np.uint8)
    check_split(Split(users, parts), indptr)
    for bad in (
        Split(users[:1], parts),
        Split(users, parts[:2]),
        Split(np.array([0, 3], np.uint8), parts),
        Split(users, parts + 5),
    ):
        with pytest.raises(DataError, match="_part must hold"):
            check_split(bad, indptr)
    with pytest.raises(DataError, match="no interaction is left"):
        check_split(Split(np.array([2, 1], np.uint8), parts), indptr)


@given(ROW_SIZES, st.integers(0, 99), st.floats(0, 0.99))
@settings(deadline=None)
def test_hold_out_trainers_as_a_loop_over_users(sizes: list[int], seed: int, share: float) -> None:
    """A window's test on the last of some users' items stays what it is."""
    indptr, indices = matrix(sizes, seed)
    draw = np.random.default_rng(seed + 1)
    parts = draw.choice([Part.TRAIN, Part.TEST], len(indices), p=[0.8, 0.2]).astype(np.uint8)
    times = draw.integers(0, 4, len(indices))
    before = Split(np.zeros(len(sizes), np.uint8), parts)
    after = hold_out_trainers(before, (indptr, indices), times, share, seed)
    rows = [range(*ends) for ends in pairwise(indptr.tolist())]
    shown = [[at for at in row if parts[at] == Part.TRAIN] for row in rows]
    held_out = np.flatnonzero(after.user_part == Part.VALIDATION).tolist()
    assert all(len(shown[user]) >= 5 for user in held_out)
    hidden = set()
    for user in held_out:
        by_time = sorted(shown[user], key=lambda at: (times[at], indices[at]))
        hidden |= set(by_time[len(by_time) - len(by_time) // 5 :])
    assert set(np.flatnonzero(after.interaction_part == Part.VALIDATION)) == hidden
    others = np.flatnonzero(after.interaction_part != Part.VALIDATION)
    np.testing.assert_array_equal(after.interaction_part[others], parts[others])
    assert known(after, indptr, indices) == known(before, indptr, indices)


def known(split: Split, indptr: np.ndarray, indices: np.ndarray) -> set[int]:
    """Items that users who train are trained on."""
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    trains = (split.user_part[row] == Part.TRAIN) & split.folded_in(Part.TRAIN)
    return set(indices[trains].tolist())


def test_hold_out_trainers_takes_the_share_where_everybody_can_be_spared() -> None:
    indptr, indices = np.arange(0, 505, 5), np.tile(np.arange(5), 100)
    everybody = Split(np.zeros(100, np.uint8), np.zeros(500, np.uint8))
    order = np.tile([3, 9, 1, 2, 0], 100)
    for share, n in ((0, 0), (0.1, 10), (0.199, 19), (0.99, 99)):
        after = hold_out_trainers(everybody, (indptr, indices), order, share, seed=1)
        assert np.count_nonzero(after.user_part == Part.VALIDATION) == n
        assert set(indices[after.interaction_part == Part.VALIDATION]) <= {1}
    again = hold_out_trainers(everybody, (indptr, indices), order, 0.1, seed=2)
    first = hold_out_trainers(everybody, (indptr, indices), order, 0.1, seed=1)
    assert again.user_part.tolist() != first.user_part.tolist()


def test_hold_out_trainers_keeps_whoever_alone_has_an_item() -> None:
    """The first two have items that nobody else has: each alone, and the two together."""
    indptr = np.array([0, 6, 12, 17])
    indices = np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 6, 0, 1, 2, 3, 4])
    split = Split(np.zeros(3, np.uint8), np.zeros(17, np.uint8))
    for seed in range(5):
        after = hold_out_trainers(split, (indptr, indices), np.arange(17), 0.9, seed)
        assert after.user_part[:2].tolist() == [Part.TRAIN, Part.TRAIN]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_hold_out_trainers_must_leave_someone(share: float) -> None:
    split = Split(np.zeros(1, np.uint8), np.zeros(5, np.uint8))
    with pytest.raises(ConfigError, match="held-out share must be in"):
        hold_out_trainers(split, (np.array([0, 5]), np.arange(5)), np.arange(5), share, 1)
