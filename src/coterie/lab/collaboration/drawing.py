"""What all figures share: colours, panels, legends, and rows of points.

Settings keep their colour and marker through all figures. Colours are Okabe and Ito's, cividis
where they stand for a number: both are told apart by colour-blind people, and by marker or
brightness in grey.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.lab.collaboration.analysis import Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")

WIDTH, DOTS = 11.0, 144
"""Inches of the widest figure, which fills the page, and dots an inch: the page shows 96, for text
as large as its own.
"""

KIND_LABELS = (
    "local\n(alike histories)",
    "global:\nsubset",
    "global:\ncommon neighbours",
    "far and\nunrelated",
    "in between",
)
"""In the order of `PairKind`."""


@contextmanager
def house_style() -> Iterator[None]:
    """The house's look."""
    import matplotlib as mpl  # noqa: PLC0415

    look: Any = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titleweight": "bold",
    }
    look |= {"axes.titlelocation": "left", "axes.titlesize": 10}
    with mpl.rc_context(look):
        yield


def new_panels(
    n: int, *, height: float = 3.6, columns: int = 3, **options: Any
) -> "tuple[Figure, list[Axes]]":
    """A figure of n panels, so many a row, each so high."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    columns = min(n, columns)
    lines = -(-n // columns)
    figure = Figure(
        figsize=(min(WIDTH, 5.5 * columns), height * lines), layout="constrained", dpi=DOTS
    )
    axes = list(figure.subplots(lines, columns, squeeze=False, **options).flat)
    for unused in axes[n:]:
        unused.set_axis_off()
    return figure, axes[:n]


def look_of(place: int) -> dict[str, Any]:
    """Colour and marker of a setting, by its place."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
    }


def draw_legend(figure: "Figure", axes: "Axes", *, markerscale: float = 1) -> None:
    """One legend for all panels, below them and at the left, where a narrow screen begins."""
    handles, labels = axes.get_legend_handles_labels()
    lines = -(-len(labels) // (6 if figure.get_figwidth() == WIDTH else 3))
    legend = figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=-(-len(labels) // lines),
        frameon=False,
        markerscale=markerscale,
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)


def height_of_rows(settings: Sequence[Findings]) -> float:
    """Of a panel of `rows_of_points`: no two settings may touch."""
    return max(4.2, 1.5 + 0.55 * len(settings))


def rows_of_points(
    axes: "Axes", labels: Sequence[str], lines: dict[str, list[tuple[float, float, float]]]
) -> None:
    """A row a label, a point with interval a setting."""
    for place, (name, values) in enumerate(lines.items()):
        shift = 0.6 * ((place + 0.5) / len(lines) - 0.5)
        at, look = np.arange(len(labels)) + shift, look_of(place)
        middle, low, high = np.array(values).T
        axes.hlines(at, low, high, color=look["color"], linewidth=2)
        axes.plot(middle, at, linestyle="none", markersize=6, label=name, **look)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
