"""A log of one's own as the demo's data set: columns guessed, likes told from ratings, and no more
of it than two cores can learn in minutes.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coterie.data.dataset import Dataset
from coterie.data.log import InteractionLog
from coterie.data.movielens import TITLES
from coterie.data.parts import unpack_zip
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import PrepareRules, StrongGeneralisation
from coterie.data.source import ending_of
from coterie.data.table_options import TableFields
from coterie.errors import DataError
from coterie.lab.demo.guess import ROLES, Guess, guess
from coterie.lab.demo.preview import preview

logger = logging.getLogger(__name__)

LEAST_ITEMS, LEAST_USERS = 5, 100
"""Items that a user must like to take part, and users that there must be."""

MOST_HELD_OUT = 600
"""Validation users, and test users; a fifth each of fewer than 3,000."""

LIKED = {4.0: 3.0, 5.0: 4.0, 10.0: 7.0}
"""By the best rating of a scale, the least that is a like."""

MOST_GRADES = 21
"""Of a scale: halves from 0 to 10."""


@dataclass(frozen=True)
class OwnLog:
    """A log, and what is known of it.

    Args:
        path: A file; or a folder or archive of one file, or in a format that `read_log` knows.
        table: Its columns, as far as they are stated.
        titles: A file of them, or by item id as text; None takes one beside the log that has a name
            of MovieLens'.
        min_rating: The least that is a like; None tells it by the values.
        most_users: So many take part at most, drawn by the seed.
        most_items: So many take part at most, those with the most users.
    """

    path: Path
    table: TableFields = field(default_factory=TableFields)
    titles: str | Path | Mapping[str, str] | None = None
    min_rating: float | None = None
    most_users: int = 6000
    most_items: int = 5000


def prepare_own(own: OwnLog, seed: int) -> tuple[Dataset, str]:
    """The data set, and in words what was guessed and left out.

    Raises:
        ConfigError: if columns cannot be guessed.
        SourceError: if the log breaks its format.
        DataError: if too few users are left.
    """
    with _opened(own) as (log, guessed):
        log.connection.execute("UPDATE log SET part = NULL")  # a split the log brings is not ours
        like, words = likes(log, guessed.is_count if guessed else False, own.min_rating)
        columns = _columns(log, guessed, words, beside=own.titles is None)
        for line in columns.splitlines():
            logger.info(line)
        liked = "rating IS DISTINCT FROM 0" if like is None else f"rating >= {like}"
        least_users = _drop_rare_items(log, liked, own.most_items)
        n_users = _draw_users(log, liked, own, seed)
        held_out = min(MOST_HELD_OUT, n_users // 5, own.most_users // 5)
        split = StrongGeneralisation(held_out, seed=seed)
        rules = PrepareRules(min_rating=like, min_user_items=LEAST_ITEMS, split=split)
        data = prepare(log, rules)
        return data, f"{columns}\n{_extent(data, n_users, own, least_users)}"


@contextmanager
def _opened(own: OwnLog) -> Iterator[tuple[InteractionLog, Guess | None]]:
    """The log, and the guess it is read by; none where a known format says it all."""
    with tempfile.TemporaryDirectory() as scratch:
        path = own.path
        if ending_of(str(path)) == ".zip":
            path = unpack_zip(str(path), Path(scratch))
        inside = _visible_files(path) if path.is_dir() else [path]
        if len(inside) != 1:
            with read_log(path, titles=own.titles, **own.table) as log:
                yield log, None
            return
        file = str(inside[0])
        stated = own.table.get("delimiter"), own.table.get("encoding"), own.table.get("quote", '"')
        guessed = guess(preview(file, *stated), own.table)
        titles = _titles_beside(own.path) if own.titles is None else own.titles
        table: TableFields = {**own.table, **guessed.table, "negative_ratings": True}
        with read_log(file, titles=titles, **table) as log:
            yield log, guessed


def _visible_files(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if one.is_file() and not one.name.startswith(".")]


def _titles_beside(path: Path) -> Path | None:
    beside = (path.with_name(name) for name in TITLES)
    return next((one for one in beside if one.exists() and one != path), None)


def likes(
    log: InteractionLog, is_count: bool, stated: float | None = None
) -> tuple[float | None, str]:
    """The least rating that is a like, None if all but 0 are; and the same in words.

    Few different values up to 4, 5 or 10 are stars; of ratings that go below 0 those are likes that
    do not; all else counts or says that the user had the item.

    Args:
        log: What was read.
        is_count: Whether the column's name says that it counts.
        stated: Takes the place of what the values say.

    Example:
        >>> with InteractionLog("hand-made", "table") as log:
        ...     rows = "(1, 7, 4.5, NULL, NULL), (1, 8, 5, NULL, NULL), (2, 8, 1, NULL, NULL)"
        ...     _ = log.connection.execute(f"INSERT INTO log VALUES {rows}")
        ...     likes(log, is_count=False)
        (4.0, ' ≥ 4 (of 1–5)')
    """
    least, best, grades = log.one(
        "SELECT min(rating), max(rating), count(DISTINCT rating) FROM log"
    )
    if least is None:
        return None, ", every row is a like"
    like = stated
    if like is None and not is_count and grades <= MOST_GRADES:
        like = LIKED.get(best)
    if like is None and least < 0:
        like = 0.0
    scale = f"(of {least:g}–{best:g})"
    if like is None:
        return None, f" > 0 {scale}" if least == 0 else f", all {scale}"
    return like, f" ≥ {like:g} {scale}"


def _takes_part(liked: str) -> str:
    """SQL for the users who like enough of the items that are left."""
    return (
        f"SELECT user_id FROM log WHERE {liked} GROUP BY user_id HAVING count(DISTINCT item_id) >="
        f" {LEAST_ITEMS}"
    )


def _drop_rare_items(log: InteractionLog, liked: str, most: int) -> int:
    """Leaves at most so many items; how many users one of them must have, 0 if all stay."""
    users = (
        f"SELECT item_id, count(DISTINCT user_id) AS n FROM log WHERE {liked} AND user_id IN"
        f" ({_takes_part(liked)}) GROUP BY item_id"
    )
    next_most = log.one(f"SELECT n FROM ({users}) ORDER BY n DESC LIMIT 1 OFFSET {most}")
    if not next_most:
        return 0
    least = int(next_most[0]) + 1
    log.connection.execute(
        f"DELETE FROM log WHERE item_id NOT IN (SELECT item_id FROM ({users}) WHERE n >= {least})"
    )
    return least


def _draw_users(log: InteractionLog, liked: str, own: OwnLog, seed: int) -> int:
    """Leaves the rows of at most so many users who like enough; how many of those there were.

    Raises:
        DataError: if there are too few to learn from and to measure on.
    """
    log.connection.execute(f"CREATE TEMP TABLE takes_part AS {_takes_part(liked)}")
    n_users = int(log.one("SELECT count(*) FROM takes_part")[0])
    if n_users < LEAST_USERS:
        raise DataError(
            f"{LEAST_USERS} users must like at least {LEAST_ITEMS} items each, of the"
            f" {own.most_items:,} that most users like, found {n_users}; raise --items, lower"
            " --min-rating, or take a larger log."
        )
    log.connection.execute(
        "DELETE FROM log WHERE user_id NOT IN (SELECT user_id FROM takes_part ORDER BY"
        f" md5(concat(user_id, ' ', {seed})) LIMIT {own.most_users})"
    )
    return n_users


def _columns(log: InteractionLog, guessed: Guess | None, words: str, *, beside: bool) -> str:
    """What was guessed, in words."""
    if guessed is None:
        return f"{log.name} was read as {log.format}: rating{words}"
    user, item, rating, time = map(guessed.column, ROLES)
    lines = [
        f"{log.name}: user = {user}, item = {item}, rating = {rating or 'none'}{words},"
        f" time = {time or 'none'}",
        *guessed.notes,
        *(["titles were found beside it"] if beside and log.titles else []),
        "a guess; otherwise --user-column, --item-column, --rating-column, --timestamp-column,"
        " --min-rating",
    ]
    return "\n  ".join(lines)


def _extent(data: Dataset, n_users: int, own: OwnLog, least_users: int) -> str:
    """How much takes part, and what would take more, in words."""
    sizes = (len(data.interactions.indices), len(data.users), len(data.items))
    lines = ["{:,} likes, {:,} users and {:,} items take part".format(*sizes)]
    if least_users:
        lines.append(f"items that {least_users} users like or more; --items takes more")
    if n_users > own.most_users:
        lines.append(
            f"of {n_users:,} users who like {LEAST_ITEMS} of them or more; --users takes more"
        )
    return "\n  ".join(lines)
