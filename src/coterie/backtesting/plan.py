"""What a backtest is asked for: models, windows, rules and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

from coterie.config import RunConfig
from coterie.data.by_time import last_days
from coterie.data.log import InteractionLog
from coterie.data.rules import PrepareRules, SplitByLog, TimeSplit
from coterie.errors import ConfigError
from coterie.evaluation.metrics import DEFAULT_METRICS, metric_of


@dataclass(frozen=True)
class BacktestPlan:
    """A backtest as it is asked for.

    Args:
        models: Configurations by the names that tables give them.
        rules: What is kept of the log. Of a `TimeSplit` in them gaps, history, repeats and how new
            users and items are told are taken; its windows are those below.
        every_days: Length of a window, and from one cut to the next.
        n_windows: How many; the last ends with the log's last day.
        validation_days: Length of the window before each cut on which models that are trained in
            epochs choose how many; ``every_days`` if None.
        metrics: Names, the first of which tables and plots begin with.

    Raises:
        ConfigError: if a value cannot be honoured.

    Example:
        >>> from coterie.models.ease import EaseConfig
        >>> plan = BacktestPlan({"ease": RunConfig.of({"model": {"name": "ease"}})})
        >>> [cut.isoformat() for cut in plan.cuts(date(2013, 9, 1))][-2:]
        ['2013-08-19', '2013-08-26']
    """

    models: Mapping[str, RunConfig]
    rules: PrepareRules = field(default_factory=PrepareRules)
    every_days: int = 7
    n_windows: int = 8
    validation_days: int | None = None
    metrics: tuple[str, ...] = DEFAULT_METRICS

    def __post_init__(self) -> None:
        for name in ("every_days", "n_windows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, found {getattr(self, name)}.")
        if not self.models:
            raise ConfigError("a backtest needs at least one model, found none; name one.")
        if not isinstance(self.rules.split, SplitByLog | TimeSplit):
            raise ConfigError(
                "a backtest splits by time, found rules of another split; leave that out."
            )
        for name in self.metrics:
            metric_of(name)

    def cuts(self, last_day: date) -> list[date]:
        """The first day of each window, of which the last ends with ``last_day``."""
        begin = last_day + timedelta(days=1)
        return [begin - timedelta(days=self.every_days * n) for n in range(self.n_windows, 0, -1)]

    def measured(self, cut: date) -> PrepareRules:
        """All that is known before the cut trains; the window from it on is held out."""
        return self._split(cut, 0)

    def validated(self, cut: date) -> PrepareRules:
        """The same with a window before the cut to choose on."""
        days = self.every_days if self.validation_days is None else self.validation_days
        return self._split(cut, days)

    def _split(self, cut: date, validation_days: int) -> PrepareRules:
        given = self.rules.split
        base = given if isinstance(given, TimeSplit) else TimeSplit()
        split = replace(
            base, test_from=cut, test_days=self.every_days, validation_days=validation_days
        )
        return replace(self.rules, split=split)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values: two backtests with the same are the same."""
        split = self._split(date(1970, 1, 1), 0)
        of_windows = ("test_from", "test_days", "validation_days")
        rules = {name: one for name, one in split.stated().items() if name not in of_windows}
        return {
            "models": {name: config.as_json() for name, config in self.models.items()},
            "rules": rules,
            "every_days": self.every_days,
            "n_windows": self.n_windows,
            "validation_days": self.validation_days,
            "metrics": list(self.metrics),
        }


def last_day_of(log: InteractionLog) -> date:
    """The day, in UTC, of a log's last interaction.

    Raises:
        ConfigError: if the log has no times.
    """
    if not log.has("timestamp"):
        raise ConfigError(
            "a backtest needs a log with times, found none; name the column of times."
        )
    return last_days(log.one("SELECT max(timestamp) FROM log")[0], 1)
