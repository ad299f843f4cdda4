"""The figures of an experiment's report as tables and drawings."""

from collections.abc import Mapping, Sequence
from typing import Any

from coterie.dashboard.charts import interval_figure, line_figure
from coterie.dashboard.page import Column, Figure, Table
from coterie.experiment.decision import probability
from coterie.experiment.guardrails import Guardrail

_LIFT = [Column("lift", "lift"), Column("from", "lift"), Column("to", "lift")]

Told = Mapping[str, Any]


def shown_report(told: Told) -> dict[str, Any]:
    """A report's figures as values of a page.

    Args:
        told: From `coterie.experiment.report.read_report`.
    """
    treatments = [one["arm"] for one in told["decisions"]]
    return {
        "first": told["first"],
        "decisions": told["decisions"],
        "users": dict(told["users"]),
        "metrics": [_metrics(told, arm, n) for n, arm in enumerate(treatments, start=1)],
        "course": _course(told, treatments),
        "segments": [_segments(told, arm, n) for n, arm in enumerate(treatments, start=1)],
        "checks": _checks(told["checks"]),
        "failed": sum(not one["ok"] for one in told["checks"]),
        "guardrails": _guardrails(told["guardrails"]),
        "broken": sum(not one["ok"] for one in told["guardrails"]),
    }


def _effect(effect: Told) -> list[Any]:
    return [effect["lift"], effect["lift_low"], effect["lift_high"]]


def _metrics(told: Told, arm: str, number: int) -> Figure:
    control = told["definition"]["control"]
    columns = [
        Column("metric", "text"),
        *_LIFT,
        Column("better with probability", "text"),
        Column(f"with {control}"),
        Column(f"with {arm}"),
    ]
    rows = [
        [
            one["metric"],
            *_effect(one["effect"]),
            probability(_number(one["belief"]["better"])),
            one["effect"]["control"],
            one["effect"]["treatment"],
        ]
        for one in told["metrics"]
        if one["arm"] == arm
    ]
    caption = "The first one decides. Intervals hold at the agreed looks."
    table = Table(f"metrics-{number}", caption, columns, rows)
    return interval_figure(table, f"Change of each metric with {arm}, beside {control}")


def _course(told: Told, treatments: Sequence[str]) -> Figure:
    """A line a treatment; the band of a day is as if that day were the only look."""
    days = sorted({one["day"] for one in told["days"]})
    found = {(one["day"], one["arm"]): _effect(one["effect"]) for one in told["days"]}
    bands = {arm: (f"{arm}, from", f"{arm}, to") for arm in treatments}
    names = [name for arm in treatments for name in (arm, *bands[arm])]
    nothing = [None, None, None]
    rows = [
        [day, *(one for arm in treatments for one in found.get((day, arm), nothing))]
        for day in days
    ]
    columns = [Column("day", "text"), *(Column(name, "lift") for name in names)]
    table = Table("course", "From the first day to each day.", columns, rows)
    metric = told["metrics"][0]["metric"]
    return line_figure(table, f"Change of {metric}, from the first day on", bands=bands)


def _segments(told: Told, arm: str, number: int) -> Figure:
    columns = [
        Column("users", "text"),
        *_LIFT,
        Column("how many", "count"),
        Column("p, corrected for all rows"),
    ]
    rows = [
        [
            one["segment"],
            *_effect(one["effect"]),
            one["effect"]["n_control"] + one["effect"]["n_treatment"],
            one["p_value"],
        ]
        for one in told["segments"]
        if one["arm"] == arm
    ]
    caption = "Kinds of users. These rows decide nothing."
    table = Table(f"segments-{number}", caption, columns, rows)
    return interval_figure(table, f"Change among kinds of users with {arm}")


def _checks(checks: Sequence[Told]) -> Table:
    columns = [Column("check", "text"), Column("state", "text"), Column("found", "text")]
    ordered = sorted(checks, key=lambda one: bool(one["ok"]))
    rows = [[one["name"], _sign(one["ok"]), one["words"]] for one in ordered]
    return Table("checks", "What could void it, failures first.", columns, rows)


def _guardrails(rails: Sequence[Told]) -> Table:
    columns = [
        Column(name, "text") for name in ("guardrail", "state", "arm", "found", "control", "agreed")
    ]
    rows = []
    for one in rails:
        rail = Guardrail(**{name: value for name, value in one.items() if name != "ok"})
        told = [rail.told(which) for which in ("treatment", "control", "bound")]
        rows.append([rail.name, _sign(rail.ok), rail.arm, *told])
    return Table("guardrails", "What a better metric must not cost.", columns, rows)


def _sign(ok: bool) -> str:
    return "✓ well" if ok else "✗ not well"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
