"""A simulated streaming service whose law is known, so that the best possible ranking is known too.

Titles belong to niches, users have tastes over niches, and a user's items are successive draws
without replacement from ``p_u = theta_u @ phi``. Tastes are planted: every user follows a profile,
a set of several niches; heavy users take it whole, light users only one or two of its niches. A
light and a heavy user of one profile are therefore far apart as rows of clicks and yet related, the
case collaborative models differ on.

Users are made in blocks, each from its own stream of random numbers: a user is the same whatever
the number of users, and any number of them streams through bounded memory.
"""

import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from coterie.data.dataset import Dataset, Interactions
from coterie.data.ids import IdMap
from coterie.data.split import Part, Split, choose_users, hide_items
from coterie.errors import ConfigError
from coterie.files import publish_file
from coterie.running.progress import Progress, Update, silent
from coterie.simulation.draws import draw_items, flat_cumulative, stream
from coterie.simulation.tastes import Activity, Users, make_profiles, make_users
from coterie.simulation.titles import Catalogue, make_catalogue

BLOCK_USERS = 1024
"""Users made at once. Part of the law: another value gives other users."""

START_SECONDS = 1_767_571_200
"""Monday 2026-01-05 00:00 UTC, before which nothing happens."""

WEEK_SECONDS = 7 * 24 * 3600

RATING_SHARES = (0.01, 0.03, 0.02, 0.07, 0.05, 0.21, 0.11, 0.28, 0.08, 0.14)
"""Of the ratings 0.5, 1, … 5: half of them are 4 or more."""


@dataclass(frozen=True, eq=False)
class Block:
    """The interactions of consecutive users: users ascend, and times ascend within a user.

    Args:
        user_id: ``[n]`` int64.
        item_id: ``[n]`` int64, each once a user.
        rating: ``[n]`` float64 in half stars, 0.5 to 5.
        timestamp: ``[n]`` int64 seconds since 1970 (UTC).
    """

    user_id: np.ndarray
    item_id: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray


