"""Drawings of what happened when: a strip of runs of jobs, and the line of a model's versions.

A state is a sign and a colour, as a colour alone is not seen by everybody.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from markupsafe import Markup, escape

from coterie.dashboard.charts import drawing, words
from coterie.dashboard.page import Figure, Table

_Place: TypeAlias = tuple[float, float]

_WIDE, _NARROW = 760, 360
_TOP, _LINE = 46, 62
_SIGNS = {
    "ran": ("✓", "good"),
    "warned": ("!", "warn"),
    "failed a gate": ("!", "warn"),
    "failed": ("✗", "bad"),
    "missing": ("?", "bad"),
    "not due yet": ("·", "quiet"),
    "at work": ("…", "quiet"),
    "unknown": ("–", "quiet"),
}


def strip_figure(table: Table, title: str) -> Figure:
    """A box a run: days from left to right, a line a job. A telephone shows the last half of them.

    Args:
        table: Its first three columns are the day, the job and its state.
        title: What one sees in it.
    """
    days = sorted({str(row[0]) for row in table.rows})
    half = days[-(len(days) + 1) // 2 :]
    drawn = [_strip(table, title, *one) for one in ((days, _WIDE), (half, _NARROW))]
    return Figure(title, drawn[0], drawn[1], table)


def _strip(table: Table, title: str, days: Sequence[str], width: float) -> Markup:
    jobs = sorted({str(row[1]) for row in table.rows}, reverse=True)
    step = min((width - 76) / max(len(days), 1), 26)
    parts = [words(0, 30 + 34 * at, job) for at, job in enumerate(jobs)]
    for row in table.rows:
        if str(row[0]) in days:
            x, y = 62 + step * days.index(str(row[0])), 12 + 34 * jobs.index(str(row[1]))
            parts.append(_box(x, y, step - 3, f"{row[0]}, {row[1]}: {row[2]}", str(row[2])))
    height = 12 + 34 * len(jobs)
    for at in range(len(days) - 1, -1, -7):
        parts.append(words(62 + step * (at + 0.5), height + 14, days[at][5:], "middle"))
    return drawing(title, width, height + 22, parts)


def _box(x: float, y: float, size: float, told: str, state: str) -> Markup:
    sign, kind = _SIGNS[state]
    place = f'x="{round(x, 2)}" y="{y}" width="{round(size, 2)}" height="26" rx="4"'
    mark = words(x + size / 2, y + 18, sign, "middle", "sign")
    named = f'<g class="state {kind}"><title>{escape(told)}</title>'
    return Markup(f"{named}<rect {place}/>{mark}</g>")


def lineage_figure(table: Table, title: str) -> Figure:
    """Versions from left to right, each with an arrow from the one that it began from; models of
    an experiment's arms on a line below. A telephone shows the last six of each line.

    Args:
        table: Its first five columns are the version, its week, its line (of arms their model;
            None: of the service), the version that it began from, and its state: ``live``,
            ``was live``, ``passed`` or ``failed``.
        title: What one sees in it.
    """
    lines = list(dict.fromkeys([None, *(row[2] for row in table.rows)]))
    weeks = sorted({row[1] for row in table.rows})
    wide = _lineage(table, title, lines, weeks, _WIDE)
    return Figure(title, wide, _lineage(table, title, lines, weeks[-6:], _NARROW), table)


def _lineage(
    table: Table, title: str, lines: Sequence[str | None], weeks: Sequence[str], width: float
) -> Markup:
    step = min((width - 60) / max(len(weeks), 1), 110)
    places = _places([row for row in table.rows if row[1] in weeks], lines, weeks, step)
    arrows = [_arrow(places[row[3]], places[row[0]]) for row in _begun(table, places)]
    dots = [_dot(row, places[row[0]]) for row in table.rows if row[0] in places]
    told = [
        words(4, _TOP - 24 + _LINE * at, f"for an experiment: {line}")
        for at, line in enumerate(lines)
        if line is not None
    ]
    bottom = max((y for _, y in places.values()), default=_TOP) + 34
    for at, week in enumerate(weeks):
        told.append(words(30 + step * (at + 0.5), bottom, week.partition("-")[2], "middle"))
    return drawing(title, width, bottom + 10, [*arrows, *dots, *told])


def _places(
    rows: Sequence[Sequence[Any]], lines: Sequence[str | None], weeks: Sequence[str], step: float
) -> dict[str, _Place]:
    """Of each version; those of one week and line are below each other."""
    places, seen = dict[str, _Place](), Counter[tuple[str, str | None]]()
    for name, week, line, *_ in rows:
        x = 30 + step * (weeks.index(week) + 0.5)
        places[name] = round(x, 2), _TOP + _LINE * lines.index(line) + 24.0 * seen[week, line]
        seen[week, line] += 1
    return places


def _begun(table: Table, places: Mapping[str, _Place]) -> list[Sequence[Any]]:
    """Versions that are drawn, and so is what they began from, in an earlier week."""
    there = [row for row in table.rows if row[0] in places and row[3] in places]
    return [row for row in there if places[row[3]][0] < places[row[0]][0]]


def _arrow(start: _Place, end: _Place) -> Markup:
    """Straight to the next version, in a bow to a later one."""
    (x1, y1), (x2, y2) = start, end
    high = min(y1, y2) - 2 * min(max(x2 - x1 - 115, 0) * 0.25, 16)
    form = (
        '<path d="M{} {} Q{} {} {} {}" class="arrow"/><path d="M{} {} l-8 -4 l0 8 z" class="tip"/>'
    )
    return Markup(form).format(x1 + 11, y1, (x1 + x2) / 2, high, x2 - 12, y2, x2 - 10, y2)


def _dot(row: Sequence[Any], place: _Place) -> Markup:
    x, y = place
    sign = words(x, y + 4.5, {"live": "★", "failed": "✗"}.get(row[4], ""), "middle", "sign")
    form = '<g class="state {}"><title>{}: {}</title><circle cx="{}" cy="{}" r="10"/>{}</g>'
    return Markup(form).format(_KINDS[row[4]], row[0], row[4], x, y, sign)


_KINDS = {"live": "good", "was live": "good", "passed": "quiet", "failed": "bad"}
