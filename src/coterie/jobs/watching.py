"""What is watched of every daily run: figures, the bounds beyond which they warn, and their text
for Prometheus.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coterie.data.ids import IdMap
from coterie.jobs.config import WatchConfig
from coterie.jobs.events import Day
from coterie.store import Store

HELP = {
    "users": "Users with a list of their own",
    "fallback_share": "Share of them of whom the model knows no item",
    "coverage": "Share of the catalogue in somebody's list",
    "overlap": "Share of a list that was in yesterday's, on average",
    "popularity": "Mean popularity of lists over that of what was watched yesterday",
    "events": "Events of yesterday",
    "events_over_usual": "They, over the median of the same weekday in four weeks",
    "active_users": "Users with an event yesterday",
    "events_per_user": "Events of each of them, on average",
    "new_items": "Items of yesterday that the model does not know",
    "unknown_items": "Share of yesterday's events with such items",
    "model_age_days": "Days since the last event that the model was trained on",
    "seconds": "Duration of the run",
    "peak_mib": "Its peak memory",
}
"""Every figure, with what it is."""

_SAMPLE = 1_000


@dataclass(frozen=True)
class Watched:
    """What a day's figures are computed from.

    Args:
        items: The model's.
        popularity: ``[n_items]`` its training users of each.
        days: Collected days, the last of which is the day before.
        day: The lists are for it.
    """

    items: IdMap
    popularity: np.ndarray
    days: Sequence[Day]
    day: date

    def of_lists(self, shards: Sequence[Path]) -> dict[str, float | None]:
        """Coverage and popularity of a card row's lists."""
        shown = np.zeros(len(self.items), dtype=np.int64)
        for path in shards:
            ids = pq.read_table(path, columns=["item_id"])["item_id"]
            shown += np.bincount(self.items.index_of(ids), minlength=len(shown))
        total, watched = shown.sum(), self._watched()
        usual = _mean(self.popularity, watched[watched >= 0])
        mean = float(shown @ self.popularity / total) if total else None
        return {
            "coverage": float((shown > 0).mean()) if len(shown) else None,
            "popularity": mean / usual if mean is not None and usual else None,
        }

    def of_events(self) -> dict[str, float | None]:
        """What came in yesterday."""
        yesterday = self._yesterday()
        if yesterday is None:
            return {"events": 0, "active_users": 0, "events_over_usual": 0.0}
        index = self._watched()
        events = {one.day: one.n_events for one in self.days}
        before = [events.get(yesterday.day - timedelta(weeks=n)) for n in range(1, 5)]
        usual = [count for count in before if count]
        ids = pq.read_table(yesterday.path, columns=["item_id"])["item_id"].combine_chunks()
        new = ids.filter(pa.array(index < 0))
        return {
            "events": yesterday.n_events,
            "active_users": yesterday.n_users,
            "events_per_user": yesterday.n_events / max(yesterday.n_users, 1),
            "events_over_usual": yesterday.n_events / median(usual) if usual else None,
            "new_items": len(new.unique()),
            "unknown_items": float((index < 0).mean()) if len(index) else 0.0,
        }

    def _yesterday(self) -> Day | None:
        there = self.days and self.days[-1].day == self.day - timedelta(days=1)
        return self.days[-1] if there else None

    def _watched(self) -> np.ndarray:
        """``[n]`` the model's items of yesterday's events, -1 for those that it does not know."""
        yesterday = self._yesterday()
        if yesterday is None:
            return np.empty(0, dtype=np.int64)
        ids = pq.read_table(yesterday.path, columns=["item_id"])["item_id"]
        return self.items.index_of(ids)


def _mean(values: np.ndarray, index: np.ndarray) -> float:
    return float(values[index].mean()) if len(index) else 0.0


def overlap(store: Store, lists: pa.Table, items: IdMap, edition: str) -> float | None:
    """The mean share of a user's list that was in their list of an earlier edition.

    Args:
        store: With that edition.
        lists: One row a user, as they are published.
        items: The catalogue of ``lists``.
        edition: The earlier one.
    """
    shares = []
    for one in lists.slice(0, _SAMPLE).to_pylist():
        before = store.find(one["user_id"], one["row"], edition=edition)
        ids = items.ids_of(one["items"])
        if before is not None and ids:
            shares.append(len(set(ids) & set(before.item_ids)) / len(ids))
    return sum(shares) / len(shares) if shares else None


def warnings(config: WatchConfig, figures: Mapping[str, Any]) -> Iterator[str]:
    """Every bound that figures pass, in words, with what to do."""
    at_most = {
        "fallback_share": (config.fallback_share, "look at the ids of events and model"),
        "unknown_items": (config.unknown_items, "train (coterie weekly): the catalogue has moved"),
        "model_age_days": (config.model_age_days, "run coterie weekly, or see why it failed"),
    }
    for name, (bound, what) in at_most.items():
        if figures.get(name) is not None and figures[name] > bound:
            yield f"{_said(name, figures)}, at most {bound:g} is expected; {what}."
    if figures.get("overlap") is not None and figures["overlap"] < config.overlap:
        yield (
            f"{_said('overlap', figures)}, at least {config.overlap:g} is expected; compare the"
            " days, roll back if the lists are wrong."
        )
    usual, (low, high) = figures.get("events_over_usual"), config.volume
    if usual is not None and not low <= usual <= high:
        yield (
            f"{_said('events_over_usual', figures)}, {low:g} to {high:g} is expected; look for what"
            " is missing or double in the log."
        )


def _said(name: str, figures: Mapping[str, Any]) -> str:
    return f"{name.replace('_', ' ')}: {HELP[name].lower()}: {figures[name]:.4g}"


def prometheus(figures: Mapping[str, Any], n_warnings: int) -> str:
    """The figures of the last daily run as Prometheus reads them.

    Example:
        >>> print(prometheus({"users": 3}, 0), end="")
        # HELP coterie_daily_users Users with a list of their own
        # TYPE coterie_daily_users gauge
        coterie_daily_users 3
        # HELP coterie_daily_warnings Bounds that were passed
        # TYPE coterie_daily_warnings gauge
        coterie_daily_warnings 0
    """
    known = {name: (HELP[name], figures[name]) for name in HELP if figures.get(name) is not None}
    known["warnings"] = ("Bounds that were passed", n_warnings)
    lines = [
        f"# HELP coterie_daily_{name} {about}\n# TYPE coterie_daily_{name} gauge\n"
        f"coterie_daily_{name} {value:.10g}\n"
        for name, (about, value) in known.items()
    ]
    return "".join(lines)
