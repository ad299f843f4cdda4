"""The back end in PostgreSQL: a schema with a plain table an edition and a row that points.

One transaction creates a table, fills it, builds its key, registers it and moves the pointer: until
its commit nobody sees any of it, and a publisher that dies leaves nothing. No statement here waits
for a reader, and no reader for a statement: tables that readers know are never emptied, renamed or
detached, and one is dropped only if its lock is free.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeAlias

import psycopg
import pyarrow as pa
from psycopg import sql

from coterie.errors import ConflictError
from coterie.store.contents import Contents, ListKey, PackedList
from coterie.store.edition import Edition, Note
from coterie.store.packing import Packer
from coterie.store.postgres_connection import Database
from coterie.store.postgres_copy import HEAD, TAIL, copy_bytes
from coterie.store.sqlite_edition import twice
from coterie.store.store import PAGE, Opened, Store
from coterie.store.users import Key, Kind

_Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

# Where the schema is there, no right to make one is needed. Names are sorted as SQLite sorts them;
# JSON stays the text it was.
_TABLES = """
DO $$ BEGIN
    IF to_regnamespace('coterie') IS NULL THEN CREATE SCHEMA coterie; END IF;
END $$;
CREATE TABLE IF NOT EXISTS coterie.editions (
    name text COLLATE "C" PRIMARY KEY, place text NOT NULL UNIQUE, n_users bigint NOT NULL,
    published timestamptz NOT NULL, facts text NOT NULL, details text NOT NULL,
    catalogue bytea NOT NULL);
ALTER TABLE coterie.editions ALTER catalogue SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS coterie.pointer (
    only_row boolean PRIMARY KEY CHECK (only_row),
    edition text COLLATE "C" NOT NULL REFERENCES coterie.editions);
CREATE TABLE IF NOT EXISTS coterie.notes (
    kind text COLLATE "C", name text COLLATE "C", noted timestamptz NOT NULL, told text NOT NULL,
    PRIMARY KEY (kind, name));
