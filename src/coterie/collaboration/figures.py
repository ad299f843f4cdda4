"""The figures of the report: what a person would rather look at than read.

Settings keep their colour and marker through all figures. Colours are Okabe and Ito's, cividis where they stand for a number: both
are told apart by colour-blind people, and by marker or brightness in grey.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.collaboration.analyze import QUALITY, Analysis, Findings, LatentMap
from coterie.collaboration.drift import Drift
from coterie.collaboration.masking import MaskingGeometry, contraction_line
from coterie.collaboration.pairs import GLOBAL, PairKind
from coterie.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")

KIND_LABELS = ("local\n(alike histories)", "global:\nsubset", "global:\ncommon neighbours", "far and\nunrelated", "in between")
"""In the order of `PairKind`."""


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Args:
        name: Of its file, without ending.
        title: Above it.
        shows: One sentence: what can be read off it.
        shows_not: One sentence: what cannot.
        draw: Draws it.
    """

    name: str
    title: str
    shows: str
    shows_not: str
    draw: Callable[[Analysis], "Figure"]


def check_figures() -> None:
    """Sees that figures can be drawn.

    Raises:
        ConfigError: if a package is missing.
    """
    try:
        import jinja2  # noqa: F401, PLC0415
        import matplotlib  # noqa: F401, PLC0415
        import openTSNE  # noqa: F401, PLC0415
        import plotly  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError(f"the report needs the package {error.name}; pip install 'coterie[analysis]'.") from error


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl  # noqa: PLC0415

    look: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold"}
    look["axes.titlelocation"] = "left"
    with mpl.rc_context(look):
        yield


def _panels(n: int, *, width: float = 5.2, height: float = 4.0, columns: int = 3, **options: Any) -> "tuple[Figure, list[Axes]]":
    """A figure of n panels, so many a row."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    columns = min(n, columns)
    lines = -(-n // columns)
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained", dpi=140)
    axes = list(figure.subplots(lines, columns, squeeze=False, **options).flat)
    for unused in axes[n:]:
        unused.set_axis_off()
    return figure, axes[:n]


def _look(place: int) -> dict[str, Any]:
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]}


def _legend(figure: "Figure", axes: "Axes") -> None:
    """One legend for all panels, below them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=8, frameon=False)


def _rows_of_points(axes: "Axes", labels: Sequence[str], lines: dict[str, list[tuple[float, float, float]]]) -> None:
    """A row a label, a point with interval a setting."""
    for place, (name, values) in enumerate(lines.items()):
        shift = 0.6 * ((place + 0.5) / len(lines) - 0.5)
        at, look = np.arange(len(labels)) + shift, _look(place)
        middle, low, high = np.array(values).T
        axes.hlines(at, low, high, color=look["color"], linewidth=2)
        axes.plot(middle, at, linestyle="none", markersize=6, label=name, **look)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)


def draw_quality(analysis: Analysis) -> "Figure":
    """Ranking quality of every setting on the validation users."""
    figure, (axes,) = _panels(1, width=7, height=0.9 + 0.4 * len(analysis.settings))
    for place, one in enumerate(analysis.settings):
        if len(one.quality):
            mean, error = one.quality.mean(), one.quality.std(ddof=1) / np.sqrt(len(one.quality))
            axes.errorbar(mean, place, xerr=error, markersize=7, capsize=3, linestyle="none", **_look(place))
            axes.annotate(f"{mean:.4f}", (mean, place), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.set_yticks(range(len(analysis.settings)), [one.name for one in analysis.settings])
    axes.set_ylim(len(analysis.settings) - 0.5, -0.8)
    axes.margins(x=0.15)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"{QUALITY.upper()} on validation users ± standard error")
    return figure


def draw_helpers(analysis: Analysis) -> "Figure":
    """Shares of helpful transfer by kind of pair, and what a pair gives in the mean."""
    figure, panels = _panels(3, width=5, height=4.8, sharey=True)
    n_pairs = analysis.settings[0].transfer.n_pairs
    share, cosine, mean = panels
    for axes, name in ((share, "transfer"), (cosine, "cosine")):
        lines = {one.name: [getattr(one, name).share_of(kind) for kind in PairKind] for one in analysis.settings}
        _rows_of_points(axes, KIND_LABELS, lines)
        axes.vlines(n_pairs / n_pairs.sum(), np.arange(len(n_pairs)) - 0.4, np.arange(len(n_pairs)) + 0.4, color="black", linestyle=":")
        axes.set_xlim(left=0)
        axes.set_xlabel("share of helpful transfer (dotted: of pairs)")
    _rows_of_points(mean, KIND_LABELS, {one.name: [one.cosine.mean_of(kind) for kind in PairKind] for one in analysis.settings})
    mean.axvline(0, color="black", linewidth=0.8)
    mean.set_xlabel("mean cosine of the two gradients")
    titles = ("every unit of transfer counts", "every user counts the same", "what a pair gives")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
    _legend(figure, share)
    return figure


