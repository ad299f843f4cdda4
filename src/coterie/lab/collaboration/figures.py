"""The figures of the report: what a person would rather look at than read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.errors import ConfigError
from coterie.lab.collaboration.analysis import QUALITY, Analysis, Findings, LatentMap
from coterie.lab.collaboration.drawing import (
    COLOURS,
    KIND_LABELS,
    MARKERS,
    draw_legend,
    height_of_rows,
    house_style,
    look_of,
    new_panels,
    rows_of_points,
)
from coterie.lab.collaboration.figures_teaching import (
    draw_cohorts,
    draw_semantics,
    draw_teaching,
)
from coterie.lab.collaboration.masking import MaskingGeometry, contraction_line
from coterie.lab.collaboration.pairs import GLOBAL, PairKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
        raise ConfigError(
            f"the report needs the package {error.name}; pip install 'coterie[analysis]'."
        ) from error


def draw_quality(analysis: Analysis) -> "Figure":
    """Ranking quality of every setting on the validation users."""
    figure, (axes,) = new_panels(1, height=0.9 + 0.4 * len(analysis.settings))
    for place, one in enumerate(analysis.settings):
        if one.quality:
            mean, error = one.quality.mean(QUALITY), one.quality.standard_error(QUALITY)
            axes.errorbar(
                mean, place, xerr=error, markersize=7, capsize=3, linestyle="none", **look_of(place)
            )
            axes.annotate(
                f"{mean:.4f}",
                (mean, place),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
    axes.set_yticks(range(len(analysis.settings)), [one.name for one in analysis.settings])
    axes.set_ylim(len(analysis.settings) - 0.5, -0.8)
    axes.margins(x=0.15)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"{QUALITY.upper()} on validation users ± standard error")
    return figure


def draw_helpers(analysis: Analysis) -> "Figure":
    """Shares of helpful transfer by kind of pair, and what a pair gives in the mean."""
    figure, panels = new_panels(3, height=height_of_rows(analysis.settings), sharey=True)
    n_pairs = analysis.settings[0].transfer.n_pairs
    share, cosine, mean = panels
    for axes, name in ((share, "transfer"), (cosine, "cosine")):
        lines = {
            one.name: [getattr(one, name).share_of(kind) for kind in PairKind]
            for one in analysis.settings
        }
        rows_of_points(axes, KIND_LABELS, lines)
        axes.vlines(
            n_pairs / n_pairs.sum(),
            np.arange(len(n_pairs)) - 0.4,
            np.arange(len(n_pairs)) + 0.4,
            color="black",
            linestyle=":",
        )
        axes.set_xlim(left=-0.02)
        axes.set_xlabel("share of helpful transfer (dotted: of pairs)")
    rows_of_points(
        mean,
        KIND_LABELS,
        {one.name: [one.cosine.mean_of(kind) for kind in PairKind] for one in analysis.settings},
    )
    mean.axvline(0, color="black", linewidth=0.8)
    mean.set_xlabel("mean cosine of the two gradients")
    titles = ("every unit of transfer counts", "every user counts the same", "what a pair gives")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
    draw_legend(figure, share)
    return figure


def draw_kind_distances(analysis: Analysis) -> "Figure":
    """Latent distance by kind of pair."""
    figure, (axes,) = new_panels(1, height=height_of_rows(analysis.settings))
    rows_of_points(
        axes,
        KIND_LABELS,
        {one.name: [one.distances.of(kind) for kind in PairKind] for one in analysis.settings},
    )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("mean W2 over that of all pairs, 95 % interval")
    draw_legend(figure, axes)
    return figure


def draw_influence(analysis: Analysis) -> "Figure":
    """Transfer along latent distance and angle."""
    figure, panels = new_panels(3)
    for place, one in enumerate(analysis.settings):
        look, by_w2, by_angle = look_of(place), one.influence, one.influence_by_angle
        # Of a collapsed model there are no distances to speak of.
        relative = by_w2.distance / (np.average(by_w2.distance, weights=by_w2.pairs) or np.nan)
        for axes, x, mean, low, high in (
            (
                panels[0],
                by_angle.distance,
                by_angle.cosine,
                by_angle.cosine_low,
                by_angle.cosine_high,
            ),
            (panels[1], relative, by_w2.cosine, by_w2.cosine_low, by_w2.cosine_high),
            (panels[2], relative, by_w2.transfer, by_w2.transfer_low, by_w2.transfer_high),
        ):
            axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
            axes.plot(x, mean, markersize=5, linewidth=1.5, label=one.name, **look)
    distance = "latent distance (W2) over its mean"
    labels = (
        ("latent angle, 1 - cosine of the means", "cosine of gradients"),
        (distance, "cosine of gradients"),
        (distance, "transfer <g_u, g_v>, nats²"),
    )
    for axes, (x_label, y_label) in zip(panels, labels, strict=True):
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.3)
    draw_legend(figure, panels[0])
    return figure


def draw_theorem(analysis: Analysis) -> "Figure":
    """Predicted beside measured changes of a loss after a real step on somebody else, over the
    step's rate: a panel a setting.
    """
    figure, panels = new_panels(len(analysis.settings), sharex=True, sharey=True)
    for axes, one in zip(panels, analysis.settings, strict=True):
        theorem = one.theorem
        for place, rate in enumerate(theorem.learning_rates):
            # Small steps lie on the line, so they are drawn over large ones.
            predicted, change, over = (
                theorem.predicted[place] / rate,
                theorem.change[place] / rate,
                1 - place / 10,
            )
            axes.scatter(
                predicted,
                change,
                s=14,
                alpha=0.6,
                linewidths=0,
                zorder=over,
                label=f"rate {rate:g}",
                **look_of(place),
            )
        ends = predicted.min(), predicted.max()
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.set_title(one.name)
        axes.set_xlabel("predicted change of u's loss / rate")
        axes.set_ylabel("measured change / rate")
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(labelbottom=True)
        axes.grid(alpha=0.3)
    draw_legend(figure, panels[0], markerscale=2)
    return figure


def draw_masking(analysis: Analysis) -> "Figure":
    """The map of differences and overlaps with its line, and exact probabilities beside simulation
    and bound.
    """
    figure, panels = new_panels(2 * len(analysis.masking), height=4.2, columns=2)
    for drawn, nearest, axes, beside in zip(
        analysis.masking, analysis.masking_nearest, panels[::2], panels[1::2], strict=True
    ):
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
        axes.set_ylim(bottom=0.7 * max(0.5, min(drawn.d.min(), nearest.d.min())))
        axes.set_xlabel("items in common, s (0 drawn at 0.5)")
        axes.set_ylabel("items that only one has, d")
        axes.set_title(
            f"keep_prob ρ = {rho:g}: closer in the mean are\n{drawn.share_contracting:.1%} of"
            f" random, {nearest.share_contracting:.1%} of nearest pairs"
        )
        axes.legend(frameon=False, loc="lower right")
        figure.colorbar(dots, ax=axes, aspect=30, label="mean distance under masks / distance")
        _probabilities(beside, drawn)
    return figure


def _probabilities(axes: "Axes", one: MaskingGeometry) -> None:
    n, rho = len(one.simulated), one.keep_prob
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    labels = (f"at most {rho:g} d", f"at least {2 - rho:g} d")
    for place, (exact, bound) in enumerate(
        ((one.contraction, one.contraction_bound), (one.expansion, one.expansion_bound))
    ):
        look = look_of(place)
        axes.plot(
            exact[:n],
            one.simulated[:, place],
            linestyle="none",
            label=f"{labels[place]}, simulated",
            **look,
        )
        axes.plot(
            exact[:n],
            bound[:n],
            linestyle="none",
            fillstyle="none",
            label=f"{labels[place]}, Hoeffding's bound",
            **look,
        )
    axes.set_xlabel("exact probability")
    axes.set_ylabel("share of 1,000 simulated masks, or bound")
    axes.set_title("how far a random pair is under masks:\nexact, simulated and bounded")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def draw_drift(analysis: Analysis) -> "Figure":
    """Neighbourhood drift along keep_prob."""
    figure, panels = new_panels(3)
    labels = {
        "mean_overlap": f"Jaccard overlap of the {analysis.options.neighbours} nearest",
        "ratio": "spread over masks / users",
        "in_sigma": "spread over masks, in σ",
    }
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        for place, one in enumerate(analysis.settings):
            keep_probs = [drift.keep_prob for drift in one.drift]
            values = [getattr(drift, name) for drift in one.drift]
            style: dict[str, Any] = {"markersize": 6, "linewidth": 1.5} | look_of(place)
            axes.plot(keep_probs, values, label=one.name, **style)
        axes.set_ylabel(label)
        axes.set_xlabel("keep_prob: share of a history\nthat survives the mask")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    draw_legend(figure, panels[0])
    return figure


def draw_bottleneck(analysis: Analysis) -> "Figure":
    """What passes the latent space, in all and by dimension."""
    figure, (parts, dimensions) = new_panels(
        2, height=max(4.2, 1.6 + 0.5 * len(analysis.settings)), columns=2
    )
    names = [f"{one.name}\n({one.bottleneck.n_active} alive)" for one in analysis.settings]
    found = [one.bottleneck for one in analysis.settings]
    information, most = (
        np.array([getattr(one, name) for one in found])
        for name in ("information_nats", "information_at_most_nats")
    )
    mean_kl = np.array([one.mean_kl_nats for one in found])
    parts.barh(names, mean_kl, color="#DDDDDD", label="mean KL = information + aggregate KL")
    parts.barh(
        names,
        most,
        height=0.5,
        color=COLOURS[5],
        hatch="//",
        edgecolor="white",
        label="information, at most",
    )
    parts.barh(
        names,
        information,
        height=0.5,
        color=COLOURS[0],
        label=f"information, at least (ceiling {found[0].ceiling_nats:.1f})",
    )
    of_means = [one.kl_of_means_nats for one in found]
    look: dict[str, Any] = {
        "linestyle": "none",
        "marker": "|",
        "markersize": 12,
        "markeredgewidth": 2,
        "color": "black",
    }
    parts.plot(of_means, names, label="of the KL, by means away from the origin", **look)
    parts.invert_yaxis()
    parts.set_xlabel("nats a user")
    parts.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9)
    for place, one in enumerate(analysis.settings):
        kl = np.maximum(np.sort(one.bottleneck.kl_by_dimension_nats)[::-1], 1e-6)
        some = -(-len(kl) // 8)
        dimensions.plot(
            range(1, len(kl) + 1),
            kl,
            markersize=6,
            markevery=some,
            linewidth=1.5,
            label=one.name,
            **look_of(place),
        )
    dimensions.set_yscale("log")
    dimensions.set_xlabel("latent dimension, largest first")
    dimensions.set_ylabel("KL of the dimension, nats")
    dimensions.grid(alpha=0.3)
    draw_legend(figure, dimensions)
    return figure


def draw_maps(analysis: Analysis, maps: Sequence[LatentMap]) -> "Figure":
    """The same users in every setting, coloured by their number of interactions, the cohorts
    marked, anchors where there are any.
    """
    figure, panels = new_panels(len(maps), height=3.6 if len(maps) > 2 else 5)
    counts = interactions(analysis)
    colours: dict[str, Any] = {
        "cmap": "cividis",
        "vmin": np.log10(counts.min()),
        "vmax": np.log10(counts.max()),
    }
    for axes, one in zip(panels, maps, strict=True):
        dots = axes.scatter(
            one.users[:, 0], one.users[:, 1], c=np.log10(counts), s=6, linewidths=0, **colours
        )
        if one.anchors is not None:
            axes.scatter(
                one.anchors[:, 0],
                one.anchors[:, 1],
                s=18,
                color="black",
                marker="+",
                linewidths=0.7,
                label="item anchors",
            )
        for members, marker in zip(analysis.cohorts.values(), MARKERS[1:], strict=False):
            look: dict[str, Any] = {
                "s": 34,
                "marker": marker,
                "edgecolors": "black",
                "linewidths": 0.7,
            }
            (x, y), least, most = one.users[members].T, counts[members].min(), counts[members].max()
            label = (
                f"users with {least} to {most} items"
                if least < most
                else f"users with {least} items"
            )
            axes.scatter(x, y, c=np.log10(counts[members]), label=label, **look, **colours)
        axes.set_title(one.name)
        axes.set_xticks([])
        axes.set_yticks([])
        if one.shares is not None:
            axes.set_xlabel(f"{one.shares[0]:.0%} of the variance")
            axes.set_ylabel(f"{one.shares[1]:.0%} of the variance")
    draw_legend(
        figure,
        next(
            (axes for axes, one in zip(panels, maps, strict=True) if one.anchors is not None),
            panels[0],
        ),
    )
    bar = figure.colorbar(dots, ax=panels, aspect=40, fraction=0.05, pad=0.01, label="interactions")
    ticks = [
        tick
        for tick in (1, 3, 10, 30, 100, 300, 1000, 3000)
        if counts.min() <= tick <= counts.max()
    ]
    bar.set_ticks([float(np.log10(tick)) for tick in ticks], labels=[str(tick) for tick in ticks])
    return figure


SWEPT = {"kl_weight": "β, or RecVAE's γ", "pia": "λ_A", "keep_prob": "keep_prob in training"}


def sweep_of(analysis: Analysis) -> tuple[str, list[Findings]]:
    """The hyperparameter along which most settings differ in nothing else, and these settings,
    ascending, one a value.
    """
    found: tuple[str, list[Findings]] = ("", [])
    for name in SWEPT:
        groups: dict[tuple[object, ...], dict[float, Findings]] = {}
        for one in analysis.settings:
            alike = groups.setdefault(
                (one.rest, *(getattr(one, other) for other in SWEPT if other != name)), {}
            )
            alike.setdefault(getattr(one, name), one)
        longest = max(groups.values(), key=len)
        if len(longest) > len(found[1]):
            found = name, [longest[value] for value in sorted(longest)]
    return found


def draw_sweep(analysis: Analysis) -> "Figure":
    """Ranking, bottleneck, drift and locality along the hyperparameter in which the settings
    differ.
    """
    name, settings = sweep_of(analysis)
    figure, panels = new_panels(6, height=3.0)
    at, blue, orange = range(len(settings)), look_of(0), look_of(1)
    bottlenecks, drifts = (
        [one.bottleneck for one in settings],
        [one.drift_at(0.5) for one in settings],
    )
    quality, information, active, overlap, spread, net = panels
    reports = [one.quality for one in settings if one.quality]
    if len(reports) == len(settings):
        errors = [one.standard_error(QUALITY) for one in reports]
        quality.errorbar(at, [one.mean(QUALITY) for one in reports], yerr=errors, capsize=3, **blue)
    quality.set_title(f"{QUALITY.upper()} ± s.e., validation")
    information.plot(at, [one.mean_kl_nats for one in bottlenecks], label="mean KL", **blue)
    low, high = (
        [getattr(one, end) for one in bottlenecks]
        for end in ("information_nats", "information_at_most_nats")
    )
    information.fill_between(
        at,
        low,
        high,
        color=COLOURS[2],
        alpha=0.3,
        linewidth=0,
        label="information: at least, at most",
    )
    information.set_yscale("symlog", linthresh=1)
    information.set_title("information, nats a user")
    active.plot(at, [one.n_active for one in bottlenecks], **blue)
    active.set_title("dimensions alive")
    overlap.plot(at, [one.mean_overlap for one in drifts], **blue)
    overlap.set_title("neighbours common to two masks")
    spread.plot(at, [one.ratio for one in drifts], **blue)
    spread.set_title("spread over masks / between users")
    for label, kinds, look in (("near", (PairKind.LOCAL,), blue), ("far, related", GLOBAL, orange)):
        middle, below, above = 1e3 * np.array([one.whole.mean_of(*kinds) for one in settings]).T
        net.errorbar(
            at, middle, yerr=(middle - below, above - middle), capsize=3, label=label, **look
        )
    net.axhline(0, color="black", linewidth=0.8)
    net.set_title("net mean cosine × 10³")
    for axes in panels:
        axes.set_xticks(at, [f"{getattr(one, name):g}" for one in settings])
        axes.set_xlabel(f"{SWEPT[name]}, not to scale")
        if axes not in (quality, net):
            axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
        axes.grid(alpha=0.3)
    for axes in (information, net):
        axes.legend(frameon=False, fontsize=8)
    return figure


def interactions(analysis: Analysis) -> np.ndarray:
    """``[m]`` numbers of training interactions of the map's users."""
    counts: np.ndarray = np.diff(analysis.dataset.train.indptr)[analysis.map_users]
    return counts


