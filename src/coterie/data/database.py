"""Interactions out of a database, by a query: SQLite, and PostgreSQL through an extra.

Every value is fetched as text, as from a CSV file: the two agree on little else.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from coterie.data.log import InteractionLog
from coterie.data.scan import Scan, identifier
from coterie.data.table import load_scans, scan_arrow
from coterie.data.table_options import TableOptions
from coterie.errors import ConfigError, NotFoundError, SourceError, UnavailableError
from coterie.extras import require

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")
_ROWS_AT_ONCE = 1 << 16


def is_database(paths: Sequence[str]) -> bool:
    """Whether a source is the URL of a database."""
    return len(paths) == 1 and paths[0].startswith((_SQLITE, *_POSTGRES))


def read_query(log: InteractionLog, url: str, options: TableOptions) -> None:
    """Reads interactions from the answer to a query.

    Args:
        log: Where to.
        url: ``sqlite:///file.db`` (``sqlite:////`` from the root on) or
            ``postgresql://user@host/name``.
        options: With the query and the columns of its answer.

    Raises:
        ConfigError: if there is no query.
        SourceError: if the database refuses the query, or at the first row with a bad value.
        UnavailableError: if the database cannot be reached.
    """
    if options.query is None:
        raise ConfigError(
            f"a database needs a query, found none for {url.rsplit('@', maxsplit=1)[-1]}; say one."
        )
    log.note_source("query", options.query)
    # SQLite takes the name of a column that is not there for a text.
    names = answer_columns(url, options.query)
    Scan("", names, (), "query", False).need(options.wanted)
    with answer_as_text(url, options.query, options.wanted) as stream:
        scan = replace(
            scan_arrow(log.connection, stream, options.wanted, "answer"),
            is_text=True,
            path="query",
            others=[name for name in names if name not in options.wanted],
        )
        load_scans(log, [scan], options)


def answer_columns(url: str, query: str) -> list[str]:
    """The names of the columns of a query's answer.

    Raises:
        SourceError: if the database refuses the query.
        UnavailableError: if the database cannot be reached.
    """
    with _answer(url, f"SELECT * FROM {_given(query)} LIMIT 0") as cursor:
        return [one[0] for one in cursor.description]


@contextmanager
def answer_as_text(url: str, query: str, columns: Sequence[str]) -> Iterator[pa.RecordBatchReader]:
    """The rows of a query's answer, every value as text.

    Args:
        url: As in `read_query`.
        query: One SELECT.
        columns: Those of its answer that are wanted; all must be there.

    Raises:
        SourceError: if the database refuses the query.
        UnavailableError: if the database cannot be reached.
    """
    fields = ", ".join(f"CAST({identifier(name)} AS TEXT)" for name in columns)
    schema = pa.schema([(name, pa.string()) for name in columns])
    with _answer(url, f"SELECT {fields} FROM {_given(query)}") as cursor:
        yield pa.RecordBatchReader.from_batches(schema, _batches(cursor, schema))


def _given(query: str) -> str:
    return f"({query.rstrip().rstrip(';')}) AS given"


def _batches(cursor: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


@contextmanager
def _answer(url: str, query: str) -> Iterator[Any]:
    """A cursor over the answer, on a connection that cannot write."""
    answer = _sqlite_answer if url.startswith(_SQLITE) else _postgres_answer
    with answer(url, query) as cursor:
        yield cursor


@contextmanager
def _sqlite_answer(url: str, query: str) -> Iterator[sqlite3.Cursor]:
    path = Path(url.removeprefix(_SQLITE))
    if not path.is_file():
        raise NotFoundError(f"{path}: the database must exist, none was found; check the path.")
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        # DuckDB asks for the rows from a thread of its own.
        with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as database:
            yield database.execute(query)
    except sqlite3.Error as error:
        raise _refused(error, path.name) from error


@contextmanager
def _postgres_answer(url: str, query: str) -> Iterator[Any]:
    psycopg = require("psycopg", "postgres", "a query to PostgreSQL")
    name = url.rsplit("@", 1)[-1]
    try:
        connection = psycopg.connect(url, options="-c timezone=UTC -c datestyle=ISO")
    except psycopg.OperationalError as error:
        raise UnavailableError(
            f"{name}: the database cannot be reached ({' '.join(str(error).split())}); check the"
            " address, the credentials and the network."
        ) from error
    with closing(connection):
        connection.read_only = True
        try:
            # Named, it stays on the server, which then sends some rows at a time.
            with connection.cursor(name="coterie") as cursor:
                yield cursor.execute(query)
        except psycopg.Error as error:
            raise _refused(error, name) from error


def _refused(error: Exception, name: str) -> SourceError:
    return SourceError(
        f"the query must be one SELECT that gives the columns that are named, found:"
        f" {str(error).splitlines()[0]}; correct it.",
        name,
    )
