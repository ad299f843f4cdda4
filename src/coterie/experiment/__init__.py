"""Online experiments: who is in which arm, what was shown and done, what may be concluded.

Names are loaded when first used: the server, which only assigns, waits for nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coterie.experiment.analysis import Analysis, analyse
    from coterie.experiment.assignment import (
        Allocation,
        Assigner,
        Assignment,
        Holdout,
        assigner_of,
        bucket,
        bucket_sql,
        buckets,
    )
    from coterie.experiment.attribution import read_events, with_clicks
    from coterie.experiment.decision import Decision, decide
    from coterie.experiment.definition import Arm, Cap, Experiment, read_experiment
    from coterie.experiment.events import EventCounts, EventSources, Window
    from coterie.experiment.guardrails import Guardrail, guard
    from coterie.experiment.interleaving import (
        Preference,
        clicks_by_arm,
        interleave,
        preference,
        team_draft,
    )
    from coterie.experiment.replay import Replay, overlap, replay_lists
    from coterie.experiment.report import write_report
    from coterie.experiment.running import Experiments, Running
    from coterie.experiment.sums import Metric, Sums, card_metrics, sum_up
    from coterie.experiment.user_days import Arms

_HOME = {
    "Analysis": "analysis",
    "analyse": "analysis",
    "Allocation": "assignment",
    "Assigner": "assignment",
    "Assignment": "assignment",
    "Holdout": "assignment",
    "assigner_of": "assignment",
    "bucket": "assignment",
    "bucket_sql": "assignment",
    "buckets": "assignment",
    "read_events": "attribution",
    "with_clicks": "attribution",
    "Decision": "decision",
    "decide": "decision",
    "Arm": "definition",
    "Cap": "definition",
    "Experiment": "definition",
    "read_experiment": "definition",
    "EventCounts": "events",
    "EventSources": "events",
    "Window": "events",
    "Guardrail": "guardrails",
    "guard": "guardrails",
    "Preference": "interleaving",
    "clicks_by_arm": "interleaving",
    "interleave": "interleaving",
    "preference": "interleaving",
    "team_draft": "interleaving",
    "Replay": "replay",
    "overlap": "replay",
    "replay_lists": "replay",
    "write_report": "report",
    "Experiments": "running",
    "Running": "running",
    "Metric": "sums",
    "Sums": "sums",
    "card_metrics": "sums",
    "sum_up": "sums",
    "Arms": "user_days",
}

__all__ = [
    "Allocation",
    "Analysis",
    "Arm",
    "Arms",
    "Assigner",
    "Assignment",
    "Cap",
    "Decision",
    "EventCounts",
    "EventSources",
    "Experiment",
    "Experiments",
    "Guardrail",
    "Holdout",
    "Metric",
    "Preference",
    "Replay",
    "Running",
    "Sums",
    "Window",
    "analyse",
    "assigner_of",
    "bucket",
    "bucket_sql",
    "buckets",
    "card_metrics",
    "clicks_by_arm",
    "decide",
    "guard",
    "interleave",
    "overlap",
    "preference",
    "read_events",
    "read_experiment",
    "replay_lists",
    "sum_up",
    "team_draft",
    "with_clicks",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'coterie.experiment' has no attribute {name!r}")
    return getattr(import_module(f"coterie.experiment.{_HOME[name]}"), name)
