"""Events of an experiment small enough for tests, as files, and their sums as the rules read."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coterie.experiment import Arms, EventSources, Metric, Window

FIRST = date(2026, 3, 2)
NAME = "lists"
WEIGHTS = {"control": 0.5, "treatment": 0.5}

SCHEMAS = {
    "exposures": pa.schema(
        [
            ("user_id", pa.int64()),
            ("time", pa.int64()),
            ("card", pa.string()),
            ("item_id", pa.int64()),
            ("experiment", pa.string()),
            ("arm", pa.string()),
            ("event_id", pa.string()),
        ]
    ),
    "outcomes": pa.schema(
        [
            ("user_id", pa.int64()),
            ("time", pa.int64()),
            ("kind", pa.string()),
            ("card", pa.string()),
            ("item_id", pa.int64()),
            ("value", pa.float64()),
            ("event_id", pa.string()),
        ]
    ),
}

Row = Mapping[str, Any]


def at(day: int, second: int = 43_200) -> int:
    """Seconds since 1970 of a moment of a day, counted from the first."""
    midnight = datetime.combine(FIRST, datetime.min.time(), UTC)
    return int(midnight.timestamp()) + day * 86_400 + second


def seen(user: int | None, day: int, card: str = "movie", **more: Any) -> dict[str, Any]:
    """An exposure."""
    return {"user_id": user, "time": at(day), "card": card, "item_id": 1} | more


def did(user: int | None, day: int, kind: str = "click", **more: Any) -> dict[str, Any]:
    """An outcome."""
    return {"user_id": user, "time": at(day), "kind": kind, "card": "movie", "item_id": 1} | more


def write(
    folder: Path,
    exposures: Iterable[tuple[int, Row]],
    outcomes: Iterable[tuple[int, Row]] = (),
) -> EventSources:
    """Writes rows, each with the number of the day on which it arrived."""
    for kind, rows in (("exposures", exposures), ("outcomes", outcomes)):
        by_day = defaultdict(list)
        for day, row in rows:
            by_day[day].append(dict(row))
        for day, group in by_day.items():
            place = folder / kind / f"day={FIRST + timedelta(days=day)}"
            place.mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist(group, schema=SCHEMAS[kind])
            pq.write_table(table, place / "part-0.parquet")
    return EventSources(
        exposures=f"{folder}/exposures/day=%Y-%m-%d", outcomes=f"{folder}/outcomes/day=%Y-%m-%d"
    )


def in_time(rows: Iterable[Row]) -> list[tuple[int, Row]]:
    """Rows that arrive on their day."""
    return [((row["time"] - at(0, 0)) // 86_400, row) for row in rows]


def window(n_days: int, before_days: int = 0) -> Window:
    """So many days from the first."""
    return Window(FIRST, FIRST + timedelta(days=n_days - 1), before_days)


def arms_of(arms: Mapping[int, str | None], **more: Sequence[Any]) -> Arms:
    """The arms of some users."""
    users = {"user_id": pa.array(list(arms), pa.int64()), "arm": pa.array(list(arms.values()))}
    return Arms(NAME, WEIGHTS, pa.table(users | more))


def columns_by_hand(
    exposures: Iterable[tuple[int, Row]],
    outcomes: Iterable[tuple[int, Row]],
    arms: Mapping[int, str | None],
    metric: Metric,
    arm: str,
    *,
    days: Window,
    until: int,
    cap: int = 1000,
) -> np.ndarray:
    """``[n, 4]``: numerator, denominator, and both before, of each user of an arm, by the rules one
    after another, a row at a time.
    """
    views = _counting(exposures, days)
    done = [
        row
        for row in _counting(outcomes, days)
        if row["kind"] == "click" or (row["kind"] == "watch" and _is_span(row.get("value")))
    ]
    found = []
    for user, his in sorted(arms.items()):
        mine = [row for row in views if row["user_id"] == user]
        in_window = [row["time"] for row in mine if 0 <= _day(row) <= until]
        a_day: dict[int, int] = defaultdict(int)
        for row in mine:
            a_day[_day(row)] += _day(row) <= until
        if his != arm or not in_window or max(a_day.values()) > cap:
            continue
        acts = [
            row
            for row in done
            if row["user_id"] == user and (_day(row) < 0 or row["time"] >= min(in_window))
        ]
        parts = [range(until + 1), range(-days.before_days, 0)]
        found.append(
            [
                _measure(one, mine, acts, part, metric.card)
                for part in parts
                for one in (metric.numerator, metric.denominator)
            ]
        )
    return np.array(found, dtype=np.float64).reshape(-1, 4)


def _day(row: Row) -> int:
    return int((row["time"] - at(0, 0)) // 86_400)


def _is_span(value: float | None) -> bool:
    return value is not None and 0 <= value <= 7 * 86_400


def _counting(rows: Iterable[tuple[int, Row]], days: Window) -> list[Row]:
    """Rows of the window that count, each once; of those with an event's id, one."""
    once: dict[Any, Row] = {}
    for arrived, row in rows:
        if row["user_id"] is None or row["time"] is None:
            continue
        if not 0 <= arrived - _day(row) <= EventSources().late_days:
            continue
        if not -days.before_days <= _day(row) < days.n_days:
            continue
        key: Any = row.get("event_id")
        once[key or tuple(sorted((name, str(value)) for name, value in row.items()))] = row
    return list(once.values())


def _measure(
    measure: str, views: Sequence[Row], acts: Sequence[Row], part: range, card: str | None
) -> float:
    def of(rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if _day(row) in part and card in (None, row["card"])]

    clicks = [row for row in of(acts) if row["kind"] == "click"]
    viewed, clicked = {_day(row) for row in of(views)}, {_day(row) for row in clicks}
    measures: dict[str, float] = {
        "users": 1.0,
        "views": len(of(views)),
        "clicks": len(clicks),
        "watch": sum(row["value"] for row in of(acts) if row["kind"] == "watch"),
        "view_days": len(viewed),
        "click_days": len(clicked),
        "unseen_days": len(clicked - viewed),
    }
    return measures[measure]
