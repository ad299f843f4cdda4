"""A table for people: Markdown for the results book, text for a terminal, and the section of a page
that is replaced.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie.errors import ConfigError
from coterie.evaluation.metrics import LEGEND, Metric
from coterie.evaluation.report import EvaluationReport
from coterie.files import publish_file
from coterie.lab.reproduce.definition import Curve
from coterie.lab.reproduce.gains import (
    EXPLORATORY,
    columns,
    comparisons_table,
    corrected_gain,
    corrected_p,
    exploratory_note,
    marked,
    own,
    primary_table,
    short_table,
    statistics_note,
    unseen_table,
)
from coterie.lab.reproduce.plot import curves_to_draw
from coterie.lab.reproduce.results import ALL, Beside, Results
from coterie.plain_table import plain_table

RECALLED = "* recalled, not read in its source"
WIDTH = 100
_WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def markdown(results: Results) -> str:
    """The section of the results book, between its two marks."""
    definition = results.definition
    parts = [caption(results), f"```text\n{command(results)}\n```"]
    if results.plan.rows and definition.rows:
        parts += [_markdown_table(*_main(results)), *exploratory_note(results)]
    parts += [_curve(results, curve) for curve in definition.curves]
    if curves_to_draw(results):
        parts.append(f"![{definition.title}]({results.plan.name}.png)")
    parts += _compared(results)
    if results.beside:
        parts.append(_markdown_table(*_published(results)) + f"\n\n{RECALLED}.")
    parts += [definition.note.strip()] if definition.note.strip() else []
    parts.append(_made_of(results))
    begin, end = marks(results.plan.name)
    return "\n\n".join([begin, *map(_wrapped, parts), end]) + "\n"


def _compared(results: Results) -> list[str]:
    """What rows gain over each other, where some are compared."""
    parts = [_markdown_table(*primary_table(results))] if results.primary else []
    if own(results):
        parts.append(_markdown_table(*comparisons_table(results)))
    if own(results) and results.unseen:
        about = "Without the users the configurations were chosen on:"
        parts.append(f"{about}\n\n{_markdown_table(*unseen_table(results))}")
    return [*parts, statistics_note(results)] if results.comparisons else []


def _wrapped(part: str) -> str:
    """Prose within the width of the page's; tables, pictures and commands as they are."""
    if part.startswith("```"):
        return part
    return "\n".join(
        line if line.startswith(("|", "!")) else textwrap.fill(line, WIDTH, **_WHOLE_WORDS)
        for line in part.splitlines()
    )


def text(results: Results) -> str:
    """The same in short, for a terminal."""
    definition, metrics = results.definition, list(results.definition.metrics)
    rows = [
        [
            marked(results, name),
            f"{len(results.test(name))}",
            *(_mean(results.test(name), metric) for metric in metrics),
        ]
        for name in results.runs.rows
    ]
    right = [False, True, *[False] * len(metrics)]
    parts = [
        definition.title,
        *changes(results),
        "",
        plain_table(["test users", "", *metrics], rows, right),
    ]
    parts += ["; ".join(f"{name}: {Metric.parse(name).label}" for name in metrics) + f"; {LEGEND}"]
    parts += exploratory_note(results)
    if results.comparisons:
        table = plain_table(*short_table(results), [False, True, True, True, True])
        parts += ["", table, statistics_note(results)]
    if results.beside:
        header, cells = _published(results)
        parts += ["", plain_table(header[:-1], [one[:-1] for one in cells]), RECALLED]
    return "\n".join(parts)


def caption(results: Results) -> str:
    """What was measured on what, in sentences."""
    definition, plan = results.definition, results.plan
    counts = next(iter(results.runs.data.values()))["counts"]
    sizes = (
        f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,}"
        " interactions"
    )
    held_out = (
        f"{counts['validation_cases']:,} users to validate and {counts['test_cases']:,} to test on"
    )
    seeds = ", ".join(map(str, plan.seeds))
    kind = "the validation items" if definition.data.given_split else "the split"
    lines = [
        f"{definition.title}: {definition.data.about}; {sizes}, {held_out}"
        + (" (first split)." if len(plan.seeds) > 1 else ".")
        + f" Seed{'s' if len(plan.seeds) > 1 else ''} {seeds}: each draws {kind} and trains."
    ]
    if len(plan.seeds) > 1:
        lines.append(
            "Test users of all runs are pooled: a user of several counts once, with the average."
        )
    if definition.data.refit:
        lines.append(
            "What is tested was trained anew on training and validation items together, for the"
            " epochs that were best in validation."
        )
    lines.append(f"± is one standard error over users; {LEGEND}.")
    return "\n".join([*lines, *changes(results)])


def changes(results: Results) -> list[str]:
    """What makes this a smaller table than the published one, if anything."""
    plan, definition = results.plan, results.definition
    limits = []
    if plan.held_out_users is not None and plan.held_out_users != definition.data.held_out_users:
        limits.append(
            f"{plan.held_out_users:,} held-out users in place of {definition.data.held_out_users:,}"
        )
    if plan.epochs is not None:
        limits.append(f"{plan.epochs} epoch{'s' if plan.epochs > 1 else ''} at most")
    if set(plan.seeds) < set(definition.seeds):
        limits.append(f"{len(plan.seeds)} of {len(definition.seeds)} seeds")
    left_out = [row.name for row in definition.all_rows if row.name not in results.runs.rows]
    if left_out:
        limits.append(f"without {', '.join(left_out)}")
    if not limits:
        return []
    return [
        "A smaller run than the table's own, not to be held against published values:"
        f" {'; '.join(limits)}."
    ]


