"""Two versions side by side: is one better, and what is different?"""

from collections.abc import Mapping
from typing import Any

from coterie.dashboard.charts import interval_figure
from coterie.dashboard.page import Asked, Column, Figure, Page, Table
from coterie.dashboard.pages.lineage import (
    NAMES,
    differences_table,
    metric_of_test,
    relative,
    said,
    state_of,
    whole,
)
from coterie.dashboard.pages.version import cohort_figures, data_of
from coterie.dashboard.sources import Sources
from coterie.errors import ConfigError
from coterie.registry import Version


def compare_versions(sources: Sources, asked: Asked) -> Page:
    """The page: ``a`` over ``b``.

    Raises:
        ConfigError: if two are not named.
        NotFoundError: if one of them is not there.
    """
    names = asked.text("a"), asked.text("b")
    if not all(names) or names[0] == names[1]:
        raise ConfigError(
            f"two different versions must be named, as a and b, found {names[0]!r} and"
            f" {names[1]!r}; choose them on the page of models."
        )
    a, b = (sources.registry.version(name) for name in names)
    found, moves = paired(a, b), sources.registry.moves
    return Page(
        f"{a.name} over {b.name}",
        "versions.html.j2",
        {
            "a": a.name,
            "b": b.name,
            "states": {one.name: state_of(one, moves) for one in (a, b)},
            "pairs": [one.name for one in sources.registry.versions][::-1],
            "metric": a.card.get("metric"),
            "paired": found,
            "verdict": None if found is None else said(found["low"], found["high"]),
            "overall": None if found is None else _overall(a, b, found),
            "cohorts": [] if found is None else cohort_figures({b.name: found}),
            "partners": {one.name: partners(one) for one in (a, b)},
            "baselines": _baselines(a, b),
            "configuration": differences_table(
                "configuration", {one.name: whole(one.card.get("config", {})) for one in (a, b)}
            ),
            "data": differences_table("data", _data(a, b)),
        },
    )


def paired(a: Version, b: Version) -> dict[str, Any] | None:
    """What ``a`` gains over ``b`` on the same users, if one was held against the other.

    Returns:
        A card's comparison, with ``measured``: the version whose test it was. None if neither was.
    """
    if (found := _held(a, b)) is not None:
        return {**found, "measured": a.name}
    if (found := _held(b, a)) is not None:
        return {**_turned(found), "measured": b.name}
    return None


def _held(one: Version, other: Version) -> Mapping[str, Any] | None:
    against = one.card.get("against", {})
    name = "live" if one.card.get("parent") == other.name else other.name
    found: Mapping[str, Any] | None = against.get(name, against.get(other.name))
    return found


def _turned(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same from the other side; of the relative gain the base is the other one, too."""
    turned = {
        "candidate": found.get("other"),
        "other": found.get("candidate"),
        "difference": _minus(found.get("difference")),
        "low": _minus(found.get("high")),
        "high": _minus(found.get("low")),
        "users": found.get("users"),
    }
    cohorts = {name: _turned(one) for name, one in found.get("cohorts", {}).items()}
    return {**turned, **({"cohorts": cohorts} if cohorts else {})}


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def partners(one: Version) -> list[str]:
    """Versions that one was held against as it was made."""
    against = dict(one.card.get("against", {}))
    parent = one.card.get("parent")
    live = [parent] if parent and against.pop("live", None) else []
    return [*live, *(name for name in against if name not in (*NAMES, "live"))]


def _overall(a: Version, b: Version, found: Mapping[str, Any]) -> Figure:
    columns = [
        Column("who", "text"),
        Column("gain", "lift"),
        Column("from", "lift"),
        Column("to", "lift"),
        Column(a.name),
        Column(b.name),
        Column("users", "count"),
    ]
    row = ["all users", *relative(found), found["candidate"], found["other"], found["users"]]
    title = f"{a.card.get('metric')} of {a.name} over {b.name}, on the same users (90 %)"
    told = f"On the test of {found['measured']}, on items that both know."
    return interval_figure(Table("overall", told, columns, [row]), title)


def _baselines(a: Version, b: Version) -> Table:
    """Each on its own test: what the two share if they were never on the same one."""
    columns = [Column("figure", "text"), Column(a.name, "text"), Column(b.name, "text")]
    rows: list[list[Any]] = [["own test", *(_number(metric_of_test(one)) for one in (a, b))]]
    for name, told in NAMES.items():
        both = [one.card.get("against", {}).get(name) for one in (a, b)]
        rows.append([f"over {told}", *map(_interval, both)])
    told = "Each on its own week's test, so weeks differ, too: no comparison of the two."
    return Table("baselines", told, columns, rows)


def _data(*versions: Version) -> dict[str, dict[str, Any]]:
    """What all of them say: an older card, or an arm's, says less."""
    told = {one.name: data_of(one) for one in versions}
    known = [field for field in data_of(versions[0]) if all(one[field] for one in told.values())]
    return {name: {field: one[field] for field in known} for name, one in told.items()}


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _interval(found: Mapping[str, Any] | None) -> str | None:
    gain, low, high = relative(found)
    if gain is None or low is None or high is None:
        return None
    return f"{100 * gain:+.1f} % ({100 * low:+.1f} to {100 * high:+.1f})"
