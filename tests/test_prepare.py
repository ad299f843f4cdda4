"""Preparation against a slow re-telling of the published procedure, and every filter by hand."""

import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.data.dataset import Dataset
from coterie.data.log import InteractionLog
from coterie.data.pairs import Pairs, drop_rare, merge_repeated
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import (
    GivenSplit,
    LeaveLastOut,
    PrepareRules,
    SplitByLog,
    StrongGeneralisation,
    TimeSplit,
    split_rules,
)
from coterie.data.split import Part
from coterie.errors import ConfigError, DataError, SourceError
from coterie.evaluation.evaluate import evaluate
from coterie.models.multvae import MultVAEConfig
from coterie.running.progress import Update
from coterie.training.trainer import train

REAL = Path(os.environ.get("COTERIE_DATA", Path(__file__).parents[2] / "shared" / "data"))
ALL = PrepareRules(min_user_items=0, split=StrongGeneralisation(1))

Row = tuple[Any, ...]


def real(name: str) -> Path:
    if not (REAL / name).exists():
        pytest.skip(
            f"real data {name} is not on this machine; set COTERIE_DATA to a folder that holds it"
        )
    return REAL / name


@contextmanager
def log_of(rows: list[Row], id_type: str = "BIGINT") -> Iterator[InteractionLog]:
    """A log of (user, item, rating, timestamp, part) rows; short rows end in None."""
    with InteractionLog("hand-made", "table") as log:
        log.create(id_type, id_type)
        columns = zip(*([*row, *[None] * (5 - len(row))] for row in rows), strict=True)
        rows_given = pa.table(dict(zip("uirtp", map(pa.array, columns), strict=True)))  # noqa: F841 - DuckDB finds it by its name
        log.connection.execute("INSERT INTO log SELECT * FROM rows_given")
        yield log


def made(rows: list[Row], rules: PrepareRules = ALL, id_type: str = "BIGINT") -> Dataset:
    with log_of(rows, id_type) as log:
        return prepare(log, rules)


def kept(data: Dataset) -> set[tuple[Any, Any]]:
    x = data.interactions
    row = np.repeat(np.arange(x.n_users), np.diff(x.indptr))
    return set(zip(data.users.ids_of(row), data.items.ids_of(x.indices), strict=True))


def parts(data: Dataset) -> dict[tuple[Any, Any], int]:
    x = data.interactions
    row = np.repeat(np.arange(x.n_users), np.diff(x.indptr))
    pairs = zip(data.users.ids_of(row), data.items.ids_of(x.indices), strict=True)
    return dict(zip(pairs, data.split.interaction_part.tolist(), strict=True))


def random_rows(seed: int, n_users: int = 60, n_items: int = 40, n: int = 900) -> list[Row]:
    draw = random.Random(seed)
    return [
        (
            draw.randrange(n_users),
            int(n_items * draw.random() ** 2),
            draw.randrange(1, 11) / 2,
            draw.randrange(10**9),
        )
        for _ in range(n)
    ]


def published_procedure(
    rows: list[Row],
    min_rating: float,
    min_items: int,
    min_users: int,
    held_out: int,
    share: float,
    seed: int,
) -> tuple[dict[Any, str], dict[tuple[Any, Any], int]]:
    """Section 4.1 of Liang et al. and the steps of its companion notebook, told slowly, on dicts
    and lists.

    Returns the group of every user, and the part of every interaction that is left.
    """
    pairs = sorted({(user, item) for user, item, rating, *_ in rows if rating >= min_rating})
    item_count = Counter(item for _, item in pairs)
    pairs = [(user, item) for user, item in pairs if item_count[item] >= min_users]
    user_count = Counter(user for user, _ in pairs)
    pairs = [(user, item) for user, item in pairs if user_count[user] >= min_items]

    users = sorted({user for user, _ in pairs})
    shuffled = [users[place] for place in np.random.RandomState(seed).permutation(len(users))]
    group = dict.fromkeys(shuffled, "train")
    group |= dict.fromkeys(
        shuffled[len(users) - 2 * held_out : len(users) - held_out], "validation"
    )
    group |= dict.fromkeys(shuffled[len(users) - held_out :], "test")

    known = {item for user, item in pairs if group[user] == "train"}
    pairs = [(user, item) for user, item in pairs if item in known]
    result = dict.fromkeys(pairs, 0)
    for part, name in ((1, "validation"), (2, "test")):
        stream = np.random.RandomState(seed)
        for user in users:
            mine = [pair for pair in pairs if pair[0] == user]
            if group[user] == name and len(mine) >= 5:
                for place in stream.choice(len(mine), size=int(share * len(mine)), replace=False):
                    result[mine[place]] = part
    return group, result


