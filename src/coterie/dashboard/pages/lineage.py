"""What the registry says of versions, in words and tables that several pages share."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from coterie.config import RunConfig
from coterie.dashboard.page import Column, Table
from coterie.errors import ConfigError
from coterie.registry import Move, Version

NAMES = {"ease": "EASE", "popularity": "popularity"}
"""Of baselines, by their names on cards."""

NOT_KNOWN = "nothing to compare"


def said(low: float | None, high: float | None) -> str:
    """What an interval of a difference says.

    Example:
        >>> said(-0.1, 0.2), said(0.01, 0.2), said(None, None)
        ('cannot be told apart', 'better, beyond chance', 'nothing to compare')
    """
    if low is None or high is None:
        return NOT_KNOWN
    if low > 0:
        return "better, beyond chance"
    return "worse, beyond chance" if high < 0 else "cannot be told apart"


def relative(found: Mapping[str, Any] | None) -> list[float | None]:
    """A comparison's difference and the ends of its interval, over the mean of the other model."""
    values = [None if found is None else found.get(name) for name in ("difference", "low", "high")]
    mean = None if found is None else found.get("other")
    return [None if value is None or not mean else value / mean for value in values]


def state_of(version: Version, moves: Sequence[Move]) -> str:
    """``live``, ``was live``, ``passed`` or ``failed``."""
    if moves and moves[-1].to == version.name:
        return "live"
    if any(move.to == version.name for move in moves):
        return "was live"
    return "passed" if version.passed else "failed"


def week_of(version: Version) -> str:
    """Its week as in ``2026-W47``; of a card that names none its name's beginning."""
    try:
        year, week, _ = date.fromisoformat(version.card["week"]).isocalendar()
    except (KeyError, TypeError, ValueError):
        return version.name[:8]
    return f"{year}-W{week:02d}"


def metric_of_test(version: Version) -> float | None:
    """Its value by the metric of the gates, on its own test."""
    value: float | None = version.card.get("test", {}).get(version.card.get("metric"))
    return value


def moved(move: Move) -> str:
    """What a move was, in words."""
    if move.forced:
        return "promoted by force"
    return {"promote": "promoted", "rollback": "rolled back to"}.get(move.kind, move.kind)


def moves_table(moves: Iterable[Move]) -> Table:
    """The newest first."""
    columns = [
        Column("time", "text"),
        Column("what", "text"),
        Column("version", "version"),
        Column("live before", "version"),
        Column("by", "text"),
        Column("because", "text"),
    ]
    rows = [
        [one.time[:16].replace("T", " "), moved(one), one.to, one.was, one.by, one.because]
        for one in moves
    ]
    told = "Every change of what is live, the newest first (UTC)."
    return Table("moves", told, columns, rows[::-1])


def comparisons(version: Version) -> dict[str, Mapping[str, Any]]:
    """What it was held against as it was made, by the name that people know it by."""
    parent = version.card.get("parent")
    told = {"live": f"live then: {parent}" if parent else "live then", **NAMES}
    against: Mapping[str, Mapping[str, Any]] = version.card.get("against", {})
    first = [name for name in told if name in against]
    others = [name for name in against if name not in told]
    return {told.get(name, name): against[name] for name in [*first, *others]}


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted names; lists as text.

    Example:
        >>> flat({"model": {"name": "ease", "dims": [2, 3]}})
        {'model.name': 'ease', 'model.dims': '[2, 3]'}
    """
    found = dict[str, Any]()
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = str(value) if isinstance(value, list | tuple) else value
    return found


def whole(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration with what later versions added, as it was before there was a choice; one
    that cannot be read as it is.
    """
    try:
        return RunConfig.of(config).as_json()
    except ConfigError:
        return config


def differences_table(name: str, sides: Mapping[str, Mapping[str, Any]]) -> Table:
    """Fields of configurations that are not the same everywhere, one column a side.

    Args:
        name: Of the table.
        sides: Configurations by their heads; a head is no head twice.
    """
    found = [flat(values) for values in sides.values()]
    fields = list(dict.fromkeys(field for one in found for field in one))
    rows = [
        [field, *(_plain(one.get(field)) for one in found)]
        for field in fields
        if any(one.get(field) != found[0].get(field) for one in found[1:])
    ]
    columns = [Column("field", "text"), *(Column(head, "text") for head in sides)]
    return Table(name, "Fields that differ; all others are the same.", columns, rows)


def fields_table(name: str, caption: str, values: Mapping[str, Any]) -> Table:
    """A row a field."""
    rows = [[field, _plain(value)] for field, value in flat(values).items()]
    return Table(name, caption, [Column("field", "text"), Column("value", "text")], rows)


def _plain(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.0f}"
    return None if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
