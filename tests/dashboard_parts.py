"""What the tests of the dashboard's pages share: services that are odd, and brute force."""

import time
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from starlette.testclient import TestClient

from coterie.dashboard import create_dashboard
from coterie.jobs.config import Service
from coterie.store import open_store
from small_service import at, configure, write_events

WINDOW = timedelta(days=49)
HOSTILE = {
    "<script>alert(1)</script>": "<img src=x onerror=alert(1)>",
    "..": '"><script>alert(2)</script>',
    "a/b?c#d": "{{ 7 * 7 }} {% raw %}",
    "a&b=c": "שלום \u202eevil\u202c \u2067עולם",
    "🦄": "🦄" * 200,
    "x" * 300: "long " * 2000,
    "' OR 1=1; --": "W" * 10_000,
    "%00%2e%2e": "null\0inside\x1b[31m",
}
"""Titles by ids, none of which is harmless everywhere."""


def visitor(folder: str | Path, **options: Any) -> TestClient:
    """Somebody on this machine, without a browser, and the dashboard of a folder."""
    return TestClient(create_dashboard(folder, **options), base_url="http://127.0.0.1")


def told(client: TestClient, path: str, **query: Any) -> dict[str, Any]:
    """A page's JSON, once nothing is being read any more."""
    for _ in range(600):
        answer = client.get(path, params=query)
        if "data-again" not in answer.text:
            break
        time.sleep(0.1)
    found: dict[str, Any] = client.get(f"{path}.json", params=query).json()
    return found


def events_of(folder: Path, day: date, window: timedelta = WINDOW) -> list[dict[str, Any]]:
    """Every event before a day, from the files that the service reads."""
    days = [day - window + timedelta(days=n) for n in range(window.days)]
    paths = [folder / "events" / f"day={one}" / "events.parquet" for one in days]
    return [row for path in paths if path.exists() for row in pq.read_table(path).to_pylist()]


def histories_of(events: Sequence[Mapping[str, Any]]) -> dict[Any, dict[Any, int]]:
    """By user and item when it was watched last."""
    found: dict[Any, dict[Any, int]] = {}
    for one in events:
        items = found.setdefault(one["user_id"], {})
        items[one["item_id"]] = max(one["timestamp"], items.get(one["item_id"], 0))
    return found


def odd_service(folder: Path, day: date, names: Mapping[str, str], facts: Any = None) -> Service:
    """A service without a model, whose ids are texts: each of its users is called as a title is,
    watched that title and the next, and gets all titles.
    """
    titles = {"path": "titles.parquet", "kind_column": "kind"}
    service = configure(folder, {"titles": titles, "prepare": {"window_days": 7}})
    ids = list(names)
    columns = {"item_id": ids, "title": list(names.values()), "kind": ["<b>kind</b>"] * len(ids)}
    pq.write_table(pa.table(columns), folder / "titles.parquet")
    before = day - timedelta(days=1)
    rows = [
        (user, item, at(before))
        for place, user in enumerate(ids)
        for item in (user, ids[place - 1])
    ]
    path = write_events(folder, before, rows)
    (folder / "work" / "days").mkdir(parents=True)
    path.rename(folder / "work" / "days" / f"{before}.parquet")
    publish(service, day, names, facts)
    return service


def publish(service: Service, day: date, names: Mapping[str, str], facts: Any = None) -> None:
    """Everybody gets all titles, and nobody's list is the first title."""
    ids = list(names)
    table = pa.table({"item_id": ids, "title": list(names.values())})
    lists = {
        "user_id": [*ids, None],
        "row": ["main"] * (len(ids) + 1),
        "items": pa.array([list(range(len(ids)))] * len(ids) + [[0]], pa.list_(pa.int32())),
        "scores": [[1.0] * len(ids)] * len(ids) + [[1.0]],
        "source": ["model"] * len(ids) + ["popularity"],
    }
    with open_store(service.place(service.config.store.url)) as store:
        store.publish(str(day), table, [pa.table(lists)], facts or {"version": "none"})
