"""Both back ends of the store: what is published is found, whole, whoever publishes meanwhile."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.errors import (
    ArtifactError,
    CannotWriteError,
    ConfigError,
    ConflictError,
    DataError,
    NotFoundError,
    UnavailableError,
)
from coterie.store import Store, open_store
from coterie.store.store import PAGE
from store_contract import (
    N_ITEMS,
    catalogue,
    check_found,
    check_whole,
    everybody,
    leftovers,
    lists,
    marked,
    publish_marked,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
PAIRS = st.lists(st.tuples(st.integers(0, N_ITEMS - 1), FINITE), max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
ROWS = st.sampled_from(["main", "movies", "Für dich; DROP TABLE lists"])


@given(st.one_of(*(st.dictionaries(st.tuples(ids, ROWS), PAIRS) for ids in (INTEGERS, TEXT))))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_published_is_found(store: Store, given_lists: dict[Any, Any]) -> None:
    rows = [
        {
            "user_id": user,
            "row": row,
            "items": [item for item, _ in pairs],
            "scores": [score for _, score in pairs],
        }
        for (user, row), pairs in given_lists.items()
    ]
    table = lists(rows, None if rows else pa.int64())
    edition = store.publish("1", catalogue(), [table.slice(0, 3), table.slice(3)], {})
    assert edition.n_users == len({row["user_id"] for row in rows})
    assert store.rows() == sorted({row["row"] for row in rows})
    for row in rows:
        found = store.find(row["user_id"], row["row"])
        assert found is not None
        assert (found.edition, found.source) == ("1", "model")
        assert (found.item_ids, found.scores) == (row["items"], row["scores"])
        assert found.titles == [f"0-{item}" for item in row["items"]]
    for name in {row["row"] for row in rows}:
        expected = {row["user_id"]: row["items"] for row in rows if row["row"] == name}
        assert everybody(store, name) == expected


@given(st.lists(st.tuples(st.one_of(st.integers(-3, 12), st.sampled_from(["3", "x", "04"])), ROWS)))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_many_are_found_as_one_by_one(store: Store, wanted: list[tuple[int | str, str]]) -> None:
    """Users that are there and not, twice, in card rows that they have and have not."""
    if not store.editions():
        with pytest.raises(NotFoundError, match="must be live, found none"):
            store.find_many(wanted)
        rows = [
            {"user_id": n, "row": row} for n in range(10) for row in ("main", "movies")[: n % 3]
        ]
        store.publish("1", catalogue(), [lists(rows)], {})
        texts = lists([{**row, "user_id": str(row["user_id"])} for row in rows])
        store.publish("2", catalogue(), [texts], {}, live=False)
    for edition in (None, "2"):
        expected = [store.find(*one, edition=edition) for one in wanted]
        assert store.find_many(wanted, edition=edition) == expected


def test_everybodys_lists_come_in_pages(store: Store) -> None:
    assert PAGE < 20_000
    users = list(range(-5, 20_000))
    rows = [{"user_id": user, "items": [user % N_ITEMS], "scores": [0]} for user in users]
    store.publish("1", catalogue(), [lists(rows)], {})
    batches = list(store.lists())
    assert [len(batch) for batch in batches] == [PAGE, PAGE, len(users) - 2 * PAGE]
    assert pa.concat_arrays([batch["user_id"] for batch in batches]).to_pylist() == users
    items = batches[0]["item_ids"].values
    assert items.indices.to_pylist() == [user % N_ITEMS for user in users[:PAGE]]
    assert items.dictionary.equals(catalogue()["item_id"].combine_chunks())


def test_everybodys_lists_leave_out_the_fallback_and_hashed_ids(store: Store) -> None:
    rows: list[dict[str, Any]] = [
        {"user_id": user, "items": [0], "scores": [0]} for user in (None, "ann", "x" * 1001)
    ]
    store.publish("1", catalogue(), [lists(rows)], {})
    assert everybody(store) == {"ann": [0], None: [0]}
    assert everybody(store, "movies") == {}
    with pytest.raises(NotFoundError, match="edition '2'"):
        everybody(store, edition="2")


def test_everybodys_lists_are_of_one_edition(store: Store, store_url: str) -> None:
    rows = [{"user_id": user, "items": [1], "scores": [0]} for user in range(PAGE + 10)]
    with open_store(store_url) as reader:
        store.publish("1", catalogue(), [lists(rows)], {})
        begun = reader.lists()
        assert next(begun)["item_ids"][0].as_py() == [1]
        publish_marked(store, 2, name="2")
        assert next(begun)["item_ids"][0].as_py() == [1]
        # SQLite's file can be read on by who has it open; PostgreSQL's table is gone.
        begun = reader.lists(edition="1")
        next(begun)
        store.prune(1)
        with suppress(NotFoundError):
            assert next(begun)["item_ids"][0].as_py() == [1]
        assert set(everybody(reader)) == set(range(40))


def test_many_are_of_one_edition_though_it_was_pruned(store: Store, store_url: str) -> None:
    with open_store(store_url) as reader:
        for mark in range(3):
            publish_marked(store, mark)
            found = reader.find_many([(user, "main") for user in range(40)])
            assert {one.facts["mark"] for one in found if one is not None} == {mark}
            assert None not in found
            store.prune(0)


@pytest.mark.parametrize("k", [1, 100, 3000])
def test_lists_of_any_length(store: Store, k: int) -> None:
    """A row of PostgreSQL's leaves its page from about 1,000 items on."""
    rng = np.random.default_rng(k)
    rows: list[dict[str, Any]] = [
        {"user_id": user, "items": rng.permutation(k), "scores": rng.random(k)}
        for user in range(40)
    ]
    store.publish("1", catalogue(0, k), [lists(rows)], {})
    for row in rows:
        found = store.find(row["user_id"])
        assert found is not None
        assert found.item_ids == row["items"].tolist()
        assert found.scores == row["scores"].astype(np.float32).tolist()


