"""What could void an experiment: wrong shares of users, lost logs, crossings, carry-over, bots.

Each check says in words what was found and what to do. A check with a p-value alarms in about 1 %
of healthy experiments; those of many segments, days or metrics are corrected together (Holm), so
that this is the rate of the check as a whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from coterie.evaluation.inference import holm
from coterie.experiment.events import day_of, number_of
from coterie.experiment.statistics.moments import Moments
from coterie.experiment.sums import Metric, Sums

LEVEL = 0.01
"""A check alarms at a smaller p-value."""

FEWEST_EXPECTED = 5
"""Users that an arm must be expected to have for Pearson's test (Cochran's rule)."""

MOST_CROSSED = 0.01
"""Share of users who saw another arm's list: about that share of an effect is lost."""

MOST_CAPPED = 0.01
"""Share of users above the cap."""

MOST_DROPPED = 0.05
"""Share of rows that came late, or without what an event must have."""

MOST_OF_ONE = 0.2
"""Share of a metric's variance that is one user's: more, and its mean is not normal."""


@dataclass(frozen=True)
class Check:
    """What was found of one thing that could void an experiment.

    Args:
        name: Of the check.
        ok: Whether all is well.
        words: What was found and, if all is not well, what to do.
        p: Chance of a finding as strong if all were well, where there is a test.
        figure: What was found: a share, or a number of users or days.
    """

    name: str
    ok: bool
    words: str
    p: float | None = None
    figure: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def check(sums: Sums, *, earlier: pa.Table | None = None, level: float = LEVEL) -> list[Check]:
    """All checks of an experiment.

    Args:
        sums: Of its events.
        earlier: Who was in which arm of the experiment before, in the same layer: ``user_id`` and
            ``arm``; None if there was none.
        level: Where a p-value alarms.

    Returns:
        The checks, those first that void most.
    """
    made: list[Callable[[Sums, float], Check]] = [
        sample_ratio, sample_ratio_by_segment, sample_ratio_by_first_day, viewers_by_day,
        unseen_clicks, unseen_users, views_a_day, missing_days, crossings, users_above_cap,
        one_user, dropped_rows,
    ]  # fmt: skip
    found = [one(sums, level) for one in made]
    if sums.window.before_days:
        found.insert(3, days_before(sums, level))
    if earlier is not None:
        found.insert(3, carry_over(sums, earlier, level))
    return found


# Shares of users.


def sample_ratio(sums: Sums, level: float = LEVEL) -> Check:
    """Whether arms have the shares of users that were planned (Pearson's chi²).

    A ratio that is off means that users were lost or gained by arm: no figure can then be trusted.
    """
    counts = _by_arm(sums, "SELECT arm, count(*) FROM members GROUP BY arm")
    p = _ratio_p(counts, _weights(sums))
    told = f"{_told(sums, counts)}, planned {_shares(sums)} (p = {p:.2g})."
    todo = "Trust no effect: find where users of one arm are lost (redirects, crashes, logs)."
    return _tested("sample ratio", p, level, told, todo)


def sample_ratio_by_segment(sums: Sums, level: float = LEVEL) -> Check:
    """The same in each segment."""
    groups = _by_arm_and(sums, "SELECT segment, arm, count(*) FROM members GROUP BY ALL")
    return _ratios(sums, "sample ratio by segment", groups, level)


def sample_ratio_by_first_day(sums: Sums, level: float = LEVEL) -> Check:
    """The same of those whose first exposure was on each day."""
    groups = _by_arm_and(sums, "SELECT first_day, arm, count(*) FROM members GROUP BY ALL")
    return _ratios(sums, "sample ratio by first day", _dated(groups), level)


def viewers_by_day(sums: Sums, level: float = LEVEL) -> Check:
    """The same of those with a view on each day: an arm whose logs are lost on a day falls."""
    return _ratios(sums, "viewers by day", _viewers(sums), level)


def _viewers(sums: Sums) -> dict[Any, np.ndarray]:
    return _dated(
        _by_arm_and(
            sums,
            "SELECT day, arm, count(*) FROM user_days JOIN members USING (user_id)"
            f" WHERE day >= {number_of(sums.window.first)} AND v0 > 0 GROUP BY ALL",
        )
    )


