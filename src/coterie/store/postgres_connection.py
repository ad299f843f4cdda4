"""Connections to PostgreSQL with a time limit, and errors of ours that hold no password."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from coterie.errors import CannotWriteError, ConfigError, CoterieError, UnavailableError
from coterie.store.pool import Pool

_AT_ONCE = 16


class Limited(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which no answer is waited for longer than ``limit_seconds``.

    A limit of the server's own would not do: a server that stopped, or a network that swallows
    packets, keeps no limits.
    """

    limit_seconds: float

    def wait(self, *args: Any, **options: Any) -> Any:
        """As psycopg's, which every question to the server goes through."""
        return super().wait(*args, **{"timeout": self.limit_seconds, **options})


class Database:
    """A database by its URL.

    Args:
        url: May hold a password, which appears nowhere else.
        limit_seconds: For an answer of a reader's connection.

    Raises:
        ConfigError: if the URL cannot be understood.
    """

    def __init__(self, url: str, limit_seconds: float) -> None:
        self._url = url
        self._limit_seconds = limit_seconds
        self.name = _name_of(url)
        self._pool = Pool(self._connect_limited, _AT_ONCE, limit_seconds)

    def ask(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """One statement in a transaction of its own; on a connection from the pool.

        What went stale while the server was away is made anew, once.

        Raises:
            UnavailableError: if the server cannot be reached or does not answer in time.
            CannotWriteError: if the user lacks rights.
        """
        with self.reaching():
            began = time.monotonic()
            try:
                return self._ask(query, values)
            except psycopg.OperationalError:
                self._pool.clear()
                if time.monotonic() - began >= self._limit_seconds:
                    raise
            return self._ask(query, values)

    def _ask(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._pool.lend() as connection:
            # The text is ours, with no value in it.
            return connection.execute(query.encode(), values, binary=True).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """One transaction on a connection of its own, without a limit: for writers."""
        with self.reaching(), self._connect(psycopg.Connection) as connection:
            yield connection

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Failures of the database in the block are errors of ours."""
        try:
            yield
        except (psycopg.errors.DiskFull, psycopg.errors.InsufficientPrivilege) as error:
            raise CannotWriteError(
                f"{self.name}: must grant its rights and have room, found: {_line(error)}; grant"
                " them or make room."
            ) from error
        except psycopg.OperationalError as error:
            raise self.away(error) from error

    def away(self, error: Exception) -> CoterieError:
        """What a failure to reach the server is told as."""
        return UnavailableError(
            f"{self.name}: the database must answer in time, found: {_line(error)}; check that it"
            " runs, the address, the credentials and the network."
        )

    def close(self) -> None:
        """Closes the connections that wait."""
        self._pool.clear()

    def _connect_limited(self) -> Limited:
        with self.reaching():
            connection: Limited = self._connect(Limited, autocommit=True)
            connection.limit_seconds = self._limit_seconds
            connection.execute("SET plan_cache_mode = force_generic_plan")
        return connection

    def _connect(self, kind: type[Any], **options: Any) -> Any:
        limit = max(2, round(self._limit_seconds))
        return kind.connect(self._url, connect_timeout=limit, application_name="coterie", **options)


def _name_of(url: str) -> str:
    """Where the database is, without who asks for it."""
    # What libpq says of a bad URL may hold any part of it.
    with suppress(psycopg.Error):
        told = {key: str(value) for key, value in conninfo_to_dict(url).items()}
        place = ":".join(told[key] for key in ("host", "port") if key in told)
        name = f"postgresql://{place}/{told.get('dbname', '')}"
        # A password with an @ or a / that has no code ends where host, port and database begin.
        if "@" not in name and re.fullmatch("[0-9,]*", told.get("port", "")):
            return name
    raise ConfigError(
        "a store's URL must be postgresql://user@host:port/name, with %-codes for odd characters,"
        " found one that cannot be read; correct it."
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