HOSTILE = [
    "",
    "'; DROP TABLE lists; --",
    '"\\',
    "%s %(a)s {0} $1",
    "nul\0inside",
    "../../etc/passwd",
    "Ω≈ç√∫ 🦄\n\t\r",
    "\ufeff",
    "x" * 10_000,
    "x" * 10_001,
    "ü" * 500,
    "ü" * 501,
]


def test_hostile_ids_are_ids(store: Store) -> None:
    """Characters and lengths that a database, a shell or a path would stumble over."""
    rows = [
        {"user_id": user, "row": user or "main", "items": [at], "scores": [at]}
        for at, user in enumerate(HOSTILE)
    ]
    store.publish("1", catalogue(), [lists(rows)], {})
    for at, user in enumerate(HOSTILE):
        found = store.find(user, user or "main")
        assert found is not None
        assert found.item_ids == [at]
        assert store.find(user + "x", user or "main") is None
        assert store.find(user, f"{user}x") is None


@pytest.mark.parametrize("user", ["042", "4.2e1", " 42", "٤٢", "9" * 30, "\ud800", "", 2**70, -1])
def test_an_id_nobody_has_is_found_nowhere(store: Store, user: int | str) -> None:
    store.publish("1", catalogue(), [lists([{"user_id": 42}])], {})
    assert store.find(user) is None
    assert store.find("42") == store.find(42) is not None
    store.publish("2", catalogue(), [lists([{"user_id": "42"}])], {})
    assert store.find(user) is None
    assert store.find("42") == store.find(42) is not None


def test_the_fallback_is_under_no_user(store: Store) -> None:
    rows: list[dict[str, Any]] = [
        {"user_id": None, "row": "main", "items": [3, 1], "scores": [9, 8], "source": "popularity"},
        {"user_id": None, "row": "new", "items": [2], "scores": [7], "source": "age"},
        {"user_id": "ann", "row": "main", "items": [0], "scores": [1]},
    ]
    assert store.publish("1", catalogue(), [lists(rows)], {}).n_users == 1
    fallback = store.fallback()
    assert fallback is not None
    assert (fallback.item_ids, fallback.source) == ([3, 1], "popularity")
    other = store.fallback("new")
    assert other is not None
    assert (other.source, other.scores) == ("age", [7.0])
    assert store.fallback("movies") is None
    assert store.rows() == ["main", "new"]
    assert store.find("None") is None


def test_an_edition_may_have_fallbacks_alone(store: Store) -> None:
    table = lists([{"user_id": None, "items": [3], "scores": [9]}])
    assert store.publish("1", catalogue(), [table], {}).n_users == 0
    assert store.fallback() is not None
    assert store.find(3) is None


