"""The report: one page that needs no network, its figures as PNG, its numbers as JSON and
Parquet.
"""

import base64
import math
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import coterie
from coterie.data.split import Part
from coterie.files import publish_folder, write_json, write_manifest
from coterie.lab.collaboration.analysis import QUALITY, Analysis, Findings
from coterie.lab.collaboration.drift import implied_curvature, implied_tau, predicted_tau
from coterie.lab.collaboration.figures import check_figures, draw, interactions, pictures_of
from coterie.lab.collaboration.helping import Helping
from coterie.lab.collaboration.interactive import interactive_map
from coterie.lab.collaboration.pairs import GLOBAL, KindDistances, PairKind
from coterie.lab.collaboration.people_map import analysis_map
from coterie.lab.collaboration.sharing import KINDS, SharingPairs, TheoremTable, broken_implications
from coterie.lab.collaboration.teaching import WHOLE, Teaching
from coterie.lab.collaboration.verdict import alike, verdict
from coterie.map_file import MapFile
from coterie.plain_table import plain_table

SCHEMA = "coterie.analysis/1"
PAGE = "report.html"
DERIVED = ("n_active", "activity", "capacity_nats")
"""Of a `Bottleneck`, told beside its fields."""
CSS_DPI = 96
"""Pixels of a page in an inch: figures are shown at the size they are drawn for."""


def write_report(analysis: Analysis, folder: str | Path) -> None:
    """Writes ``report.html``, a PNG a figure, ``numbers.json``, ``users.parquet``,
    ``pairs.parquet`` and the dashboard's map, whole or not at all.

    Raises:
        ConfigError: if a package is missing, or ``folder`` holds something else.

    Example:
        >>> import tempfile
        >>> from coterie.lab.collaboration.analysis import AnalysisOptions, AnalysisSetting
        >>> from coterie.lab.collaboration.analyze import analyze
        >>> from coterie.models.multvae import MultVAEConfig
        >>> from coterie.simulation.service import simulate_dataset
        >>> from coterie.training.trainer import train
        >>> data = simulate_dataset(n_users=200, n_items=40, held_out_users=20, seed=1)
        >>> model = train(data, MultVAEConfig(hidden_dims=(10,), latent_dim=4), epochs=2)
        >>> options = AnalysisOptions(users=30, draws=2, map_users=50, neighbours=5)
        >>> found = analyze([AnalysisSetting("masked", model)], data, options)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_report(found, f"{folder}/analysis")
        ...     (Path(folder) / "analysis" / PAGE).exists()
        True
    """
    check_figures()
    with publish_folder(folder, kind=PAGE) as aside:
        write_parts(analysis, aside, people=analysis_map(analysis))
        write_manifest(
            aside,
            SCHEMA,
            written_by={"coterie": coterie.__version__},
            dataset=analysis.dataset.fingerprint,
        )


def write_parts(analysis: Analysis, aside: Path, *, people: MapFile, note: str = "") -> None:
    """Writes the files of a report, but for its manifest.

    Args:
        analysis: What to report.
        aside: An empty folder.
        people: The map for the dashboard.
        note: What a reader must know first.
    """
    images = {}
    for picture in pictures_of(analysis):
        figure, path = draw(picture, analysis), aside / f"{picture.name}.png"
        figure.savefig(path)
        images[picture.name] = (
            base64.b64encode(path.read_bytes()).decode(),
            round(CSS_DPI * figure.get_figwidth()),
        )
    pq.write_table(users_table(analysis), aside / "users.parquet")
    pq.write_table(pairs_table(analysis), aside / "pairs.parquet")
    write_json(aside / "numbers.json", numbers(analysis))
    (aside / PAGE).write_text(page(analysis, images, note), encoding="utf-8")
    people.write(aside)


