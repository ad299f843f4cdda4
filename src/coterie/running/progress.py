"""How far long work has come: one value and one protocol for all of it.

Work reports; whoever started it decides what becomes of that: the command line draws bars, a
service counts, a notebook prints. What a listener raises ends the work, which can go on later.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Update:
    """How far a piece of work has come.

    Args:
        work: What is being done, in a few words: ``"training mult-vae"``, ``"reading the log"``.
        done: Finished so far, in ``unit``; a part of one may be counted as a fraction.
        total: In all; None where that is not known.
        unit: What is counted: ``"users"``, ``"epochs"``, ``"trials"``.
        facts: What to show beside, JSON values: the terms of a loss, a metric.
    """

    work: str
    done: float = 0
    total: float | None = None
    unit: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


Progress: TypeAlias = Callable[[Update], None]
"""Called whenever work has come further."""


def silent(update: Update) -> None:
    """Shows nothing."""
