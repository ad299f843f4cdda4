"""Figures of teaching and of what is near: net means by kind, cohorts beside cohorts, recall."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.lab.collaboration.analysis import Analysis, Findings
from coterie.lab.collaboration.drawing import (
    KIND_LABELS,
    draw_legend,
    height_of_rows,
    look_of,
    new_panels,
    rows_of_points,
)
from coterie.lab.collaboration.pairs import PairKind
from coterie.lab.collaboration.teaching import Measure, Teaching

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN = {
    Measure("hidden", "gradient", "decoder"): "decoder",
    Measure("hidden", "gradient", "encoder"): "encoder",
    Measure("hidden", "gradient", "all"): "all parameters",
    Measure("hidden", "adam", "all"): "all, as Adam scales it",
}
"""Measures of the figure, and what its panels are called."""


def _taught(analysis: Analysis) -> list[tuple[Findings, Teaching]]:
    return [(one, one.teaching) for one in analysis.settings if one.teaching is not None]


def _nothing(words: str) -> "Figure":
    figure, (axes,) = new_panels(1, height=1.0)
    axes.set_axis_off()
    axes.text(0, 0.5, words, transform=axes.transAxes)
    return figure


def draw_teaching(analysis: Analysis) -> "Figure":
    """Net mean cosines by kind of pair, a panel a measure."""
    taught = _taught(analysis)
    if not taught:
        return _nothing("not measured: see how it was measured")
    figure, panels = new_panels(
        len(DRAWN), columns=2, height=height_of_rows(analysis.settings), sharey=True
    )
    for axes, (measure, title) in zip(panels, DRAWN.items(), strict=True):
        lines = {
            one.name: [_thousandths(found, measure, kind) for kind in PairKind]
            for one, found in taught
        }
        rows_of_points(axes, KIND_LABELS, lines)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(title)
        axes.set_xlabel("net mean cosine × 10³")
    draw_legend(figure, panels[0])
    return figure


def _thousandths(found: Teaching, measure: Measure, kind: PairKind) -> tuple[float, float, float]:
    mean, low, high = (1e3 * value for value in found.by_kind[measure].mean_of(kind))
    return mean, low, high


def draw_cohorts(analysis: Analysis) -> "Figure":
    """A heatmap a setting, all of one scale around zero."""
    taught = _taught(analysis)
    if not taught:
        return _nothing("not measured: see how it was measured")
    figure, panels = new_panels(len(taught), columns=2, height=4.2)
    matrices = [1e3 * found.cohort_matrix() for _, found in taught]
    reach = max(float(np.nanmax(np.abs(one[:, :, 0]))) for one in matrices)
    for axes, (one, found), matrix in zip(panels, taught, matrices, strict=True):
        image = axes.imshow(matrix[:, :, 0], cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto")
        _write_cells(axes, matrix, reach)
        _name_cohorts(axes, found)
        axes.set_title(one.name)
    figure.colorbar(image, ax=panels, aspect=30, label="net mean cosine × 10³")
    return figure


def _write_cells(axes: "Axes", matrix: np.ndarray, reach: float) -> None:
    for row, column in np.ndindex(matrix.shape[:2]):
        mean, low, high = matrix[row, column]
        if np.isfinite(mean):
            style: dict[str, Any] = {"ha": "center", "va": "center"}
            style["color"] = "white" if abs(mean) > 0.6 * reach else "black"  # readable on it
            style["weight"] = "bold" if low > 0 or high < 0 else "normal"
            words = f"{mean:+.1f}\n[{low:.1f}, {high:.1f}]"
            axes.text(column, row, words, fontsize=8, **style)


def _name_cohorts(axes: "Axes", found: Teaching) -> None:
    users, others = (
        [f"{name}\n({n})" for name, n in zip(found.cohorts, sizes, strict=True)]
        for sizes in found.n_of_cohort.tolist()
    )
    axes.set_xticks(range(len(others)), others, fontsize=9)
    axes.set_yticks(range(len(users)), users, fontsize=9)
    axes.set_xlabel("stepped on: interactions (users)")
    axes.set_ylabel("taught: interactions (users)")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def draw_semantics(analysis: Analysis) -> "Figure":
    """Recall of the nearest users by history: at the means, and along capacity."""
    figure, (means, matched) = new_panels(2, columns=2)
    for place, one in enumerate(analysis.settings):
        look, found = look_of(place), one.semantics
        error = float(found.recall.std()) / len(found.recall) ** 0.5
        means.errorbar(
            place, found.recall.mean(), yerr=1.96 * error, capsize=3, markersize=7, **look
        )
        curve: Sequence[float] = found.matched.mean(axis=1).tolist()
        matched.plot(found.nats, curve, markersize=6, linewidth=1.5, label=one.name, **look)
    means.set_xticks(range(len(analysis.settings)), [one.name for one in analysis.settings])
    means.set_xlim(-0.5, len(analysis.settings) - 0.5)
    means.set_ylabel(f"recall of the {analysis.options.neighbours} nearest by history")
    matched.set_xlabel("capacity of the blurred points, nats")
    matched.set_ylabel("the same at matched capacity")
    matched.set_xscale("log")
    nats = analysis.settings[0].semantics.nats
    matched.set_xticks(nats, [f"{one:g}" for one in nats])
    matched.minorticks_off()
    for axes in (means, matched):
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.grid(alpha=0.3)
    draw_legend(figure, matched)
    return figure