@pytest.mark.parametrize("seed", [1, 2, 98765])
@pytest.mark.parametrize(
    ("min_rating", "min_items", "min_users", "share"),
    [(0.5, 0, 0, 0.2), (3.5, 5, 0, 0.2), (2.0, 6, 8, 0.5), (4.0, 3, 4, 0.0)],
)
def test_prepare_follows_the_published_procedure(
    seed: int, min_rating: float, min_items: int, min_users: int, share: float
) -> None:
    rows = random_rows(seed)
    rules = PrepareRules(
        min_rating,
        min_items,
        min_users,
        split=StrongGeneralisation(9, held_out_share=share, seed=seed),
    )
    data = made(rows, rules)
    group, expected = published_procedure(rows, min_rating, min_items, min_users, 9, share, seed)
    assert parts(data) == expected
    names = dict(
        zip(
            data.users.ids_of(range(data.n_users)),
            (Part(part).name.lower() for part in data.split.user_part),
            strict=True,
        )
    )
    assert names == group


def test_prepare_follows_the_published_procedure_on_ml_latest_small() -> None:
    with read_log(real("ml-latest-small")) as log:
        rows = log.connection.execute("SELECT user_id, item_id, rating FROM log").fetchall()
        data = prepare(log, PrepareRules(min_rating=4, split=StrongGeneralisation(50)))
    group, expected = published_procedure(rows, 4, 5, 0, 50, 0.2, 98765)
    assert parts(data) == expected
    assert Counter(group.values()) == {"train": data.train.shape[0], "validation": 50, "test": 50}
    counts = data.provenance["counts"]
    assert counts["rows_read"] == 100_004
    assert counts["rows_below_min_rating"] == 100_004 - 51_568
    assert data.titles is not None
    assert data.titles[data.items.index_of([1])[0]] == "Toy Story (1995)"


def test_every_row_is_kept_or_counted_as_dropped() -> None:
    for seed in range(5):
        data = made(random_rows(seed), PrepareRules(3.0, 5, 6, split=StrongGeneralisation(8)))
        counts = data.provenance["counts"]
        dropped = [
            name
            for name in counts
            if name.startswith(("rows_below", "rows_without", "repeated", "interactions_of"))
        ]
        assert counts["rows_read"] == counts["interactions"] + sum(counts[name] for name in dropped)
        assert (
            counts["users"]
            == counts["train_users"] + counts["validation_users"] + counts["test_users"]
        )
        assert (
            counts["validation_users"]
            == counts["validation_cases"] + counts["validation_users_not_evaluated"]
        )


def test_threshold_keeps_its_own_value() -> None:
    rows = [
        (user, item, rating) for user in range(5) for item, rating in ((1, 3.5), (2, 4.0), (3, 4.5))
    ]
    data = made(rows, PrepareRules(min_rating=4.0, min_user_items=0, split=StrongGeneralisation(1)))
    assert {item for _, item in kept(data)} == {2, 3}
    assert data.provenance["counts"]["rows_below_min_rating"] == 5


def test_repeated_pairs_become_one_that_is_counted_with_the_latest_timestamp() -> None:
    rows = [(user, item, 5.0, 100) for user in range(5) for item in (1, 2)] + [
        (2, 1, 5.0, 300),
        (2, 1, 5.0, 200),
    ]
    data = made(rows)
    assert data.provenance["counts"]["repeated_rows"] == 2
    assert data.provenance["counts"]["interactions"] == 10
    x = data.interactions
    assert x.timestamps is not None
    assert x.timestamps[x.indptr[2]] == 300
    assert x.counts is not None
    assert x.counts.tolist() == [1, 1, 1, 1, 3, 1, 1, 1, 1, 1]
    assert made(rows[:10]).interactions.counts is None
    assert data.provenance["counts"]["first_timestamp"] == 100
    assert data.provenance["counts"]["last_timestamp"] == 300


