"""Drawings as SVG, without a library: lines over days, intervals.

Colours are classes, so that the style sheet decides them for light and dark. Each drawing is made
twice, for a wide screen and for a telephone, as text in an SVG shrinks with it. Whatever is text
is escaped; by hand where there are many, as Markup's own format takes ten times as long.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from coterie.dashboard.page import Column, Figure, Table

_WIDE, _NARROW = 760, 360
_HEIGHT, _TOP, _BOTTOM, _RIGHT = 240, 28, 34, 14
_ROW = 26
_MANY = 60

Numbers = Sequence[float | None]


def line_figure(
    table: Table, title: str, *, bands: Mapping[str, tuple[str, str]] | None = None
) -> Figure:
    """Lines over the first column, which is text (days, versions): one a further column.

    Args:
        table: What is drawn; None leaves a gap.
        title: What one sees in it.
        bands: By a column, the columns of the ends of its interval; these are no lines.
    """
    wide, narrow = (_lines(table, title, bands or {}, width) for width in (_WIDE, _NARROW))
    return Figure(title, wide, narrow, table)


def interval_figure(table: Table, title: str, *, zero: float | None = 0.0) -> Figure:
    """A dot and its interval a row.

    Args:
        table: Its first four columns are a label, a value and the ends of its interval.
        title: What one sees in it.
        zero: A value that is marked; None for none.
    """
    wide, narrow = (_intervals(table, title, zero, width) for width in (_WIDE, _NARROW))
    return Figure(title, wide, narrow, table)


@dataclass(frozen=True)
class _Scale:
    """From values to places of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that span a range.

    Example:
        >>> ticks(0.03, 0.41)
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    """
    span = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(many for many in (1, 2, 5, 10) if span / (step * many) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def short(value: float, kind: str = "number") -> str:
    """A number beside an axis.

    Example:
        >>> [short(0.25, "percent"), short(1200000.0), short(0.125)]
        ['25%', '1.2M', '0.125']
    """
    if kind == "percent":
        return f"{100 * value:.4g}%"
    if kind == "lift":
        return f"{100 * value:+.4g}%" if value else "0%"
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if sign == 'k' else size):.4g}{sign}"
    return f"{value:.4g}"


def drawing(title: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    """The whole of a drawing."""
    head = Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}" class="chart">').format(
        title, width, height
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def words(x: float, y: float, text: str, anchor: str = "start", kind: str = "label") -> Markup:
    """A text in it."""
    place = f'x="{round(x, 2)}" y="{round(y, 2)}" text-anchor="{anchor}"'
    return Markup(f'<text {place} class="{kind}">{escape(text)}</text>')


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="{kind}"/>')


def _known(columns: Sequence[Numbers]) -> list[float]:
    return [value for column in columns for value in column if value is not None]


def _column(table: Table, name: str) -> list[float | None]:
    at = [column.name for column in table.columns].index(name)
    return [row[at] for row in table.rows]


def _lines(table: Table, title: str, bands: Mapping[str, tuple[str, str]], width: float) -> Markup:
    ends = {name for pair in bands.values() for name in pair}
    drawn = [one for one in table.columns[1:] if one.name not in ends and one.kind != "text"]
    values = {column.name: _column(table, column.name) for column in table.columns[1:]}
    known = _known([*(values[one.name] for one in drawn), *(values[name] for name in ends)])
    if not known or not table.rows:
        return drawing(title, width, 60, [words(8, 34, "nothing to draw yet")])
    kind = drawn[0].kind
    # What never moves is drawn from zero on.
    marks = ticks(min(known) if max(known) > min(known) else min(*known, 0.0), max(known))
    left = 12 + 8.5 * max(len(short(mark, kind)) for mark in marks)
    x = _Scale(0, max(len(table.rows) - 1, 1), left, width - _RIGHT)
    y = _Scale(marks[0], marks[-1], _HEIGHT - _BOTTOM, _TOP)
    parts = _grid(marks, kind, y, left, width)
    parts += _days([str(row[0]) for row in table.rows], x)
    for number, column in enumerate(drawn, start=1):
        if column.name in bands:
            low, high = (values[name] for name in bands[column.name])
            parts.append(_band(low, high, x, y, number))
        parts += _curve(table, column, values[column.name], (x, y), number)
    names = _legend_rows([one.name for one in drawn], width - left) if len(drawn) > 1 else []
    parts += _legend(names, left)
    return drawing(title, width, _HEIGHT + (20 * len(names) if len(names) > 1 else 0), parts)


def _grid(marks: Sequence[float], kind: str, y: _Scale, left: float, width: float) -> list[Markup]:
    lines = [_line(left, y(mark), width - _RIGHT, y(mark), "grid") for mark in marks]
    texts = [words(left - 6, y(mark) + 4, short(mark, kind), "end") for mark in marks]
    return lines + texts


def _days(labels: Sequence[str], x: _Scale) -> list[Markup]:
    """As many labels as there is room for, the last among them, which ends where the lines end."""
    half = 3.75 * max(len(label) for label in labels)
    last = len(labels) - 1
    parts = [words(x(last), _HEIGHT - 10, labels[last], "end" if last else "middle")]
    free = x(last) - 2 * half - 12
    for at in range(last - 1, -1, -1):
        anchor, start = ("start", x(at)) if x(at) - half < 0 else ("middle", x(at) - half)
        if start + 2 * half <= free:
            parts.append(words(x(at), _HEIGHT - 10, labels[at], anchor))
            free = start - 12
    return parts


def _band(low: Numbers, high: Numbers, x: _Scale, y: _Scale, number: int) -> Markup:
    there = [
        (x(at), y(one), y(other))
        for at, (one, other) in enumerate(zip(low, high, strict=True))
        if one is not None and other is not None
    ]
    if len(there) == 1:
        at, bottom, top = there[0]
        return _line(at, bottom, at, top, f"interval s{number}")
    points = [f"{at},{top}" for at, _, top in there]
    points += [f"{at},{bottom}" for at, bottom, _ in reversed(there)]
    return Markup('<polygon points="{}" class="band s{}"/>').format(" ".join(points), number)


def _curve(
    table: Table, column: Column, values: Numbers, scales: tuple[_Scale, _Scale], number: int
) -> list[Markup]:
    x, y = scales
    parts, run = [], list[str]()
    for at, value in enumerate([*values, None]):
        if value is not None:
            run.append(f"{x(at)},{y(value)}")
        elif run:
            form = '<polyline points="{}" class="curve s{}"/>'
            parts.append(Markup(form).format(" ".join(run), number))
            run = []
    radius = 3.5 if len(values) <= _MANY else 1.6
    for at, value in enumerate(values):
        if value is not None:
            told = f"{table.rows[at][0]}: {column.name} {short(value, column.kind)}"
            place = f'cx="{x(at)}" cy="{y(value)}" r="{radius}" class="dot s{number}"'
            parts.append(Markup(f"<circle {place}><title>{escape(told)}</title></circle>"))
    return parts


def _legend_rows(names: Sequence[str], width: float) -> list[list[tuple[float, str]]]:
    """Names with their places, in as many rows as they need."""
    rows, at = [list[tuple[float, str]]()], 0.0
    for name in names:
        needs = 40 + 7.2 * len(name)
        if rows[-1] and at + needs - 19 > width:
            rows.append([])
            at = 0.0
        rows[-1].append((at, name))
        at += needs
    return rows


def _legend(rows: Sequence[Sequence[tuple[float, str]]], left: float) -> list[Markup]:
    """Above the lines if it is one row, and else below them."""
    parts, number = [], 0
    for at, row in enumerate(rows):
        y = 12 if len(rows) == 1 else _HEIGHT + 12 + 20 * at
        for start, name in row:
            number += 1
            parts.append(_line(left + start, y, left + start + 16, y, f"curve s{number}"))
            parts.append(words(left + start + 21, y + 4, name))
    return parts


def _rows(
    table: Table, width: float, draw: Callable[[int, float], list[Markup]]
) -> tuple[list[Markup], float]:
    """Labels, one a row: beside the drawing where it is wide, above it where it is not."""
    above = width < _WIDE
    height = _ROW * (2 if above else 1)
    parts = []
    for at, row in enumerate(table.rows):
        top = at * height + 8
        parts.append(words(0, top + 15, str(row[0])))
        parts += draw(at, top + (height - _ROW if above else 0) + _ROW / 2)
    return parts, len(table.rows) * height + 8


def _left(table: Table, width: float) -> float:
    """Where a drawing beside its labels begins."""
    longest = max((len(str(row[0])) for row in table.rows), default=0)
    return 4.0 if width < _WIDE else min(7.5 * longest + 16, 300)


def _intervals(table: Table, title: str, zero: float | None, width: float) -> Markup:
    known = _known([row[1:4] for row in table.rows])
    if not known:
        return drawing(title, width, 60, [words(8, 34, "nothing to draw yet")])
    marks = ticks(min([*known, zero or 0.0]), max([*known, zero or 0.0]))
    kind = table.columns[1].kind
    half = 3.75 * max(len(short(mark, kind)) for mark in marks)
    x = _Scale(marks[0], marks[-1], max(_left(table, width) + 10, half), width - max(24, half))

    def draw(at: int, y: float) -> list[Markup]:
        value, low, high = table.rows[at][1:4]
        if value is None:
            return []
        form = '<circle cx="{}" cy="{}" r="5" class="dot s1"><title>{}</title></circle>'
        told = f"{table.rows[at][0]}: {short(value, kind)}"
        parts = [Markup(form).format(x(value), y, told)]
        if low is not None and high is not None:
            parts.insert(0, _line(x(low), y, x(high), y, "interval s1"))
        return parts

    parts, height = _rows(table, width, draw)
    grid = [_line(x(mark), 4, x(mark), height, "grid") for mark in marks]
    if zero is not None:
        grid.append(_line(x(zero), 4, x(zero), height, "zero"))
    labels = [words(x(mark), height + 18, short(mark, kind), "middle") for mark in marks]
    return drawing(title, width, height + 28, [*grid, *parts, *labels])