def command(results: Results) -> str:
    """What makes this table again."""
    plan, definition = results.plan, results.definition
    words = [f"coterie reproduce {plan.name} --raw DIR --out DIR"]
    if plan.seeds != definition.seeds:
        words.append(f"--seeds {','.join(map(str, plan.seeds))}")
    if plan.held_out_users is not None:
        words.append(f"--held-out-users {plan.held_out_users}")
    if plan.epochs is not None:
        words.append(f"--epochs {plan.epochs}")
    if len(plan.rows) < len(definition.all_rows):
        words.append(f"--rows {','.join(row.name for row in plan.rows)}")
    return " ".join(words)


def marks(name: str) -> tuple[str, str]:
    """The comments between which a table stands in a page.

    Example:
        >>> marks("ml-1m")
        ('<!-- table ml-1m -->', '<!-- end ml-1m -->')
    """
    return f"<!-- table {name} -->", f"<!-- end {name} -->"


def check_page(page: Path, name: str) -> str:
    """The page's text, if it has a place for the table.

    Raises:
        ConfigError: if the page cannot be read or its marks are not there, once each and in order.
    """
    begin, end = marks(name)
    try:
        content = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{page}: must be a readable page in UTF-8 ({error}); check the path."
        ) from error
    if (
        content.count(begin) != 1
        or content.count(end) != 1
        or content.index(begin) > content.index(end)
    ):
        raise ConfigError(
            f"{page}: must hold the lines {begin} and {end}, once each and in this order, found"
            f" {content.count(begin)} and {content.count(end)}; put them where the table belongs."
        )
    return content


def replace_section(page: Path, name: str, section: str) -> None:
    """Puts ``section`` (from `markdown`) in the place of the one in ``page``.

    Raises:
        ConfigError: as `check_page`.
    """
    content, (begin, end) = check_page(page, name), marks(name)
    before, after = content[: content.index(begin)], content[content.index(end) + len(end) :]
    with publish_file(page) as aside:
        aside.write_text(before + section.strip() + after, encoding="utf-8")


def _main(results: Results) -> tuple[list[str], list[list[str]]]:
    definition = results.definition
    metrics = definition.metrics
    header = [
        "model",
        "users",
        *(Metric.parse(name).label for name in metrics),
        f"validation {Metric.parse(definition.compare_by).label}",
        "training",
    ]
    rows = []
    for row in definition.rows:
        if row.name in results.runs.rows:
            report = results.test(row.name)
            validation = results.validation_mean(row.name)
            chosen_by = "" if validation is None else f"{validation:.4f}"
            cells = [_mean(report, name) for name in metrics]
            rows.append(
                [
                    f"{row.label} (`{row.name}`){EXPLORATORY if row.exploratory else ''}",
                    str(len(report)),
                    *cells,
                    chosen_by,
                    duration(results.seconds(row.name)),
                ]
            )
    return header, rows


def _published(results: Results) -> tuple[list[str], list[list[str]]]:
    """A line a model: by metric the published value, then what ours is above it."""
    metrics, rows = results.definition.metrics, []
    for label in dict.fromkeys(one.label for one in results.beside):
        mine = [one for one in results.beside if one.label == label]
        cells = [
            "; ".join(_beside(one) for one in mine if one.metric == metric) for metric in metrics
        ]
        sources = dict.fromkeys(
            one.source if one.checked else f"{one.source}, as recalled" for one in mine
        )
        rows.append([label, *cells, "; ".join(sources)])
    return ["published (ours above it)", *metrics, "source"], rows


def _beside(one: Beside) -> str:
    # Three decimals are what most papers print.
    value = f"{one.published:.4f}".removesuffix("0") + ("" if one.checked else "*")
    return value if one.difference is None else f"{value} ({one.difference:+.4f})"


def _curve(results: Results, curve: Curve) -> str:
    metric = results.definition.compare_by
    first, *others = columns(results, corrected_p(results))
    header = [curve.label, f"validation {metric}", f"test {metric}"]
    rows = [
        _point(results, curve, value)
        for value in curve.values
        if curve.row_name(value) in results.runs.rows
    ]
    return _markdown_table([*header, f"{first} over {curve.reference:g}", *others], rows)


def _point(results: Results, curve: Curve, value: float) -> list[str]:
    """A value of a curve: what it gave, and what it gains over the reference value."""
    metric, name = results.definition.compare_by, curve.row_name(value)
    pair, validation = (
        f"{name} over {curve.row_name(curve.reference)}",
        results.validation_mean(name),
    )
    compared = results.comparisons.get(pair)
    gained = (
        [""] * len(columns(results))
        if compared is None
        else corrected_gain(results, pair, ALL, compared.overall[metric])
    )
    validated = "" if validation is None else f"{validation:.4f}"
    return [f"{value:g}", validated, _mean(results.test(name), metric), *gained]


def _made_of(results: Results) -> str:
    """Fingerprints and machines."""
    data = ", ".join(
        f"seed {seed} `{facts['fingerprint'][:16]}`" for seed, facts in results.runs.data.items()
    )
    environments = {
        f"torch {found['torch']}, {found['device']}, {found['threads']}"
        f" thread{'s' if found['threads'] > 1 else ''}"
        for runs in results.runs.rows.values()
        for run in runs
        for found in [run.facts["environment"]]
    }
    return f"Data sets: {data}. Trained with {'; '.join(sorted(environments))}."


def _mean(report: EvaluationReport, metric: str) -> str:
    return f"{report.mean(metric):.4f} ± {report.standard_error(metric):.4f}"


def duration(seconds: float | None) -> str:
    """A time in two units at most.

    Example:
        >>> duration(None), duration(4.2), duration(125), duration(7260)
        ('', '4 s', '2 min 5 s', '2 h 1 min')
    """
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows])