def draw_kind_distances(analysis: Analysis) -> "Figure":
    """Latent distance by kind of pair."""
    figure, (axes,) = _panels(1, width=8, height=4.8)
    _rows_of_points(axes, KIND_LABELS, {one.name: [one.distances.of(kind) for kind in PairKind] for one in analysis.settings})
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("mean W2 of the pairs over that of all pairs, 95 % interval")
    _legend(figure, axes)
    return figure


def draw_influence(analysis: Analysis) -> "Figure":
    """Transfer along latent distance and angle."""
    figure, panels = _panels(3, width=5)
    for place, one in enumerate(analysis.settings):
        look, by_w2, by_angle = _look(place), one.influence, one.influence_by_angle
        relative = by_w2.distance / np.average(by_w2.distance, weights=by_w2.pairs)
        for axes, x, mean, low, high in (
            (panels[0], by_angle.distance, by_angle.cosine, by_angle.cosine_low, by_angle.cosine_high),
            (panels[1], relative, by_w2.cosine, by_w2.cosine_low, by_w2.cosine_high),
            (panels[2], relative, by_w2.transfer, by_w2.transfer_low, by_w2.transfer_high),
        ):
            axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
            axes.plot(x, mean, markersize=5, linewidth=1.5, label=one.name, **look)
    distance = "latent distance (W2) over the setting's mean"
    labels = (
        ("latent angle, 1 - cosine of the means", "cosine of gradients"),
        (distance, "cosine of gradients"),
        (distance, "<g_u, g_v>, nats²"),
    )
    for axes, (x_label, y_label) in zip(panels, labels, strict=True):
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.3)
    _legend(figure, panels[0])
    return figure


def draw_theorem(analysis: Analysis) -> "Figure":
    """Predicted beside measured changes of a loss after a real step on somebody else."""
    rates = analysis.options.learning_rates
    figure, panels = _panels(len(rates), width=4.6)
    for axes, rate, at in zip(panels, rates, range(len(rates)), strict=True):
        for place, one in enumerate(analysis.settings):
            look, theorem = _look(place), one.theorem
            axes.scatter(theorem.predicted[at], theorem.change[at], s=7, alpha=0.4, linewidths=0, label=one.name, **look)
        ends = [one.theorem.predicted[at] for one in analysis.settings]
        low, high = min(map(np.min, ends)), max(map(np.max, ends))
        axes.plot([low, high], [low, high], color="black", linewidth=0.8)
        axes.axhline(0, color="black", linewidth=0.4)
        axes.set_title(f"step of rate {rate:g}")
        axes.set_xlabel("predicted change of u's loss, nats")
        axes.set_ylabel("measured")
        axes.grid(alpha=0.3)
    _legend(figure, panels[0])
    return figure


def draw_masking(analysis: Analysis) -> "Figure":
    """The map of differences and overlaps with its line, and exact probabilities beside simulation and bound."""
    figure, panels = _panels(2 * len(analysis.masking), width=6, height=4.4, columns=2)
    for drawn, nearest, axes, beside in zip(analysis.masking, analysis.masking_nearest, panels[::2], panels[1::2], strict=True):
        rho = drawn.keep_prob
        for one, size, edge in ((drawn, 7, "none"), (nearest, 16, "black")):
            colours = np.divide(one.expected, one.d, out=np.ones(len(one.d)), where=one.d > 0)
            dots = axes.scatter(
                np.maximum(one.s, 0.5),
                np.maximum(one.d, 0.5),
                c=colours,
                s=size,
                cmap="cividis",
                vmin=rho,
                vmax=1,
                edgecolors=edge,
                linewidths=0.4,
            )
        line = np.geomspace(0.5, max(drawn.s.max(), nearest.s.max(), 1), 50)
        axes.plot(line, contraction_line(line, rho), color="black", linewidth=1.5, label="d = 2ρs")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("items in common, s (0 drawn at 0.5)")
        axes.set_ylabel("items that only one has, d")
        axes.set_title(
            f"ρ = {rho:g}: {drawn.share_contracting:.1%} of random, {nearest.share_contracting:.1%} of nearest pairs come closer"
        )
        axes.title.set_fontsize(10)
        axes.legend(frameon=False, loc="lower right")
        figure.colorbar(dots, ax=axes, label="mean distance under masks / distance")
        _probabilities(beside, drawn)
    return figure


