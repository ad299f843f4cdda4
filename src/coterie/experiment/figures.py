"""The figures of a report, as SVG that takes its colours from the page; a picture of power."""

import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coterie.experiment.analysis import Analysis, OfDay, OfSegment, words
from coterie.experiment.statistics import Effect, Plan, bounds, sequence_bounds
from coterie.extras import require
from coterie.files import publish_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _BETTER, _WORSE, _BAND = "#010101", "#020202", "#030303", "#040404"
"""Stand for colours of the page, which differ by day and by night."""

_FARTHEST = 8.0
"""Standard errors; the band of a bound beyond it would fill the picture."""

_PURPOSE = "a report's figures"

_OF_PAGE = {
    _INK: "currentColor",
    _BETTER: "var(--better)",
    _WORSE: "var(--worse)",
    _BAND: "var(--band)",
}


def forest(rows: Sequence[tuple[str, Effect]], title: str) -> str:
    """A line a row: the lift and its interval; without colour where 0 is inside."""
    height = 0.9 + 0.36 * len(rows)
    return _drawn(lambda axes: _draw_forest(axes, rows), height, title)


def _draw_forest(axes: "Axes", rows: Sequence[tuple[str, Effect]]) -> None:
    axes.axvline(0, color=_INK, linewidth=0.8)
    for place, (_, effect) in enumerate(rows):
        if math.isnan(effect.lift_low):
            continue
        ends = [100 * effect.lift_low, 100 * effect.lift_high]
        colour = _BETTER if ends[0] > 0 else _WORSE if ends[1] < 0 else _INK
        axes.plot(ends, [place, place], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot(100 * effect.lift, place, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("lift over the control, %")
    axes.grid(axis="x", alpha=0.3, color=_INK, linewidth=0.5)


def metrics_figure(analysis: Analysis, arm: str) -> str:
    """Every metric of an arm, with the interval that holds at the agreed looks."""
    rows = [(words(one.metric), one.valid) for one in analysis.metrics if one.arm == arm]
    return forest(rows, f"Lift of every metric with {arm}")


def segments_figure(segments: Sequence[OfSegment], arm: str) -> str:
    """The primary metric by segment."""
    rows = [
        (f"{one.segment} ({one.effect.n_treatment + one.effect.n_control:,})", one.effect)
        for one in segments
        if one.arm == arm
    ]
    return forest(rows, f"Lift by kind of user with {arm}")


def course_figure(analysis: Analysis, arm: str) -> str:
    """The lift day by day, and how far it must be from 0 to be believed at each."""
    days = [one for one in analysis.days if one.arm == arm]
    return _drawn(lambda axes: _draw_course(axes, analysis, days), 3.2, f"Day by day with {arm}")


def _draw_course(axes: "Axes", analysis: Analysis, days: Sequence[OfDay]) -> None:
    axes.axhline(0, color=_INK, linewidth=0.8)
    axes.set_xlabel("day of the experiment")
    axes.set_ylabel("lift so far, %")
    axes.set_xlim(0.5, max(analysis.definition.days, analysis.n_days) + 0.5)
    for look in analysis.definition.looks.days:
        axes.axvline(look, color=_INK, linewidth=0.5, linestyle="dotted")
    if not days:
        return
    numbers = [_number(analysis, one) for one in days]
    lifts = [100 * one.effect.lift for one in days]
    limits = [_limit(analysis, days, n) * one.effect.log_error for n, one in enumerate(days)]
    above, below = ([100 * math.expm1(sign * limit) for limit in limits] for sign in (1, -1))
    axes.fill_between(numbers, below, above, color=_BAND, linewidth=0)
    axes.plot(numbers, lifts, color=_BETTER, linewidth=2, marker="o", markersize=3.5)
    widest = 1.6 * max(map(abs, [*lifts, above[-1]]))
    axes.set_ylim(-widest, widest)


def _number(analysis: Analysis, day: OfDay) -> int:
    return (day.day - analysis.first).days + 1


def _limit(analysis: Analysis, days: Sequence[OfDay], n: int) -> float:
    """Standard errors that a look on the n-th day would have to pass, after those agreed before."""
    looks, alpha = analysis.definition.looks, analysis.alpha
    if looks.kind == "daily":
        return float(sequence_bounds([days[n].fraction], alpha)[0])
    before = [one.fraction for one in days[:n] if _number(analysis, one) in looks.days]
    here = days[n].fraction if looks.kind == "planned" else 1.0
    last = _number(analysis, days[n]) >= analysis.definition.days
    bound = bounds([*before, here], alpha, looks.spending, last=last)[-1]
    return min(float(bound), _FARTHEST)


def draw_power(plan: Plan, days: Sequence[int], path: str | Path) -> None:
    """Writes power curves as a picture: the chance to find each lift, a line a number of days.

    Raises:
        MissingPackageError: without the extra ``experiment``.
        CannotWriteError: if the file cannot be written.
    """
    figure = require("matplotlib.figure", "experiment", _PURPOSE).Figure(
        figsize=(7.6, 4.2), layout="constrained", dpi=140
    )
    axes = figure.subplots()
    lifts = np.linspace(0, 2 * plan.minimum_lift(min(days)), 41)
    for day in days:
        label = f"{day} days, {plan.users(day):,.0f} users"
        axes.plot(100 * lifts, 100 * plan.power_curve(lifts, day), label=label)
    axes.axhline(80, color="grey", linewidth=0.8, linestyle="dotted")
    axes.set_xlabel("true lift, %")
    axes.set_ylabel("chance to find it, %")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False)
    with publish_file(path) as aside:
        figure.savefig(aside, format=Path(path).suffix.lstrip(".") or "png")


def _drawn(draw: Callable[["Axes"], None], height: float, title: str) -> str:
    """An SVG of what is drawn, readable aloud, without fonts or colours of its own."""
    matplotlib = require("matplotlib", "experiment", _PURPOSE)
    figure_module = require("matplotlib.figure", "experiment", _PURPOSE)
    settings = {
        "font.size": 11,
        "svg.fonttype": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
        ),
    }
    with matplotlib.rc_context(settings):
        figure = figure_module.Figure(figsize=(7.6, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        draw(axes)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return _of_page(written.getvalue(), title)


def _of_page(text: str, title: str) -> str:
    text = text[text.index("<svg") :]
    for ours, theirs in _OF_PAGE.items():
        text = text.replace(ours, theirs)
    # The page says how wide it is, and which letters it has.
    spoken = f'role="img" aria-label="{title}"'
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', spoken, text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r"font: (?:[\w ]+ )?([\d.]+px) [^;\"]*", r"font-size: \1", text)