def test_play_counts_are_counts(tmp_path: Path) -> None:
    triplets = [(user, song, plays) for user in "abcde" for song, plays in (("x", 3), ("y", 1))] + [
        ("c", "x", 4)
    ]
    (tmp_path / "train_triplets.txt").write_text(
        "".join(f"{user}\t{song}\t{plays}\n" for user, song, plays in triplets)
    )
    with read_log(tmp_path / "train_triplets.txt") as log:
        counts = prepare(log, ALL).interactions.counts
    assert counts is not None
    assert counts.tolist() == [3, 1, 3, 1, 7, 1, 3, 1, 3, 1]


def test_items_are_dropped_before_users_and_only_once() -> None:
    # Item 9 has one user; without it user 4 has one item left, and goes; then item 8 has only two
    # users, and stays.
    rows = [(user, item) for user in range(4) for item in (1, 2)] + [(0, 8), (1, 8), (4, 8), (4, 9)]
    data = made(
        rows,
        PrepareRules(min_user_items=2, min_item_users=3, split=StrongGeneralisation(1, seed=3)),
    )
    counts = data.provenance["counts"]
    assert (counts["items_below_min_users"], counts["interactions_of_items_below_min_users"]) == (
        1,
        1,
    )
    assert (counts["users_below_min_items"], counts["interactions_of_users_below_min_items"]) == (
        1,
        1,
    )
    assert kept(data) == {(user, item) for user, item in rows if user < 4}


def test_users_with_one_item_are_dropped_by_default_and_can_be_kept() -> None:
    rows = [(user, item) for user in range(8) for item in range(6)] + [(99, 0)]
    assert (
        made(rows, PrepareRules(split=StrongGeneralisation(1))).provenance["counts"][
            "users_below_min_items"
        ]
        == 1
    )
    assert (99, 0) in kept(
        made(rows, PrepareRules(min_user_items=1, split=StrongGeneralisation(1)))
    )


def test_items_unseen_in_training_are_dropped_and_poor_held_out_users_not_evaluated() -> None:
    # Every user has an item of their own, which nobody else trains on.
    rows = [(user, item) for user in range(20) for item in (*range(4), 100 + user)]
    data = made(rows, PrepareRules(split=StrongGeneralisation(3)))
    counts = data.provenance["counts"]
    assert (
        counts["items_unseen_in_training"],
        counts["interactions_of_items_unseen_in_training"],
    ) == (6, 6)
    assert (counts["test_users"], counts["test_cases"], counts["test_users_not_evaluated"]) == (
        3,
        0,
        3,
    )
    assert np.asarray(data.train.sum(axis=0)).min() >= 1


def test_held_out_users_default_to_a_tenth_and_are_recorded() -> None:
    rows = [(user, item) for user in range(47) for item in range(6)]
    data = made(rows, PrepareRules())
    assert data.provenance["rules"] == {
        "min_rating": None,
        "min_user_items": 5,
        "min_item_users": 0,
        "held_out_users": 4,
        "held_out_share": 0.2,
        "seed": 98765,
    }
    assert (data.split.user_part == Part.TEST).sum() == 4


@pytest.mark.parametrize(
    ("id_type", "ids"),
    [("BIGINT", [10, 9, -3, 2**40]), ("VARCHAR", ["é", "z", "Z", "007", "字", "10", "9"])],
)
def test_vocabularies_are_sorted_by_value_or_by_bytes(id_type: str, ids: list[Any]) -> None:
    data = made([(user, item) for user in ids for item in ids], ALL, id_type)
    expected = sorted(ids) if id_type == "BIGINT" else sorted(ids, key=str.encode)
    assert data.users.ids_of(range(len(ids))) == data.items.ids_of(range(len(ids))) == expected


def test_titles_follow_their_items() -> None:
    with log_of([(user, item) for user in range(4) for item in (7, 8)]) as log:
        log.titles = {"8": "Eight", "9": "Nine"}
        data = prepare(log, ALL)
        assert data.titles == (None, "Eight")
        assert data.provenance["counts"]["items_without_title"] == 1
        log.titles = None
        assert prepare(log, ALL).titles is None


