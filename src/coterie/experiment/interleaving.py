"""Two arms' lists in one: each user sees titles of both, and clicks say whose are better.

A cheaper first test than an experiment: who clicks compares both arms at the same moment, so users
who differ in how much they click do not blur it. It says which arm's titles are clicked more when
they lie side by side, and nothing of clicks per view, watch time or what people do later.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import special, stats

from coterie.data.ids import Id
from coterie.errors import DataError
from coterie.experiment.assignment import buckets
from coterie.experiment.attribution import need, with_clicks
from coterie.experiment.statistics.moments import Moments
from coterie.experiment.statistics.ratios import level

FIRST, SECOND, NEITHER = 0, 1, -1
"""Whose title it is."""


def coins(salt: str, day: date, user_ids: Sequence[Id], n: int) -> np.ndarray:
    """``[n_users, n]`` bool: whether the first arm picks first in each round, by a salted hash.

    Rounds, days and users are independent, and the hash is that of `bucket`, which SQL knows, too.

    Example:
        >>> coins("one", date(2027, 1, 18), [8], 4).tolist()
        [[False, True, True, True]]
    """
    rounds = [buckets(f"draft:{salt}:{day}:{one}", user_ids) < 0.5 for one in range(n)]
    return np.stack(rounds, axis=1) if rounds else np.zeros((len(user_ids), 0), dtype=bool)


def team_draft(
    first: Sequence[Any], second: Sequence[Any], coins: Sequence[bool], k: int
) -> tuple[list[Any], list[int]]:
    """Interleaves two lists: in each round both arms pick their best title that is not yet there.

    It ends after ``k`` titles, or after as many as the shorter list has: beyond, the arm of the
    longer one would hold the last places more often.

    Args:
        first: The first arm's list, best first; a title that is there again does not count.
        second: The second arm's.
        coins: Of each round, whether the first arm picks first; ``(k + 1) // 2`` of them.
        k: Length that is wanted.

    Returns:
        Titles, and of each whose pick it was: `FIRST`, `SECOND`; or `NEITHER` of titles at the top
        on which both lists agree, as chance alone says who picked them.

    References:
        Radlinski, Kurup and Joachims (2008), How Does Clickthrough Data Reflect Retrieval Quality?,
        Algorithm 2.

    Example:
        >>> team_draft("abcd", "acde", [False, True], 4)
        (['a', 'b', 'c', 'd'], [-1, 0, 0, 1])
    """
    lists = [list(dict.fromkeys(one)) for one in (first, second)]
    shown: dict[Any, int] = {}
    for place in range(min(k, *map(len, lists))):
        leads = FIRST if coins[place // 2] else SECOND
        team = leads if place % 2 == 0 else 1 - leads
        shown[next(one for one in lists[team] if one not in shown)] = team
    return list(shown), _credited(list(shown.values()), *lists)


def _credited(teams: list[int], first: Sequence[Any], second: Sequence[Any]) -> list[int]:
    pairs = zip(first, second, strict=False)
    alike = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
    alike = min(alike, len(teams))
    return [NEITHER] * alike + teams[alike:]


def interleave(
    first: pa.Table, second: pa.Table, arms: tuple[str, str], *, salt: str, day: date, k: int
) -> pa.Table:
    """The interleaved list of every user who has one of each arm.

    Exposures are to be logged with the ``arm`` of the title, which `clicks_by_arm` counts by.

    Args:
        first: user_id and items (best first) of the first arm.
        second: The same of the second.
        arms: Names of both.
        salt: Of the hash, that of the experiment.
        day: That the lists are for: each has draws of its own.
        k: Length that is wanted.

    Returns:
        user_id, items, arms (of each title; null of titles at the top on which both agree), in the
        order of ``first``.

    Raises:
        DataError: if a column is missing, or no user has a list of both.

    Example:
        >>> lists = [pa.table({"user_id": [7], "items": [items]}) for items in ([1, 2], [3, 1])]
        >>> one = interleave(*lists, ("a", "b"), salt="s", day=date(2027, 1, 18), k=2)
        >>> one.to_pylist()
        [{'user_id': 7, 'items': [1, 3], 'arms': ['a', 'b']}]
    """
    for lists in (first, second):
        need("lists", lists, ("user_id", "items"))
    found = dict(zip(second["user_id"].to_pylist(), second["items"].to_pylist(), strict=True))
    mine = first.filter(pc.is_in(first["user_id"], second["user_id"]))
    if not mine.num_rows:
        raise DataError("users must have a list of both arms, found none; see the users' ids.")
    users, names = mine["user_id"].to_pylist(), [*arms, None]
    drawn = coins(salt, day, users, (k + 1) // 2).tolist()
    drafts = [
        team_draft(items, found[user], heads, k)
        for user, items, heads in zip(users, mine["items"].to_pylist(), drawn, strict=True)
    ]
    return pa.table(
        {
            "user_id": mine["user_id"],
            "items": pa.array([items for items, _ in drafts], mine.schema.field("items").type),
            "arms": pa.array(
                [[names[team] for team in teams] for _, teams in drafts], pa.list_(pa.string())
            ),
        }
    )


def clicks_by_arm(exposures: pa.Table, outcomes: pa.Table, arms: tuple[str, str]) -> np.ndarray:
    """``[n_users, 2]`` float64 clicks of each user who saw an interleaved list, on titles of the
    first arm and of the second.

    Args:
        exposures: user_id, time, card, item_id, and arm: whose title it was.
        outcomes: As in `with_clicks`, which says to which view a click belongs.
        arms: Names of both.

    Raises:
        DataError: if a column is missing, or no view is of either arm.
    """
    need("exposures", exposures, ("arm",))
    views = with_clicks(exposures, outcomes)
    views = views.filter(pc.is_in(views["arm"], pa.array(arms)))
    if not views.num_rows:
        raise DataError(
            f"a view must name {arms[0]} or {arms[1]} as its arm, found none of"
            f" {exposures.num_rows:,} that does; log whose title it was."
        )
    users = np.unique(views["user_id"].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    clicks = views["clicks"].to_numpy()
    own = [pc.equal(views["arm"], arm).to_numpy(zero_copy_only=False) for arm in arms]
    return np.stack([np.bincount(users, weights=clicks * one) for one in own], axis=1)


@dataclass(frozen=True)
class Preference:
    """What clicks say of two arms side by side.

    Args:
        preference: Clicks on the first arm's titles less those on the second's, as a share of both:
            from -1 to 1, 0 if nobody minds.
        low: Lower end of its interval (Student's t, clustered by user).
        high: Its upper end.
        statistic: ``preference`` by its standard error.
        p_value: Two-sided, of no preference; of one look.
        n_users: Who saw an interleaved list.
        prefer_first: Users with more clicks on the first arm's titles.
        prefer_second: Users with more on the second's.
        sign_p_value: Of the sign test: as many users prefer either. It does not mind how much a
            user clicks.
    """

    preference: float
    low: float
    high: float
    statistic: float
    p_value: float
    n_users: int
    prefer_first: int
    prefer_second: int
    sign_p_value: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def preference(clicks: np.ndarray, *, confidence: float = 0.95) -> Preference:
    """Which of two interleaved arms is preferred.

    The share is a ratio of sums over users, Σ(first - second) / Σ(first + second), with the
    standard error of such (delta method): clicks of one user are not independent.

    Args:
        clicks: ``[n_users, 2]`` on titles of the first arm and of the second, as `clicks_by_arm`
            gives them.
        confidence: Of the interval.

    Raises:
        DataError: if there are fewer than two users, or no click.

    References:
        Chapelle, Joachims, Radlinski and Yue (2012), Large-Scale Validation and Analysis of
        Interleaved Search Evaluation, for the share and both tests.

    Example:
        >>> found = preference(np.array([[3, 1], [2, 0], [1, 1], [4, 2], [0, 0]]))
        >>> f"{found.preference:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
        '+0.43 (+0.08 to +0.78)'
        >>> found.prefer_first, found.prefer_second, found.sign_p_value
        (3, 0, 0.25)
    """
    apart, both = clicks[:, 0] - clicks[:, 1], clicks.sum(axis=1)
    if len(clicks) < 2 or not both.sum() > 0:
        raise DataError(
            "a preference needs two users and a click on a title of either arm, found"
            f" {len(clicks)} users and {both.sum():g} clicks; wait for more."
        )
    found = level(Moments.of(np.stack([apart, both], axis=1)))
    error, degrees = math.sqrt(max(found.variance, 0.0) / found.n), found.n - 1
    half = -float(special.stdtrit(degrees, (1 - confidence) / 2)) * error
    statistic = found.value / error if error else math.copysign(math.inf, found.value)
    ahead, behind = int((apart > 0).sum()), int((apart < 0).sum())
    return Preference(
        preference=found.value,
        low=found.value - half,
        high=found.value + half,
        statistic=statistic if found.value else 0.0,
        p_value=2 * float(special.stdtr(degrees, -abs(statistic))) if found.value else 1.0,
        n_users=found.n,
        prefer_first=ahead,
        prefer_second=behind,
        sign_p_value=float(stats.binomtest(ahead, ahead + behind).pvalue) if apart.any() else 1.0,
    )