def page(analysis: Analysis, images: dict[str, tuple[str, int]], note: str = "") -> str:
    """The report as one HTML page.

    Args:
        analysis: What to report.
        images: Base64 of the PNG of each of `pictures_of`, and its width in CSS pixels, by name.
        note: What a reader must know first.
    """
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

    template = (
        resources.files("coterie.lab.collaboration")
        .joinpath("report.html.j2")
        .read_text(encoding="utf-8")
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    header, *rows = glance(analysis)
    return environment.from_string(template).render(
        analysis=analysis,
        header=header,
        rows=rows,
        verdict=verdict(analysis),
        pictures=pictures_of(analysis),
        images=images,
        map=interactive_map(analysis),
        shrinkage=shrinkage(analysis),
        differences=differences(analysis),
        theorem=[(one.name, _theorem_rows(one.theorem)) for one in analysis.settings],
        kinds=KINDS,
        note=note,
        version=coterie.__version__,
    )


def glance(analysis: Analysis) -> list[list[str]]:
    """The settings in a table, its header first."""
    rows = [
        [
            "setting",
            "keep_prob",
            "β or γ",
            "λ_A",
            QUALITY.upper(),
            "alive",
            "information",
            "KL of means, variances",
            "drift overlap",
            "in σ",
            "far, related × 10³",
            "inside radius",
        ]
    ]
    for one in analysis.settings:
        found, drift = one.bottleneck, one.drift_at(0.5)
        rows.append(
            [
                one.name,
                f"{one.keep_prob:g}",
                f"{one.kl_weight:g}",
                f"{one.pia:g}",
                f"{one.quality.mean(QUALITY):.4f}" if one.quality else "",
                f"{found.n_active} of {len(found.mean_variance)}",
                f"{found.information_nats:.1f} to {found.information_at_most_nats:.1f}",
                f"{found.kl_of_means_nats:.0f}, {found.kl_of_variances_nats:.0f}",
                f"{drift.mean_overlap:.3f}" if drift.between else "",
                f"{drift.in_sigma:.2f}" if drift.between else "",
                _far_and_related(one),
                f"{one.sharing.inside.mean():.1%}",
            ]
        )
    return rows


def _far_and_related(one: Findings) -> str:
    """The net mean of `WHOLE` between far but related users."""
    if one.teaching is None:
        return ""
    mean, low, high = (1e3 * value for value in one.teaching.by_kind[WHOLE].mean_of(*GLOBAL))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def summary(analysis: Analysis) -> str:
    """The settings and the verdict for a terminal."""
    header, *rows = glance(analysis)
    advice = [
        f"{one.setting}: {one.says}\n    {one.rests_on}"
        for one in verdict(analysis)
        if one.level != "fine"
    ]
    return (
        plain_table(header, rows, right=[False] + [True] * (len(header) - 1))
        + "\n\n"
        + "\n".join(advice)
    )


def shrinkage(analysis: Analysis) -> list[list[str]]:
    """PIA's shrink of the spread over masks beside the quadratic model's: a row a setting with PIA
    and one like it without.

    The curvature is fitted at the smallest λ_A of a group, and predicts the others.
    """
    rows: list[list[str]] = []
    curvatures: dict[str, float] = {}
    for one in sorted((one for one in analysis.settings if one.pia), key=lambda one: one.pia):
        without = next(
            (other for other in analysis.settings if not other.pia and alike(one, other)), None
        )
        if without is None:
            continue
        keep_prob = one.keep_prob if one.keep_prob < 1 else 0.5
        drifts = [setting.drift_at(keep_prob) for setting in (without, one)]
        if not all(drift.within for drift in drifts):  # a collapsed model, which masks do not move
            continue
        tau = implied_tau(*(float(drift.variance.mean()) for drift in drifts))
        curvature = curvatures.setdefault(without.name, implied_curvature(tau, one.pia))
        spread = (
            ""
            if drifts[1].centroid_distance is None
            else f"{drifts[1].centroid_distance.mean():.2f}"
        )
        ratios = [f"{drift.ratio:.3f}" for drift in drifts]
        rows.append(
            [
                one.name,
                without.name,
                f"{one.pia:g}",
                f"{tau**2:.3f}",
                f"{predicted_tau(curvature, one.pia) ** 2:.3f}",
                *ratios,
                spread,
            ]
        )
    return rows


def differences(analysis: Analysis) -> dict[str, dict[str, tuple[float, float, float]]]:
    """By how much each further setting differs from the first, on the same users: value and paired
    95 % interval by measure.

    The measures are shares of help and net mean cosines, where it was measured over all parameters
    and of hidden items, and latent distances relative to the mean pair.
    """
    first, *others = analysis.settings
    distances = {"local": PairKind.LOCAL, "subsets": PairKind.SUBSET, "linked": PairKind.LINKED}
    return {
        one.name: _taught_gains(one, first)
        | {
            f"distance, {name}": one.distances.gain_over(first.distances, kind)
            for name, kind in distances.items()
        }
        for one in others
    }


def _taught_gains(one: Findings, first: Findings) -> dict[str, tuple[float, float, float]]:
    """Of the shares of help and of the net means; over the decoder where no more is known."""
    mine, other, where = one.cosine, first.cosine, "decoder"
    if one.teaching is not None and first.teaching is not None:
        mine, other = (found.by_kind[WHOLE] for found in (one.teaching, first.teaching))
        where = "all"
    gains = {}
    for name, kinds in (("local", (PairKind.LOCAL,)), ("global", GLOBAL)):
        gains[f"{name} share of help, {where}"] = mine.gain_over(other, *kinds)
        gains[f"{name} net cosine, {where}"] = mine.mean_gain_over(other, *kinds)
    return gains


def numbers(analysis: Analysis) -> dict[str, Any]:
    """All that the figures show, as JSON values; null for what is undefined."""
    numbers_of_all = {
        "dataset": analysis.dataset.fingerprint,
        "options": asdict(analysis.options),
        "users": len(analysis.users),
        "map_users": len(analysis.map_users),
        "verdict": [asdict(one) for one in verdict(analysis)],
        "masking": {
            pairs: [
                {"pairs": len(one.d)}
                | {name: value for name, value in vars(one).items() if isinstance(value, float)}
                for one in found
            ]
            for pairs, found in (
                ("random", analysis.masking),
                ("nearest", analysis.masking_nearest),
            )
        },
        "differences": differences(analysis),
        "settings": {one.name: _setting(one) for one in analysis.settings},
        "maps": {
            name: {one.name: {"disparity": one.disparity, "shares": one.shares} for one in maps}
            for name, maps in (("pca", analysis.pca), ("tsne", analysis.tsne))
        },
    }
    plain: dict[str, Any] = _plain(numbers_of_all)
    return plain


def _setting(one: Findings) -> dict[str, Any]:
    return {
        "model": one.model,
        "keep_prob": one.keep_prob,
        "kl_weight": one.kl_weight,
        "pia": one.pia,
        "quality": {
            "metric": QUALITY,
            "users": len(one.quality) if one.quality else 0,
            "mean": one.quality.mean(QUALITY) if one.quality else None,
            "error": one.quality.standard_error(QUALITY) if one.quality else None,
        },
        "bottleneck": asdict(one.bottleneck)
        | {
            name: getattr(one.bottleneck, name)
            for name in ("n_active", "activity", "capacity_nats")
        },
        "drift": [
            {
                "keep_prob": drift.keep_prob,
                "overlap": drift.mean_overlap,
                "clean_overlap": drift.clean_overlap.mean(),
                "within": drift.within,
                "between": drift.between,
                "ratio": drift.ratio,
                "in_sigma": drift.in_sigma,
                "between_in_sigma": drift.between_in_sigma,
                "centroid_distance": (
                    None if drift.centroid_distance is None else drift.centroid_distance.mean()
                ),
            }
            for drift in one.drift
        ],
        "influence": asdict(one.influence),
        "influence_by_angle": asdict(one.influence_by_angle),
        "helpful_transfer": _by_kind(one.transfer),
        "helpful_cosine": _by_kind(one.cosine),
        "teaching": None if one.teaching is None else _teaching(one.teaching),
        "untaught": one.untaught,
        "semantics": {
            "recall": one.semantics.recall.mean(),
            "recall_error": one.semantics.recall.std() / math.sqrt(len(one.semantics.recall)),
            "nats": one.semantics.nats,
            "matched": one.semantics.matched.mean(axis=1),
        },
        "relative_distance": _distance_by_kind(one.distances),
        "sharing": _sharing(one.sharing),
        "theorem": {
            "by_radius": one.theorem.by_radius,
            "by_distance": one.theorem.by_distance,
            "by_transfer": one.theorem.by_transfer,
        },
    }


def _by_kind(found: Helping) -> dict[str, Any]:
    groups = {kind.name.lower(): (kind,) for kind in PairKind} | {"global": GLOBAL}
    parts = {}
    for name, kinds in groups.items():
        share, low, high = found.share_of(*kinds)
        at = list(kinds)
        parts[name] = {"pairs": found.n_pairs[at].sum(), "share": share, "low": low, "high": high}
        ends = ("harm", "harm_low", "harm_high"), ("mean", "mean_low", "mean_high")
        for names, values in zip(ends, (found.harm_of(*kinds), found.mean_of(*kinds)), strict=True):
            parts[name] |= dict(zip(names, values, strict=True))
        if len(at) == 1:
            parts[name]["helpful"] = found.helpful[at[0]]
    return parts


def _teaching(found: Teaching) -> dict[str, Any]:
    return {
        "cosine": {str(measure): _by_kind(one) for measure, one in found.by_kind.items()},
        "nats": _by_kind(found.nats),
        "cohorts": found.cohorts,
        "users_of_cohorts": found.n_of_cohort,
        "by_cohort": found.cohort_matrix(),
        "encoder_share": found.encoder_share,
        "hidden_nats": found.hidden_nats,
    }


def _distance_by_kind(found: KindDistances) -> dict[str, Any]:
    return {
        kind.name.lower(): dict(zip(("relative", "low", "high"), found.of(kind), strict=True))
        for kind in PairKind
    }


def _sharing(pairs: SharingPairs) -> dict[str, Any]:
    medians = {name: np.median(getattr(pairs, name)) for name in KINDS if name != "lipschitz"}
    return {
        "pairs": len(pairs.user),
        "different_v": pairs.n_others,
        "median_cosine": np.median(pairs.cosine),
        "median_needed_cosine": np.median(pairs.needed_cosine),
        "kinds": dict(KINDS),
        "lipschitz": pairs.lipschitz,
        "median": medians,
        "inside": pairs.inside.sum(),
        "inside_exactly": pairs.inside_exactly.sum(),
        "helped": (pairs.transfer > 0).sum(),
        "broken": broken_implications(pairs.gradient_norm, pairs.gradient_distance, pairs.transfer),
    }


def _theorem_rows(table: TheoremTable) -> list[list[str]]:
    """A row a rate and criterion: inside and fell, inside and rose, outside and fell, outside and
    rose.
    """
    criteria = (
        ("W2 < radius", table.by_radius),
        ("cos > ‖g_v‖ / (2 ‖g_u‖)", table.by_distance),
        ("<g_u, g_v> > 0", table.by_transfer),
    )
    return [
        [f"{rate:g}", label, *(f"{count:,}" for count in counts[at].flatten())]
        for at, rate in enumerate(table.learning_rates)
        for label, counts in criteria
    ]


def users_table(analysis: Analysis) -> pa.Table:
    """A row a setting and user of the maps: id, interactions, drift under each keep_prob, places in
    the maps.
    """
    ids = _ids_of(analysis, analysis.map_users)
    parts = []
    for one, pca, tsne in zip(analysis.settings, analysis.pca, analysis.tsne, strict=True):
        columns = {
            "setting": [one.name] * len(ids),
            "user_id": ids,
            "interactions": interactions(analysis),
        }
        columns |= {f"overlap_{drift.keep_prob:g}": drift.overlap for drift in one.drift}
        columns |= {f"variance_{drift.keep_prob:g}": drift.variance for drift in one.drift}
        columns |= {
            "pca_x": pca.users[:, 0],
            "pca_y": pca.users[:, 1],
            "tsne_x": tsne.users[:, 0],
            "tsne_y": tsne.users[:, 1],
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def _ids_of(analysis: Analysis, rows: np.ndarray) -> pa.Array:
    """The ids of rows of the training matrix."""
    dataset = analysis.dataset
    return dataset.users.take(np.flatnonzero(dataset.split.user_part == Part.TRAIN)[rows])


def pairs_table(analysis: Analysis) -> pa.Table:
    """A row a setting and ordered pair whose radius was measured: ids of u and v, their kind, and
    the measured changes of u's loss.
    """
    ids = _ids_of(analysis, analysis.users)
    parts = []
    for one in analysis.settings:
        pairs = one.sharing
        kinds = [PairKind(kind).name.lower() for kind in analysis.kinds[pairs.user, pairs.other]]
        columns: dict[str, Any] = {
            "setting": [one.name] * len(kinds),
            "user_id": ids.take(pairs.user),
            "other_id": ids.take(pairs.other),
        }
        columns |= {"kind": kinds} | {
            name: getattr(pairs, name)
            for name in ("inside", "inside_exactly", *KINDS)
            if name != "lipschitz"
        }
        columns |= {
            f"change_{rate:g}": change
            for rate, change in zip(one.theorem.learning_rates, one.theorem.change, strict=True)
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def _plain(value: Any) -> Any:
    """JSON's own types: lists for arrays, null for what is not finite."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(one) for one in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