def _probabilities(axes: "Axes", one: MaskingGeometry) -> None:
    n, rho = len(one.simulated), one.keep_prob
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    labels = (f"D ≤ {rho:g} d", f"D ≥ {2 - rho:g} d")
    for place, (exact, bound) in enumerate(((one.contraction, one.contraction_bound), (one.expansion, one.expansion_bound))):
        look = _look(place)
        axes.plot(exact[:n], one.simulated[:, place], linestyle="none", label=f"{labels[place]}: simulated", **look)
        axes.plot(exact[:n], bound[:n], linestyle="none", fillstyle="none", label="Hoeffding's bound", **look)
    axes.set_xlabel("exact probability")
    axes.set_ylabel("share of 1,000 simulated masks, or bound")
    axes.set_title("exact, simulated and bounded (random pairs)")
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="center right")


def draw_drift(analysis: Analysis) -> "Figure":
    """Neighbourhood drift along keep_prob."""
    figure, (overlap, ratio) = _panels(2, width=6, columns=2)
    for place, one in enumerate(analysis.settings):
        keep_probs = [drift.keep_prob for drift in one.drift]
        overlap.plot(keep_probs, [drift.overlap.mean() for drift in one.drift], markersize=6, linewidth=1.5, label=one.name, **_look(place))
        ratio.plot(keep_probs, [drift.ratio for drift in one.drift], markersize=6, linewidth=1.5, label=one.name, **_look(place))
    overlap.set_ylabel(f"mean Jaccard overlap of the {analysis.options.neighbours} nearest under two masks")
    ratio.set_ylabel("spread of a user over masks / distance between users")
    for axes in (overlap, ratio):
        axes.set_xlabel("share of a history that survives the mask")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    _legend(figure, overlap)
    return figure


def draw_bottleneck(analysis: Analysis) -> "Figure":
    """What passes the latent space, in all and by dimension."""
    figure, (parts, dimensions) = _panels(2, width=6, height=max(4.0, 1.4 + 0.4 * len(analysis.settings)), columns=2)
    names = [one.name for one in analysis.settings]
    found = [one.bottleneck for one in analysis.settings]
    information, most = (np.array([getattr(one, name) for one in found]) for name in ("information_nats", "information_at_most_nats"))
    mean_kl = np.array([one.mean_kl_nats for one in found])
    parts.barh(names, mean_kl, color="#DDDDDD", label="mean KL = information + aggregate KL")
    parts.barh(names, most, height=0.5, color=COLOURS[5], hatch="//", edgecolor="white", label="information, at most")
    parts.barh(names, information, height=0.5, color=COLOURS[0], label=f"information, at least (ceiling {found[0].ceiling_nats:.1f})")
    parts.invert_yaxis()
    parts.set_xlabel("nats a user")
    parts.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=1, fontsize=9)
    for place, one in enumerate(analysis.settings):
        kl, look = np.sort(one.bottleneck.kl_by_dimension_nats)[::-1], _look(place)
        dimensions.plot(
            range(1, len(kl) + 1),
            np.maximum(kl, 1e-6),
            color=look["color"],
            linewidth=1.5,
            label=f"{one.name}, {one.bottleneck.n_active} active",
        )
        dimensions.plot(1, max(kl[0], 1e-6), markersize=6, **look)
    dimensions.set_yscale("log")
    dimensions.set_xlabel("latent dimension, largest first")
    dimensions.set_ylabel("KL, nats")
    dimensions.grid(alpha=0.3)
    dimensions.legend(frameon=False)
    return figure


