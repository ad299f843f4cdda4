"""What a backtest found: every window's reports, and what they say together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from scipy import stats

from coterie.backtesting.plan import BacktestPlan
from coterie.evaluation.metrics import metric_of
from coterie.evaluation.report import EvaluationReport, finite_or_none
from coterie.plain_table import plain_table

_MODELS_A_TABLE = 4  # what fits a terminal


@dataclass(frozen=True, eq=False)
class WindowResult:
    """One window.

    Args:
        begin: Its first day.
        reports: Of users with something known before it, by model.
        of_new_users: Means, by metric, of users of whom nothing is known, answered by popularity;
            None if there are none.
        counts: Of the data set that was measured; every loss by its name.
        ceiling: What ranking can reach with the items that are known.
        facts: By model: ``seconds``, and ``best_epoch`` where epochs were chosen. JSON values.
    """

    begin: date
    reports: Mapping[str, EvaluationReport]
    of_new_users: Mapping[str, float] | None
    counts: Mapping[str, int]
    ceiling: Mapping[str, Any]
    facts: Mapping[str, Mapping[str, Any]]

    @property
    def n_users(self) -> int:
        """How many users were measured."""
        return len(next(iter(self.reports.values())))


@dataclass(frozen=True)
class Average:
    """The mean of one value a window, and the interval of that mean over windows.

    Args:
        mean: Every window counts alike.
        low: Lower bound of the 95 % interval of Student's t; NaN below two windows.
        high: Upper bound.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Average":
        """Of ``[n_windows]`` values.

        Example:
            >>> Average.of(np.array([1.0, 2.0, 3.0]))
            Average(mean=2.0, low=-0.484..., high=4.484...)
        """
        mean, n = float(values.mean()), len(values)
        if n < 2:
            return cls(mean, math.nan, math.nan)
        half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))
        return cls(mean, mean - half, mean + half)

    def to_json(self) -> dict[str, float | None]:
        """As JSON values."""
        return {name: finite_or_none(value) for name, value in vars(self).items()}


@dataclass(frozen=True, eq=False)
class Backtest:
    """All windows of a backtest, the oldest first.

    Args:
        plan: What was asked for.
        windows: One a cut.
    """

    plan: BacktestPlan
    windows: Sequence[WindowResult]

    def values(self, model: str, metric: str) -> np.ndarray:
        """``[n_windows]`` means of a metric."""
        reports = [window.reports[model] for window in self.windows]
        return np.array(
            [
                report.of_all_lists[metric]
                if metric in report.of_all_lists
                else report.mean(metric)
                for report in reports
            ]
        )

    def half_widths(self, model: str, metric: str) -> np.ndarray:
        """``[n_windows]`` of the 95 % intervals over users: 1.96 standard errors; NaN for what is
        of all lists.
        """
        reports = [window.reports[model] for window in self.windows]
        return np.array(
            [
                math.nan if metric in report.of_all_lists else 1.96 * report.standard_error(metric)
                for report in reports
            ]
        )

    def gain(self, model: str, reference: str, metric: str) -> Average:
        """What a model has over another, on average over windows."""
        return Average.of(self.values(model, metric) - self.values(reference, metric))

    def to_json(self) -> dict[str, Any]:
        """Everything but the users, as JSON values."""
        return {
            "plan": self.plan.to_json(),
            "windows": [self._window_json(window) for window in self.windows],
            "average": {
                metric: {
                    model: Average.of(self.values(model, metric)).to_json()
                    for model in self.plan.models
                }
                for metric in self.plan.metrics
            },
        }

    def _window_json(self, window: WindowResult) -> dict[str, Any]:
        return {
            "begin": window.begin.isoformat(),
            "counts": dict(window.counts),
            "ceiling": dict(window.ceiling),
            "of_new_users": window.of_new_users and dict(window.of_new_users),
            "models": {
                name: {**window.facts[name], **report.to_json()}
                for name, report in window.reports.items()
            },
        }

    def __str__(self) -> str:
        tables = [self._windows_table()]
        names = list(self.plan.models)
        for metric in self.plan.metrics:
            for start in range(0, len(names), _MODELS_A_TABLE):
                tables.append(self._table(metric, names[start : start + _MODELS_A_TABLE]))
        if len(names) > 1:
            tables.append(self._gains_table(self.plan.metrics[0]))
        return "\n\n".join(tables)

    def _windows_table(self) -> str:
        header = ["window", "train users", "users", "new users", "known items"]
        rows = [
            [
                window.begin.isoformat(),
                str(window.counts["train_users"]),
                str(window.n_users),
                str(window.counts.get("test_new_user_cases", 0)),
                _share(window.ceiling.get("known_item_share")),
            ]
            for window in self.windows
        ]
        return plain_table(header, rows, [False, True, True, True, True])

    def _table(self, metric: str, names: Sequence[str]) -> str:
        rows = [
            [window.begin.isoformat(), *(self._cell(name, metric, place) for name in names)]
            for place, window in enumerate(self.windows)
        ]
        averages = [Average.of(self.values(name, metric)) for name in names]
        rows.append(["mean", *(_cell(one.mean, (one.high - one.low) / 2) for one in averages)])
        label = metric_of(metric).label
        title = f"{label}: ± is half of a 95 % interval, over users; of the mean over windows"
        return f"{title}\n{plain_table(['window', *names], rows)}"

    def _cell(self, name: str, metric: str, place: int) -> str:
        return _cell(self.values(name, metric)[place], self.half_widths(name, metric)[place])

    def _gains_table(self, metric: str) -> str:
        """Every model against the first that was named."""
        reference, *others = self.plan.models
        rows = []
        for name in others:
            gain, one = self.gain(name, reference, metric), self.values(name, metric)
            won = int((one > self.values(reference, metric)).sum())
            interval = f"[{gain.low:+.4f}, {gain.high:+.4f}]" if math.isfinite(gain.low) else ""
            rows.append([name, f"{gain.mean:+.4f}", interval, f"{won} of {len(self.windows)}"])
        label = metric_of(metric).label
        title = f"{label}, gain over {reference}: mean over windows with its 95 % interval"
        return f"{title}\n{plain_table(['model', 'gain', 'interval', 'windows won'], rows)}"


def _cell(value: float, half: float) -> str:
    return f"{value:.4f}" + (f" ± {half:.4f}" if math.isfinite(half) else "")


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
