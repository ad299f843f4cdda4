"""The outcome of an evaluation: every user's metrics, and the summaries drawn from them.

Per-user values are kept because means alone cannot be compared in pairs or cut into cohorts
afterwards.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from coterie.data.ids import IdMap
from coterie.errors import DataError
from coterie.evaluation.cohorts import DEFAULT_COHORTS, cohort_members
from coterie.evaluation.metrics import LEGEND, metric_of
from coterie.plain_table import plain_table

_OF_ALL_LISTS = b"coterie.of_all_lists"
# With the widest labels a table then is within 100 columns.
_METRICS_A_TABLE = 3


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """Ranking metrics of every evaluated user.

    Args:
        users: ``[n_users]`` ids.
        n_interactions: ``[n_users]`` int64 folded in and held out together, for cohorts.
        metrics: ``[n_users]`` float64 by metric name; NaN where a user defines none, who is then
            left out of its mean and standard error.
        lower_bounds: Of the cohorts.
        of_all_lists: By metric name what no user has alone, such as coverage. Cohorts and other
            parts of a report have none.

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
    of_all_lists: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in {"n_interactions": self.n_interactions, **self.metrics}.items():
            if values.shape != (len(self.users),):
                raise DataError(
                    f"{name} must have one value a user ({len(self.users)}), found shape"
                    f" {values.shape}; align it with users."
                )
        for name in (*self.metrics, *self.of_all_lists):
            metric_of(name)

    def __len__(self) -> int:
        return len(self.users)

    def mean(self, name: str) -> float:
        """Average of a metric over the users who define it; NaN if there are none."""
        values = self.defined(name)
        return float(values.mean()) if len(values) else math.nan

    def standard_error(self, name: str) -> float:
        """Sample standard deviation (n - 1) / √n of a metric; NaN below two users."""
        values = self.defined(name)
        return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan

    def defined(self, name: str) -> np.ndarray:
        """A metric's values of the users who define it.

        Raises:
            DataError: if the metric is not in the report.
        """
        if name not in self.metrics:
            raise DataError(
                f"the metric must be one of {', '.join(self.metrics)}, found {name!r}; evaluate it"
                " too."
            )
        values = self.metrics[name]
        defined: np.ndarray = values[~np.isnan(values)]
        return defined

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
        lists = {
            name: {"label": metric_of(name).label, "value": finite_or_none(value)}
            for name, value in self.of_all_lists.items()
        }
        return {
            "users": len(self),
            "metrics": self._summary(),
            "of_all_lists": lists,
            "cohorts": cohorts,
        }

    def _summary(self) -> dict[str, dict[str, float | str | None]]:
        return {
            name: {
                "label": metric_of(name).label,
                "users": len(self.defined(name)),
                "mean": finite_or_none(self.mean(name)),
                "standard_error": finite_or_none(self.standard_error(name)),
            }
            for name in self.metrics
        }

    def per_user_table(self) -> pa.Table:
        """One row a user: user_id, n_interactions and a column a metric; what is of all lists goes
        into the schema's metadata.
        """
        columns = {"user_id": self.users.values, "n_interactions": self.n_interactions}
        lists = {name: finite_or_none(value) for name, value in self.of_all_lists.items()}
        return pa.table({**columns, **self.metrics}, metadata={_OF_ALL_LISTS: json.dumps(lists)})

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
        lists = json.loads((table.schema.metadata or {}).get(_OF_ALL_LISTS, b"{}"))
        return cls(
            IdMap.of(table["user_id"]),
            values.pop("n_interactions"),
            values,
            lower_bounds,
            {name: math.nan if value is None else value for name, value in lists.items()},
        )

    def __str__(self) -> str:
        names = list(self.metrics)
        tables = [
            self._table(names[start : start + _METRICS_A_TABLE])
            for start in range(0, max(len(names), 1), _METRICS_A_TABLE)
        ]
        return "\n".join(["\n\n".join(tables), *self._notes(), LEGEND])

    def _table(self, names: Sequence[str]) -> str:
        parts = {"all": self, **self.cohorts()}
        rows = [
            [part, str(len(report)), *(_cell(report, name) for name in names)]
            for part, report in parts.items()
        ]
        header = ["cohort", "users", *(metric_of(name).label for name in names)]
        return plain_table(header, rows, [False, True] + [False] * len(names))

    def _notes(self) -> Iterator[str]:
        """What a table cannot say: the numbers of all lists, and who is left out of a mean."""
        for name, value in self.of_all_lists.items():
            yield f"{metric_of(name).label} of all lists: {value:.4f}"
        for name in self.metrics:
            if (n := len(self.defined(name))) < len(self):
                yield f"{metric_of(name).label}: defined by {n} of {len(self)} users"


def finite_or_none(value: float) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def _cell(part: EvaluationReport, metric: str) -> str:
    if not len(part.defined(metric)):
        return ""
    error = part.standard_error(metric)
    return f"{part.mean(metric):.4f}" + (f" ± {error:.4f}" if math.isfinite(error) else "")