def draw_maps(analysis: Analysis, maps: Sequence[LatentMap]) -> "Figure":
    """The same users in every setting, coloured by their number of interactions, the cohorts marked, anchors where there are any."""
    figure, panels = _panels(len(maps), width=5.2, height=4.9)
    counts = interactions(analysis)
    colours: dict[str, Any] = {"cmap": "cividis", "vmin": np.log10(counts.min()), "vmax": np.log10(counts.max())}
    for axes, one in zip(panels, maps, strict=True):
        if one.anchors is not None:
            axes.scatter(one.anchors[:, 0], one.anchors[:, 1], s=18, color="#D55E00", marker="+", linewidths=0.7, label="item anchors")
        dots = axes.scatter(one.users[:, 0], one.users[:, 1], c=np.log10(counts), s=6, linewidths=0, **colours)
        for (about, members), marker in zip(analysis.cohorts.items(), MARKERS[1:], strict=False):
            look: dict[str, Any] = {"s": 34, "marker": marker, "edgecolors": "black", "linewidths": 0.7}
            x, y = one.users[members].T
            axes.scatter(x, y, c=np.log10(counts[members]), label=f"about {about} items", **look, **colours)
        axes.set_title(one.name)
        axes.set_xticks([])
        axes.set_yticks([])
        if one.shares is not None:
            axes.set_xlabel(f"{one.shares[0]:.0%} of the variance")
            axes.set_ylabel(f"{one.shares[1]:.0%}")
    panels[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.06), ncols=2)
    bar = figure.colorbar(dots, ax=panels, shrink=0.7, label="interactions")
    ticks = [tick for tick in (1, 3, 10, 30, 100, 300, 1000, 3000) if counts.min() <= tick <= counts.max()]
    bar.set_ticks([float(np.log10(tick)) for tick in ticks], labels=[str(tick) for tick in ticks])
    return figure


SWEPT = {"kl_weight": "β (RecVAE: γ)", "pia": "λ_A", "keep_prob": "keep_prob in training"}


def sweep_of(analysis: Analysis) -> tuple[str, list[Findings]]:
    """The hyperparameter along which most settings differ in nothing else, and these settings, ascending."""
    found: tuple[str, list[Findings]] = ("", [])
    for name in SWEPT:
        groups: dict[tuple[object, ...], list[Findings]] = {}
        for one in analysis.settings:
            groups.setdefault((one.model, *(getattr(one, other) for other in SWEPT if other != name)), []).append(one)
        longest = max(groups.values(), key=len)
        if len(longest) > len(found[1]):
            found = name, sorted(longest, key=lambda one: float(getattr(one, name)))
    return found


def draw_sweep(analysis: Analysis) -> "Figure":
    """Ranking, bottleneck, drift and locality along the hyperparameter in which the settings differ."""
    name, settings = sweep_of(analysis)
    figure, panels = _panels(6, width=4.4, height=3.4)
    at, blue, orange = range(len(settings)), _look(0), _look(1)
    bottlenecks, drifts = [one.bottleneck for one in settings], [drift_at(one, 0.5) for one in settings]
    quality, information, active, overlap, spread, shares = panels
    if all(len(one.quality) > 1 for one in settings):
        errors = [one.quality.std(ddof=1) / np.sqrt(len(one.quality)) for one in settings]
        quality.errorbar(at, [one.quality.mean() for one in settings], yerr=errors, capsize=3, **blue)
    quality.set_title(f"{QUALITY.upper()} ± s.e., validation")
    information.plot(at, [one.mean_kl_nats for one in bottlenecks], label="mean KL", **blue)
    low, high = ([getattr(one, end) for one in bottlenecks] for end in ("information_nats", "information_at_most_nats"))
    information.fill_between(at, low, high, color=COLOURS[2], alpha=0.3, linewidth=0, label="information: at least, at most")
    information.set_title("nats a user")
    active.plot(at, [one.n_active for one in bottlenecks], **blue)
    active.set_title("active dimensions")
    overlap.plot(at, [one.overlap.mean() for one in drifts], **blue)
    overlap.set_title("neighbours common to two masks")
    spread.plot(at, [one.ratio for one in drifts], **blue)
    spread.set_title("spread over masks / between users")
    for label, kinds, look in (("local", (PairKind.LOCAL,), blue), ("global", GLOBAL, orange)):
        middle, below, above = np.array([one.cosine.share_of(*kinds) for one in settings]).T
        shares.errorbar(at, middle, yerr=(middle - below, above - middle), capsize=3, label=label, **look)
    shares.set_title("share of helpful transfer (cosines)")
    for axes in panels:
        axes.set_xticks(at, [f"{getattr(one, name):g}" for one in settings])
        axes.set_xlabel(f"{SWEPT[name]} (not to scale)")
        axes.set_ylim(bottom=None if axes is quality else 0)
        axes.grid(alpha=0.3)
        axes.title.set_fontsize(10)
    for axes in (information, shares):
        axes.legend(frameon=False, fontsize=8)
    return figure