def test_the_type_of_ids_may_come_after_the_fallbacks(store: Store) -> None:
    tables = [lists([{}]), lists([{"user_id": "ann"}])]
    store.publish("1", catalogue(), tables, {})
    assert store.find("ann") is not None


def test_before_the_first_edition(store: Store) -> None:
    assert store.editions() == []
    assert store.live() is None
    assert store.notes("daily") == []
    assert store.prune(1) == []
    for ask in (lambda: store.find(1), store.fallback, store.rows):
        with pytest.raises(NotFoundError, match="must be live, found none; publish"):
            ask()
    with pytest.raises(NotFoundError, match="edition '1' must be there, found none"):
        store.point("1")


def test_editions_are_listed_newest_name_first(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=2)
    for mark in (2, 10, 1):
        publish_marked(store, mark, live=mark != 1)
    assert [one.name for one in store.editions()] == ["e0010", "e0002", "e0001"]
    assert [one.live for one in store.editions()] == [True, False, False]
    assert store.live() == store.editions()[0]
    assert store.editions()[2].facts == {"mark": 1}
    assert before <= store.editions()[2].published <= datetime.now(UTC)
    assert store.editions()[0].published.tzinfo == UTC


def test_the_pointer_goes_back_and_forth(store: Store, store_url: str) -> None:
    publish_marked(store, 1)
    publish_marked(store, 2)
    with open_store(store_url) as other:
        for mark in (1, 2, 1):
            assert other.point(f"e{mark:04}").live
            assert check_whole(store) == mark
            assert store.rows() == ["main"]
    with pytest.raises(NotFoundError, match="found e0002, e0001; publish"):
        store.point("e0003")


def test_an_edition_can_be_asked_for_by_name(store: Store) -> None:
    for mark in range(8):
        publish_marked(store, mark)
    for mark in (*range(8), 3):
        found = store.find(5, edition=f"e{mark:04}")
        assert found is not None
        assert found.facts == {"mark": mark}
        fallback = store.fallback(edition=f"e{mark:04}")
        assert fallback is not None
        assert fallback.scores == [mark]
    assert check_whole(store) == 7
    with pytest.raises(NotFoundError, match="edition 'e1' must be there"):
        store.find(5, edition="e1")


def test_an_edition_is_replaced_whole(store: Store, store_url: str) -> None:
    publish_marked(store, 1, name="a")
    publish_marked(store, 2, name="a", live=False)
    assert check_whole(store) == 2
    publish_marked(store, 3, name="b", live=False)
    assert check_whole(store) == 2
    assert [one.name for one in store.editions()] == ["b", "a"]
    assert leftovers(store_url) == 2


def test_prune_keeps_the_newest_and_the_live_one(store: Store, store_url: str) -> None:
    for mark in range(6):
        publish_marked(store, mark)
    store.point("e0001")
    assert store.prune(2) == ["e0003", "e0002", "e0000"]
    assert [one.name for one in store.editions()] == ["e0005", "e0004", "e0001"]
    assert leftovers(store_url) == 3
    assert check_whole(store) == 1
    assert store.prune(0) == ["e0005", "e0004"]
    assert store.prune(0) == []


def test_pruned_under_a_reader(store: Store, store_url: str) -> None:
    with open_store(store_url) as reader:
        for mark in range(3):
            publish_marked(store, mark)
            assert check_found(reader, 5) == mark
            assert reader.find(5, edition="e0000") is not None
        store.prune(0)
        assert check_found(reader, 5) == 2
        with pytest.raises(NotFoundError):
            reader.find(5, edition="e0000")


def test_notes_are_kept_by_kind_and_name(store: Store, store_url: str) -> None:
    store.note("daily", "2027-01-14", {"users": 3})
    store.note("daily", "2027-01-15", {"users": 4, "odd": ["ü\0'", None, 1.5]})
    store.note("weekly", "2027-01-15", {"users": 5})
    store.note("daily", "2027-01-14", {"users": 9})
    with open_store(store_url) as other:
        notes = other.notes("daily")
        assert [(one.kind, one.name) for one in notes] == [
            ("daily", "2027-01-15"),
            ("daily", "2027-01-14"),
        ]
        assert [one.values["users"] for one in notes] == [4, 9]
        assert notes[0].values["odd"] == ["ü\0'", None, 1.5]
        assert notes[0].noted.tzinfo == UTC
        assert other.notes("daily", limit=1) == notes[:1]
        assert other.notes("hourly") == []


