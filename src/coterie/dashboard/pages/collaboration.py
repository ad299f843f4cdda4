"""Collaboration: how people help each other in the model, and how that moves from week to week."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.dashboard.charts import interval_figure, line_figure
from coterie.dashboard.page import Asked, Column, Figure, File, Page, Table
from coterie.dashboard.pages.analyses import Analysed, analyses, analysis, damaged
from coterie.dashboard.pages.map import command
from coterie.dashboard.sources import Sources

# The report has its own scripts in it, and asks for nothing; it sees nothing of the dashboard's.
_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src"
    " 'unsafe-inline'; img-src data: blob:; frame-ancestors 'self'"
)
_WHOLE = "hidden/gradient/all"

Numbers = Mapping[str, Any]
Interval = tuple[float | None, float | None, float | None]
_NONE: Interval = (None, None, None)


def collaboration(sources: Sources, asked: Asked) -> Page:
    """The page."""
    rows = [row for one in analyses(sources) for row in _rows(sources, one)]
    values = {"damaged": damaged(sources), "command": command(sources)}
    if not rows:
        return Page("Collaboration", "collaboration_empty.html.j2", values)
    weekly = sources.service is not None
    measures = [one for one in MEASURES if weekly or not one.of_weeks]
    return Page(
        "Collaboration",
        "collaboration.html.j2",
        values
        | {
            "weekly": weekly,
            "latest": rows[-1].label,
            "facts": rows[-1].of.facts,
            "untaught": [(row.label, row.setting["untaught"]) for row in rows if _untaught(row)],
            "chance": _chance(rows[-1]),
            "now": _now(measures, rows),
            "measures": [one.told(rows, weekly=weekly) for one in measures],
            "reports": _reports(rows),
        },
    )


def report(sources: Sources, asked: Asked) -> File:
    """An analysis' report, as it was written."""
    return File(analysis(sources, asked.text("of")).report(), "text/html", _POLICY)


@dataclass(frozen=True, eq=False)
class _Row:
    """A model that was looked into.

    Args:
        label: As it is called.
        of: The analysis.
        setting: Its numbers.
        options: How much was measured.
    """

    label: str
    of: Analysed
    setting: Numbers
    options: Numbers


def _rows(sources: Sources, one: Analysed) -> list[_Row]:
    numbers = one.numbers(sources)
    several = sources.service is None
    return [
        _Row(f"{one.label}: {name}" if several else name, one, setting, numbers["options"])
        for name, setting in numbers["settings"].items()
    ]


@dataclass(frozen=True)
class Measure:
    """Something that was measured, told in words.

    Args:
        name: Of its table.
        title: What one sees.
        kind: How its values are shown.
        parts: Lines: a name, and where value and interval are.
        means: A sentence of what it says.
        cannot: A sentence of what it does not.
        of_weeks: Whether there is such a thing only between one week and another.
    """

    name: str
    title: str
    kind: str
    parts: Mapping[str, Callable[[_Row], Interval]]
    means: str
    cannot: str
    of_weeks: bool = False

    def told(self, rows: Sequence[_Row], *, weekly: bool) -> dict[str, Any]:
        """Its figure and sentences."""
        figure = self._lines(rows) if weekly else self._intervals(rows)
        said = {"name": self.name, "means": self.means, "cannot": self.cannot}
        return said | {"figure": figure}

    def _lines(self, rows: Sequence[_Row]) -> Figure:
        """Over versions."""
        columns, bands = [Column("version", "text")], {}
        for part in self.parts:
            columns += [Column(one, self.kind) for one in (part, *_ends(part))]
            bands[part] = _ends(part)
        values = [[row.label, *(v for at in self.parts.values() for v in at(row))] for row in rows]
        table = Table(self.name, "A row a version, the oldest first.", columns, values)
        return line_figure(table, self.title, bands=bands)

    def _intervals(self, rows: Sequence[_Row]) -> Figure:
        """Settings beside each other."""
        columns = [Column("setting", "text")]
        columns += [Column(one, self.kind) for one in ("value", "from", "to")]
        values = [
            [f"{row.label}{f', {part}' if len(self.parts) > 1 else ''}", *at(row)]
            for part, at in self.parts.items()
            for row in rows
        ]
        return interval_figure(Table(self.name, "A row a setting.", columns, values), self.title)


def _ends(part: str) -> tuple[str, str]:
    return f"{part}, from", f"{part}, to"


def _helping(kind: str, share: bool) -> Callable[[_Row], Interval]:
    """The net mean of a kind of pairs, times a thousand, or its share of all help."""
    names = ("share", "low", "high") if share else ("mean", "mean_low", "mean_high")
    factor = 1.0 if share else 1e3

    def at(row: _Row) -> Interval:
        taught = row.setting.get("teaching")
        if taught is None:
            return _NONE
        told = taught["cosine"][_WHOLE][kind]
        value, low, high = (_times(told[name], factor) for name in names)
        return value, low, high

    return at


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _recall(row: _Row) -> Interval:
    told = row.setting["semantics"]
    return _around(told["recall"], told.get("recall_error"))


def _around(value: float | None, error: float | None) -> Interval:
    """The 95 % interval of a mean."""
    if value is None or error is None:
        return value, None, None
    return value, value - 1.96 * error, value + 1.96 * error