def drift_at(one: Findings, keep_prob: float) -> Drift:
    """The drift that was measured nearest to a keep_prob."""
    return min(one.drift, key=lambda drift: abs(drift.keep_prob - keep_prob))


def interactions(analysis: Analysis) -> np.ndarray:
    """``[m]`` numbers of training interactions of the map's users."""
    counts: np.ndarray = np.diff(analysis.dataset.train.indptr)[analysis.map_users]
    return counts


SWEEP = Picture(
    "sweep",
    "Along the hyperparameter",
    "How ranking, bottleneck, drift and locality change along the one hyperparameter in which the settings differ.",
    "What another seed would give: every point is one trained model.",
    draw_sweep,
)
"""Drawn if three settings or more differ in one hyperparameter alone."""

PICTURES = (
    Picture(
        "quality",
        "Ranking quality",
        "How well each setting ranks for people who were not in training.",
        "Which difference is certain: the users are common to all settings, so use `coterie compare` and not overlapping bars.",
        draw_quality,
    ),
    Picture(
        "influence",
        "Influence along latent distance",
        "How much a gradient step on one user serves another, by the angle between the two in the latent space, and by their distance.",
        "Cause: near users are alike in their items as well; and distance grows with activity, so its smallest bins hold light users.",
        draw_influence,
    ),
    Picture(
        "helpers",
        "Who helps whom",
        "Which kinds of pairs the helpful gradient transfer of training comes from, beside how frequent the kinds are (dotted).",
        "How much better anybody's recommendations become: helpful is what lowers a training loss to first order.",
        draw_helpers,
    ),
    Picture(
        "kind-distances",
        "Latent distance by kind of pair",
        "Which kinds of pairs a setting draws together or pushes apart, relative to the average pair of that setting.",
        "Absolute distances, which the weight of the KL shrinks for everybody.",
        draw_kind_distances,
    ),
    Picture(
        "theorem",
        "Steps that were really taken",
        "The change of a user's loss after a real step on another user, beside the first-order prediction -η<g_u, g_v>.",
        "A step of training, which goes over a batch, with Adam, and over the encoder as well.",
        draw_theorem,
    ),
    Picture(
        "masking",
        "What masks do to distances between inputs",
        "Pairs above the line come closer under masks in the mean, those below are pushed apart; circled: users with their most alike.",
        "What the encoder makes of it, whose input is scaled up by 1/ρ: after that no pair comes closer in the mean, near ones least.",
        draw_masking,
    ),
    Picture(
        "drift",
        "Neighbourhood drift",
        "How many of a user's neighbours stay from one mask to the next, and how far masks move a user beside the distance between users.",
        "That drift is bad: without any, nobody far is ever near.",
        draw_drift,
    ),
    Picture(
        "bottleneck",
        "What passes the latent space",
        "How much a latent point tells of its user, and in how many dimensions.",
        "The information itself, when the estimate is at its ceiling, the logarithm of the number of users looked at: then read at least.",
        draw_bottleneck,
    ),
    Picture(
        "pca",
        "Map by principal components",
        "The plane in which users differ most, in units of the prior; the same users in every setting, turned to lie alike.",
        "Most of the latent space: the axes' shares of the variance are written beside them.",
        lambda analysis: draw_maps(analysis, analysis.pca),
    ),
    Picture(
        "tsne",
        "Map by t-SNE",
        "Who is next to whom; the same users in every setting, laid over the first.",
        "Distances between groups, sizes or densities: t-SNE has no scale; and an anchor is always put among its nearest users.",
        lambda analysis: draw_maps(analysis, analysis.tsne),
    ),
)
"""The figures of the report, in its order."""


def pictures_of(analysis: Analysis) -> tuple[Picture, ...]:
    """The figures that these settings ask for."""
    return (PICTURES[0], SWEEP, *PICTURES[1:]) if len(sweep_of(analysis)[1]) > 2 else PICTURES


def draw(picture: Picture, analysis: Analysis) -> "Figure":
    """Draws a figure in the house's style."""
    with _style():
        return picture.draw(analysis)