# The bytes of before

ONCE = list({(user, item): (user, item, *rest) for user, item, *rest in random_rows(7)}.values())
PARTED = [(user, item, None, None, 2 * ((user + item) % 5 == 0)) for user, item, *_ in ONCE]


@pytest.mark.parametrize(
    ("rows", "rules", "fingerprint"),
    [
        (ONCE, PrepareRules(2.0, 4, 3, StrongGeneralisation(9, 0.3, 5)), "0fa9f4ab2b0fb55f"),
        (ONCE, PrepareRules(), "03405a654179c369"),
        ([row[:3] for row in random_rows(7)], PrepareRules(split=StrongGeneralisation(6)),
         "eea3725fae68e00f"),
        (PARTED, PrepareRules(min_item_users=2, split=GivenSplit(0.25, 4)), "4cbf8d7cbd7aa5ca"),
        (PARTED, PrepareRules(), "d1b44923743d4777"),
    ],
)  # fmt: skip
def test_the_published_protocols_give_the_bytes_that_they_gave(
    rows: list[Row], rules: PrepareRules, fingerprint: str
) -> None:
    """Fingerprints from before splits were values of their own."""
    assert made(rows, rules).fingerprint.startswith(fingerprint)


def test_ml_latest_small_gives_the_bytes_that_it_gave() -> None:
    with read_log(real("ml-latest-small")) as log:
        data = prepare(log, PrepareRules(min_rating=4, split=StrongGeneralisation(50)))
    assert data.fingerprint.startswith("b60d72c4961664e4")


# Nobody held out


def test_with_nobody_held_out_everybody_trains() -> None:
    data = made(random_rows(3), PrepareRules(split=StrongGeneralisation(0)))
    assert data.train.sum() == len(data.interactions.indices)
    assert data.train.shape[0] == data.n_users
    assert not any(len(data.cases(part).user_index) for part in (Part.VALIDATION, Part.TEST))
    assert data.provenance["rules"]["held_out_users"] == 0
    model = train(data, MultVAEConfig(hidden_dims=(8,), latent_dim=4), epochs=2)
    assert model.n_items == data.n_items
    with pytest.raises(DataError, match="at least one case, found none"):
        evaluate(model, data, "test")


# Repeated rows


def of_pair(*events: tuple[float, int | None], **rules: Any) -> tuple[int, ...] | None:
    """First time, latest time and count of the pair of user 0 and item 0 with these (value, time)
    rows, beside pairs that are kept anyhow; None where the pair goes.
    """
    base = [(user, item, 9.0, 50) for user in range(3) for item in range(3)][1:]
    asked = PrepareRules(min_user_items=0, split=StrongGeneralisation(0), **rules)
    data = made([*base, *((0, 0, *event) for event in events)], asked)
    if (0, 0) not in kept(data):
        return None
    x = data.interactions
    assert x.timestamps is not None
    first = x.timestamps if x.first_timestamps is None else x.first_timestamps
    return int(first[0]), int(x.timestamps[0]), 1 if x.counts is None else int(x.counts[0])


LIKED_THEN_NOT, NOT_THEN_LIKED = ((5.0, 10), (2.0, 20)), ((5.0, 20), (2.0, 10))


def test_any_row_of_enough_keeps_a_pair() -> None:
    assert of_pair(*LIKED_THEN_NOT, min_rating=4) == (10, 10, 1)
    assert of_pair(*NOT_THEN_LIKED, min_rating=4) == (20, 20, 1)
    assert of_pair(*LIKED_THEN_NOT) == (10, 20, 2)


def test_the_latest_row_decides_and_of_two_the_later_in_the_file() -> None:
    latest: dict[str, Any] = {"min_rating": 4, "merge": "latest"}
    assert of_pair(*LIKED_THEN_NOT, **latest) is None
    assert of_pair(*NOT_THEN_LIKED, **latest) == (10, 20, 2)
    assert of_pair((5.0, 10), (2.0, 10), **latest) is None
    assert of_pair((2.0, 10), (5.0, 10), **latest) == (10, 10, 2)


