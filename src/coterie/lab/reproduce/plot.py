"""The curves of a table as a figure: gains over the reference value, with intervals."""

from pathlib import Path
from typing import Any

from coterie.errors import ConfigError
from coterie.evaluation.compare import Comparison
from coterie.evaluation.metrics import Metric
from coterie.files import publish_file
from coterie.lab.reproduce.definition import Curve
from coterie.lab.reproduce.results import Results

# Blue and vermilion of Okabe and Ito's palette: told apart by colour-blind people, and in grey by
# the markers.
TEST, VALIDATION = ("#0072B2", "o"), ("#D55E00", "s")


def check_plot() -> None:
    """Sees that figures can be drawn.

    Raises:
        ConfigError: if matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError(
            "a table with curves needs the package matplotlib; pip install 'coterie[plot]'."
        ) from error


def curves_to_draw(results: Results) -> list[Curve]:
    """Those of which a value other than the reference was run beside it."""
    return [
        curve
        for curve in results.definition.curves
        if {pair.name for pair in curve.pairs} & set(results.comparisons)
    ]


def draw_curves(results: Results, path: Path) -> None:
    """Draws a panel a curve into a PNG: the gain at every value, on test and on validation users,
    with paired intervals.

    Args:
        results: With a curve to draw, see `curves_to_draw`.
        path: Where to.

    Raises:
        ConfigError: if matplotlib is missing.
    """
    check_plot()
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    curves = curves_to_draw(results)
    with mpl.rc_context(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titleweight": "bold",
        }
    ):
        figure = Figure(figsize=(4.6 * len(curves), 4.0), layout="constrained", dpi=140)
        for axes, curve in zip(
            figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True
        ):
            _draw(axes, results, curve)
        with publish_file(path) as aside:
            figure.savefig(aside)


def _draw(axes: Any, results: Results, curve: Curve) -> None:
    metric = results.definition.compare_by
    values = [value for value in curve.values if curve.row_name(value) in results.runs.rows]
    kinds = (
        ("validation", results.validation_comparisons, VALIDATION, -0.08),
        ("test", results.comparisons, TEST, 0.08),
    )
    for label, comparisons, (colour, marker), shift in kinds:
        points = [
            _gain(
                comparisons.get(f"{curve.row_name(value)} over {curve.row_name(curve.reference)}"),
                metric,
            )
            for value in values
        ]
        places = [place + shift for place in range(len(values))]
        axes.plot(
            places,
            [gain for gain, _, _ in points],
            color=colour,
            marker=marker,
            markersize=6,
            linewidth=1.5,
            label=label,
        )
        axes.vlines(
            places,
            [low for _, low, _ in points],
            [high for _, _, high in points],
            color=colour,
            linewidth=2,
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axes.set_xlabel(f"{curve.label} (not to scale)")
    axes.set_ylabel(f"gain in {Metric.parse(metric).label} over {curve.reference:g}, 95 % interval")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    axes.set_title(curve.label, loc="left")


def _gain(comparison: Comparison | None, metric: str) -> tuple[float, float, float]:
    """Gain and interval; the reference gains nothing over itself."""
    if comparison is None:
        return 0.0, 0.0, 0.0
    one = comparison.overall[metric]
    return one.difference, one.low, one.high