def _of_bottleneck(name: str) -> Callable[[_Row], Interval]:
    return lambda row: (row.setting["bottleneck"][name], None, None)


def _alive(row: _Row) -> Interval:
    told = row.setting["bottleneck"]
    return told["n_active"] / len(told["mean_variance"]), None, None


def _masks(row: _Row) -> Interval:
    drift = min(row.setting["drift"], key=lambda one: abs(one["keep_prob"] - 0.5))
    return drift["overlap"], None, None


def _weeks(row: _Row) -> Interval:
    kept = (row.of.facts.get("before") or {}).get("kept")
    return _NONE if kept is None else (kept[0], kept[1], kept[2])


MEASURES = (
    Measure(
        "help",
        "What a step on one person gives another, net, × 1000",
        "number",
        {"near people": _helping("local", False), "far but related": _helping("global", False)},
        "Above zero: when the model learns from one person, it gets better at finding what the"
        " other has not shown it. Near people have alike histories; far but related ones share"
        " little, but one's titles are among the other's, or they have common neighbours.",
        "It is a first order at one moment of training, as the cosine of what is learnt and what is"
        " needed, not a number of better lists; and it depends on the unit of the latent space.",
    ),
    Measure(
        "shares",
        "Whose help it is: share of all help",
        "percent",
        {"near people": _helping("local", True), "far but related": _helping("global", True)},
        "Of everything that helps, how much comes from near people, who are a twentieth of all"
        " pairs, and how much from far but related ones.",
        "It does not say that there is any: where help and harm are alike, chance alone fills"
        " these shares. Read the net help above first.",
    ),
    Measure(
        "recall",
        "People with alike histories who are neighbours in the model",
        "percent",
        {"found": _recall},
        "Of a person's nearest by history, the share that is nearest in the model, too. The higher,"
        " the more the map's neighbourhoods are neighbourhoods of taste.",
        "It does not say which neighbours are better for lists: a model may rightly bring people"
        " together who have no title in common.",
    ),
    Measure(
        "kept",
        "Neighbours who still were neighbours after a week",
        "percent",
        {"kept": _weeks},
        "Of a person's nearest in this version, the share that was nearest in the version before,"
        " whatever way the latent space was turned. A sudden fall is a model that sees people"
        " otherwise: look at what changed.",
        "It cannot tell the model's change from the people's, who watched another week.",
        of_weeks=True,
    ),
    Measure(
        "masks",
        "Neighbours two random halves of a history agree on",
        "percent",
        {"overlap": _masks},
        "A person's neighbours are looked up twice, each time from a random half of the history;"
        " this is the share in common. The higher, the calmer the place of a person.",
        "Calm is no merit by itself: a model that tells nobody apart is calm as well.",
    ),
    Measure(
        "kl",
        "What the model says of a person, in nats of KL",
        "number",
        {
            "of means": _of_bottleneck("kl_of_means_nats"),
            "of variances": _of_bottleneck("kl_of_variances_nats"),
        },
        "Of means: how far from the middle people stand. Of variances: how sure the model is of"
        " their places. Both together are the price that training pays for telling people apart.",
        "PIA moves price from means to variances, so the parts compare only between models that are"
        " trained alike.",
    ),
    Measure(
        "alive",
        "Dimensions that tell people apart",
        "percent",
        {"alive": _alive},
        "The share of the latent dimensions in which people differ by more than a hundredth of the"
        " model's own uncertainty. A fall is a collapse: lower β, or fewer dimensions.",
        "It does not say how much each of them tells.",
    ),
)


def _untaught(row: _Row) -> bool:
    return bool(row.setting.get("untaught"))


def _chance(row: _Row) -> dict[str, float | None]:
    """What shares of neighbours would be if nobody were near to anybody."""
    near, among = row.options["neighbours"], row.setting["bottleneck"]["n_users"] - 1
    before = row.of.facts.get("before") or {}
    return {"recall": near / among, "kept": before.get("chance")}


def _now(measures: Sequence[Measure], rows: Sequence[_Row]) -> Table:
    """The last model's figures, beside those of the one before."""
    columns = [
        Column("figure", "text"),
        Column("now", "text"),
        Column("95 % interval", "text"),
        Column("before", "text"),
    ]
    told = [
        [f"{one.title}: {part}", *_texts(one.kind, at(rows[-1])), _text(one.kind, before)]
        for one in measures
        for part, at in one.parts.items()
        for before in [at(rows[-2])[0] if len(rows) > 1 else None]
    ]
    return Table("now", f"{rows[-1].label}, and the one before it.", columns, told)


def _texts(kind: str, values: Interval) -> list[str]:
    value, low, high = values
    known = low is not None and high is not None
    return [_text(kind, value), f"{_text(kind, low)} to {_text(kind, high)}" if known else "–"]


def _text(kind: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.3g} %" if kind == "percent" else f"{value:.3g}"


def _reports(rows: Sequence[_Row]) -> list[dict[str, str]]:
    """Each report once, the newest first."""
    keys = dict.fromkeys(row.of.key for row in reversed(rows))
    labels = {row.of.key: row.of.label for row in rows}
    return [{"key": key, "label": labels[key]} for key in keys]