CREATE SEQUENCE IF NOT EXISTS coterie.places;
"""
# Random floats do not compress, and a row in one page is read at once.
_LISTS = """
CREATE TABLE {place} (
    user_id {kind} NOT NULL, row smallint NOT NULL, source smallint NOT NULL,
    items bytea STORAGE EXTERNAL NOT NULL, scores bytea STORAGE EXTERNAL NOT NULL
) WITH (toast_tuple_target = 8160)
"""
_LIVE = "(SELECT edition FROM coterie.pointer)"
_EDITIONS = f"SELECT name, facts, n_users, published, name IS NOT DISTINCT FROM {_LIVE}"
_NAMED = f"e.name = coalesce(%s::text, {_LIVE})"
_PLACE = f"SELECT e.place, NULL FROM coterie.editions e WHERE {_NAMED}"
# A row that has the place alone, where none of the lists is there.
_LISTS_OF = (
    "SELECT e.place, l.user_id, l.row, l.source, l.items, l.scores FROM coterie.editions e"
    " LEFT JOIN (unnest(%s::{}[], %s::smallint[]) AS wanted (user_id, row)"
    " JOIN coterie.{} l USING (user_id, row)) ON true"
    f" WHERE {_NAMED}"
)
_REGISTER = (
    "INSERT INTO coterie.editions VALUES (%s, %s, %s, %s, %s, %s, %s)"
    " ON CONFLICT (name) DO UPDATE SET place = excluded.place, n_users = excluded.n_users,"
    " published = excluded.published, facts = excluded.facts, details = excluded.details,"
    " catalogue = excluded.catalogue"
)
_POINT = (
    "INSERT INTO coterie.pointer SELECT true, name FROM coterie.editions WHERE name = %s"
    " ON CONFLICT (only_row) DO UPDATE SET edition = excluded.edition"
)
# Nobody moves the pointer while it is decided what goes. Taken before any row: writers that take
# locks in one order never wait for each other in a ring.
_ALONE = "LOCK coterie.pointer IN SHARE ROW EXCLUSIVE MODE"
_PRUNE = (
    "DELETE FROM coterie.editions WHERE name IN"
    " (SELECT name FROM coterie.editions ORDER BY name DESC OFFSET %s)"
    f" AND name IS DISTINCT FROM {_LIVE} RETURNING name"
)
_UNNAMED = (
    "SELECT tablename FROM pg_tables"
    " WHERE schemaname = 'coterie' AND starts_with(tablename, 'lists_')"
    " AND tablename NOT IN (SELECT place FROM coterie.editions)"
)
_NOTE = (
    "INSERT INTO coterie.notes VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (kind, name) DO UPDATE SET noted = excluded.noted, told = excluded.told"
)
# In each database; any numbers that nobody else takes.
_PUBLISHING, _SETTING_UP = 0x636F7465, 0x636F7466
# Lists may take hours to come.
_NO_LIMITS = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
_KIND = {"int": "bigint", "text": "bytea"}
_NOT_SET_UP = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)


class PostgresStore(Store):
    """A store in the schema ``coterie`` of a database.

    Args:
        url: Of the database.
        timeout_seconds: For a reader's answer.

    Raises:
        ConfigError: if the URL cannot be understood.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        super().__init__()
        self._database = Database(url, timeout_seconds)
        self._is_set_up = False

    def __repr__(self) -> str:
        return f"PostgresStore({self._database.name!r})"

    def __str__(self) -> str:
        return self._database.name

    def editions(self) -> list[Edition]:
        """See `Store.editions`."""
        query = f"{_EDITIONS} FROM coterie.editions ORDER BY name DESC"
        return [_edition(*one) for one in self._ask(query)]

    def prune(self, keep: int) -> list[str]:
        """See `Store.prune`."""
        with self._changing() as connection:
            connection.execute(_ALONE)
            gone = connection.execute(_PRUNE, (max(keep, 0),)).fetchall()
        self._sweep()
        return sorted((name for (name,) in gone), reverse=True)

    def notes(self, kind: str, limit: int = 100) -> list[Note]:
        """See `Store.notes`."""
        query = (
            "SELECT name, told, noted FROM coterie.notes WHERE kind = %s"
            " ORDER BY name DESC LIMIT %s"
        )
        return [
            Note(kind, name, json.loads(told), noted.astimezone(UTC))
            for name, told, noted in self._ask(query, kind, limit)
        ]

    def close(self) -> None:
        """See `Store.close`."""
        self._database.close()

    def _publish(
        self, name: str, facts: str, packer: Packer, lists: Iterable[pa.Table], live: bool
    ) -> None:
        with self._changing() as connection:
            self._lock(connection)
            self._sweep()
            place = _new_place(connection)
            _fill(connection, place, packer, lists)
            contents = packer.contents()
            n_users = _build_key(connection, place, contents)
            told = (contents.details(), contents.catalogue())
            values = (name, place, n_users, datetime.now(UTC), facts, *told)
            connection.execute(_ALONE)
            connection.execute(_REGISTER, values)
            if live:
                connection.execute(_POINT, (name,))
        self._sweep()

    def _point(self, name: str) -> bool:
        with self._changing() as connection:
            return connection.execute(_POINT, (name,)).rowcount > 0

    def _note(self, kind: str, name: str, values: str) -> None:
        with self._changing() as connection:
            connection.execute(_NOTE, (kind, name, datetime.now(UTC), values))

    def _look_up(
        self, name: str | None, opened: Opened | None, keys: Sequence[ListKey | None]
    ) -> tuple[str | None, list[PackedList | None]]:
        query: str = _PLACE
        values: list[Any] = [name]
        there = {key for key in keys if key is not None}
        if opened is not None and there:
            query = _LISTS_OF.format(_KIND[opened.contents.users], opened.place)
            values = [*map(_array, zip(*there, strict=True)), name]
        try:
            found = self._database.ask(query, values)
        except _NOT_SET_UP:
            # Pruned since, or nothing was ever published: the register says which.
            found = self._ask(_PLACE, name)
        if not found:
            return None, []
        lists = {one[1:3]: PackedList(*one[3:]) for one in found if one[1] is not None}
        return found[0][0], [key and lists.get(key) for key in keys]

    def _open(self, place: str) -> Opened | None:
        query = f"{_EDITIONS}, details, catalogue FROM coterie.editions WHERE place = %s"
        for *edition, details, catalogue in self._ask(query, place):
            return Opened(place, _edition(*edition), Contents.of(details, catalogue, place))
        return None

    def _page(
        self, place: str, users: Kind, row: int, after: Key | None
    ) -> list[tuple[Key, bytes]]:
        further = f" AND user_id > %s::{_KIND[users]}" if after is not None else ""
        query = (
            f"SELECT user_id, items FROM coterie.{place} WHERE row = %s{further}"
            f" ORDER BY user_id LIMIT {PAGE}"
        )
        try:
            return self._database.ask(query, [row] if after is None else [row, after])
        except _NOT_SET_UP as error:
            raise self._gone() from error

    def _ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows; none where nothing was published yet."""
        try:
            return self._database.ask(query, values)
        except _NOT_SET_UP:
            return []

    @contextmanager
    def _changing(self) -> Iterator[_Connection]:
        self._set_up()
        with self._database.transaction() as connection:
            yield connection

    def _set_up(self) -> None:
        if self._is_set_up:
            return
        if not self._ask("SELECT 1 FROM pg_class WHERE oid = to_regclass('coterie.places')"):
            with self._database.transaction() as connection:
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SETTING_UP,))
                connection.execute(_TABLES)
        self._is_set_up = True

    def _lock(self, connection: _Connection) -> None:
        taken = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (_PUBLISHING,))
        if taken.fetchone() != (True,):
            raise ConflictError(
                f"{self}: one publisher at a time writes, found another at work; wait until it is"
                " done."
            )

    def _sweep(self) -> None:
        """Drops tables of no edition, but for those that somebody holds: a later sweep does."""
        for (place,) in self._ask(_UNNAMED):
            with (
                self._database.transaction() as connection,
                suppress(psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable),
            ):
                table = sql.Identifier("coterie", place)
                connection.execute("SET LOCAL lock_timeout = '20ms'")
                connection.execute(sql.SQL("DROP TABLE {}").format(table))


def _array(values: Iterable[Key]) -> str:
    """As PostgreSQL writes an array. psycopg's own way takes longer than the question itself."""
    texts = (rf'"\\x{one.hex()}"' if isinstance(one, bytes) else str(one) for one in values)
    return f"{{{','.join(texts)}}}"


