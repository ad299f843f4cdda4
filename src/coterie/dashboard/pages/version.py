"""One version: what it is, what it was held against, its gates, and what came of it."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq

from coterie.dashboard.charts import interval_figure
from coterie.dashboard.page import Asked, Column, Figure, Page, Table
from coterie.dashboard.pages.lineage import (
    NOT_KNOWN,
    comparisons,
    fields_table,
    metric_of_test,
    moves_table,
    relative,
    said,
    state_of,
    week_of,
)
from coterie.dashboard.sources import Sources
from coterie.registry import Version

WHAT_TO_DO = {
    "volume": "Look for a day that is missing or double; mend the events, run weekly again.",
    "known users": "User ids may have changed, or a part of the log is missing.",
    "known items": "Item ids may have changed, or the catalogue is a new one.",
    "live on new days": "Ids may have been mixed up, or the log is another one.",
    "live": "See the model's configuration; if taste has changed, promote it by hand.",
    "baselines": "Another model, or more epochs: a simple model does better.",
    "last eight": "The models slide downhill: run weekly --cold, which trains anew.",
    "cohorts": "Look at that group of users below; the others may still gain.",
    "distinct": "Lists are alike for everybody: run weekly --cold, which trains anew.",
    "coverage": "Too few titles are shown: another model, or a smaller bound.",
    "popularity": "Lists hold what is popular above all: another model, or a larger bound.",
    "turnover": "A change of model does this: if it was meant, promote it by hand.",
    "golden users": "The files do not give the same lists again: see disk and packages.",
}
"""By gate, when it has failed."""

_LISTS = {
    "coverage": "share of the catalogue that is in somebody's list",
    "distinct": "share of a list that another user's has not",
    "popularity": "popularity of lists over that of what people watch",
    "turnover": "share of the live lists that is kept",
}


def version(sources: Sources, asked: Asked) -> Page:
    """The page.

    Raises:
        NotFoundError: if the registry has no version of that name.
    """
    one = sources.registry.version(asked.text("version"))
    moves = sources.registry.moves
    others = [other.name for other in sources.registry.versions if other.name != one.name]
    return Page(
        f"Model {one.name}",
        "version.html.j2",
        {
            **_facts(one),
            "state": state_of(one, moves),
            "live": moves[-1].to if moves else None,
            "before": next(iter(sources.registry.lived[-2:-1]), None),
            "others": others[::-1],
            "against": _against(one),
            "cohorts": cohort_figures(comparisons(one)),
            "gates": _gates(one),
            "failed": [
                {"gate": name, "what_to_do": WHAT_TO_DO.get(name, "")}
                for name in one.card.get("failed", ())
            ],
            "lists": _lists(one),
            "starts": _starts(one),
            "data": data_table(one),
            "configuration": fields_table(
                "configuration", "Field and value.", one.card.get("config", {})
            ),
            "moves": moves_table([move for move in moves if one.name in (move.to, move.was)]),
            "runs": list(_runs(sources, one)),
            "folder": shlex.quote(str(sources.folder)),
        },
    )


def _facts(one: Version) -> dict[str, Any]:
    card = one.card
    return {
        "name": one.name,
        "week": week_of(one),
        "metric": card.get("metric"),
        "value": metric_of_test(one),
        "test_users": card.get("test", {}).get("users"),
        "parent": card.get("parent"),
        "arm": card.get("config", {}).get("model", {}).get("name") if one.is_arm else None,
        "took": card.get("seconds", {}).get("all"),
        "trained": card.get("seconds", {}).get("train"),
        "created": card.get("created"),
        "by": card.get("by"),
    }


def _against(one: Version) -> Figure:
    columns = [
        Column("held against", "text"),
        Column("gain", "lift"),
        Column("from", "lift"),
        Column("to", "lift"),
        Column("it"),
        Column("the other"),
        Column("users", "count"),
        Column("which is", "text"),
    ]
    rows = []
    for name, found in comparisons(one).items():
        gain, low, high = relative(found)
        rows.append([name, gain, low, high, found.get("candidate"), found.get("other"),
                     found.get("users"), said(low, high)])  # fmt: skip
    told = "On the same users and the items that both know; the interval is of 90 %."
    title = f"{one.card.get('metric')} over other models, on the same users (90 %)"
    return interval_figure(Table("against", told, columns, rows), title)


def cohort_figures(found: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """Of each comparison that has them, the live model's and the baselines' first: gains of users
    of like activity.
    """
    return [
        _cohort_figure(number, name, one["cohorts"])
        for number, (name, one) in enumerate(found.items())
        if one.get("cohorts")
    ][:3]


def _cohort_figure(number: int, name: str, cohorts: Mapping[str, Mapping[str, Any]]) -> Figure:
    columns = [
        Column("titles of a user", "text"),
        Column("gain", "lift"),
        Column("from", "lift"),
        Column("to", "lift"),
        Column("it"),
        Column("the other"),
        Column("users", "count"),
    ]
    rows = [
        [cohort, *relative(one), one.get("candidate"), one.get("other"), one.get("users")]
        for cohort, one in sorted(cohorts.items(), key=lambda named: _least(named[0]))
    ]
    table = Table(f"cohorts-{number}", "Users by how many titles they have.", columns, rows)
    return interval_figure(table, f"Over {name}, by titles of a user")


def _least(cohort: str) -> int:
    """The fewest titles of a cohort: a card has them by their names, not in their order."""
    digits = re.match(r"\d+", cohort)
    return int(digits[0]) if digits else 0


def _gates(one: Version) -> Table:
    columns = [
        Column("gate", "text"),
        Column("verdict", "text"),
        Column("value"),
        Column("must be", "text"),
        Column("what the value is", "text"),
    ]
    rows = [
        [gate["name"], _verdict(gate), gate["value"], gate["bound"], gate["about"]]
        for gate in one.card.get("gates", ())
    ]
    rows.sort(key=lambda row: row[1] != "failed")
    return Table("gates", "What it had to hold to become live.", columns, rows)


def _verdict(gate: Mapping[str, Any]) -> str:
    if not gate["passed"]:
        return "failed"
    return f"passed: {NOT_KNOWN}" if gate["value"] is None else "passed"


def _lists(one: Version) -> Table:
    lists = one.card.get("lists", {})
    columns = [Column("figure", "text"), Column("value"), Column("what it is", "text")]
    rows = [[name, lists[name], about] for name, about in _LISTS.items() if name in lists]
    return Table("lists", "What its lists look like, on its test.", columns, rows)


def _starts(one: Version) -> Table:
    training = one.card.get("training", {})
    columns = [
        Column("start", "text"),
        Column("validation users"),
        Column("epochs", "count"),
        Column("chosen"),
    ]
    rows = [
        [name, start.get("validation"), start.get("epochs"), name == training.get("start")]
        for name, start in training.get("starts", {}).items()
    ]
    told = "Warm: training went on from the live model. Cold: it began anew."
    return Table("starts", told, columns, rows)


def data_of(one: Version) -> dict[str, Any]:
    """What a version was trained on; what an older card does not say is None."""
    card, window = one.card, one.card.get("window", [None, None])
    return {
        "week": week_of(one),
        "first day": window[0],
        "last day": window[1],
        "days with events": card.get("days"),
        "events": card.get("events"),
        "users": card.get("users"),
        "items": card.get("items") or _n_items(one),
        "data": str(card.get("data"))[:12],
    }


def data_table(one: Version) -> Table:
    """The same as a table."""
    return fields_table("data", "What it was trained on.", data_of(one))


def _n_items(one: Version) -> int | None:
    path = one.model / "items.parquet"
    return int(pq.read_metadata(path).num_rows) if path.is_file() else None


def _runs(sources: Sources, one: Version) -> Iterator[str]:
    """Run folders of its week that are still there."""
    week = sources.of_service.work / "weekly" / week_of(one)
    for name in () if one.is_arm else ("warm", "cold", "refit"):
        if (week / name / "config.json").is_file():
            yield f"{week.name}/{name}"
