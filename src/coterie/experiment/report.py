"""The report of an experiment: one page that needs no network, and its figures as JSON."""

import json
import math
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import coterie
from coterie.errors import ArtifactError
from coterie.experiment.analysis import Analysis, Judged, OfSegment, words
from coterie.experiment.decision import decide, percent, probability
from coterie.experiment.figures import course_figure, metrics_figure, segments_figure
from coterie.experiment.statistics import Effect
from coterie.extras import require
from coterie.files import publish_folder, write_json, write_manifest
from coterie.plain_table import plain_table

SCHEMA = "coterie.experiment-report/1"
PAGE, FIGURES = "report.html", "report.json"

_SPENDING = {"obrien-fleming": "O'Brien and Fleming's law", "pocock": "Pocock's law"}

_LOOKING = {
    "fixed": "the band is for one look at the end, and no earlier day counts",
    "planned": "the band is for the looks that were planned, dotted; between them nothing counts",
    "daily": "the band holds on all days at once",
}


def write_report(analysis: Analysis, folder: str | Path) -> None:
    """Writes ``report.html`` and ``report.json``, whole or not at all.

    Raises:
        MissingPackageError: without the extra ``experiment``.
        ConfigError: if ``folder`` holds something else.
    """
    written = page(analysis)
    with publish_folder(folder, kind=PAGE) as aside:
        (aside / PAGE).write_text(written, encoding="utf-8")
        write_json(aside / FIGURES, figures(analysis))
        write_manifest(aside, SCHEMA, written_by={"coterie": coterie.__version__})


def read_report(folder: str | Path) -> dict[str, Any] | None:
    """The figures of a report, as `figures` gave them; None if there is none.

    Raises:
        ArtifactError: if it is damaged, or of another schema.

    Example:
        >>> read_report("no/such/folder") is None
        True
    """
    path = Path(folder) / FIGURES
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if told["schema"] != SCHEMA:
            raise ValueError(f"schema {told['schema']!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: must be the report of an experiment, {SCHEMA} ({error}); make it anew by"
            " coterie experiment report."
        ) from error
    return told


def figures(analysis: Analysis) -> dict[str, Any]:
    """All of it as JSON values, the decisions first."""
    decisions = [{**vars(one), "because": list(one.because)} for one in decide(analysis)]
    return {"schema": SCHEMA, "decisions": decisions, **analysis.to_json()}


def page(analysis: Analysis) -> str:
    """The report as one HTML page. Names are text, whatever they contain."""
    jinja2 = require("jinja2", "experiment", "a report")
    text = resources.files("coterie.experiment").joinpath("report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    rendered: str = environment.from_string(text).render(
        analysis=analysis,
        decisions=decide(analysis),
        arms=[_arm(analysis, one.arm) for one in analysis.primary],
        primary=words(analysis.primary[0].metric),
        caption=_caption(analysis),
        looking=_LOOKING[analysis.definition.looks.kind],
        fixed=" ".join(map(_fixed, analysis.primary)),
        method=list(_method(analysis)),
        count_names=list(next(iter(analysis.counts.values()), {})),
        agreed=_agreed(analysis),
        version=coterie.__version__,
    )
    return rendered


def told(analysis: Analysis) -> str:
    """The decision and the metrics, for a terminal."""
    parts = []
    for one in decide(analysis):
        parts += [one.headline, *(f"  {sentence}" for sentence in one.because), ""]
        rows = [_row(analysis, each) for each in analysis.metrics if each.arm == one.arm]
        header = ["metric", analysis.definition.control, one.arm, "lift", "interval", "p", "better"]
        keys = ("metric", "control", "treatment", "lift", "interval", "p", "better")
        parts.append(plain_table(header, [[row[key] for key in keys] for row in rows]))
    wrong = [f"  {check.name}: {check.words}" for check in analysis.checks if not check.ok]
    return "\n".join([*parts, "", *(["What could void it:", *wrong] if wrong else [])])


