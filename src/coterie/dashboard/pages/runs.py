"""Runs: what a folder of runs holds, and each run, study and report of it by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from coterie.dashboard.charts import interval_figure, line_figure
from coterie.dashboard.page import Asked, Column, Figure, Page, Table
from coterie.dashboard.pages.lineage import fields_table
from coterie.dashboard.pages.shelf import REPORT, Found, folder_of, on_shelf, one_of, report_of
from coterie.dashboard.sources import Sources
from coterie.evaluation.metrics import metric_of
from coterie.evaluation.report import EvaluationReport
from coterie.show.contents import shown
from coterie.training.run_record import read_run
from coterie.tuning.study import read_study

_MOST_POINTS = 300


def runs(sources: Sources, asked: Asked) -> Page:
    """All of them; with ``name`` in the query that one."""
    found = on_shelf(sources)
    if asked.text("name"):
        one = one_of(found, asked.text("name"))
        return _VIEWS.get(one.kind, _other)(one, found)
    kinds = {kind: [one for one in found if one.kind == kind] for kind in ("run", "study", REPORT)}
    others = [one for one in found if one.kind not in kinds]
    return Page(
        "Runs",
        "runs.html.j2",
        {
            "folder": str(folder_of(sources)),
            "of_service": sources.service is not None,
            "runs": runs_table(kinds["run"]),
            "studies": _studies(kinds["study"]),
            "reports": reports_table(kinds[REPORT]),
            "others": _others(others),
        },
    )


def runs_table(found: Sequence[Found]) -> Table:
    """Data set by data set, the best first: values on other data compare nothing."""
    columns = [
        Column("run", "run"),
        Column("model", "text"),
        Column("validation"),
        Column("metric", "text"),
        Column("best epoch", "count"),
        Column("epochs", "count"),
        Column("took", "seconds"),
        Column("state", "text"),
        Column("data set", "text"),
        Column("begun", "text"),
    ]
    ordered = sorted(found, key=_by_data_and_value)
    rows = [[one.name, *_facts(one)] for one in ordered]
    told = "Data set by data set, the best first. Values on other data sets compare nothing."
    return Table("runs", told, columns, rows)


def _by_data_and_value(one: Found) -> tuple[str, float, str]:
    value = one.facts["value"]
    return str(one.facts.get("data_set")), -(value if value is not None else -1.0), one.name


def _facts(one: Found) -> list[Any]:
    facts = one.facts
    return [
        facts.get("model"),
        facts["value"],
        facts["metric"] if facts["value"] is not None else None,
        facts["value_epoch"],
        facts.get("epochs_done"),
        facts.get("seconds"),
        str(facts.get("state", "")).partition(";")[0],
        str(facts.get("data_set"))[:8],
        str(facts.get("created") or "")[:16].replace("T", " ") or None,
    ]


def _studies(found: Sequence[Found]) -> Table:
    columns = [
        Column("study", "run"),
        Column("model", "text"),
        Column("trials", "count"),
        Column("best"),
        Column("metric", "text"),
        Column("searched", "text"),
    ]
    rows = [
        [one.name, one.facts.get("model"), one.facts["trials"], one.facts.get("best_value"),
         one.facts.get("metric"), ", ".join(one.facts.get("search") or ())]
        for one in found
    ]  # fmt: skip
    return Table("studies", "Studies of tuning.", columns, rows)


def reports_table(found: Sequence[Found]) -> Table:
    """With every metric that one of them has."""
    names = list(dict.fromkeys(name for one in found for name in one.facts["means"]))
    columns = [Column("report", "run"), Column("users", "count"), Column("who", "text")]
    columns += [Column(metric_of(name).label) for name in names]
    rows = [
        [one.name, one.facts["users"], one.facts["who"], *map(one.facts["means"].get, names)]
        for one in sorted(found, key=lambda one: (one.facts["who"], one.name))
    ]
    told = "Means over users. Reports of the same “who” are of the same users, and can be compared."
    return Table("reports", told, columns, rows)


def _others(found: Sequence[Found]) -> Table:
    columns = [Column("name", "run"), Column("what it is", "text"), Column("what is wrong", "text")]
    rows = [[one.name, one.kind, one.facts.get("error")] for one in found]
    return Table("others", "Everything that is no run.", columns, rows)


def _run(one: Found, found: Sequence[Found]) -> Page:
    """One run: what validation users said, epoch by epoch."""
    record = read_run(one.path)
    same = [other for other in found if other.kind == "run" and other.name != one.name]
    same.sort(key=lambda other: other.facts.get("data_set") != one.facts.get("data_set"))
    told = record.config.as_json() if record.model is None else record.model["config"]
    return Page(
        one.name,
        "run.html.j2",
        {
            "name": one.name,
            "facts": _plain_facts(one),
            "curves": curves({one.name: record.history}, str(one.facts["metric"])),
            "epochs": _epochs(record.history),
            "others": [other.name for other in same],
            "reports": [other.name for other in found if _is_of(other, one)],
            "configuration": fields_table("configuration", "Field and value.", told),
            "environment": fields_table("environment", "Where it was trained.", record.environment),
            "provenance": fields_table(
                "provenance", "How the model came to be.", record.provenance
            ),
        },
    )


def _plain_facts(one: Found) -> dict[str, Any]:
    names = ("state", "model", "metric", "value", "value_epoch", "epochs_done", "seconds")
    more = ("created", "data_set", "data_set_folder", "users", "items", "run_id")
    return {name: one.facts.get(name) for name in (*names, *more)}


def _is_of(report: Found, run: Found) -> bool:
    """Whether a report is by its name a run's, as reproduce names them."""
    return report.kind == REPORT and report.path.name.startswith(f"{run.path.name}-")


def curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> list[Figure]:
    """Validation and loss by epoch, a line a run.

    Args:
        histories: By the run's name, as in history.jsonl.
        metric: Of validation.
    """
    validation = {
        name: {line["epoch"]: (line.get("validation") or {}).get(metric) for line in lines}
        for name, lines in histories.items()
    }
    loss = {name: {line["epoch"]: line.get("loss") for line in lines}
            for name, lines in histories.items()}  # fmt: skip
    label = metric if metric != "None" else "validation"
    return [
        _curve("validation", f"{label} of the validation users, by epoch", validation),
        _curve("loss", "Loss, by epoch: what training makes smaller", loss),
    ]


def _curve(name: str, title: str, by_run: Mapping[str, Mapping[int, float | None]]) -> Figure:
    epochs = sorted({epoch for of in by_run.values() for epoch in of})
    step = -(-len(epochs) // _MOST_POINTS) or 1
    chosen = [epoch for at, epoch in enumerate(epochs) if at % step == 0 or at == len(epochs) - 1]
    rows = [[str(epoch), *(of.get(epoch) for of in by_run.values())] for epoch in chosen]
    columns = [Column("epoch", "text"), *(Column(run) for run in by_run)]
    told = "A row an epoch." if step == 1 else f"Each {step}th epoch."
    return line_figure(Table(name, told, columns, rows), title)


def _epochs(history: Sequence[Mapping[str, Any]]) -> Table:
    """Everything that was noted of each epoch."""
    names = list(dict.fromkeys(name for line in history for name in line))
    plain = [name for name in names if name not in ("epoch", "validation")]
    columns = [Column("epoch", "count"), *(Column(name) for name in plain)]
    rows = [[line["epoch"], *map(line.get, plain)] for line in history[-_MOST_POINTS:]]
    return Table("epochs", "Everything that was noted of each epoch.", columns, rows)


def _study(one: Found, found: Sequence[Found]) -> Page:
    """A study of tuning: its trials, and the best so far."""
    study = read_study(one.path)
    best = study.best
    return Page(
        one.name,
        "study.html.j2",
        {
            "name": one.name,
            "summary": study.summary(),
            "metric": study.metric,
            "search": {key: str(tried) for key, tried in study.space.items()},
            "best": None if best is None else {"number": best.number, "value": best.value},
            "course": _course(study),
            "trials": _trials(study),
            "configuration": fields_table(
                "configuration",
                "Of the best trial.",
                {} if study.config is None else study.config.as_json(),
            ),
        },
    )


def _course(study: Any) -> Figure:
    rows, best = [], None
    for trial in study.trials:
        value = trial.value if trial.state == "complete" else None
        best = value if best is None or (value is not None and value > best) else best
        rows.append([str(trial.number), best, value])
    columns = [Column("trial", "text"), Column("best so far"), Column("this trial")]
    return line_figure(
        Table("course", "A row a trial.", columns, rows), f"{study.metric}, trial by trial"
    )


def _trials(study: Any) -> Table:
    fields = list(study.space)
    columns = [
        Column("trial", "count"),
        Column("state", "text"),
        Column(study.metric),
        Column("epochs", "count"),
        Column("took", "seconds"),
        *(Column(field, "text") for field in fields),
        Column("error", "text"),
    ]
    rows = [
        [trial.number, trial.state, trial.value, trial.epochs, trial.seconds,
         *(_text(trial.values.get(field)) for field in fields), trial.error]
        for trial in study.trials
    ]  # fmt: skip
    return Table("trials", "Every trial.", columns, rows)


def _text(value: Any) -> str | None:
    return None if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _report(one: Found, found: Sequence[Found]) -> Page:
    """One report: means, and by cohort."""
    report = report_of(one)
    same = [
        other.name
        for other in found
        if other.kind == REPORT and other.name != one.name
        and other.facts["who"] == one.facts["who"]
    ]  # fmt: skip
    return Page(
        one.name,
        "report.html.j2",
        {
            "name": one.name,
            "users": len(report),
            "others": same,
            "figures": [_cohorts(report, name) for name in report.metrics],
            "of_all_lists": fields_table("lists", "Of all lists together.", report.of_all_lists),
        },
    )


def _cohorts(report: EvaluationReport, name: str) -> Figure:
    columns = [Column("users", "text"), Column("mean"), Column("from"), Column("to"),
               Column("how many", "count")]  # fmt: skip
    parts = {"all": report, **report.cohorts()}
    rows = [[part, *_mean(of, name), len(of.defined(name))] for part, of in parts.items()]
    table = Table(f"cohorts-{name.replace('@', '-')}", "By titles of a user.", columns, rows)
    title = f"{metric_of(name).label} by titles of a user, with 95 % intervals"
    return interval_figure(table, title, zero=None)


def _mean(report: EvaluationReport, name: str) -> list[float | None]:
    if len(report.defined(name)) < 2:
        return [report.mean(name) if len(report.defined(name)) else None, None, None]
    mean, half = report.mean(name), 1.96 * report.standard_error(name)
    return [mean, mean - half, mean + half]


def _other(one: Found, found: Sequence[Found]) -> Page:
    """What `coterie show` says of anything else."""
    rows = [[name, value] for name, value in shown(one.facts).items()]
    columns = [Column("fact", "text"), Column("value", "text")]
    facts = Table("facts", f"What it is: {one.kind}.", columns, rows)
    return Page(one.name, "contents.html.j2", {"kind": one.kind, "facts": facts})


_VIEWS = {"run": _run, "study": _study, REPORT: _report}