@pytest.mark.parametrize("name", ["", ".", "../a", "a b", "a/b", "é", "a" * 101, "a\n", "-a"])
def test_names_that_are_refused(store: Store, name: str) -> None:
    for call in (
        lambda: publish_marked(store, 1, name=name or " "),
        lambda: store.point(name),
        lambda: store.note("daily", name, {}),
        lambda: store.note(name, "daily", {}),
    ):
        with pytest.raises(ConfigError, match="name must begin with a letter or digit"):
            call()


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"", object()])
def test_values_that_json_cannot_say_are_refused(store: Store, value: Any) -> None:
    with pytest.raises(ConfigError, match="edition's facts must be what JSON can say"):
        store.publish("1", catalogue(), [], {"value": value})
    with pytest.raises(ConfigError, match="a note must be what JSON can say"):
        store.note("daily", "1", {"value": value})
    assert store.editions() == []


BAD: dict[str, list[list[dict[str, Any]]]] = {
    "must have one list": [[{"user_id": 1}, {"user_id": 2}], [{"user_id": 1}]],
    "one list in a card row, found a second one in 'main' for user 'ann'": [
        [{"user_id": "ann"}, {"user_id": "ann"}]
    ],
    "one fall-back list, found a second": [[{}], [{}]],
    "0 to 49, found -1 to 3": [[{"user_id": 1, "items": [3, -1], "scores": [1, 2]}]],
    "0 to 49, found 50 to 50": [[{"user_id": 1, "items": [50], "scores": [1]}]],
    "scores must be finite": [[{"user_id": 1, "items": [5], "scores": [float("nan")]}]],
    "found 2 items and 1 scores for user 1": [[{"user_id": 1, "items": [5, 6], "scores": [1]}]],
    "row must be known": [[{"user_id": 1, "row": None}, {"user_id": 2}]],
    "source must be known": [[{"user_id": 1, "source": None}, {"user_id": 2}]],
    "items must hold no null": [[{"user_id": 1, "items": [None], "scores": [1]}]],
    "items must be known": [[{"user_id": 1, "items": None}]],
    "one type in an edition, found text after int": [[{"user_id": 1}], [{"user_id": "1"}]],
    "whole numbers or text, found double": [[{"user_id": 1.5}]],
    "at most 16,384 items, found 16,385": [
        [{"user_id": 1, "items": [0] * 16_385, "scores": [0] * 16_385}]
    ],
}


@pytest.mark.parametrize("problem", BAD)
def test_lists_that_break_a_rule_leave_all_as_it_was(
    store: Store, store_url: str, problem: str
) -> None:
    publish_marked(store, 1)
    tables = [lists([{"user_id": user} for user in ("a", "b")])] if "ann" in problem else []
    with pytest.raises(DataError, match=problem):
        store.publish("2", catalogue(), [*tables, *map(lists, BAD[problem])], {})
    assert [one.name for one in store.editions()] == ["e0001"]
    assert check_whole(store) == 1
    assert leftovers(store_url) == 1
    publish_marked(store, 2)


