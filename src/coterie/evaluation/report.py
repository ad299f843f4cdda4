"""The outcome of an evaluation: every user's metrics, and the summaries drawn from them.

Per-user values are kept because means alone cannot be compared in pairs or cut into cohorts
afterwards.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from coterie.data.ids import IdMap
from coterie.errors import DataError
from coterie.evaluation.cohorts import DEFAULT_COHORTS, cohort_members
from coterie.evaluation.metrics import LEGEND, Metric
from coterie.plain_table import plain_table


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """Ranking metrics of every evaluated user.

    Args:
        users: ``[n_users]`` ids.
        n_interactions: ``[n_users]`` int64 folded in and held out together, for cohorts.
        metrics: ``[n_users]`` float64 by metric name.
        lower_bounds: Of the cohorts.

    Raises:
        DataError: if the arrays differ in length.
        ConfigError: if a metric's name is none.

    Example:
        >>> report = EvaluationReport(
        ...     IdMap.of(["ann", "bob"]), np.array([7, 60]), {"ndcg@10": np.array([0.5, 1.0])}
        ... )
        >>> report.mean("ndcg@10"), report.standard_error("ndcg@10")
        (0.75, 0.25)
        >>> print(report)
        cohort  users  NDCG@10
        all         2  0.7500 ± 0.2500
        5-10        1  0.5000
        11-50       0
        51-100      1  1.0000
        101+        0
        n: number of the user's held-out items
    """

    users: IdMap
    n_interactions: np.ndarray
    metrics: Mapping[str, np.ndarray]
    lower_bounds: Sequence[int] = DEFAULT_COHORTS

    def __post_init__(self) -> None:
        for name, values in {"n_interactions": self.n_interactions, **self.metrics}.items():
            if values.shape != (len(self.users),):
                raise DataError(
                    f"{name} must have one value a user ({len(self.users)}), found shape"
                    f" {values.shape}; align it with users."
                )
        for name in self.metrics:
            Metric.parse(name)

    def __len__(self) -> int:
        return len(self.users)

    def mean(self, name: str) -> float:
        """Average of a metric over users; NaN if there are none."""
        return float(self._values(name).mean()) if len(self) else math.nan

    def standard_error(self, name: str) -> float:
        """Sample standard deviation (n - 1) / √n of a metric; NaN below two users."""
        values = self._values(name)
        return float(values.std(ddof=1) / math.sqrt(len(self))) if len(self) > 1 else math.nan

    def _values(self, name: str) -> np.ndarray:
        if name not in self.metrics:
            raise DataError(
                f"the metric must be one of {', '.join(self.metrics)}, found {name!r}; evaluate it"
                " too."
            )
        return self.metrics[name]

    def take(self, users: np.ndarray) -> "EvaluationReport":
        """The same report for the users at ``[m]`` indices, in that order."""
        metrics = {name: values[users] for name, values in self.metrics.items()}
        return EvaluationReport(
            IdMap(self.users.take(users)), self.n_interactions[users], metrics, self.lower_bounds
        )

    def cohorts(self) -> dict[str, "EvaluationReport"]:
        """A report for each cohort, fewest interactions first; some may have no users."""
        members = cohort_members(self.n_interactions, self.lower_bounds)
        return {name: self.take(np.flatnonzero(mask)) for name, mask in members.items()}

    def to_json(self) -> dict[str, Any]:
        """Means and standard errors, overall and by cohort; null where too few users define
        them.
        """
        cohorts = {
            name: {"users": len(cohort), "metrics": cohort._summary()}
            for name, cohort in self.cohorts().items()
        }
        return {"users": len(self), "metrics": self._summary(), "cohorts": cohorts}

    def _summary(self) -> dict[str, dict[str, float | str | None]]:
        return {
            name: {
                "label": Metric.parse(name).label,
                "mean": finite_or_none(self.mean(name)),
                "standard_error": finite_or_none(self.standard_error(name)),
            }
            for name in self.metrics
        }

    def per_user_table(self) -> pa.Table:
        """One row a user: user_id, n_interactions and a column a metric."""
        return pa.table(
            {"user_id": self.users.values, "n_interactions": self.n_interactions, **self.metrics}
        )

    @classmethod
    def from_table(
        cls, table: pa.Table, lower_bounds: Sequence[int] = DEFAULT_COHORTS
    ) -> "EvaluationReport":
        """Reads back `per_user_table`, so that a saved evaluation can be compared with a later one.

        Raises:
            DataError: if the columns user_id or n_interactions are missing.
        """
        missing = {"user_id", "n_interactions"} - set(table.column_names)
        if missing:
            raise DataError(
                "a per-user table must have user_id and n_interactions, found no"
                f" {', '.join(sorted(missing))}; save it anew."
            )
        values = {name: table[name].to_numpy() for name in table.column_names if name != "user_id"}
        return cls(IdMap.of(table["user_id"]), values.pop("n_interactions"), values, lower_bounds)

    def __str__(self) -> str:
        header = ["cohort", "users", *(Metric.parse(name).label for name in self.metrics)]
        parts = {"all": self, **self.cohorts()}
        rows = [
            [name, str(len(part)), *(_cell(part, metric) for metric in self.metrics)]
            for name, part in parts.items()
        ]
        return (
            plain_table(header, rows, [False, True] + [False] * len(self.metrics)) + f"\n{LEGEND}"
        )


def finite_or_none(value: float) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def _cell(part: EvaluationReport, metric: str) -> str:
    if len(part) == 0:
        return ""
    error = part.standard_error(metric)
    return f"{part.mean(metric):.4f}" + (f" ± {error:.4f}" if math.isfinite(error) else "")
