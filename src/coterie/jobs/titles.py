"""The table of titles: their names, kinds and windows of availability."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import pyarrow as pa

from coterie.data.ids import Id, IdMap
from coterie.data.scan import exactly, identifier
from coterie.data.source import exists, is_url, plain_name
from coterie.errors import ConfigError, NotFoundError, SourceError
from coterie.jobs.config import RowConfig, Service


@dataclass(frozen=True, eq=False)
class Titles:
    """What is known of items.

    Args:
        names: Title by item id as text.
        kinds: Kind by item id as text; empty without a column of kinds.
        windows: By item id as text, the first date of being available and the first of being so no
            longer, None = open.
    """

    names: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    windows: dict[str, tuple[date | None, date | None]] = field(default_factory=dict)

    def available(self, item: Id, day: date) -> bool:
        """Whether an item can be shown on a day; one that the table does not have can."""
        first, until = self.windows.get(str(item), (None, None))
        return (first is None or first <= day) and (until is None or day < until)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        told = json.dumps([self.names, self.kinds, self.windows], default=str, sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()


def read_titles(service: Service) -> Titles:
    """Reads the table, empty if the service has none.

    Raises:
        NotFoundError: if the file is missing.
        SourceError: if it cannot be read, or lacks a column.
    """
    titles = service.config.titles
    if titles.path is None:
        return Titles()
    path = service.place(titles.path)
    if not exists(path):
        raise NotFoundError(
            f"{path}: the table of titles must exist, none was found; correct titles.path, or leave"
            " titles out (titles.path absent)."
        )
    columns = [titles.item_column, titles.title_column, titles.kind_column]
    columns += [titles.from_column, titles.until_column]
    ids, names, kinds, starts, ends = _read(path, columns)
    return Titles(
        {one: name for one, name in zip(ids, names, strict=True) if name is not None},
        {one: kind for one, kind in zip(ids, kinds, strict=True) if kind is not None},
        {one: (first, until) for one, first, until in zip(ids, starts, ends, strict=True)},
    )


def _read(path: str, columns: list[str | None]) -> list[list[Any]]:
    """A list a column, that of a column without a name all None; ids as text, times as dates."""
    reader = "read_parquet" if plain_name(path).endswith((".parquet", ".pq")) else "read_csv"
    casts = ["VARCHAR", "VARCHAR", "VARCHAR", "DATE", "DATE"]
    fields = ", ".join(
        "NULL" if name is None else f"CAST({identifier(name)} AS {cast})"
        for name, cast in zip(columns, casts, strict=True)
    )
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        if is_url(path):
            database.register_filesystem(fsspec.core.url_to_fs(path)[0])
        try:
            rows = database.sql(f"SELECT {fields} FROM {reader}({exactly(path)})").fetchall()
        except duckdb.Error as error:
            raise SourceError(
                f"the table of titles must have the columns that are named, found:"
                f" {str(error).splitlines()[0]}; correct [titles].",
                path,
            ) from error
    return [list(column) for column in zip(*rows, strict=True)] or [[]] * 5


def allowed(
    service: Service, row: RowConfig, titles: Titles, items: IdMap, day: date
) -> tuple[Id, ...] | None:
    """The only items that a card row may show on a day; None = all.

    Raises:
        ConfigError: if none is left.
    """
    allow, deny = (listed(service, path) for path in (row.allow, row.deny))
    ids = items.ids_of(np.arange(len(items)))
    kept = tuple(
        one
        for one in ids
        if titles.available(one, day)
        and (not row.kinds or titles.kinds.get(str(one)) in row.kinds)
        and (allow is None or str(one) in allow)
        and (deny is None or str(one) not in deny)
    )
    if not kept:
        raise ConfigError(
            f"a card row must have a title to show on {day}, found none of {len(ids)} that the"
            " model knows; check kinds, allow, deny and the titles' dates."
        )
    return None if len(kept) == len(ids) else kept


def listed(service: Service, path: str | None) -> set[str] | None:
    """The ids of an allow or deny file; None if there is no such file.

    Raises:
        NotFoundError: if it is missing.
    """
    if path is None:
        return None
    file = Path(service.place(path))
    if not file.is_file():
        raise NotFoundError(f"{file}: the list of item ids must exist, none was found.")
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    return {line.strip() for line in lines if line.strip()}


def catalogue(items: IdMap, titles: Titles) -> pa.Table:
    """Ids and titles of a model's items, in its order."""
    names = [titles.names.get(str(one)) for one in items.ids_of(np.arange(len(items)))]
    return pa.table({"item_id": items.values, "title": pa.array(names, pa.string())})
