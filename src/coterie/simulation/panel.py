"""A simulated experiment without titles: how much each user sees and clicks on each day, by arm.

Apart from `service` and `living`, which make people and titles: here a user is a few numbers, so
that thousands of experiments take minutes. Activity is heavy-tailed, users differ in how often they
click, days of the week differ, and a lift may begin with a novelty and wear off.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from coterie.simulation.watching import WEEKDAYS

PanelMetric = Literal["clicks_per_view", "clicks_per_viewing_day", "seconds_per_user"]
"""Clicks by card views; clicks by days with a view; seconds watched by user."""

ACTIVITY_SD = 1.0
"""Of the logarithm of how often a user comes: the busiest hundredth comes ten times as often as
most.
"""

MEDIAN_VISITS = 0.18
"""Visits a day of the median user."""

VIEWS = 3.0
VIEWS_SD = 0.6
"""Card views of a visit after the first one: their median over users, and the standard deviation of
its logarithm.
"""

CLICK_RATE = 0.12
CLICK_STRENGTH = 14.0
"""Clicks by views: the mean over users of a beta law, and its two parameters' sum."""

SECONDS = 1500.0
SECONDS_SD = 0.5
"""Watched after a click: the median over users of their mean, and the standard deviation of its
logarithm. Single times follow a gamma law.
"""

SECONDS_SHAPE = 1.5

NOVELTY_VISITS = 3.0
"""Visits after which a novelty is worth 1/e of what it was."""


@dataclass(frozen=True)
class PanelLaw:
    """The law of an experiment.

    Args:
        n_users: Of both arms, whether they come or not.
        n_days: Length of the experiment.
        before_days: Days before it, without a difference between arms.
        lift: Relative, of the chance to click, in the treatment.
        novelty: Added to the lift at a user's first visit, as a share of it; fades with visits.
        fatigue: By which share the lift is smaller after each visit.
        treated: Chance of a user to be in the treatment.

    Example:
        >>> panel = PanelLaw(n_users=5000, lift=0.3).draw(seed=0)
        >>> clicks, views, *_ = panel.columns("clicks_per_view", days=28, treated=True).T
        >>> f"{clicks.sum() / views.sum():.3f}"
        '0.157'
    """

    n_users: int = 2000
    n_days: int = 28
    before_days: int = 14
    lift: float = 0.0
    novelty: float = 0.0
    fatigue: float = 0.0
    treated: float = 0.5

    def draw(self, seed: int, treated: np.ndarray | None = None) -> "Panel":
        """Draws an experiment.

        Args:
            seed: Of all randomness; alike for alike laws.
            treated: ``[n_users]`` bool: who is in the treatment, say by a hash; drawn if None.
        """
        rng = np.random.default_rng(seed)
        if treated is None:
            treated = rng.random(self.n_users) < self.treated
        come = self._come(rng)
        user, day = np.nonzero(come)
        views = 1 + rng.poisson(rng.lognormal(np.log(VIEWS), VIEWS_SD, self.n_users)[user])
        rate = self._rates(rng)[user] * (1 + treated[user] * self._lift(come)[user, day])
        clicks = rng.binomial(views, np.minimum(rate, 1.0))
        scale = rng.lognormal(np.log(SECONDS / SECONDS_SHAPE), SECONDS_SD, self.n_users)
        seconds = rng.gamma(SECONDS_SHAPE * clicks) * scale[user]
        return Panel(self, treated, *(_laid_out(come, one) for one in (views, clicks, seconds)))

    def _come(self, rng: np.random.Generator) -> np.ndarray:
        """``[n_users, days]`` bool: who comes when."""
        days = np.arange(self.before_days + self.n_days)
        often = rng.lognormal(np.log(MEDIAN_VISITS), ACTIVITY_SD, self.n_users)
        chance = -np.expm1(-np.outer(often, WEEKDAYS[days % 7]))
        come: np.ndarray = rng.random(chance.shape) < chance
        return come

    def _rates(self, rng: np.random.Generator) -> np.ndarray:
        """``[n_users]`` chance to click, by view."""
        rates: np.ndarray = rng.beta(
            CLICK_RATE * CLICK_STRENGTH, (1 - CLICK_RATE) * CLICK_STRENGTH, self.n_users
        )
        return rates

    def _lift(self, come: np.ndarray) -> np.ndarray:
        """``[n_users, days]`` the treatment's lift, by how often a user has come in it."""
        if not (self.novelty or self.fatigue):
            lift = np.broadcast_to(self.lift, come.shape).copy()
        else:
            inside = come[:, self.before_days :]
            visits = np.zeros(come.shape)
            visits[:, self.before_days :] = np.cumsum(inside, axis=1) - inside
            fades = self.novelty * np.exp(-visits / NOVELTY_VISITS)
            lift = self.lift * ((1 - self.fatigue) ** visits + fades)
        lift[:, : self.before_days] = 0.0
        return lift


@dataclass(frozen=True, eq=False)
class Panel:
    """An experiment that was drawn. Days of all arrays: those before, then those of the experiment.

    Args:
        law: It was drawn from.
        treated: ``[n_users]`` bool: who is in the treatment.
        views: ``[n_users, days]`` float64 card views.
        clicks: ``[n_users, days]`` float64, at most ``views``.
        seconds: ``[n_users, days]`` float64 seconds watched after clicks.
    """

    law: PanelLaw
    treated: np.ndarray
    views: np.ndarray
    clicks: np.ndarray
    seconds: np.ndarray

    def columns(self, metric: PanelMetric, days: int, *, treated: bool | None = None) -> np.ndarray:
        """``[n, 4]`` float64 sums (Y, X, Y before, X before) of each user seen within so many days.

        Args:
            metric: What is summed.
            days: Of the experiment, from its first.
            treated: Users of the treatment, or of the control; all if None.
        """
        before, last = self.law.before_days, self.law.before_days + days
        y, x = self._sums[metric]
        sums = np.stack((y[last] - y[before], x[last] - x[before], y[before], x[before]))
        if metric == "seconds_per_user":
            sums[[1, 3]] = 1.0
        seen = self._first < last
        # A column lies in one piece, so that sums over users are quick.
        return sums[:, seen if treated is None else seen & (self.treated == treated)].T

    @cached_property
    def _first(self) -> np.ndarray:
        """``[n_users]`` first day of the experiment on which a user comes; its end if on none."""
        inside = self.views[:, self.law.before_days :] > 0
        first = np.where(inside.any(axis=1), inside.argmax(axis=1), self.law.n_days)
        found: np.ndarray = self.law.before_days + first
        return found

    @cached_property
    def _sums(self) -> dict[PanelMetric, tuple[np.ndarray, np.ndarray]]:
        """Numerator and denominator of each metric, each ``[1 + days, n_users]``, sums so far."""
        views, clicks, seconds = map(_cumulated, (self.views, self.clicks, self.seconds))
        visits = _cumulated(self.views > 0)
        return {
            "clicks_per_view": (clicks, views),
            "clicks_per_viewing_day": (clicks, visits),
            "seconds_per_user": (seconds, views),
        }


def _laid_out(come: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``[n_users, days]`` float64 values where there are any, else 0."""
    laid = np.zeros(come.shape)
    laid[come] = values
    return laid


def _cumulated(daily: np.ndarray) -> np.ndarray:
    """``[1 + days, n_users]`` sums of all days before each, and of all."""
    sums = np.zeros((daily.shape[1] + 1, len(daily)))
    np.cumsum(daily.T, axis=0, out=sums[1:], dtype=np.float64)
    return sums
