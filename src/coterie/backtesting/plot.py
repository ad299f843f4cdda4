"""A backtest as a picture: a line a model over the windows, with intervals."""

from pathlib import Path
from typing import Any

import numpy as np

from coterie.backtesting.result import Backtest
from coterie.evaluation.metrics import metric_of
from coterie.extras import require
from coterie.files import publish_file

# Okabe and Ito's, told apart by colour-blind people; the markers tell them apart in grey.
_COLOURS = ("#999999", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("x", "o", "s", "^", "D", "v", "P", "*")


def draw(backtest: Backtest, path: str | Path, metric: str | None = None) -> None:
    """Draws a metric of every model and window with 95 % intervals over users, and below it how
    much of each window could be found at all.

    Args:
        backtest: With at least one window.
        path: Of the picture; its ending chooses the format.
        metric: The plan's first if None.

    Raises:
        MissingPackageError: if matplotlib is not installed.
    """
    require("matplotlib", "plot", "drawing a backtest")
    from matplotlib.figure import Figure  # noqa: PLC0415

    metric = backtest.plan.metrics[0] if metric is None else metric
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    _draw_models(upper, backtest, metric)
    _draw_shares(lower, backtest)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    with publish_file(path) as aside:
        figure.savefig(aside, dpi=150)


def _draw_models(axes: Any, backtest: Backtest, metric: str) -> None:
    n_models, n_windows = len(backtest.plan.models), len(backtest.windows)
    for place, name in enumerate(backtest.plan.models):
        # Beside each other, so that no interval hides another.
        at = np.arange(n_windows) + (place - (n_models - 1) / 2) * 0.6 / n_models
        axes.errorbar(
            at,
            backtest.values(name, metric),
            yerr=np.nan_to_num(backtest.half_widths(name, metric)),
            color=_COLOURS[place % len(_COLOURS)],
            marker=_MARKERS[place % len(_MARKERS)],
            markersize=5,
            linewidth=1,
            elinewidth=0.8,
            label=name,
        )
    axes.set_ylabel(metric_of(metric).label)
    axes.legend(ncols=min(n_models, 6), frameon=False, loc="lower left", bbox_to_anchor=(0, 1))


def _draw_shares(axes: Any, backtest: Backtest) -> None:
    shares = [window.ceiling.get("known_item_share", np.nan) for window in backtest.windows]
    at = np.arange(len(shares))
    axes.bar(at, np.multiply(100, shares), color="#BBBBBB", width=0.6)
    axes.set_ylim(0, 100)
    axes.set_ylabel("known\nitems, %")
    days = [f"{window.begin.isoformat()}\n{window.n_users:,} users" for window in backtest.windows]
    axes.set_xticks(at, days, fontsize=8)
    axes.set_xlabel("window begins")
