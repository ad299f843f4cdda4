"""What lists would have earned that nobody was shown, from the log of others; or why that cannot be
known.

Where the log was randomised, and says with which probability each title was shown where it was, a
view of the title that the candidate would have shown at that position stands for all views in which
chance had it otherwise. Where nothing was randomised, titles were shown because a model thought
they would be clicked, and no weight undoes that.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import special

from coterie.errors import DataError
from coterie.experiment.attribution import answer, need, with_clicks
from coterie.experiment.statistics.moments import Moments
from coterie.experiment.statistics.ratios import level

OFF = 4.0
"""Standard errors of the mean weight from 1 at which propensities cannot be right."""


@dataclass(frozen=True)
class Estimate:
    """A ratio of sums over users, with its interval.

    Args:
        value: The ratio.
        low: Lower end of its interval (Student's t, clustered by user).
        high: Its upper end.
        standard_error: Of the value, by the delta method.
    """

    value: float
    low: float
    high: float
    standard_error: float

    @classmethod
    def of(cls, columns: np.ndarray, confidence: float = 0.95) -> "Estimate":
        """Of ``[n, 2]`` numerators and denominators, a row a user.

        Raises:
            DataError: if there are fewer than two users, or the denominators sum to nothing.

        Example:
            >>> one = Estimate.of(np.array([[1.0, 10.0], [3.0, 10.0], [2.0, 20.0]]))
            >>> f"{one.value:.2f} ± {one.standard_error:.3f}"
            '0.15 ± 0.057'
        """
        found = level(Moments.of(columns))
        error = math.sqrt(max(found.variance, 0.0) / found.n)
        half = -float(special.stdtrit(found.n - 1, (1 - confidence) / 2)) * error
        return cls(found.value, found.value - half, found.value + half, error)


@dataclass(frozen=True)
class Replay:
    """Clicks per view of lists that were not shown, and how much of the log says so.

    Args:
        logged: Clicks per view of what was shown, in the same views.
        ips: Of the candidate, by inverse propensity scoring: unbiased.
        snips: The same, self-normalised: a little biased in small logs, mostly of less variance.
        n_users: Users with such a view.
        n_views: Views that count: randomised, and at a position of the user's list.
        n_left_out: Other views of the log.
        n_matched: Views in which the candidate's title was shown.
        effective_views: Views without weights that would say as much, (Σw)² / Σw².
        mean_weight: About 1 if propensities are right and the candidate's titles could be shown.
    """

    logged: Estimate
    ips: Estimate
    snips: Estimate
    n_users: int
    n_views: int
    n_left_out: int
    n_matched: int
    effective_views: float
    mean_weight: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        told = [
            f"{name}: {100 * one.value:.2f} clicks per 100 views"
            f" ({100 * one.low:.2f} to {100 * one.high:.2f})"
            for name, one in (("logged", self.logged), ("IPS", self.ips), ("SNIPS", self.snips))
        ]
        return "\n".join(
            [
                *told,
                f"from {self.n_matched:,} of {self.n_views:,} views, worth"
                f" {self.effective_views:,.0f} without weights",
            ]
        )


def replay_lists(
    exposures: pa.Table, outcomes: pa.Table, lists: pa.Table, *, confidence: float = 0.95
) -> Replay:
    """The value of a candidate's lists, from what another policy showed at random.

    A view counts with weight 1 / propensity if its title is the one that the candidate has at its
    position, and with 0 otherwise. IPS is Σ w · clicks / Σ views, SNIPS Σ w · clicks / Σ w; both
    are ratios of sums over users, with the standard error of such.

    It is taken for granted that a click depends on the title and its position, not on the titles
    beside it, and that people look as far down as they did.

    Args:
        exposures: user_id, time, card, item_id, position (from 1) and ``propensity``: with which
            probability this title was to be at this position of this user's list. Null where
            nothing was drawn: such views are left out, which is right if whether something is
            drawn does not depend on the titles.
        outcomes: As in `with_clicks`, which joins them.
        lists: user_id and items (a list, best first); ``card`` and ``day``, if there, must be that
            of the exposures, too. A user's list each once.
        confidence: Of the intervals.

    Raises:
        DataError: if nothing was randomised, if propensities are not probabilities, or if they
            cannot be those of this log: the mean weight is then not 1.

    References:
        Horvitz and Thompson (1952), A Generalization of Sampling Without Replacement from a Finite
        Universe, for IPS. Li, Chu, Langford and Wang (2011), Unbiased Offline Evaluation of
        Contextual-bandit-based News Article Recommendation Algorithms, for replay. Swaminathan and
        Joachims (2015), The Self-Normalized Estimator for Counterfactual Learning, eq. 8, for
        SNIPS. Kish (1965), Survey Sampling, for effective views.

    Example:
        >>> views = {"user_id": [1, 1, 2, 2], "item_id": [7, 8, 8, 7], "position": [1] * 4}
        >>> log = pa.table(
        ...     {**views, "time": range(4), "card": ["home"] * 4, "propensity": [0.5] * 4}
        ... )
        >>> clicks = {"user_id": [1, 2], "item_id": [7, 8], "time": [5, 5], "card": ["home"] * 2}
        >>> sevens = pa.table({"user_id": [1, 2], "items": [[7], [7]]})
        >>> found = replay_lists(log, pa.table({**clicks, "kind": ["click"] * 2}), sevens)
        >>> found.logged.value, found.ips.value, found.snips.value, found.effective_views
        (0.5, 0.5, 0.5, 2.0)
    """
    views = _views(exposures, outcomes, lists)
    propensity = views["propensity"].to_numpy()
    matched = views["matched"].to_numpy(zero_copy_only=False)
    weights = np.where(matched, 1 / propensity, 0.0)
    clicks = views["clicks"].to_numpy().astype(np.float64)
    users = np.unique(views["user_id"].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    weighed, weight, plain, n = (
        np.bincount(users, weights=one)
        for one in (weights * clicks, weights, clicks, np.ones_like(clicks))
    )
    _check_weights(Estimate.of(np.stack([weight, n], 1)), int(matched.sum()))
    return Replay(
        logged=Estimate.of(np.stack([plain, n], 1), confidence),
        ips=Estimate.of(np.stack([weighed, n], 1), confidence),
        snips=Estimate.of(np.stack([weighed, weight], 1), confidence),
        n_users=len(n),
        n_views=len(clicks),
        n_left_out=exposures.num_rows - len(clicks),
        n_matched=int(matched.sum()),
        effective_views=float(weights.sum() ** 2 / (weights**2).sum()),
        mean_weight=float(weights.mean()),
    )


def overlap(exposures: pa.Table, lists: pa.Table) -> float:
    """The share of the places of a candidate's lists whose title was shown to that user, wherever.

    It says how far the lists are from those of the log, not what they are worth.

    Args:
        exposures: user_id, item_id and what of ``card`` and ``day`` the lists have.
        lists: As in `replay_lists`.

    Returns:
        From 0 to 1; NaN without any title.

    Example:
        >>> shown = pa.table({"user_id": [1, 1], "item_id": [7, 8]})
        >>> overlap(shown, pa.table({"user_id": [1, 2], "items": [[8, 9], [7, 8]]}))
        0.25
    """
    keys = _keys(lists)
    need("exposures", exposures, (*keys, "item_id"))
    shown = ", ".join(_text(key) for key in (*keys, "item_id"))
    listed = ", ".join(_text(key) for key in keys)
    found = answer(
        f"SELECT CAST(count(*) FILTER (o.item_id IS NOT NULL) AS DOUBLE) / count(*) AS share FROM"
        f" (SELECT {listed}, CAST(unnest(items) AS VARCHAR) AS item_id FROM lists) LEFT JOIN"
        f" (SELECT DISTINCT {shown} FROM exposures) o USING ({', '.join((*keys, 'item_id'))})",
        exposures=exposures,
        lists=lists,
    )
    (share,) = found["share"].to_pylist()
    return math.nan if share is None else float(share)


def _views(exposures: pa.Table, outcomes: pa.Table, lists: pa.Table) -> pa.Table:
    """Those that count: user_id, propensity, matched, clicks."""
    keys = _keys(lists)
    _check_random(exposures, lists)
    need("exposures", exposures, (*keys, "item_id", "position"))
    logged = ", ".join(_text(key) for key in (*keys, "item_id"))
    listed = ", ".join(_text(key) for key in keys)
    views = answer(
        "SELECT user_id, propensity, clicks, item_id = CAST(items[position] AS VARCHAR) AS matched"
        f" FROM (SELECT {logged}, position, propensity, clicks FROM views) JOIN"
        f" (SELECT {listed}, items FROM lists) USING ({', '.join(keys)})"
        " WHERE propensity IS NOT NULL AND position BETWEEN 1 AND len(items) ORDER BY user_id",
        views=with_clicks(exposures, outcomes),
        lists=lists,
    )
    if not views.num_rows:
        raise DataError(
            "a randomised view must be of a user with a list, at a position of it, found none of"
            f" {exposures.num_rows:,} views and {lists.num_rows:,} lists; see that ids and cards"
            " are the same in both."
        )
    return views


def _keys(lists: pa.Table) -> tuple[str, ...]:
    """What says which list a view is of."""
    need("lists", lists, ("user_id", "items"))
    keys = tuple(key for key in ("user_id", "card", "day") if key in lists.column_names)
    if lists.group_by(list(keys)).aggregate([]).num_rows != lists.num_rows:
        raise DataError(
            f"there must be one list for each {', '.join(keys)}, found several; drop the others."
        )
    return keys


def _text(column: str) -> str:
    return f"CAST({column} AS VARCHAR) AS {column}"


def _check_random(exposures: pa.Table, lists: pa.Table) -> None:
    """Checks that chance had a say, by propensities that are probabilities."""
    has = "propensity" in exposures.column_names
    drawn = exposures["propensity"].drop_null() if has else pa.array([], pa.float64())
    if len(drawn) and not pc.all(pc.and_(pc.greater(drawn, 0), pc.less_equal(drawn, 1))).as_py():
        raise DataError(
            "a propensity must be above 0 and at most 1, the probability of what was shown, found"
            f" from {pc.min(drawn).as_py():g} to {pc.max(drawn).as_py():g}; log the probability."
        )
    if not len(drawn) or pc.min(drawn).as_py() == 1:
        raise DataError(
            "the value of lists can be known from a log that showed titles at random, found"
            f" {'every propensity to be 1' if len(drawn) else 'no propensity'}: a title was shown"
            " because a model chose it, so what people would have done with another title at its"
            " place is not in the log, and no weight brings it back. What is known:"
            f" {overlap(exposures, lists):.1%} of the candidate's titles were shown to their user"
            " at all. Show some lists in random order and log the propensity, or compare by"
            " interleaving or an experiment."
        )


def _check_weights(mean: Estimate, n_matched: int) -> None:
    # A mean far below 1 comes with a standard error that is too small by its root.
    expected = mean.standard_error / math.sqrt(min(mean.value, 1.0)) if mean.value else 0.0
    if abs(mean.value - 1) > OFF * expected:
        raise DataError(
            "weights must have a mean of 1 if each propensity is the probability of its view and"
            " any title of the candidate could be shown at its place, found"
            f" {mean.value:.3g} ± {mean.standard_error:.2g} from {n_matched:,} views that match;"
            " correct the propensities, or judge only lists that the log could have shown."
        )
