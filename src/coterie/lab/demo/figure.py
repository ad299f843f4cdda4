"""The demo's figure: who ranks best, how they learn, and who gains."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coterie.evaluation.compare import Comparison, Difference
from coterie.evaluation.report import EvaluationReport

METRIC = "ndcg@100"
LEAST_USERS = 20
"""Of a cohort that is drawn."""

# Okabe and Ito's palette: told apart by colour-blind people, and in grey by the markers' shapes.
COLOURS = ("#999999", "#E69F00", "#56B4E9", "#0072B2", "#D55E00", "#000000")
MARKERS = ("s", "D", "v", "^", "o", "*")


def style() -> AbstractContextManager[None]:
    """What the demonstrations' figures look like."""
    return mpl.rc_context(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titleweight": "bold",
        }
    )


def draw_demo(
    path: Path,
    reports: Mapping[str, EvaluationReport],
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    gains: Mapping[tuple[str, str], Comparison],
) -> None:
    """Draws three panels into a PNG.

    Args:
        path: Where to.
        reports: Test results by model.
        histories: Training history by network, as `read_history` gives it.
        gains: Comparisons, by candidate and reference.
    """
    with style():
        figure = Figure(figsize=(13, 4.2), layout="constrained", dpi=140)
        ranking, learning, cohorts = figure.subplots(1, 3, width_ratios=(1.2, 1, 0.9))
        colours = dict(zip(reports, COLOURS, strict=False))
        _draw_ranking(ranking, reports, colours)
        _draw_learning(learning, histories, colours)
        _draw_cohorts(cohorts, gains, colours)
        figure.savefig(path)


def _draw_ranking(
    axes: Axes, reports: Mapping[str, EvaluationReport], colours: Mapping[str, str]
) -> None:
    for row, (name, report) in enumerate(reports.items()):
        mean, error = report.mean(METRIC), report.standard_error(METRIC)
        axes.errorbar(
            mean, row, xerr=error, fmt=MARKERS[row], color=colours[name], capsize=3, markersize=8
        )
        axes.annotate(
            f"{mean:.3f}",
            (mean, row),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(reports)), list(reports))
    axes.set_ylim(len(reports) - 0.5, -0.7)
    axes.margins(x=0.1)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("NDCG@100 ± standard error")
    axes.set_title("Ranking for unseen users", loc="left")


def _draw_learning(
    axes: Axes, histories: Mapping[str, Sequence[Mapping[str, Any]]], colours: Mapping[str, str]
) -> None:
    for name, history in histories.items():
        epochs, values = (
            [entry["epoch"] for entry in history],
            [entry["validation"][METRIC] for entry in history],
        )
        best = max(range(len(values)), key=values.__getitem__)
        axes.plot(epochs, values, color=colours[name], linewidth=1.8, label=name)
        axes.plot(
            epochs[best],
            values[best],
            MARKERS[list(colours).index(name)],
            color=colours[name],
            markersize=8,
        )
    axes.set_xlabel("epoch (marker: the one kept)")
    axes.set_ylabel("validation NDCG@100")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    axes.set_title("Learning", loc="left")


def _draw_cohorts(
    axes: Axes, gains: Mapping[tuple[str, str], Comparison], colours: Mapping[str, str]
) -> None:
    for lane, ((name, reference), gain) in enumerate(gains.items()):
        parts = _parts(gain)
        rows = [row + 0.24 * lane - 0.12 for row in range(len(parts))]
        marker, colour = MARKERS[list(colours).index(name)], colours[name]
        axes.hlines(
            rows, [one.low for one in parts.values()], [one.high for one in parts.values()],
            color=colour, linewidth=2,
        )  # fmt: skip
        axes.plot(
            [one.difference for one in parts.values()], rows, marker,
            color=colour, markersize=8, label=f"{name}\nover {reference}",
        )  # fmt: skip
    axes.vlines(0, -0.5, len(parts) - 0.5, color="black", linewidth=0.8)
    axes.set_yticks(
        range(len(parts)), [f"{part}\n({one.users} users)" for part, one in parts.items()]
    )
    axes.set_ylim(len(parts) - 0.5, -1.4)  # room for the legend
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"gain in NDCG@100, {gain.confidence:.0%} interval")
    axes.set_ylabel("interactions of the user")
    axes.legend(
        frameon=False, fontsize=8, loc="upper center", ncols=2, columnspacing=0.8, handletextpad=0
    )
    axes.set_title("Who gains", loc="left")


def _parts(gain: Comparison) -> dict[str, Difference]:
    """Everybody, and cohorts of users enough to say something."""
    every = {name: cohort[METRIC] for name, cohort in gain.cohorts.items()}
    cohorts = {name: one for name, one in every.items() if one.users >= LEAST_USERS}
    return {**cohorts, "all": gain.overall[METRIC]}
