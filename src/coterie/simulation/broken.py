"""A living service whose log breaks on purpose: for demonstrations, and for tests of what stops it.

Only the log is broken. The law, the titles and the users stay true, so that the harm can be
measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from coterie.errors import ConfigError
from coterie.running.progress import Progress, silent
from coterie.simulation.day_files import write_days
from coterie.simulation.draws import stream
from coterie.simulation.living import LivingService

Fault: TypeAlias = Literal["half", "shuffled"]


@dataclass(frozen=True)
class Broken:
    """A `LivingService` whose log is wrong on some days; all else is the service's.

    Args:
        service: The service.
        how: ``half``: of two collectors one is down, so the rows of users with even ids are
            missing. ``shuffled``: item ids stand for other titles, always the same, among those
            announced when it begins.
        since: First broken day.
        until: First day that is whole again; None if none is.

    Raises:
        ConfigError: if there is no such fault, or ``until`` is not after ``since``.

    Example:
        >>> service = LivingService(n_users=300, n_items=60, weeks=2)
        >>> broken = Broken(service, "half", date(2026, 1, 7), date(2026, 1, 8))
        >>> [
        ...     broken.events(date(2026, 1, d)).equals(service.events(date(2026, 1, d)))
        ...     for d in (6, 7, 8)
        ... ]
        [True, False, True]
    """

    service: LivingService
    how: Fault
    since: date
    until: date | None = None

    def __post_init__(self) -> None:
        if self.how not in get_args(Fault):
            raise ConfigError(
                f"how must be one of {', '.join(get_args(Fault))}, found {self.how!r}; choose one."
            )
        if self.until is not None and self.until <= self.since:
            raise ConfigError(
                f"until must be after since, found {self.until} and {self.since}; until is the"
                " first whole day."
            )

    def events(self, day: date) -> pa.Table:
        """As `LivingService.events`, broken on the days that are."""
        return self._collected(day, self.service.events(day))

    def arrivals(
        self, first: date, last: date, progress: Progress = silent
    ) -> Iterator[tuple[date, pa.Table]]:
        """As `LivingService.arrivals`, broken on the days that are."""
        for day, table in self.service.arrivals(first, last, progress):
            yield day, self._collected(day, table)

    def titles(self, day: date) -> pa.Table:
        """As `LivingService.titles`."""
        return self.service.titles(day)

    def users(self, day: date) -> np.ndarray:
        """As `LivingService.users`."""
        return self.service.users(day)

    def probabilities(self, user_ids: ArrayLike, day: date) -> np.ndarray:
        """As `LivingService.probabilities`: the true law."""
        return self.service.probabilities(user_ids, day)

    def write(
        self, folder: str | Path, first: date, last: date, progress: Progress = silent
    ) -> None:
        """As `LivingService.write`, with the broken log."""
        write_days(folder, self.titles(last), self.arrivals(first, last, progress))

    def _collected(self, day: date, rows: pa.Table) -> pa.Table:
        if day < self.since or (self.until is not None and day >= self.until):
            return rows
        if self.how == "half":
            return rows.filter(pc.equal(pc.bit_wise_and(rows["user_id"], 1), 1))
        other = pa.array(self._other_id[rows["item_id"].to_numpy()])
        return rows.set_column(rows.column_names.index("item_id"), "item_id", other)

    @cached_property
    def _other_id(self) -> np.ndarray:
        """``[n_titles + 1]`` int64: the id that stands in the place of each."""
        n = self.service.titles(self.since).num_rows
        ids = np.arange(self.service.n_titles + 1)
        ids[1 : n + 1] = stream(self.service.seed, 18).permutation(ids[1 : n + 1])
        return ids
