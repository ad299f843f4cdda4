"""What may be concluded from an experiment: functions of moments, which know no events or files.

Apart from the rest of the room, so that every figure can be held against another library, a
published table or a simulation.
"""

from coterie.experiment.statistics.looks import (
    LookOutcome,
    Spending,
    bounds,
    crossing,
    information_fractions,
    look,
    spent,
)
from coterie.experiment.statistics.moments import Moments
from coterie.experiment.statistics.planning import Plan
from coterie.experiment.statistics.probability import Belief, probability_better
from coterie.experiment.statistics.ratios import Effect, compare, sample_ratio
from coterie.experiment.statistics.sequence import always_valid_p, sequence_bounds, watch

__all__ = [
    "Belief",
    "Effect",
    "LookOutcome",
    "Moments",
    "Plan",
    "Spending",
    "always_valid_p",
    "bounds",
    "compare",
    "crossing",
    "information_fractions",
    "look",
    "probability_better",
    "sample_ratio",
    "sequence_bounds",
    "spent",
    "watch",
]
