"""Which back end a URL means."""

from pathlib import Path

from coterie.errors import ConfigError
from coterie.extras import require
from coterie.store.sqlite import SqliteStore
from coterie.store.store import Store

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


def open_store(url: str, *, timeout_seconds: float = 2.0) -> Store:
    """A store of editions; nothing is read or written before it is used.

    Args:
        url: ``sqlite:///FOLDER`` (``sqlite:////`` from the root on), or
            ``postgresql://user@host/name``, with the schema ``coterie`` in that database. A
            password is better kept out of it: ``PGPASSWORD`` and libpq's password file work.
        timeout_seconds: Within which a reader has its answer or `UnavailableError`. Connecting to
            PostgreSQL takes two seconds at least before it is given up.

    Raises:
        ConfigError: if the URL means no store.
        MissingPackageError: if PostgreSQL is meant and psycopg is not installed.

    Example:
        >>> import tempfile, pyarrow as pa
        >>> catalogue = pa.table({"item_id": ["red", "teal"], "title": ["Red", None]})
        >>> lists = pa.table(
        ...     {
        ...         "user_id": ["ann", None],
        ...         "row": ["main", "main"],
        ...         "items": [[1, 0], [0]],
        ...         "scores": [[2.5, 1.0], [9.0]],
        ...         "source": ["model", "popularity"],
        ...     }
        ... )
        >>> folder = tempfile.TemporaryDirectory()
        >>> with open_store(f"sqlite:///{folder.name}/store") as store:
        ...     _ = store.publish("2027-01-15", catalogue, [lists], {"model": "7"})
        ...     found = store.find("ann")
        ...     print(found.edition, found.facts, found.item_ids, found.scores)
        ...     print(store.find("bob"), store.fallback().item_ids)
        ...     many = store.find_many([("bob", "main"), ("ann", "main")])
        ...     print([one and one.source for one in many])
        2027-01-15 {'model': '7'} ['teal', 'red'] [2.5, 1.0]
        None ['red']
        [None, 'model']
        >>> folder.cleanup()
    """
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        return SqliteStore(Path(url.removeprefix(_SQLITE)), timeout_seconds)
    if url.startswith(_POSTGRES):
        require("psycopg", "postgres", "a store in PostgreSQL")
        # It imports psycopg, which may be missing.
        from coterie.store.postgres import PostgresStore  # noqa: PLC0415

        return PostgresStore(url, timeout_seconds)
    # Not the URL itself: it may hold a password.
    raise ConfigError(
        "a store's URL must be sqlite:///FOLDER or postgresql://user@host/name, found one that"
        f" begins with {url.partition(':')[0][:20]!r}; correct it."
    )
