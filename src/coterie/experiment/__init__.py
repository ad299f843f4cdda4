"""Online experiments: who is in which arm, what was shown and done, what it means.

Names are loaded when first used: the server, which only assigns, waits for nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from coterie.experiment.definition import Arm, Experiment, read_experiment
    from coterie.experiment.running import Experiments, Running

_HOME = {
    "Allocation": "assignment",
    "Assigner": "assignment",
    "Assignment": "assignment",
    "Holdout": "assignment",
    "assigner_of": "assignment",
    "bucket": "assignment",
    "bucket_sql": "assignment",
    "buckets": "assignment",
    "Arm": "definition",
    "Experiment": "definition",
    "read_experiment": "definition",
    "Experiments": "running",
    "Running": "running",
}

__all__ = [
    "Allocation",
    "Arm",
    "Assigner",
    "Assignment",
    "Experiment",
    "Experiments",
    "Holdout",
    "Running",
    "assigner_of",
    "bucket",
    "bucket_sql",
    "buckets",
    "read_experiment",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'coterie.experiment' has no attribute {name!r}")
    return getattr(import_module(f"coterie.experiment.{_HOME[name]}"), name)
