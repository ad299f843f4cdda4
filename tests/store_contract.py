"""Lists and catalogues that tell where they came from, for the tests of stores."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from coterie.store import Store

N_ITEMS = 50


def catalogue(mark: int = 0, n_items: int = N_ITEMS) -> pa.Table:
    """Titles that tell the edition's mark; item ids do, too."""
    return pa.table(
        {
            "item_id": pa.array([1000 * mark + item for item in range(n_items)], pa.int64()),
            "title": pa.array([f"{mark}-{item}" for item in range(n_items)], pa.string()),
        }
    )


def lists(rows: Iterable[Mapping[str, Any]], users: pa.DataType | None = None) -> pa.Table:
    """A table of lists; what a row leaves out is usual."""
    usual: dict[str, Any] = {
        "user_id": None,
        "row": "main",
        "items": [],
        "scores": [],
        "source": "model",
    }
    full = [{**usual, **row} for row in rows]
    kinds = {"items": pa.list_(pa.int32()), "scores": pa.list_(pa.float32()), "user_id": users}
    columns = {name: [row[name] for row in full] for name in usual}
    return pa.table({name: pa.array(of, kinds.get(name)) for name, of in columns.items()})


def marked(mark: int, n_users: int = 40, n_tables: int = 3) -> Iterator[pa.Table]:
    """Users 0, 1, … with lists whose scores are the mark, and a fall-back."""
    yield lists([{"items": [mark % N_ITEMS], "scores": [mark], "source": "popularity"}])
    for number in range(n_tables):
        users = range(number, n_users, n_tables)
        items = [list(range(user % 5 + 1)) for user in users]
        yield lists(
            [
                {"user_id": user, "items": few, "scores": [float(mark)] * len(few)}
                for user, few in zip(users, items, strict=True)
            ]
        )


def publish_marked(store: Store, mark: int, *, name: str = "", live: bool = True) -> None:
    """An edition all of which tells its mark."""
    store.publish(name or f"e{mark:04}", catalogue(mark), marked(mark), {"mark": mark}, live=live)


def check_whole(store: Store, n_users: int = 40) -> int:
    """Every user's list in the live edition tells the same mark, which is returned."""
    live = store.live()
    assert live is not None
    mark: int = live.facts["mark"]
    assert live.n_users == n_users
    for user in range(n_users):
        assert check_found(store, user) == mark
    return mark


def check_found(store: Store, user: int) -> int:
    """One list is all of one edition, whose mark is returned."""
    found = store.find(user)
    assert found is not None
    mark: int = found.facts["mark"]
    assert found.item_ids == [1000 * mark + item for item in range(user % 5 + 1)]
    assert found.titles == [f"{mark}-{item}" for item in range(user % 5 + 1)]
    assert found.scores == [float(mark)] * (user % 5 + 1)
    return mark


def everybody(store: Store, row: str = "main", edition: str | None = None) -> dict[Any, Any]:
    """Everybody's list in a card row, read in pages."""
    batches = list(store.lists(row, edition=edition))
    assert all(len(batch) for batch in batches)
    rows = [one for batch in batches for one in batch.to_pylist()]
    found = {one["user_id"]: one["item_ids"] for one in rows}
    assert len(found) == len(rows)
    return found


def leftovers(url: str) -> int:
    """Files or tables of lists that are there, of editions and of none."""
    if url.startswith("sqlite"):
        return len(list((Path(url.removeprefix("sqlite:///")) / "editions").iterdir()))
    import psycopg  # noqa: PLC0415

    query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'coterie' AND tablename ~ '^lists_'"
    with psycopg.connect(url) as connection:
        found = connection.execute(query).fetchone()
    assert found is not None
    return int(found[0])
