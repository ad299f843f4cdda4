"""How the time of training and of scoring grows with each size of the problem.

    python benchmarks/growth.py --json growth.json --plot growth.png

One size at a time goes up a geometric ladder around MovieLens-20M's shape, random histories,
initial weights. Training is one pass over the users in batches of 500; scoring is the ranking of
all unseen items for the same users, 500 at a time. All steps of a ladder take turns, so that the
machine's drift touches them alike. The exponent is the slope of a line through the logarithms: over
the whole ladder, and over its upper three steps, where fixed costs weigh less.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coterie.files import publish_file, write_json
from coterie.lab.bench.turns import machine, random_histories, take_turns
from coterie.models.multvae import MultVAEConfig
from coterie.plain_table import plain_table
from coterie.ranking.ranker import Ranker
from coterie.sparse import SparseRows
from coterie.training.step import TrainingStep

BATCH = 500
UPPER = 3
"""Steps at the top of a ladder whose slope is reported apart."""

UP, AROUND = (1, 2, 4, 8, 16), (1 / 4, 1 / 2, 1, 2, 4)
LADDERS = {"users": UP, "items": AROUND, "items_per_user": AROUND, "hidden": AROUND, "k": AROUND}
"""What varies, as multiples of the base. Below one batch of users there is nothing to learn of
passes over many.
"""

LABELS = {
    "users": "users",
    "items": "items",
    "items_per_user": "items a user",
    "hidden": "hidden width",
    "k": "length of the lists",
}
# Okabe and Ito's palette: told apart by colour-blind people, and in grey by the markers' shapes.
COLOURS, MARKERS = {"training": "#0072B2", "scoring": "#D55E00"}, {"training": "o", "scoring": "s"}


@dataclass(frozen=True)
class Shape:
    """One size of the problem; the latent space is 200 wide.

    Args:
        users: Users trained on, and users scored.
        items: Size of the catalogue.
        items_per_user: Mean length of a history.
        hidden: Width of the hidden layer on either side.
        k: Length of the lists.
    """

    users: int = BATCH
    items: int = 20108
    items_per_user: int = 73
    hidden: int = 600
    k: int = 100


@dataclass(frozen=True)
class Curve:
    """The time of one kind of work over one ladder.

    Args:
        sizes: What varied, ascending; the mean that was drawn for items a user.
        seconds: One list a size, round by round.
    """

    sizes: list[float]
    seconds: list[list[float]]

    @property
    def medians(self) -> list[float]:
        """Median seconds of each size."""
        return [statistics.median(rounds) for rounds in self.seconds]

    def exponent(self, last: int = 0) -> float:
        """The power of the size with which the medians grow, by least squares on logarithms, over
        the ``last`` sizes or all.
        """
        return _slope(self.sizes[-last:], self.medians[-last:])

    def spread(self, last: int = 0) -> tuple[float, float]:
        """The lowest and the highest exponent of a single round."""
        slopes = [
            _slope(self.sizes[-last:], list(times))
            for times in zip(*self.seconds[-last:], strict=True)
        ]
        return min(slopes), max(slopes)


def _slope(sizes: list[float], seconds: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def contestants(shape: Shape, pia: float) -> tuple[float, dict[str, Callable[[], None]]]:
    """The mean length of the histories that were drawn, and the two kinds of work on them, by one
    network.
    """
    matrix = random_histories(shape.users, shape.items, shape.items_per_user)
    step = TrainingStep(shape.items, MultVAEConfig(hidden_dims=(shape.hidden,), pia=pia))
    ranker, rows = Ranker(step, shape.k), SparseRows.from_csr(matrix)
    blocks = [matrix[start : start + BATCH] for start in range(0, shape.users, BATCH)]

    def train() -> None:
        for users in torch.split(torch.arange(shape.users), BATCH):
            step(rows.take(users))

    def score() -> None:
        for block in blocks:
            ranker.rank(block, seen=block)

    return matrix.nnz / shape.users, {"training": train, "scoring": score}


def climb(variable: str, base: Shape, pia: float, rounds: int) -> dict[str, Curve]:
    """Measures one ladder: by kind of work; training knows no lists."""
    sizes: list[float] = []
    work: dict[str, Callable[[], None]] = {}
    kinds = ("scoring",) if variable == "k" else ("training", "scoring")
    for number, multiple in enumerate(LADDERS[variable]):
        size = round(getattr(base, variable) * multiple)
        drawn, both = contestants(replace(base, **{variable: size}), pia)
        sizes.append(drawn if variable == "items_per_user" else size)
        work |= {f"{kind} {number}": both[kind] for kind in kinds}
    seconds = take_turns(work, rounds, "cpu")
    return {
        kind: Curve(sizes, [seconds[f"{kind} {number}"] for number in range(len(sizes))])
        for kind in kinds
    }


def table(variable: str, curves: dict[str, Curve], n_users: int) -> str:
    """Medians at every size, in all and a user, and the exponents below them."""
    sizes = next(iter(curves.values())).sizes
    header, rows = [LABELS[variable]], [[f"{size:,.0f}"] for size in sizes]
    for kind, curve in curves.items():
        header += [f"{kind} ms", "µs a user"]
        for row, size, seconds in zip(rows, sizes, curve.medians, strict=True):
            row += [
                f"{1e3 * seconds:,.1f}",
                f"{1e6 * seconds / (size if variable == 'users' else n_users):,.0f}",
            ]
    lines = [plain_table(header, rows, [True] * len(header))]
    for kind, curve in curves.items():
        told = [
            f"{curve.exponent(last):.2f} ({low:.2f} to {high:.2f})"
            for last in (0, UPPER)
            for low, high in [curve.spread(last)]
        ]
        lines.append(
            f"{kind} grows with the power {told[0]}, over the upper {UPPER} sizes {told[1]}"
        )
    return "\n".join(lines)


def as_json(curve: Curve) -> dict[str, object]:
    exponents = {"whole": curve.exponent(), "upper": curve.exponent(UPPER)}
    spreads = {"whole": curve.spread(), "upper": curve.spread(UPPER)}
    return {
        **asdict(curve),
        "median_seconds": curve.medians,
        "exponent": exponents,
        "exponent_of_rounds": spreads,
    }


def draw(path: Path, grown: dict[str, dict[str, Curve]], base: Shape, pia: float) -> None:
    """One panel a variable, on the same scale of milliseconds."""
    told = [
        f"One varies, the rest is\n{base.users} users, {base.items:,} items,\n{base.items_per_user}"
        " items a user,"
    ]
    told += [
        f"hidden width {base.hidden}, lists of {base.k},",
        f"batches and blocks of {BATCH}" + f",\nPIA {pia:g}" * (pia > 0) + ".",
    ]
    told += [
        "",
        "In the legends: the exponent over",
        f"all sizes, and over the upper {UPPER}.",
        "Dotted: in proportion to the size.",
    ]
    with mpl.rc_context(
        {
            "font.size": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titleweight": "bold",
        }
    ):
        figure = Figure(figsize=(11, 6.8), layout="constrained", dpi=140)
        panels: Iterator[Axes] = iter(figure.subplots(2, 3, sharey=True).flat)
        for variable, curves in grown.items():
            _draw_panel(next(panels), variable, curves)
        # Room for the legends, above what is measured.
        highest = max(
            seconds
            for curves in grown.values()
            for curve in curves.values()
            for seconds in curve.medians
        )
        figure.axes[0].set_ylim(top=5 * 1e3 * highest)
        for axes in panels:
            axes.axis("off")
            axes.text(0, 0.95, "\n".join(told), va="top", transform=axes.transAxes, linespacing=1.4)
        figure.supylabel("milliseconds")
        with publish_file(path) as aside:
            figure.savefig(aside)


def _draw_panel(axes: Axes, variable: str, curves: dict[str, Curve]) -> None:
    for kind, curve in curves.items():
        label = f"{kind}: {curve.exponent():.2f}, upper {curve.exponent(UPPER):.2f}"
        times = [1e3 * seconds for seconds in curve.medians]
        axes.plot(
            curve.sizes,
            times,
            label=label,
            color=COLOURS[kind],
            marker=MARKERS[kind],
            linewidth=1.8,
            markersize=7,
        )
        proportional = [times[-1] * size / curve.sizes[-1] for size in curve.sizes]
        axes.plot(
            curve.sizes, proportional, color="#999999", linewidth=1, linestyle="dotted", zorder=0
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = next(iter(curves.values())).sizes
    axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], fontsize=10)
    axes.margins(x=0.09)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_title(LABELS[variable], loc="left")
    axes.legend(frameon=False, fontsize=10, loc="upper left")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pia", type=float, default=0.0, help="weight of PIA in training")
    parser.add_argument("--rounds", type=int, default=5, help="how often each takes its turn")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a small shape and one round, to see that it runs; its figures mean nothing",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the measurements here"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw them into this PNG")
    options = parser.parse_args()
    base = (
        replace(Shape(), items=400, items_per_user=12, hidden=20, k=8) if options.quick else Shape()
    )
    rounds = 1 if options.quick else options.rounds
    facts = {
        "base": asdict(base),
        "batch": BATCH,
        "pia": options.pia,
        "rounds": rounds,
        **machine("cpu"),
    }
    grown: dict[str, dict[str, Curve]] = {}
    for variable in LADDERS:
        grown[variable] = climb(variable, base, options.pia, rounds)
        print(table(variable, grown[variable], base.users), end="\n\n", flush=True)
    if options.json is not None:
        curves = {
            variable: {kind: as_json(curve) for kind, curve in kinds.items()}
            for variable, kinds in grown.items()
        }
        write_json(options.json, {**facts, "curves": curves})
    if options.plot is not None:
        draw(options.plot, grown, base, options.pia)


if __name__ == "__main__":
    main()