def test_sums_are_held_against_the_least_and_are_the_count() -> None:
    assert of_pair((2.0, 10), (3.0, 30), merge="sum", min_rating=5) == (10, 30, 5)
    assert of_pair((2.0, 10), (2.0, 30), merge="sum", min_rating=5) is None
    with pytest.raises(ConfigError, match="whole counts, found 1 rows"):
        of_pair((2.5, 10), merge="sum")


def test_an_unlike_takes_back_what_came_before() -> None:
    unlike: dict[str, Any] = {"negative_values": (0.0,)}
    assert of_pair((1.0, 10), (0.0, 20), **unlike) is None
    assert of_pair((1.0, 10), (0.0, 20), (1.0, 30), **unlike) == (30, 30, 1)
    assert of_pair((0.0, 10), (1.0, 10), **unlike) == (10, 10, 1)
    assert of_pair((1.0, 10), (0.0, 10), **unlike) is None
    assert of_pair((9.0, 10), (0.0, 20), (1.0, 30), min_rating=3, **unlike) is None
    assert of_pair((9.0, 10), (0.0, 5), (1.0, 3), min_rating=3, merge="any", **unlike)
    assert of_pair((2.0, 10), (0.0, 20), (4.0, 30), merge="sum", min_rating=5, **unlike) is None


def test_without_times_the_order_of_the_file_is_the_order() -> None:
    rows = [(user, item, 1.0) for user in range(3) for item in range(3)]
    asked = PrepareRules(min_user_items=0, split=StrongGeneralisation(0), negative_values=(-1.0,))
    assert (0, 0) not in kept(made([*rows, (0, 0, -1.0)], asked))
    assert (0, 0) in kept(made([(0, 0, -1.0), *rows], asked))


def test_every_way_of_merging_counts_its_losses() -> None:
    split = StrongGeneralisation(5)
    for merge in ("any", "latest", "sum"):
        for negative in ((), (1.0,)):
            rows = [(u, i, float(int(r)), t) for u, i, r, t in random_rows(9)]
            asked = PrepareRules(3.0, 5, 3, split, merge, negative)
            data = made(rows, asked)
            counts = data.provenance["counts"]
            lost = ("rows_below", "rows_of", "rows_taken", "repeated", "interactions_")
            n_lost = sum(n for name, n in counts.items() if name.startswith(lost))
            assert counts["rows_read"] == counts["interactions"] + n_lost
            stated = data.provenance["rules"]
            assert stated.get("merge", "any") == merge
            assert stated.get("negative_values", []) == list(negative)
    assert PrepareRules(negative_values=(1.0,)).resolve(given_split=False).merge == "latest"


def test_a_value_of_zero_is_no_interaction_unless_zero_is_stated() -> None:
    rows = [(user, item, 1.0) for user in range(4) for item in range(3)] + [(0, 9, 0.0)]
    everybody = StrongGeneralisation(0)
    without = made(rows, PrepareRules(min_user_items=0, split=everybody))
    assert (0, 9) not in kept(without)
    assert without.provenance["counts"]["rows_of_value_zero"] == 1
    assert without.provenance["counts"]["rows_below_min_rating"] == 0
    assert (0, 9) in kept(made(rows, PrepareRules(0, 0, split=everybody)))


@pytest.mark.parametrize("bad", [{"merge": "latest"}, {"merge": "sum"}, {"negative_values": (1,)}])
def test_values_are_not_asked_of_a_log_without_ratings(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="needs a log with ratings"):
        made([(1, 2), (2, 2)], PrepareRules(**bad))


# Each user's last items


def test_last_items_are_the_test_and_those_before_the_validation() -> None:
    rows = [(user, item, 5.0, draw) for user, item, _, draw in ONCE]
    data = made(rows, PrepareRules(min_user_items=3, split=LeaveLastOut(2)))
    by_user: dict[Any, list[tuple[int, int, Any]]] = {}
    for place, (user, item, _, time) in enumerate(rows):
        by_user.setdefault(user, []).append((time, place, item))
    known = {i for (_, i), part in parts(data).items() if part == Part.TRAIN}
    expected = {}
    for user, of_user in by_user.items():
        items = [item for *_, item in sorted(of_user)]
        cut = len(items) - 4 if len(items) > 4 else len(items)
        last = len(items) - 2
        for place, item in enumerate(items if len(items) >= 3 else []):
            expected[user, item] = 0 if place < cut else 1 if place < last else 2
    assert parts(data) == {pair: part for pair, part in expected.items() if pair[1] in known}
    assert not data.split.user_part.any()
    assert data.provenance["rules"] == {
        "min_rating": None, "min_user_items": 3, "min_item_users": 0, "split": "last", "last_n": 2,
    }  # fmt: skip