@dataclass(frozen=True)
class SimulatedService:
    """A streaming service with planted niches, of any number of users.

    Ids are integers from 1: user index u has id u + 1, item index i has id i + 1. Ratings and times
    are independent of taste given what was watched, so thinning by rating leaves the best ranking
    as it is. Memory grows with ``n_niches * n_items`` and one block of users, not with ``n_users``.

    Args:
        n_users: Number of users, at least 1.
        n_items: Number of titles, at least ``n_niches``.
        seed: Not negative; the same seed gives the same bytes.
        n_niches: At least 4; 0 chooses one per 30 titles, from 6 to 64.
        mean_items: Mean number of interactions of a user; 0 chooses a fifth of the catalogue, at
            most 48. Users are capped at half of the catalogue, which lowers the mean where it is
            near the cap.
        min_items: Fewest interactions of a user.
        weeks: Length of the log.

    Raises:
        ConfigError: if the numbers do not fit together.

    Example:
        >>> service = SimulatedService(n_users=2000, n_items=100, seed=3)
        >>> sum(len(block.user_id) for block in service.blocks()) > 5 * 2000
        True
        >>> service.probabilities(np.array([0, 1999])).shape
        (2, 100)
    """

    n_users: int
    n_items: int
    seed: int = 0
    n_niches: int = 0
    mean_items: float = 0
    min_items: int = 5
    weeks: int = 26

    def __post_init__(self) -> None:
        # The chosen values are kept, so that a service always says what it is made of.
        object.__setattr__(self, "n_niches", self.n_niches or min(64, max(6, self.n_items // 30)))
        object.__setattr__(
            self,
            "mean_items",
            self.mean_items or max(self.min_items + 1.0, min(48.0, self.n_items / 5)),
        )
        for name, lowest in (
            ("n_users", 1),
            ("seed", 0),
            ("n_niches", 4),
            ("min_items", 1),
            ("weeks", 1),
        ):
            check_at_least(name, getattr(self, name), lowest)
        check_at_least("n_items", self.n_items, max(self.n_niches, 2 * self.min_items))
        if not self.min_items < self.mean_items <= self.max_items:
            raise ConfigError(
                f"mean_items must be above min_items ({self.min_items}) and at most half of the"
                f" catalogue ({self.max_items}), found {self.mean_items}; change it or n_items."
            )

    @property
    def max_items(self) -> int:
        """Most interactions of a user: half of the catalogue."""
        return self.n_items // 2

    @cached_property
    def catalogue(self) -> Catalogue:
        """Titles, genres and the law of items within niches."""
        return make_catalogue(self.n_items, self.n_niches, self._rng(0))

    @cached_property
    def profiles(self) -> np.ndarray:
        """``[4 * n_niches, n_niches]`` float64: weights of the 3 to 8 niches of each profile, rows
        sum to one.
        """
        return make_profiles(self.n_niches, self._rng(1))

    def users(self, user_index: ArrayLike) -> Users:
        """The planted truth about ``[n]`` users, in the order asked.

        Raises:
            ConfigError: if an index is not in ``[0, n_users)``.
        """
        wanted = np.asarray(user_index, dtype=np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < self.n_users):
            raise ConfigError(
                f"user indices must be in [0, {self.n_users}), found {wanted.min()} to"
                f" {wanted.max()}; an id is the index + 1."
            )
        n = len(wanted)
        found = Users(
            np.empty(n, np.int64),
            np.empty(n, bool),
            np.empty(n, np.int64),
            np.empty((n, self.n_niches)),
        )
        for block in np.unique(wanted // BLOCK_USERS):
            here = np.flatnonzero(wanted // BLOCK_USERS == block)
            members = self._block_of_users(int(block))[wanted[here] % BLOCK_USERS]
            for name, column in vars(found).items():
                column[here] = getattr(members, name)
        return found

    def probabilities(self, user_index: ArrayLike) -> np.ndarray:
        """The law ``p_u`` of ``[n]`` users: ``[n, n_items]`` float64, rows sum to one, all
        positive.

        Ranking by it, seen items removed, is the best possible ranking: an item that is likelier to
        be drawn is likelier to be among those drawn and hidden, whatever else the user drew.
        """
        law: np.ndarray = self.users(user_index).tastes @ self.catalogue.phi
        return law

    def best_scores(self, user_ids: ArrayLike, item_ids: ArrayLike) -> np.ndarray:
        """The best possible scores, for the users and in the item order of a data set.

        Args:
            user_ids: ``[n]`` integer ids.
            item_ids: ``[m]`` integer ids.

        Returns:
            ``[n, m]`` float64 probabilities ``p_u``.

        Raises:
            ConfigError: if an id is not of this service.

        Example:
            >>> service = SimulatedService(n_users=300, n_items=60, seed=1)
            >>> data = service.dataset(held_out_users=40)
            >>> cases = data.cases(Part.TEST)
            >>> best = service.best_scores(
            ...     data.users.ids_of(cases.user_index), data.items.ids_of(range(data.n_items))
            ... )
            >>> best.shape == cases.held_out.shape
            True
        """
        columns = np.asarray(item_ids, dtype=np.int64) - 1
        if len(columns) and not (columns.min() >= 0 and columns.max() < self.n_items):
            raise ConfigError(
                f"item ids must be in [1, {self.n_items}], found {columns.min() + 1} to"
                f" {columns.max() + 1}; ask the service they are of."
            )
        law: np.ndarray = (
            self.users(np.asarray(user_ids, dtype=np.int64) - 1).tastes
            @ self.catalogue.phi[:, columns]
        )
        return law

    def blocks(self) -> Iterator[Block]:
        """All interactions, a block of users at a time; nothing is made before it is asked for."""
        flat_phi = flat_cumulative(self.catalogue.phi)
        for block in range(-(-self.n_users // BLOCK_USERS)):
            yield self._block(block, flat_phi)

    def _block(self, block: int, flat_phi: np.ndarray) -> Block:
        rng = self._rng(3, block)
        users = self._block_of_users(block)
        row, item = draw_items(users.tastes, users.n_items, self.catalogue.phi, flat_phi, rng)
        rating = rng.choice(np.arange(1, 11) / 2, p=RATING_SHARES, size=len(row))
        seconds = self._ascending_seconds(row, rng)
        # The last block is drawn whole, then cut: its users must not depend on how many there are.
        n = int(np.searchsorted(row, self.n_users - block * BLOCK_USERS))
        return Block(
            block * BLOCK_USERS + row[:n] + 1, item[:n] + 1, rating[:n], START_SECONDS + seconds[:n]
        )

    def _block_of_users(self, block: int) -> Users:
        """The ``BLOCK_USERS`` users of a block, those beyond ``n_users`` included."""
        activity = Activity(self.mean_items, self.min_items, self.max_items)
        return make_users(BLOCK_USERS, self.profiles, activity, self._rng(2, block))

    def _ascending_seconds(self, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``[n]`` int64 seconds since the start, uniform, ascending within each of the ascending
        ``row``.
        """
        seconds = rng.integers(self.weeks * WEEK_SECONDS, size=len(row))
        # One sort for all rows: a row's seconds stay inside its own stretch of the number line.
        length = self.weeks * WEEK_SECONDS
        ascending: np.ndarray = np.sort(row * length + seconds) - row * length
        return ascending

    def _rng(self, *key: int) -> np.random.Generator:
        return stream(self.seed, *key)

    def write_ratings_csv(self, folder: str | Path, progress: Progress = silent) -> None:
        """Writes ``ratings.csv`` and ``movies.csv`` in the official MovieLens form, each whole or
        not at all.

        A user's rows are in the order of time.

        Args:
            folder: Made if it is not there.
            progress: Called after every block of users.
        """
        with (
            publish_file(Path(folder) / "movies.csv") as aside,
            aside.open("w", encoding="utf-8", newline="") as file,
        ):
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["movieId", "title", "genres"])
            rows.writerows(
                zip(
                    range(1, self.n_items + 1),
                    self.catalogue.titles,
                    self.catalogue.genres,
                    strict=True,
                )
            )
        schema = pa.schema(
            [
                ("userId", pa.int64()),
                ("movieId", pa.int64()),
                ("rating", pa.string()),
                ("timestamp", pa.int64()),
            ]
        )
        options = pa_csv.WriteOptions(include_header=False, quoting_style="none")
        with publish_file(Path(folder) / "ratings.csv") as aside, aside.open("wb") as sink:
            # Arrow would put the header in quotes and write 4.0 as 4; the official files do
            # neither.
            sink.write(b"userId,movieId,rating,timestamp\n")
            with pa_csv.CSVWriter(sink, schema, write_options=options) as writer:
                for block in self._counted_blocks(progress):
                    columns = [
                        block.user_id,
                        block.item_id,
                        _as_text(block.rating),
                        block.timestamp,
                    ]
                    writer.write_batch(pa.record_batch(columns, schema=schema))

    def write_parquet(self, path: str | Path, progress: Progress = silent) -> None:
        """Writes the columns user_id, item_id, rating and timestamp as one file, whole or not at
        all.

        Args:
            path: The file.
            progress: Called after every block of users.
        """
        schema = pa.schema(
            [
                ("user_id", pa.int64()),
                ("item_id", pa.int64()),
                ("rating", pa.float64()),
                ("timestamp", pa.int64()),
            ]
        )
        with publish_file(path) as aside, pq.ParquetWriter(aside, schema) as writer:
            for block in self._counted_blocks(progress):
                writer.write_batch(pa.record_batch(list(vars(block).values()), schema=schema))

    def _counted_blocks(self, progress: Progress) -> Iterator[Block]:
        for number, block in enumerate(self.blocks(), start=1):
            yield block
            done = min(number * BLOCK_USERS, self.n_users)
            progress(Update("writing the log", done, self.n_users, "users"))

    def dataset(self, held_out_users: int, split_seed: int = 98765) -> Dataset:
        """All interactions as a data set in memory, split by strong generalisation.

        Every interaction counts, whatever its rating; items unseen in training are dropped.

        Args:
            held_out_users: Number of validation users, and of test users.
            split_seed: Of the split alone.

        Raises:
            ConfigError: if nobody would be left to train on.
        """
        blocks = list(self.blocks())
        user = np.concatenate([block.user_id for block in blocks]) - 1
        item = np.concatenate([block.item_id for block in blocks]) - 1
        timestamp = np.concatenate([block.timestamp for block in blocks])
        user_part = choose_users(self.n_users, held_out_users, split_seed)
        in_training = np.bincount(item[user_part[user] == Part.TRAIN], minlength=self.n_items) > 0
        order = np.lexsort((item, user))
        order = order[in_training[item[order]]]
        interactions = _interactions(
            self.n_users, user[order], item[order], timestamp[order], np.flatnonzero(in_training)
        )
        split = Split(user_part, hide_items(interactions.indptr, user_part, split_seed))
        titles = tuple(self.catalogue.titles[i] for i in np.flatnonzero(in_training))
        provenance = {
            "simulated": asdict(self),
            "split": {"held_out_users": held_out_users, "seed": split_seed},
        }
        return Dataset(interactions, split, titles, provenance)


def simulate_dataset(
    n_users: int = 1000,
    n_items: int = 200,
    held_out_users: int = 100,
    seed: int = 0,
    *,
    n_niches: int = 0,
    mean_items: float = 0,
    min_items: int = 5,
    weeks: int = 26,
) -> Dataset:
    """A small data set of a simulated service, with titles and times: for tests, examples and the
    demo.

    The same as ``SimulatedService(n_users, n_items, seed, …).dataset(held_out_users)``; make the
    service itself for the best possible ranking.

    Example:
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> data.titles[0], len(data.cases(Part.TEST).user_index)
        ('The Little Inspector', 40)
    """
    return SimulatedService(n_users, n_items, seed, n_niches, mean_items, min_items, weeks).dataset(
        held_out_users
    )


def _interactions(
    n_users: int, user: np.ndarray, item: np.ndarray, timestamp: np.ndarray, kept_items: np.ndarray
) -> Interactions:
    """Renumbers the columns to the ``kept_items``; users and, within a user, items ascend."""
    indptr = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=n_users))])
    indices = np.searchsorted(kept_items, item).astype(np.int32)
    return Interactions(
        IdMap.of(np.arange(1, n_users + 1)), IdMap.of(kept_items + 1), indptr, indices, timestamp
    )


def _as_text(rating: np.ndarray) -> pa.Array:
    return pa.array([f"{half / 2:.1f}" for half in range(11)]).take(
        pa.array((rating * 2).astype(np.int64))
    )


def check_at_least(name: str, value: float, lowest: float) -> None:
    """Raises `ConfigError` where a field of a service is below its bound."""
    if value < lowest:
        raise ConfigError(f"{name} must be at least {lowest}, found {value}; choose a larger one.")