def test_tables_of_other_columns_are_refused(store: Store) -> None:
    table = lists([{"user_id": 1}])
    with pytest.raises(DataError, match=r"a table of lists must have user_id, row, .*found no row"):
        store.publish("1", catalogue(), [table.drop_columns("row")], {})
    text = table.set_column(2, "items", pa.array(["5"]))
    with pytest.raises(DataError, match=r"items must be list<.*>.*found string"):
        store.publish("1", catalogue(), [text], {})
    big = table.set_column(0, "user_id", pa.array([2**63], pa.uint64()))
    with pytest.raises(DataError, match="fit into 64 bits"):
        store.publish("1", catalogue(), [big], {})


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        ([1, 1], "each item_id once, found 0 null and 1 different of 2"),
        ([1, None], "each item_id once, found 1 null"),
        (pa.array([2**64 - 1, 0], pa.uint64()), "item_id must be int64"),
    ],
)
def test_catalogues_that_are_refused(store: Store, ids: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        store.publish("1", pa.table({"item_id": ids, "title": ["a", "b"]}), [], {})
    with pytest.raises(DataError, match="the catalogue must have item_id, title, found no title"):
        store.publish("1", pa.table({"item_id": [1]}), [], {})


def test_other_forms_of_the_same_tables(store: Store) -> None:
    """Chunks, slices, wide lists, fixed lists, dictionaries, small integers."""
    plain = lists([{"user_id": user, "items": [user], "scores": [user]} for user in range(9)])
    forms = {
        "user_id": pa.int16(),
        "row": pa.dictionary(pa.int32(), pa.string()),
        "items": pa.list_(pa.int64(), 1),
        "scores": pa.large_list(pa.float64()),
        "source": pa.large_string(),
    }
    other = pa.table({name: plain[name].cast(kind) for name, kind in forms.items()})
    tables = [pa.concat_tables([other.slice(1, 3), other.slice(0, 1)]), other.slice(4)]
    store.publish("1", catalogue(), iter(tables), {})
    for user in range(9):
        found = store.find(user)
        assert found is not None
        assert (found.item_ids, found.scores) == ([user], [user])


def test_text_ids_of_items_and_missing_titles(store: Store) -> None:
    table = pa.table({"item_id": ["a'", "b"], "title": pa.array([None, "Ü"], pa.string())})
    store.publish("1", table, [lists([{"user_id": 1, "items": [1, 0], "scores": [2, 1]}])], {})
    found = store.find(1)
    assert found is not None
    assert (found.item_ids, found.titles) == (["b", "a'"], ["Ü", None])


def test_a_fault_of_whoever_gives_the_lists_leaves_all_as_it_was(
    store: Store, store_url: str
) -> None:
    def failing() -> Iterator[pa.Table]:
        yield from marked(2)
        raise ZeroDivisionError

    publish_marked(store, 1)
    with pytest.raises(ZeroDivisionError):
        store.publish("2", catalogue(), failing(), {})
    assert check_whole(store) == 1
    assert leftovers(store_url) == 1


def test_a_second_publisher_is_refused(store: Store, store_url: str) -> None:
    """Readers, notes, the pointer and pruning are not."""

    def meanwhile() -> Iterator[pa.Table]:
        yield from marked(3)
        with open_store(store_url) as other:
            with pytest.raises(ConflictError, match="found another at work"):
                publish_marked(other, 4)
            assert check_whole(other) == 2
            other.note("daily", "1", {})
            other.point("e0001")
            assert other.prune(1) == []
            assert other.prune(0) == ["e0002"]
            assert check_whole(other) == 1

    publish_marked(store, 1)
    publish_marked(store, 2)
    store.publish("e0003", catalogue(3), meanwhile(), {"mark": 3})
    assert check_whole(store) == 3
    publish_marked(store, 4)


def test_no_reader_sees_a_mixture(store: Store, store_url: str) -> None:
    """Six threads read while editions are published, replaced, pointed to and pruned."""
    publish_marked(store, 0, name="a")
    done = threading.Event()
    seen: set[int] = set()
    n_reads = [0] * 6

    def read(number: int, reader: Store) -> None:
        while not done.is_set():
            seen.add(check_found(reader, n_reads[number] % 40))
            n_reads[number] += 1

    with open_store(store_url) as other, ThreadPoolExecutor(6) as threads:
        reading = [threads.submit(read, number, (store, other)[number % 2]) for number in range(6)]

        def wait_until_all_have_read() -> None:
            # The second of two reads began after this moment.
            wanted = [n + 2 for n in n_reads]
            while any(n < more for n, more in zip(n_reads, wanted, strict=True)):
                assert not any(one.done() for one in reading)
                time.sleep(0.001)

        try:
            for mark in range(1, 25):
                publish_marked(store, mark, name="abc"[mark % 3])
                store.point(store.editions()[-1].name)
                wait_until_all_have_read()
                store.prune(mark % 3)
        finally:
            done.set()
        for one in reading:
            one.result()
    assert len(seen) > 10


def test_each_switch_is_seen_by_the_next_look_up(store: Store, store_url: str) -> None:
    with open_store(store_url) as reader:
        for mark in range(5):
            publish_marked(store, mark, name="ab"[mark % 2])
            assert check_found(reader, 4) == mark


@pytest.mark.parametrize(
    "url", ["", "sqlite:///", "sqlite://store", "mysql://root:secret@host/db", "store", "redis:"]
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="must be sqlite:///FOLDER or postgresql://") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


SECRET = "hunter2%25'"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:{}@127.0.0.1:1/db",
        "postgresql://ann@127.0.0.1:1/db?password={}",
        "postgresql://127.0.0.1:1/db?user=ann&password={}&sslmode=disable",
    ],
)
def test_a_password_is_told_to_nobody(url: str) -> None:
    store = open_store(url.format(SECRET))
    with pytest.raises(
        UnavailableError, match=r"127.0.0.1:1/db: the database must answer"
    ) as caught:
        store.editions()
    told = f"{store!r} {store} {caught.value} {caught.value.__cause__!r}"
    assert "hunter2" not in told
    assert repr(store) == "PostgresStore('postgresql://127.0.0.1:1/db')"