def _ratios(sums: Sums, name: str, groups: dict[Any, np.ndarray], level: float) -> Check:
    weights = _weights(sums)
    enough = {
        key: counts
        for key, counts in groups.items()
        if counts.sum() * weights.min() >= FEWEST_EXPECTED
    }
    if not enough:
        return Check(name, True, "Too few users to tell.")
    p_values = holm([_ratio_p(counts, weights) for counts in enough.values()])
    p, worst = min(zip(p_values, enough, strict=True), key=lambda one: one[0])
    told = (
        f"Of {len(enough)}, {worst} is furthest from the plan: {_told(sums, enough[worst])},"
        f" planned {_shares(sums)} (p = {p:.2g}, Holm)."
    )
    todo = "Find what happened there to the users or the logs of one arm, and leave it out."
    return _tested(name, p, level, told, todo)


def _ratio_p(counts: np.ndarray, weights: np.ndarray) -> float:
    return float(stats.chisquare(counts, counts.sum() * weights).pvalue)


# Logs.


def unseen_clicks(sums: Sums, level: float = LEVEL) -> Check:
    """Whether arms differ in days with a click on a card but without a view of it.

    Who clicks has seen: such days are lost exposures.
    """
    metrics = [Metric("unseen_days", "click_days", card) for card in sums.cards or (None,)]
    return _alike(sums, "clicks without a view", metrics, 0, level, "Exposures are lost in an arm.")


def unseen_users(sums: Sums, level: float = LEVEL) -> Check:
    """Whether arms differ in users who did something but never saw a card."""
    first = number_of(sums.window.first)
    never = (
        "SELECT user_id, min(day) AS first_day FROM user_days ANTI JOIN first_seen USING (user_id)"
        f" WHERE early > 0 AND day >= {first} GROUP BY user_id"
    )
    lost = _by_arm(
        sums, f"SELECT arm, count(*) FROM ({sums.with_arms(never)}) WHERE arm >= 0 GROUP BY arm"
    )
    there = _by_arm(sums, "SELECT arm, count(*) FROM members GROUP BY arm")
    p = _table_p(np.stack([lost, there]))
    told = f"Outcomes but no exposure: {_told(sums, lost)} (p = {p:.2g})."
    todo = "Exposures of whole users are lost in an arm; find them, or trust no effect."
    return _tested("users without a view", p, level, told, todo, figure=float(lost.sum()))


def views_a_day(sums: Sums, level: float = LEVEL) -> Check:
    """Whether arms differ in views per day with a view."""
    todo = (
        "Either the lists themselves change how much is looked at, and clicks per view are to be"
        " read with clicks per user; or an arm loses logs."
    )
    return _alike(sums, "views a day", [Metric("views", "view_days")], 0, level, todo)


def missing_days(sums: Sums, _: float = LEVEL) -> Check:
    """Whether each day has views of every arm."""
    viewers, least = _viewers(sums), _weights(sums).min()
    lacking = [
        str(day)
        for day in sums.days
        if day not in viewers
        or (not viewers[day].all() and viewers[day].sum() * least >= FEWEST_EXPECTED)
    ]
    words = f"All {len(sums.days)} days have views of every arm."
    if lacking:
        words = (
            f"Without views, of all arms or of one: {', '.join(lacking)}. Fetch these days, or end"
            " the window before them."
        )
    return Check("days", not lacking, words, figure=float(len(lacking)))


def dropped_rows(sums: Sums, _: float = LEVEL) -> Check:
    """Whether few rows were dropped as late, ahead, or without what an event must have."""
    names = ("late", "ahead", "without_user", "without_time", "without_meaning")
    parts = {kind: counts.to_json() for kind, counts in sums.counts.items()}
    shares = {
        f"{kind} {name.replace('_', ' ')}": counts[name] / max(1, counts["read"])
        for kind, counts in parts.items()
        for name in names
        if counts[name]
    }
    told = ", ".join(f"{share:.2%} of {name}" for name, share in shares.items()) or "none"
    most = max(shares.values(), default=0.0)
    ok = most <= MOST_DROPPED
    todo = "" if ok else " Raise late_days if they are late; else see what writes them."
    return Check("dropped rows", ok, f"Dropped: {told}.{todo}", figure=most)


# People.