def test_last_items_of_one_time_are_in_the_order_of_the_file() -> None:
    rows = [(user, item, None, 7) for user in range(3) for item in (4, 2, 0, 1, 3)]
    others = [(8, item, None, 7) for item in (3, 4, 1, 0, 2)]
    data = made([*rows, *others, (0, 4, None, 7)], PrepareRules(split=LeaveLastOut()))
    found = parts(data)
    assert [found[1, item] for item in range(5)] == [0, 1, 0, 2, 0]
    assert [found[0, item] for item in range(5)] == [0, 0, 0, 1, 2]


def test_what_only_last_items_know_is_dropped_and_counted() -> None:
    rows = [(user, item, None, item) for user in range(4) for item in range(5)]
    data = made([*rows, (0, 9, None, 99)], PrepareRules(split=LeaveLastOut()))
    counts = data.provenance["counts"]
    assert counts["interactions_of_items_unseen_in_training"] == 1 + 4
    assert counts["items_unseen_in_training"] == 2
    with pytest.raises(ConfigError, match="split last needs a log with times"):
        made([(1, 2), (2, 2)], PrepareRules(split=LeaveLastOut()))


# Given split

GIVEN = [
    (0, 1, None, None, 0),
    (0, 2, None, None, 0),
    (0, 3, None, None, 2),
    (1, 1, None, None, 0),
    (1, 2, None, None, 2),
]


def test_given_split_is_kept() -> None:
    data = made([*GIVEN, (1, 3, None, None, 0)], PrepareRules(split=GivenSplit(validation_share=0)))
    assert parts(data) == {(0, 1): 0, (0, 2): 0, (0, 3): 2, (1, 1): 0, (1, 2): 2, (1, 3): 0}
    assert not data.split.user_part.any()


def test_given_split_counts_what_cannot_be_used() -> None:
    # Item 3 is in the test alone, user 7 too; (0, 2) is in both files and so trains.
    data = made(
        [*GIVEN, (7, 1, None, None, 2), (0, 2, None, None, 2)],
        PrepareRules(split=GivenSplit(validation_share=0)),
    )
    assert parts(data) == {(0, 1): 0, (0, 2): 0, (1, 1): 0, (1, 2): 2}
    counts = data.provenance["counts"]
    assert (counts["users_without_training"], counts["interactions_of_users_without_training"]) == (
        1,
        1,
    )
    assert (
        counts["items_unseen_in_training"],
        counts["interactions_of_items_unseen_in_training"],
    ) == (1, 1)
    assert counts["repeated_rows"] == 1
    assert data.provenance["rules"]["min_user_items"] == 0


def test_given_split_takes_validation_from_training_but_never_an_items_last() -> None:
    rows = [(user, item, None, None, 0) for user in range(10) for item in range(20)] + [
        (0, 30 + n, None, None, 0) for n in range(20)
    ]
    data = made(
        [*rows, (1, 30, None, None, 2)], PrepareRules(split=GivenSplit(validation_share=0.5))
    )
    found = parts(data)
    for user in range(1, 10):
        assert Counter(found[user, item] for item in range(20)) == {0: 10, 1: 10}
    assert all(found[0, 30 + n] == 0 for n in range(20))
    assert data.provenance["counts"]["validation_cases"] == 10
    assert np.asarray(data.train.sum(axis=0)).min() >= 1


def test_gowalla_is_prepared_as_given() -> None:
    with read_log(real("gowalla")) as log:
        data = prepare(log, PrepareRules())
    counts = data.provenance["counts"]
    assert (counts["users"], counts["items"], counts["interactions"]) == (
        29_858,
        40_981,
        810_128 + 217_242,
    )
    assert counts["test_cases"] == 29_858
    assert len(data.train.indices) + data.cases(Part.VALIDATION).held_out.nnz == 810_128
    assert data.cases(Part.TEST).held_out.nnz == 217_242


