"""Before an experiment: which lifts it will find, with how many users, in how many days."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

from coterie.errors import ConfigError
from coterie.experiment.statistics.looks import Spending, bounds, crossing
from coterie.experiment.statistics.moments import Moments
from coterie.experiment.statistics.ratios import Level, adjustment, level
from coterie.experiment.statistics.sequence import sequence_bounds

Looking = Literal["fixed", "planned", "daily"]
"""Once at the end; at planned looks; every day by a confidence sequence."""

MOST_USERS = 1e15
"""For whom a lift is looked for: beyond, it is taken as none."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A metric's history, and how an experiment would look at it.

    A lift counts as ln(1 + lift): where a metric rises its spread rises about as much, as it does
    for times watched and for clicks of people who differ. The time of the year, a novelty that
    wears off and other traffic than in the past are not in it.

    Args:
        history: For some numbers of days d, the moments of the users who were seen in a window of d
            days, without any experiment; with the columns of before if ``cuped``. Between two of
            them it is interpolated, on logarithms.
        alpha: Two-sided, of all looks together.
        share: Of these users that the experiment gets.
        treated: Of the users of the two arms, those in the treatment.
        cuped: Whether the days before will be subtracted.
        looking: When one will look.
        looks: Days of planned looks; those at or after an experiment's end are not taken, and at
            its end there is one.
        spending: How planned looks share alpha.

    Raises:
        ConfigError: if history, ``alpha``, ``share``, ``treated`` or ``looks`` are out of range.

    References:
        Deng, Knoblich and Lu (2018), Applying the Delta Method in Metric Analytics.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> views = 1 + rng.poisson(20, size=40_000)
        >>> clicks = rng.binomial(views, rng.beta(2, 18, size=40_000))
        >>> plan = Plan({28: Moments.of(np.stack([clicks, views], 1))}, share=0.5)
        >>> f"{plan.minimum_lift(28):.1%}, or {plan.users_needed(0.05, 28):,} users for 5 %"
        '3.7%, or 11,320 users for 5 %'
    """

    history: Mapping[int, Moments]
    alpha: float = 0.05
    share: float = 1.0
    treated: float = 0.5
    cuped: bool = False
    looking: Looking = "fixed"
    looks: Sequence[int] = ()
    spending: Spending = "obrien-fleming"

    def __post_init__(self) -> None:
        if not self.history or min(self.history) < 1:
            raise ConfigError("history must hold the moments of one window of days at least.")
        if not (0 < self.alpha < 1 and 0 < self.share <= 1 and 0 < self.treated < 1):
            raise ConfigError(
                "alpha and treated must be between 0 and 1, and share above 0 and at most 1; they"
                f" are {self.alpha}, {self.treated} and {self.share}."
            )
        if min(self.looks, default=1) < 1:
            raise ConfigError(f"looks must be days from 1 on; they are {list(self.looks)}.")

    def users(self, days: int) -> float:
        """Users of both arms who will be seen within so many days."""
        return self.share * self._between(days, lambda past: past.n)

    def error(self, days: int, users: float | None = None) -> float:
        """Standard error of ln(1 + lift) after so many days.

        Args:
            days: Length of the experiment.
            users: Of both arms, seen by then; those whom history promises if None.
        """
        n = self.users(days) if users is None else users
        return math.sqrt(self._spread(days) / (n * self.treated * (1 - self.treated)))

    def power(self, lift: float, days: int, users: float | None = None) -> float:
        """Chance to find a lift, in an experiment of so many days.

        Args:
            lift: The true one, relative, above -1.
            days: Length of the experiment.
            users: Of both arms; those whom history promises if None.
        """
        if lift <= -1:
            raise ConfigError(f"a lift must be above -1, which is nothing left; it is {lift}.")
        n = self.users(days) if users is None else users
        drift = math.log1p(lift) / self.error(days, n)
        return self._found_at_end(drift, n) if self.looking == "fixed" else self._found(drift, days)

    def power_curve(self, lifts: Sequence[float] | np.ndarray, days: int) -> np.ndarray:
        """``[lifts]`` float64 power for each lift, in an experiment of so many days."""
        return np.array([self.power(float(lift), days) for lift in lifts])

    def minimum_lift(self, days: int, users: float | None = None, power: float = 0.8) -> float:
        """The smallest lift above 0 that is found with a chance of ``power``.

        Args:
            days: Length of the experiment.
            users: Of both arms; those whom history promises if None.
            power: The chance wanted.
        """
        self._check_power(power)
        unit = self.error(days, users)

        def missing(drift: float) -> float:
            return power - self.power(math.expm1(drift * unit), days, users)

        highest = 2.0
        while missing(highest) > 0:
            highest *= 2
        return math.expm1(float(optimize.brentq(missing, 0.0, highest)) * unit)

    def users_needed(self, lift: float, days: int, power: float = 0.8) -> int:
        """Users of both arms, seen within so many days, who show a lift with that chance.

        Args:
            lift: The true one, relative, above -1 and not 0.
            days: Length of the experiment.
            power: The chance wanted.

        Raises:
            ConfigError: if even `MOST_USERS` would not do.
        """
        self._check_power(power)

        def missing(log_users: float) -> float:
            return power - self.power(lift, days, math.exp(log_users))

        few, many = math.log(3 / min(self.treated, 1 - self.treated)), math.log(MOST_USERS)
        if missing(many) > 0:
            raise ConfigError(f"a lift of {lift} is not found by any number of users.")
        if missing(few) <= 0:
            return math.ceil(math.exp(few))
        return math.ceil(math.exp(float(optimize.brentq(missing, few, many, xtol=1e-13))))

    def days_needed(self, lift: float, power: float = 0.8) -> int | None:
        """The fewest days that show a lift with that chance; None if those of history are too few.

        Args:
            lift: The true one, relative, above -1.
            power: The chance wanted.
        """
        self._check_power(power)
        days = range(min(self.history), max(self.history) + 1)
        return next((day for day in days if self.power(lift, day) >= power), None)

    def looks_of(self, days: int) -> list[int]:
        """The days on which one will look, in an experiment of so many days."""
        if self.looking == "daily":
            return list(range(min(self.history), days + 1))
        before = self.looks if self.looking == "planned" else ()
        return [*sorted({day for day in before if day < days}), days]

    def fractions(self, days: int) -> np.ndarray:
        """``[looks]`` float64 information at each look, as a share of that at the end."""
        errors = np.array([self.error(day) for day in self.looks_of(days)])
        return np.maximum.accumulate(np.minimum((errors[-1] / errors) ** 2, 1.0))

    def expected_days(self, lift: float, days: int) -> float:
        """Mean day on which the experiment stops, if it stops where a bound is crossed.

        Args:
            lift: The true one, relative, above -1.
            days: Length of the experiment, if it does not stop before.
        """
        drift = math.log1p(lift) / self.error(days)
        stopped = self._crossing(drift, days)
        return float(stopped @ self.looks_of(days) + (1 - stopped.sum()) * days)

    def _found(self, drift: float, days: int) -> float:
        return float(self._crossing(drift, days).sum())

    def _crossing(self, drift: float, days: int) -> np.ndarray:
        fractions = self.fractions(days)
        if self.looking == "daily":
            return crossing(fractions, sequence_bounds(fractions, self.alpha), drift)
        return crossing(fractions, bounds(fractions, self.alpha, self.spending, last=True), drift)

    def _found_at_end(self, drift: float, users: float) -> float:
        """Power of Welch's t, both arms as spread as in the past."""
        shares = self.treated, 1 - self.treated
        parts = [1 / (users * share) for share in shares]
        degrees = sum(parts) ** 2 / sum(
            part**2 / (users * share - 1) for part, share in zip(parts, shares, strict=True)
        )
        critical = -special.stdtrit(degrees, self.alpha / 2)
        law = stats.nct(degrees, drift)
        power = float(law.sf(critical) + law.cdf(-critical))
        # SciPy has no number for some drifts beyond 8: there the normal law is as good.
        return float(special.ndtr(abs(drift) - critical)) if math.isnan(power) else power

    def _spread(self, days: int) -> float:
        """Variance of the linearised metric per user, by its squared level."""
        return self._between(days, lambda past: self._level(past).relative.variance)

    def _level(self, past: Moments) -> Level:
        return level(past, adjustment(past) if self.cuped else None)

    def _between(self, days: int, figure: Callable[[Moments], float]) -> float:
        """A figure after so many days, on the straight line between logarithms."""
        known = sorted(self.history)
        if not known[0] <= days <= known[-1]:
            raise ConfigError(
                f"days must be within those of history, {known[0]} to {known[-1]}; they are"
                f" {days}. Give moments of a longer window."
            )
        values = [math.log(figure(self.history[day])) for day in known]
        return math.exp(float(np.interp(math.log(days), np.log(known), values)))

    def _check_power(self, power: float) -> None:
        if not self.alpha < power < 1:
            raise ConfigError(f"power must be between alpha, {self.alpha}, and 1; it is {power}.")
