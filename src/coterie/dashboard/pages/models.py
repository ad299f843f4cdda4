"""Models: every version, how it came to be, how it did, and which is live."""

import shlex
from collections.abc import Sequence
from typing import Any

from coterie.dashboard.charts import interval_figure, line_figure
from coterie.dashboard.page import Asked, Column, Figure, Page, Table
from coterie.dashboard.pages.lineage import (
    comparisons,
    metric_of_test,
    moves_table,
    relative,
    said,
    state_of,
    week_of,
)
from coterie.dashboard.pages.version import version
from coterie.dashboard.sources import Sources
from coterie.dashboard.timelines import lineage_figure
from coterie.registry import Move, Version


def models(sources: Sources, asked: Asked) -> Page:
    """All of them; with ``version`` in the query that one."""
    if asked.text("version"):
        return version(sources, asked)
    versions, moves = sources.registry.versions, sources.registry.moves
    trials = [one for one in versions if not one.is_arm]
    return Page(
        "Models",
        "models.html.j2",
        {
            "folder": shlex.quote(str(sources.folder)),
            "live": moves[-1].to if moves else None,
            "before": moves[-1].was if moves else None,
            "pairs": [one.name for one in versions][::-1],
            "lineage": lineage_figure(_lineage(versions, moves), "How versions came to be"),
            "gains": _gains(trials),
            "levels": _levels(trials),
            "versions": _versions(versions, moves),
            "moves": moves_table(moves),
        },
    )


def _lineage(versions: Sequence[Version], moves: Sequence[Move]) -> Table:
    columns = [
        Column("version", "version"),
        Column("week", "text"),
        Column("for an experiment", "text"),
        Column("held against", "version"),
        Column("state", "text"),
    ]
    rows = [
        [one.name, week_of(one), _arm(one), one.card.get("parent"), state_of(one, moves)]
        for one in versions
    ]
    told = "A row a version, with the live one that it was held against, and began from if warm."
    return Table("lineage", told, columns, rows)


def _arm(one: Version) -> str | None:
    """The model of an experiment's arm."""
    return str(one.card.get("config", {}).get("model", {}).get("name")) if one.is_arm else None


def _versions(versions: Sequence[Version], moves: Sequence[Move]) -> Table:
    columns = [
        Column("version", "version"),
        Column("state", "text"),
        Column("model", "text"),
        Column("start", "text"),
        Column("own test"),
        Column("over live", "lift"),
        Column("which is", "text"),
        Column("gates", "text"),
        Column("took", "seconds"),
        Column("by", "text"),
    ]
    rows = [_row(one, moves) for one in reversed(versions)]
    told = "The newest first. Own test: the metric of the gates on the version's own last days."
    return Table("versions", told, columns, rows)


def _row(one: Version, moves: Sequence[Move]) -> list[Any]:
    card = one.card
    gain, low, high = relative(card.get("against", {}).get("live"))
    state = state_of(one, moves)
    return [
        one.name,
        f"{state}, for an experiment" if one.is_arm else state,
        card.get("config", {}).get("model", {}).get("name"),
        card.get("training", {}).get("start"),
        metric_of_test(one),
        gain,
        said(low, high),
        "failed: " + ", ".join(card["failed"]) if card.get("failed") else "passed",
        card.get("seconds", {}).get("all"),
        card.get("by"),
    ]


def _gains(trials: Sequence[Version]) -> Figure:
    columns = [
        Column("version", "version"),
        Column("over live", "lift"),
        Column("from", "lift"),
        Column("to", "lift"),
    ]
    rows = [[one.name, *relative(one.card["against"]["live"])] for one in _held(trials, "live")]
    title = "Each version over the one that was live before it, on the same users (90 %)"
    told = "Relative difference and the ends of its 90 % interval."
    return interval_figure(Table("gains", told, columns, rows), title)


def _held(trials: Sequence[Version], other: str) -> list[Version]:
    return [one for one in trials if other in one.card.get("against", {})]


def _levels(trials: Sequence[Version]) -> Figure:
    """By week, each model by itself: weeks differ in how hard they are, models in a week do not."""
    metric = str(trials[-1].card.get("metric")) if trials else "metric"
    columns = [Column("week", "text"), Column("the version"), Column("EASE"), Column("popularity")]
    rows = [[week_of(one), metric_of_test(one), *map(_other(one), columns[2:])] for one in trials]
    title = f"{metric} on each week's last days: the version and the two baselines"
    return line_figure(Table("levels", "A row a version.", columns, rows), title)


def _other(one: Version) -> Any:
    found = comparisons(one)
    return lambda column: found.get(column.name, {}).get("other")