# Bad rules and nothing left


@pytest.mark.parametrize(
    "bad",
    [
        {"min_rating": float("nan")}, {"min_rating": float("inf")}, {"min_user_items": -1},
        {"min_item_users": -1}, {"merge": "first"}, {"negative_values": (float("nan"),)},
    ],
)  # fmt: skip
def test_rules_refuse_values_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        PrepareRules(**bad)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("strong", {"held_out_share": 1.0}), ("strong", {"held_out_share": -0.1}),
        ("strong", {"held_out_users": -1}), ("strong", {"seed": -1}), ("strong", {"seed": 2**32}),
        ("given", {"validation_share": float("nan")}), ("given", {"seed": -1}),
        (None, {"seed": -1}), ("last", {"last_n": 0}), ("time", {"test_days": 0}),
        ("time", {"validation_days": -1}), ("time", {"gap_days": -1}), ("time", {"new_users": "x"}),
        ("time", {"test_days": 10**9}),
        ("time", {"history_days": 0}), ("time", {"history_days": 6}), ("time", {"new_items": "x"}),
        ("time", {"repeats": "x"}),
    ],
)  # fmt: skip
def test_splits_refuse_values_out_of_range(name: str | None, bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        split_rules(name, bad)


def test_a_split_is_found_by_its_options() -> None:
    assert split_rules(None, {}) == split_rules(None, {"seed": None}) == SplitByLog()
    assert split_rules(None, {"seed": 4}) == SplitByLog(4)
    assert split_rules(None, {"held_out_users": 4}) == StrongGeneralisation(4)
    assert split_rules(None, {"validation_share": 0.3}) == GivenSplit(0.3)
    assert split_rules(None, {"test_days": 3}) == TimeSplit(test_days=3)
    with pytest.raises(ConfigError, match="belong to one split, found seed for last"):
        split_rules("last", {"seed": 4})
    with pytest.raises(ConfigError, match="belong to one split"):
        split_rules(None, {"last_n": 2, "test_days": 4})
    with pytest.raises(ConfigError, match="must be one of strong, given, last, time"):
        split_rules("random", {})


@pytest.mark.parametrize("split", [StrongGeneralisation(5), LeaveLastOut(), TimeSplit()])
def test_splits_that_a_given_split_would_ignore_are_refused(split: Any) -> None:
    with pytest.raises(ConfigError, match=f"brings its split, found {type(split).__name__}"):
        made(GIVEN, PrepareRules(split=split))


def test_rules_that_do_not_fit_the_log_are_refused() -> None:
    rows = [(user, item) for user in range(9) for item in range(6)]
    with pytest.raises(ConfigError, match="brings no split, found GivenSplit"):
        made(rows, PrepareRules(split=GivenSplit(validation_share=0.1)))
    with pytest.raises(ConfigError, match="min_rating needs"):
        made(rows, PrepareRules(min_rating=4))
    for held_out in (5, 100):
        with pytest.raises(ConfigError, match="leave someone to train on"):
            made(rows, PrepareRules(split=StrongGeneralisation(held_out)))


def test_nothing_left_is_said_with_the_reasons() -> None:
    with pytest.raises(DataError, match="rows_below_min_rating 900"):
        made(random_rows(1), PrepareRules(min_rating=6))
    with pytest.raises(DataError, match="users_below_min_items"):
        made(random_rows(1), PrepareRules(min_user_items=1000))
    with pytest.raises(DataError, match="items_below_min_users"):
        made(random_rows(1), PrepareRules(min_item_users=1000))
    with pytest.raises(DataError, match="users_without_training 1"):
        made([(0, 1, None, None, 2)], PrepareRules())


# Determinism, and nothing half-written


def test_same_log_rules_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    rows = random_rows(4)
    for name, order in (
        ("a", rows),
        ("b", rows),
        ("shuffled", random.Random(0).sample(rows, len(rows))),
    ):
        made(order, PrepareRules(split=StrongGeneralisation(5))).save(tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert len(files) == 4
    for other in ("b", "shuffled"):
        assert [(tmp_path / other / name).read_bytes() for name in files] == [
            (tmp_path / "a" / name).read_bytes() for name in files
        ]
    made(rows, PrepareRules(split=StrongGeneralisation(5, seed=1))).save(tmp_path / "c")
    assert (tmp_path / "c" / "interactions.safetensors").read_bytes() != (
        tmp_path / "a" / "interactions.safetensors"
    ).read_bytes()


def test_manifest_tells_sources_rules_and_counts(tmp_path: Path) -> None:
    file = tmp_path / "ratings.csv"
    file.write_text(
        "userId,movieId,rating,timestamp\n"
        + "".join(f"{u},{i},4.0,1000\n" for u in range(9) for i in range(6))
    )
    with read_log(file) as log:
        prepare(log, PrepareRules(split=StrongGeneralisation(1))).save(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["sources"][0]["file"] == "ratings.csv"
    assert manifest["rules"]["held_out_users"] == 1
    assert manifest["counts"]["rows_read"] == 54
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()


def test_a_bad_source_leaves_no_data_set(tmp_path: Path) -> None:
    file = tmp_path / "ratings.csv"
    file.write_text("userId,movieId,rating,timestamp\n1,2,9,1000\n")
    with pytest.raises(SourceError, match=r"ratings\.csv:2: "), read_log(file) as log:
        prepare(log, PrepareRules()).save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == [file]


def test_prepare_tells_its_stages_and_does_not_change_the_log() -> None:
    stages: list[Update] = []
    with log_of(random_rows(2)) as log:
        first = prepare(log, PrepareRules(split=StrongGeneralisation(5)), stages.append)
        assert (
            prepare(log, PrepareRules(split=StrongGeneralisation(5))).fingerprint
            == first.fingerprint
        )
        assert log.n_rows == 900
    assert len(stages) == len({stage.work for stage in stages}) == 3


# The pure steps

PAIRS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 99), st.sampled_from([0, 2])),
    min_size=1,
    max_size=60,
)


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_merge_repeated_agrees_with_a_dict(rows: list[tuple[int, int, int, int]]) -> None:
    user, item, timestamp, part = (np.array(column) for column in zip(*rows, strict=True))
    merged = merge_repeated(Pairs(user, item, timestamp, part).ordered())
    expected: dict[tuple[int, int], tuple[int, int]] = {}
    for u, i, t, p in rows:
        latest, least = expected.get((u, i), (t, p))
        expected[u, i] = max(latest, t), min(least, p)
    assert merged.timestamp is not None
    assert merged.part is not None
    times = Counter((u, i) for u, i, *_ in rows)
    assert (merged.count is None) == (len(times) == len(rows))
    if merged.count is not None:
        assert merged.count.tolist() == [times[pair] for pair in sorted(times)]
    assert list(zip(merged.user.tolist(), merged.item.tolist(), strict=True)) == sorted(expected)
    assert list(zip(merged.timestamp.tolist(), merged.part.tolist(), strict=True)) == [
        expected[pair] for pair in sorted(expected)
    ]


@given(PAIRS, st.integers(0, 4), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_drop_rare_keeps_users_of_enough_items(
    rows: list[tuple[int, int, int, int]], min_item_users: int, min_user_items: int
) -> None:
    pairs = sorted({(user, item) for user, item, *_ in rows})
    left, counts = drop_rare(
        Pairs(*(np.array(column) for column in zip(*pairs, strict=True))),
        min_item_users,
        min_user_items,
    )
    common = [pair for pair in pairs if sum(item == pair[1] for _, item in pairs) >= min_item_users]
    expected = [
        pair for pair in common if sum(user == pair[0] for user, _ in common) >= min_user_items
    ]
    assert list(zip(left.user.tolist(), left.item.tolist(), strict=True)) == expected
    assert counts["items_below_min_users"] == len({i for _, i in pairs} - {i for _, i in common})
    assert counts["interactions_of_users_below_min_items"] == len(common) - len(expected)


def test_preparing_leaves_no_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DataError):
        made(random_rows(1), PrepareRules(min_rating=6))
    assert not list(tmp_path.iterdir())