def crossings(sums: Sums, _: float = LEVEL) -> Check:
    """Whether users saw lists of their own arm alone, as exposures tell."""
    rows = _logged(sums)
    if not sum(row[2] for row in rows):
        words = (
            f"No exposure names an arm of {sums.arms.experiment}, so crossings cannot be seen. Log"
            " experiment and arm with each exposure."
        )
        return Check("crossings", False, words)
    crossed = _counts(sums, [row[:2] for row in rows])
    there = _by_arm(sums, "SELECT arm, count(*) FROM members GROUP BY arm")
    share = float(crossed.sum() / there.sum())
    words = f"Saw another arm's list: {_told(sums, crossed)}, {share:.2%} of all."
    if share > MOST_CROSSED:
        words += (
            " The effect found is too small by about this share. See whether arms or lists were"
            " changed, and whether devices keep old ones."
        )
    return Check("crossings", share <= MOST_CROSSED, words, figure=share)


def _logged(sums: Sums) -> list[tuple[Any, ...]]:
    """Of each arm: its number, users who saw another one's list, views that name any arm."""
    arms = range(len(sums.arms.names))
    total, own = " + ".join(f"s{j}" for j in arms), " ".join(f"WHEN {j} THEN s{j}" for j in arms)
    return sums.rows(
        "SELECT arm, count(*) FILTER (crossed), coalesce(sum(logged), 0) FROM (SELECT arm,"
        f" bool_or({total} > CASE arm {own} END) AS crossed, sum({total}) AS logged"
        " FROM user_days JOIN members USING (user_id)"
        f" WHERE day >= {number_of(sums.window.first)} GROUP BY user_id, arm) GROUP BY arm"
    )


def users_above_cap(sums: Sums, level: float = LEVEL) -> Check:
    """How many users were left out as bots, and whether arms differ in it."""
    counts = [
        _by_arm(sums, f"SELECT arm, count(*) FROM members WHERE over IS {one} NULL GROUP BY arm")
        for one in ("NOT", "")
    ]
    p, share = _table_p(np.stack(counts)), float(counts[0].sum() / np.sum(counts))
    words = (
        f"Left out, above {sums.cap.daily_views:,} views on a day: {_told(sums, counts[0])},"
        f" {share:.2%} of all (p = {p:.2g})."
    )
    ok = p >= level and share <= MOST_CAPPED
    if not ok:
        words += " So many are no chance: see who they are, and what the arms do to them."
    return Check("users above the cap", ok, words, p, float(counts[0].sum()))


def one_user(sums: Sums, _: float = LEVEL) -> Check:
    """Whether no user alone makes much of a metric's variance."""
    shares = {metric.name: _largest_share(sums, metric) for metric in sums.metrics}
    name, most = max(shares.items(), key=lambda one: one[1])
    words = f"At most {most:.1%} of a metric's variance is one user's ({name})."
    if most > MOST_OF_ONE:
        words += " Its interval cannot be trusted: lower the cap on views, or winsorise."
    return Check("one user", most <= MOST_OF_ONE, words, figure=most)


def _largest_share(sums: Sums, metric: Metric) -> float:
    both = sum(
        (sums.moments(metric, arm) for arm in sums.arms.names[1:]),
        start=sums.moments(metric, sums.arms.names[0]),
    )
    return sums.largest_square(metric, _ratio(both, 0))


# Before.


def days_before(sums: Sums, level: float = LEVEL) -> Check:
    """Whether arms were alike in the days before (an A/A test)."""
    todo = (
        "Chance, or users carry over what another experiment did to them: choose another salt."
        " Report the effect with the days before taken out (CUPED)."
    )
    return _alike(sums, "days before", sums.metrics, 2, level, todo)


def carry_over(sums: Sums, earlier: pa.Table, level: float = LEVEL) -> Check:
    """Whether a user's arm has nothing to do with the arm in the experiment before (Pearson's
    chi²).
    """
    pairs = sums.beside(earlier)
    befores = sorted({row[0] for row in pairs})
    table = np.zeros((len(befores), len(sums.arms.names)))
    for before, arm, n in pairs:
        table[befores.index(before), arm] = n
    p = _table_p(table)
    told = "; ".join(
        f"of {before} {_told(sums, row)}" for before, row in zip(befores, table, strict=True)
    )
    todo = "Arms follow those of the experiment before: choose another salt, and start anew."
    return _tested("carry-over", p, level, f"{told or 'Nobody was in it'} (p = {p:.2g}).", todo)