SWEEP = Picture(
    "sweep",
    "Along the hyperparameter",
    "How ranking, bottleneck, drift and locality change along the one hyperparameter in which the"
    " settings differ.",
    "What another seed would give: every point is one trained model.",
    draw_sweep,
)
"""Drawn if three settings or more differ in one hyperparameter alone."""

PICTURES = (
    Picture(
        "quality",
        "Ranking quality",
        "How well each setting ranks for people who were not in training.",
        "Which difference is certain: the users are common to all settings, so ask coterie compare"
        " rather than whether lines overlap.",
        draw_quality,
    ),
    Picture(
        "influence",
        "Influence along latent distance",
        "How much a gradient step on one user serves another, by the angle between the two in the"
        " latent space, and by their distance (bands: 95 % intervals).",
        "Cause: near users are alike in their items as well; and distance grows with activity, so"
        " its smallest bins hold light users.",
        draw_influence,
    ),
    Picture(
        "helpers",
        "Who helps whom",
        "Which kinds of pairs the helpful gradient transfer over the decoder comes from, with 95 %"
        " intervals, beside how frequent the kinds are (dotted); right, the net mean.",
        "What PIA does, whose gradient over the decoder is zero; nor whether there is help at all:"
        " noise around zero has shares, too. Read the net means.",
        draw_helpers,
    ),
    Picture(
        "teaching",
        "Who is taught what they do not know yet",
        "What a step down a training user's whole objective does to the loss of the hidden items of"
        " people that were never trained on, by kind of pair: the net mean, over decoder, encoder"
        " and all parameters, and as Adam scales the step; 95 % intervals over both sides.",
        "Nats: every pair counts alike. And cause: a kind is a fact of histories.",
        draw_teaching,
    ),
    Picture(
        "cohorts",
        "Who teaches whom",
        "The same net mean over all parameters by activity: who is taught in rows, who is stepped"
        " on in columns; 95 % intervals below, numbers of people beside the names. Bold: the"
        " interval leaves out zero.",
        "How much a cohort gives in all: there are more pairs of some than of others.",
        draw_cohorts,
    ),
    Picture(
        "semantics",
        "Who is near, beside who is alike",
        "How many of the nearest users by history are among as many at the smallest latent angle:"
        " at the means (left), and by latent points blurred until every setting could carry equally"
        " many nats (right).",
        "What a history leaves out: two people of one taste and no common item are not alike here.",
        draw_semantics,
    ),
    Picture(
        "kind-distances",
        "Latent distance by kind of pair",
        "Which kinds of pairs a setting draws together or pushes apart, relative to the average"
        " pair of that setting.",
        "Absolute distances, which the weight of the KL shrinks for everybody.",
        draw_kind_distances,
    ),
    Picture(
        "theorem",
        "Steps that were really taken",
        "How a user's loss changed after a real step on another user, over the rate of the step: on"
        " the line, just as the first order predicts, -<g_u, g_v>.",
        "A step of training, which goes over a batch, with Adam, and over the encoder as well.",
        draw_theorem,
    ),
    Picture(
        "masking",
        "What masks do to distances between inputs",
        "Left, pairs above the line come closer under masks in the mean, those below are pushed"
        " apart (circled: users with their most alike); right, how often masks leave a pair at a"
        " distance, by formula and by simulation.",
        "What the encoder makes of it, whose input is scaled up by 1/ρ: then no pair comes closer"
        " in the mean, least of all near ones.",
        draw_masking,
    ),
    Picture(
        "drift",
        "Neighbourhood drift",
        "How many of a user's neighbours stay from one mask to the next, and how far masks move a"
        " user beside the distance between users, and in units of the posterior's own noise.",
        "That drift is bad: without any, nobody far is ever near.",
        draw_drift,
    ),
    Picture(
        "bottleneck",
        "What passes the latent space",
        "How much a latent point tells of its user (left), and how it is spread over the dimensions"
        " (right).",
        "The information itself, when the estimate is at its ceiling, the logarithm of the number"
        " of users looked at: then read at least.",
        draw_bottleneck,
    ),
    Picture(
        "pca",
        "Map by principal components",
        "The plane in which users differ most, in units of the prior; the same users in every"
        " setting, turned to lie alike.",
        "Most of the latent space: the axes' shares of the variance are written beside them.",
        lambda analysis: draw_maps(analysis, analysis.pca),
    ),
    Picture(
        "tsne",
        "Map by t-SNE",
        "Who is next to whom; the same users in every setting, laid over the first.",
        "Distances between groups, sizes or densities: t-SNE has no scale; and an anchor is always"
        " put among its nearest users.",
        lambda analysis: draw_maps(analysis, analysis.tsne),
    ),
)
"""The figures of the report, in its order."""


def pictures_of(analysis: Analysis) -> tuple[Picture, ...]:
    """The figures that these settings ask for."""
    return (PICTURES[0], SWEEP, *PICTURES[1:]) if len(sweep_of(analysis)[1]) > 2 else PICTURES


def draw(picture: Picture, analysis: Analysis) -> "Figure":
    """Draws a figure in the house's style."""
    with house_style():
        return picture.draw(_called_literally(analysis))


def _called_literally(analysis: Analysis) -> Analysis:
    """With names as matplotlib shows them: "$" would begin a formula, and a label that begins with
    "_" is left out of legends.
    """
    called: Any = {
        part: tuple(
            replace(one, name=" " * one.name.startswith("_") + one.name.replace("$", r"\$"))
            for one in getattr(analysis, part)
        )
        for part in ("settings", "pca", "tsne")
    }
    return replace(analysis, **called)