def _new_place(connection: _Connection) -> str:
    (number,) = connection.execute("SELECT nextval('coterie.places')").fetchone() or (0,)
    return f"lists_{number}"


def _fill(connection: _Connection, place: str, packer: Packer, lists: Iterable[pa.Table]) -> None:
    """Creates the table and copies the lists into it."""
    table = sql.Identifier("coterie", place)
    blocks = packer.pack(lists)
    connection.execute(_NO_LIMITS)
    # The first block tells the type of the users' ids.
    first = next(blocks, None)
    kind = sql.SQL(_KIND[packer.kind])
    connection.execute(sql.SQL(_LISTS).format(place=table, kind=kind))
    # Frozen at once, as the table is this transaction's own: nothing is left to vacuum.
    copy = sql.SQL("COPY {} FROM STDIN (FORMAT binary, FREEZE)").format(table)
    with connection.cursor().copy(copy) as stream:
        stream.write(HEAD)
        if first is not None:
            stream.write(copy_bytes(first))
        for block in blocks:
            stream.write(copy_bytes(block))
        stream.write(TAIL)


def _build_key(connection: _Connection, place: str, contents: Contents) -> int:
    """Makes users and card rows the key; the number of users."""
    table = sql.Identifier("coterie", place)
    connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
    try:
        with connection.transaction():
            connection.execute(
                sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (user_id, row)").format(table)
            )
    except psycopg.errors.UniqueViolation as error:
        query = "SELECT user_id, row FROM {} GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 1"
        user, row = connection.execute(sql.SQL(query).format(table)).fetchone() or (None, 0)
        raise twice(user, contents.rows[row]) from error
    count = sql.SQL("SELECT count(*) FROM (SELECT DISTINCT user_id FROM {}) users").format(table)
    (n_users,) = connection.execute(count).fetchone() or (0,)
    return int(n_users)


def _edition(name: str, facts: str, n_users: int, published: datetime, live: bool) -> Edition:
    return Edition(name, json.loads(facts), n_users, published.astimezone(UTC), live)