# Tests.


def _alike(
    sums: Sums, name: str, metrics: Sequence[Metric], first: int, level: float, todo: str
) -> Check:
    """Whether arms have the same ratios of the columns ``first`` and the next."""
    moments = [[sums.moments(metric, arm) for arm in sums.arms.names] for metric in metrics]
    p_values = holm([same_ratio(arms, first) for arms in moments])
    worst = int(np.argmin(p_values))
    p = p_values[worst]
    ratios = [_ratio(one, first) for one in moments[worst]]
    told = ", ".join(
        f"{arm} {ratio:.4g}" for arm, ratio in zip(sums.arms.names, ratios, strict=True)
    )
    return _tested(name, p, level, f"{metrics[worst].name}: {told} (p = {p:.2g}).", todo)


def same_ratio(arms: Sequence[Moments], first: int = 0) -> float:
    """The p-value of one ratio of sums in all arms, clustered by user.

    Of the linearised Y - R X, R that of all arms, an F test: under the hypothesis arms have one
    variance, so an arm without any is no trouble.

    Args:
        arms: Moments of each.
        first: The column of the numerator; the next is the denominator's.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> arms = [Moments.of(rng.poisson(5, (900, 2)) + one) for one in ([0, 0], [1, 0])]
        >>> same_ratio(arms) < 1e-6, same_ratio([arms[0], arms[0]]) > 0.99
        (True, True)
    """
    total = sum(arms[1:], start=arms[0])
    weights = np.array([1.0, -_ratio(total, first)])
    columns = slice(first, first + 2)
    n = np.array([one.n for one in arms])
    means = np.array([weights @ one.mean[columns] for one in arms])
    variances = np.array([weights @ one.covariance[columns, columns] @ weights for one in arms])
    degrees = n.sum() - len(arms)
    within = float(((n - 1).clip(0) * variances).sum() / max(1, degrees))
    between = float((n * means**2).sum() / (len(arms) - 1))
    if degrees < 1 or within <= 0:
        return 1.0 if between == 0 or degrees < 1 else 0.0
    return float(stats.f.sf(between / within, len(arms) - 1, degrees))


def _ratio(moments: Moments, first: int) -> float:
    above, below = moments.mean[first : first + 2]
    return float(above / below) if below else 0.0


def _table_p(table: np.ndarray) -> float:
    """Of a table whose columns are arms; 1 where a single row or column is left."""
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if min(table.shape, default=0) < 2:
        return 1.0
    if table.shape == (2, 2):
        return float(stats.fisher_exact(table).pvalue)
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def _tested(
    name: str, p: float, level: float, told: str, todo: str, figure: float | None = None
) -> Check:
    ok = p >= level
    return Check(name, ok, told if ok else f"{told} {todo}", p, figure)


# Counts.


def _weights(sums: Sums) -> np.ndarray:
    weights = np.array(list(sums.arms.weights.values()), dtype=np.float64)
    shares: np.ndarray = weights / weights.sum()
    return shares


def _by_arm(sums: Sums, query: str) -> np.ndarray:
    return _counts(sums, sums.rows(query))


def _counts(sums: Sums, rows: Sequence[tuple[Any, ...]]) -> np.ndarray:
    """``[n_arms]`` float64 of rows of an arm's number and a count."""
    counts = np.zeros(len(sums.arms.names))
    for arm, n in rows:
        counts[arm] = n
    return counts


def _by_arm_and(sums: Sums, query: str) -> dict[Any, np.ndarray]:
    """Counts by arm, of each group of rows of a group, an arm's number and a count."""
    groups: dict[Any, list[tuple[Any, ...]]] = {}
    for group, *row in sorted(sums.rows(query)):
        groups.setdefault(group, []).append(tuple(row))
    return {group: _counts(sums, rows) for group, rows in groups.items()}


def _dated(groups: dict[int, np.ndarray]) -> dict[date, np.ndarray]:
    return {day_of(number): counts for number, counts in groups.items()}


def _told(sums: Sums, counts: np.ndarray) -> str:
    return ", ".join(f"{arm} {int(n):,}" for arm, n in zip(sums.arms.names, counts, strict=True))


def _shares(sums: Sums) -> str:
    return " / ".join(f"{weight:.4g}" for weight in _weights(sums))
