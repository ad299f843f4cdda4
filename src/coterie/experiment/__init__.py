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
    from coterie.experiment.decision import Decision, decide
    from coterie.experiment.definition import Arm, Cap, Experiment, read_experiment
    from coterie.experiment.events import EventCounts, EventSources, Window
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
    "Decision": "decision",
    "decide": "decision",
    "Arm": "definition",
    "Cap": "definition",
    "Experiment": "definition",
    "read_experiment": "definition",
    "EventCounts": "events",
    "EventSources": "events",
    "Window": "events",
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
    "Holdout",
    "Metric",
    "Running",
    "Sums",
    "Window",
    "analyse",
    "assigner_of",
    "bucket",
    "bucket_sql",
    "buckets",
    "card_metrics",
    "decide",
    "read_experiment",
    "sum_up",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'coterie.experiment' has no attribute {name!r}")
    return getattr(import_module(f"coterie.experiment.{_HOME[name]}"), name)
