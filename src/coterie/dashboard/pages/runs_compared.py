"""Runs beside each other, and two evaluation reports on the same users."""

from typing import Any

from coterie.dashboard.charts import interval_figure
from coterie.dashboard.page import Asked, Column, Figure, Page, Table
from coterie.dashboard.pages.lineage import differences_table, said, whole
from coterie.dashboard.pages.runs import curves, runs_table
from coterie.dashboard.pages.shelf import REPORT, Found, on_shelf, one_of, report_of
from coterie.dashboard.sources import Sources, mark_of
from coterie.errors import ConfigError
from coterie.evaluation.compare import Comparison, Difference, compare
from coterie.evaluation.metrics import metric_of
from coterie.evaluation.report import finite_or_none
from coterie.training.run_record import RunRecord, read_run

_MOST_RUNS = 6
"""As many as there are colours."""
_DRAWS, _FEWEST, _MOST_CELLS = 2_000, 200, 20_000_000


def compare_runs(sources: Sources, asked: Asked) -> Page:
    """Curves of two to six runs in one figure, and where their configurations differ.

    Raises:
        ConfigError: if fewer or more are named.
        NotFoundError: if one is not there.
    """
    names, found = list(dict.fromkeys(asked.texts("name"))), on_shelf(sources)
    if not 2 <= len(names) <= _MOST_RUNS:
        raise ConfigError(
            f"two to {_MOST_RUNS} runs must be chosen to be compared, found {len(names)}; tick them"
            " on the page of runs."
        )
    chosen = [one_of(found, name, "run") for name in names]
    records = {one.name: read_run(one.path) for one in chosen}
    metrics = {str(one.facts["metric"]) for one in chosen}
    return Page(
        f"{len(names)} runs side by side",
        "runs_compared.html.j2",
        {
            "names": names,
            "metrics": sorted(metrics),
            "same_data": len({one.facts.get("data_set") for one in chosen}) == 1,
            "curves": curves(
                {name: record.history for name, record in records.items()},
                str(chosen[0].facts["metric"]),
            ),
            "runs": runs_table(chosen),
            "differences": differences_table(
                "differences", {name: _told(record) for name, record in records.items()}
            ),
        },
    )


def _told(record: RunRecord) -> dict[str, Any]:
    """Configuration, and where it was trained: of two runs alike only times differ."""
    config = record.config.as_json() if record.model is None else whole(record.model["config"])
    environment = {name: value for name, value in record.environment.items() if name != "dataset"}
    return {**config, "data set": record.dataset[:12], "environment": environment}


def compare_reports(sources: Sources, asked: Asked) -> Page:
    """One report over another: user by user, with intervals.

    Raises:
        ConfigError: if two are not named.
        NotFoundError: if one is not there.
        DataError: if they are of other users.
    """
    names = asked.text("a"), asked.text("b")
    if not all(names) or names[0] == names[1]:
        raise ConfigError(
            f"two different reports must be named, as a and b, found {names[0]!r} and"
            f" {names[1]!r}; choose them on the page of runs."
        )
    found = on_shelf(sources)
    a, b = (one_of(found, name, REPORT) for name in names)
    marks = mark_of(a.path), mark_of(b.path)
    compared = sources.kept.get(("reports", *names), marks, lambda: _compared(a, b))
    return Page(
        f"{a.name} over {b.name}",
        "reports_compared.html.j2",
        {
            "a": a.name,
            "b": b.name,
            "draws": compared.n_resamples,
            "overall": _overall(compared),
            "cohorts": [
                figure for name in compared.overall if (figure := _cohorts(compared, name))
            ],
        },
    )


def _compared(a: Found, b: Found) -> Comparison:
    """With fewer draws where users are many: then the interval is narrow, and a page is to come."""
    one, other = report_of(a), report_of(b)
    cells = len(one) * max(len(one.metrics), 1)
    draws = max(_FEWEST, min(_DRAWS, _MOST_CELLS // max(cells, 1)))
    return compare(one, other, seed=0, n_resamples=draws)


_COLUMNS = [Column("gain"), Column("from"), Column("to"), Column("it"), Column("the other"),
            Column("users", "count"), Column("p"), Column("which is", "text")]  # fmt: skip


def _overall(found: Comparison) -> list[Figure]:
    """One figure a metric, as their scales differ."""
    return [
        _figure(f"overall-{number}", [("all users", one)], metric_of(name).label)
        for number, (name, one) in enumerate(found.overall.items())
    ]


def _cohorts(found: Comparison, name: str) -> Figure | None:
    parts = [(cohort, of[name]) for cohort, of in found.cohorts.items() if name in of]
    label = f"{metric_of(name).label}, by titles of a user"
    return _figure(f"cohorts-{name.replace('@', '-')}", parts, label) if parts else None


def _figure(name: str, parts: list[tuple[str, Difference]], label: str) -> Figure:
    rows = [[part, *_cells(one)] for part, one in parts]
    table = Table(name, "Paired, with 95 % intervals.", [Column("who", "text"), *_COLUMNS], rows)
    return interval_figure(table, f"Gain in {label}")


def _cells(one: Difference) -> list[Any]:
    low, high, p = map(finite_or_none, (one.low, one.high, one.p_value))
    return [one.difference, low, high, one.candidate_mean, one.reference_mean, one.users, p,
            said(low, high)]  # fmt: skip
