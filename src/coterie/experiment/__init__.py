"""Experiments with users: who sees which lists, what they did, and what may be concluded."""

from coterie.experiment.events import EventCounts, EventSources, Window
from coterie.experiment.sums import Metric, Sums, card_metrics, sum_up
from coterie.experiment.user_days import Arms, Cap

__all__ = [
    "Arms",
    "Cap",
    "EventCounts",
    "EventSources",
    "Metric",
    "Sums",
    "Window",
    "card_metrics",
    "sum_up",
]
