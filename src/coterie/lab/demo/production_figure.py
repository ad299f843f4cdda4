"""The production demo's figure: how good the lists were, how models started, what stayed."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coterie.lab.demo.figure import COLOURS, style
from coterie.lab.demo.production import WeekTold

_GREY, _ORANGE, _BLUE, _RED = COLOURS[0], COLOURS[1], COLOURS[3], COLOURS[4]


def draw_production(path: Path, told: Sequence[WeekTold]) -> None:
    """Draws three panels into a PNG.

    Args:
        path: Where to.
        told: The weeks in order.
    """
    with style():
        figure = Figure(figsize=(13, 4.2), layout="constrained", dpi=140)
        quality, starts, kept = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
        _draw_quality(quality, told)
        _draw_starts(starts, told)
        _draw_kept(kept, told)
        for axes in (quality, starts, kept):
            axes.set_xticks(range(len(told)), [f"{one.week:%d %b}" for one in told], rotation=45)
        figure.savefig(path)


def _draw_quality(axes: Axes, told: Sequence[WeekTold]) -> None:
    weeks = range(len(told))
    axes.plot(weeks, [100 * one.quality for one in told], "o-", color=_BLUE, label="live lists")
    axes.plot(weeks, [100 * one.popular for one in told], "s--", color=_GREY, label="popularity")
    stopped = [week for week, one in enumerate(told) if one.result.failed]
    worth = [100 * told[week].quality for week in stopped]
    axes.plot(
        stopped, worth, "o", color=_RED, markersize=13, fillstyle="none", label="a gate said no"
    )
    for week, value in zip(stopped, worth, strict=True):
        failed = ", ".join(gate.name for gate in told[week].result.failed)
        axes.annotate(
            failed, (week, value), (0, 14), textcoords="offset points", ha="center", color=_RED
        )
    axes.set(title="Lists beside the best possible", ylabel="% of the best", ylim=(0, 100))
    axes.legend(loc="lower left", frameon=False)


def _draw_starts(axes: Axes, told: Sequence[WeekTold]) -> None:
    colours = {"cold": _GREY, "warm": _ORANGE}
    for start, colour in colours.items():
        found = {
            week: (one.again or one.result).facts["training"]["starts"].get(start)
            for week, one in enumerate(told)
        }
        points = {week: facts for week, facts in found.items() if facts}
        values = [facts["validation"] for facts in points.values()]
        axes.plot(list(points), values, "o-", color=colour, label=start)
        for week, facts in points.items():
            up = 8 if start == "warm" else -15
            axes.annotate(
                str(facts["epochs"]),
                (week, facts["validation"]),
                (0, up),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=colour,
            )
    axes.set(title="Warm against cold", ylabel="validation NDCG@20 (at epoch)")
    axes.margins(y=0.2)
    axes.legend(frameon=False)


def _draw_kept(axes: Axes, told: Sequence[WeekTold]) -> None:
    kept = [0.0 if one.kept is None else 100 * one.kept for one in told]
    axes.bar(range(len(told)), kept, color=_BLUE, width=0.6)
    axes.set(title="What stays of a list in a week", ylabel="% of 20 titles", ylim=(0, 100))