@pytest.mark.parametrize(
    "end", ["%zz@h/db", "@h:port/db", "@h/db?nonsense=1", "/x@h/db", "1/x@h/db", "@x@h/db"]
)
def test_a_url_that_cannot_be_read_is_told_to_nobody(end: str) -> None:
    with pytest.raises(ConfigError, match="%-codes for odd characters") as caught:
        open_store(f"postgresql://ann:hunter2{end}").editions()
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_an_idle_transaction_holds_nobody_up(postgres_url: str) -> None:
    """Its table is dropped when it has gone; nobody waits for it."""
    import psycopg  # noqa: PLC0415

    with open_store(postgres_url) as store, closing(psycopg.connect(postgres_url)) as idle:
        publish_marked(store, 1)
        for mark in (2, 3):
            idle.execute("SELECT count(*) FROM coterie.editions, coterie.pointer")
            for (table,) in idle.execute(
                "SELECT tablename FROM pg_tables WHERE tablename ~ '^lists_'"
            ).fetchall():
                idle.execute(f"SELECT count(*) FROM coterie.{table}".encode())
            publish_marked(store, mark)
        publish_marked(store, 4, name="e0003")
        assert store.prune(1) == ["e0002", "e0001"]
        assert check_whole(store) == 4
        assert leftovers(postgres_url) == 3
        idle.rollback()
        store.prune(1)
        assert leftovers(postgres_url) == 1


RIGHTS = """
DROP ROLE IF EXISTS publisher; DROP ROLE IF EXISTS reader;
CREATE ROLE publisher LOGIN; CREATE ROLE reader LOGIN;
CREATE SCHEMA coterie AUTHORIZATION publisher; GRANT USAGE ON SCHEMA coterie TO reader;
ALTER DEFAULT PRIVILEGES FOR ROLE publisher IN SCHEMA coterie GRANT SELECT ON TABLES TO reader;
ALTER ROLE publisher SET statement_timeout = '1s';
"""
NO_RIGHTS = "DROP SCHEMA coterie CASCADE; DROP ROLE publisher; DROP ROLE reader"


def test_a_reader_needs_rights_to_read_alone(postgres_url: str) -> None:
    """And a publisher those in its schema; limits for other users' statements are not for it."""
    import psycopg  # noqa: PLC0415

    def slowly() -> Iterator[pa.Table]:
        yield from marked(1)
        time.sleep(1.2)

    urls = [postgres_url.replace("//postgres:", f"//{who}:") for who in ("publisher", "reader")]
    with (
        closing(psycopg.connect(postgres_url, autocommit=True)) as owner,
        open_store(urls[0]) as store,
        open_store(urls[1]) as reader,
    ):
        owner.execute(RIGHTS)
        store.publish("1", catalogue(1), slowly(), {"mark": 1})
        assert check_whole(reader) == 1
        for call in (lambda: reader.point("1"), lambda: publish_marked(reader, 2)):
            with pytest.raises(CannotWriteError, match="must grant its rights"):
                call()
        assert check_whole(reader) == 1
        owner.execute(NO_RIGHTS)


def test_a_damaged_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}") as store:
        publish_marked(store, 1)
        publish_marked(store, 2)
        (file,) = (tmp_path / "editions").glob("e0002*")
        file.write_bytes(b"no database at all, but long enough" * 100)
        with pytest.raises(ArtifactError, match="must be a whole edition, found: file is not"):
            store.find(1)
        file.unlink()
        with pytest.raises(ArtifactError, match="point to another edition"):
            store.find(1)
        store.point("e0001")
        assert check_whole(store) == 1