def _arm(analysis: Analysis, arm: str) -> dict[str, Any]:
    segments = [one for one in analysis.segments if one.arm == arm]
    return {
        "name": arm,
        "rows": [_row(analysis, one) for one in analysis.metrics if one.arm == arm],
        "segments": [_segment(one) for one in segments],
        "metrics_figure": metrics_figure(analysis, arm),
        "course_figure": course_figure(analysis, arm),
        "segments_figure": segments_figure(segments, arm) if segments else "",
    }


def _row(analysis: Analysis, one: Judged) -> dict[str, Any]:
    effect = one.valid
    return {
        "metric": words(one.metric),
        "primary": one in analysis.primary,
        "control": amount(effect.control),
        "treatment": amount(effect.treatment),
        "lift": percent(effect.lift),
        "interval": interval(effect),
        "direction": "up" if effect.lift_low > 0 else "down" if effect.lift_high < 0 else "",
        "p": p_value(one.effect.p_value),
        "better": probability(one.belief.better),
    }


def _segment(one: OfSegment) -> dict[str, str]:
    effect = one.effect
    return {
        "segment": one.segment,
        "n": f"{effect.n_control + effect.n_treatment:,}",
        "lift": percent(effect.lift),
        "interval": interval(effect),
        "p": p_value(one.p_value),
    }


def interval(effect: Effect) -> str:
    """That of the lift."""
    return f"{percent(effect.lift_low)} to {percent(effect.lift_high)}"


def amount(value: float) -> str:
    """A metric's value for people."""
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def p_value(value: float) -> str:
    """A p-value for people."""
    if math.isnan(value):
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _equals(told: str) -> str:
    return told if told.startswith("<") else f"= {told}"


def _caption(analysis: Analysis) -> str:
    kind = {
        "fixed": "Intervals are for one look, on the last day.",
        "planned": "Intervals hold at the planned looks, all together.",
        "daily": "Intervals hold on every day, all together.",
    }[analysis.definition.looks.kind]
    level = 1 - analysis.definition.looks.alpha
    return f"{kind} All are of {level:.0%}, clustered by user."


def _fixed(one: Judged) -> str:
    effect = one.effect
    found = "a difference" if effect.p_value < 1 - effect.confidence else "no difference"
    return (
        f"Whoever had looked once, on the last of these days, and never before, would have found"
        f" {found} with {one.arm}: {percent(effect.lift)}, {interval(effect)}, p"
        f" {_equals(p_value(effect.p_value))}."
    )


def _method(analysis: Analysis) -> Iterator[str]:
    yield (
        "A user counts who saw a card in the window, in the arm of the draw, whatever list was"
        " seen. Each metric is a ratio of sums over such users; its standard error is that of"
        " users, not of views, by the delta method (Deng, Knoblich and Lu 2018)."
    )
    reductions = [one.effect.variance_reduction for one in analysis.primary]
    if max(reductions) > 0:
        yield (
            "What users did in the days before is subtracted (CUPED, Deng et al. 2013); that takes"
            f" {100 * max(reductions):.0f} % of the variance away."
        )
    looks = analysis.definition.looks
    if looks.kind == "planned":
        days = ", ".join(map(str, looks.days))
        yield (
            f"Looks were planned on days {days}. Bounds spend {looks.alpha:g} over them by"
            f" {_SPENDING[looks.spending]} (Lan and DeMets 1983), by information, not by the"
            " calendar."
        )
    if looks.kind == "daily":
        yield (
            "It may be looked at on every day: intervals are a confidence sequence (Waudby-Smith"
            " et al. 2024), which costs about a third of the power of one look."
        )
    belief = analysis.primary[0].belief
    yield (
        f"The probability of being better has a normal prior on ln(1 + lift), with mean 0 and"
        f" standard deviation {belief.prior_sd:g}."
    )


def _agreed(analysis: Analysis) -> list[tuple[str, str]]:
    values = analysis.definition.model_dump(mode="json", exclude_none=True)
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in values.items()
        if value not in ("", {}, [])
    ]
