"""Tables of interactions as JSON lines: an object a line, as event logs are often written."""

import json
from collections.abc import Iterator
from typing import Any

from coterie.data.delimited import UNREADABLE, first_fault, identifier, literal, row_rules, seconds
from coterie.data.log import InteractionLog
from coterie.data.source import open_text
from coterie.errors import SourceError

_ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


def is_json_lines(path: str) -> bool:
    """Whether the name's ending says so."""
    return path.endswith(_ENDINGS)


def load_json_lines(
    log: InteractionLog,
    path: str,
    user: str,
    item: str,
    rating: str | None,
    timestamp: str | None,
    bounds: tuple[float, float],
) -> None:
    """Loads the named fields of every line into ``log``, ids as text; other fields are passed over.

    An absent field and a null are the same: no id.

    Args:
        log: Where to.
        path: ``.jsonl`` or ``.ndjson``, plain or ``.gz``.
        user: Field of user ids, text or whole numbers; likewise ``item``.
        rating: Field of ratings or counts.
        timestamp: Field of seconds since 1970, or of ISO dates or times.
        bounds: Of ratings.

    Raises:
        SourceError: at the first line that is no object, or has a bad value; or if no line has the
            field of user ids or of item ids.
    """
    log.create("VARCHAR", "VARCHAR")
    log.add_source(path)
    names = dict.fromkeys(name for name in (user, item, rating, timestamp) if name)
    columns = ", ".join(f"{literal(name)}: 'JSON'" for name in names)
    scan = (
        f"read_json({literal(path)}, format = 'newline_delimited', auto_detect = false,"
        f" columns = {{{columns}}})"
    )
    fields = [_id(user), _id(item)]
    fields.append(f"TRY_CAST({_text(rating)} AS DOUBLE)" if rating else "NULL")
    fields.append(seconds(f"({_text(timestamp)})") if timestamp else "NULL")
    try:
        log.connection.execute(f"INSERT INTO log SELECT {', '.join(fields)}, NULL FROM {scan}")
    except UNREADABLE as error:
        raise _refusal(path, user, item, str(error)) from error
    _check_fields(log, path, user, item)
    fault = first_fault(log, row_rules(bounds, rating, timestamp, ids=False))
    if fault is not None:
        row, rule = fault
        line, text = next(one for i, one in enumerate(_lines(path)) if i == row)
        raise SourceError(f"{rule}, found {text[:120]!r}; correct or remove the line.", path, line)


def _text(name: str) -> str:
    return f"{identifier(name)} ->> '$'"


def _id(name: str) -> str:
    return (
        f"CASE WHEN json_type({identifier(name)}) IN ('VARCHAR', 'BIGINT', 'UBIGINT', 'NULL')"
        f" THEN {_text(name)} WHEN {identifier(name)} IS NULL THEN NULL ELSE error('no id') END"
    )


def _check_fields(log: InteractionLog, path: str, user: str, item: str) -> None:
    n_rows, n_users, n_items = log.one("SELECT count(*), count(user_id), count(item_id) FROM log")
    for name, found in ((user, n_users), (item, n_items)):
        if n_rows and not found:
            _, text = next(_lines(path))
            raise SourceError(
                f"some line must have {name!r}, found {text[:120]!r}; name the fields as they are.",
                path,
                1,
            )


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """The lines that are rows, with their 1-based numbers: DuckDB passes blank ones over."""
    with open_text(path) as text:
        for number, line in enumerate(text, start=1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def _refusal(path: str, user: str, item: str, problem: str) -> SourceError:
    """Where and why, by a slow second pass."""
    for number, text in _lines(path):
        wrong = _wrong(text, user, item)
        if wrong is not None:
            return SourceError(f"{wrong}, found {text[:120]!r}; correct it.", path, number)
    return SourceError(
        f"the file must be whole JSON lines as UTF-8 text, found: {problem.splitlines()[0]}.", path
    )


def _wrong(text: str, user: str, item: str) -> str | None:
    try:
        row: Any = json.loads(text)
    except ValueError:
        return "every line must be a JSON object as UTF-8 text"
    if "\ufffd" in text or not isinstance(row, dict):
        return "every line must be a JSON object as UTF-8 text"
    for name in (user, item):
        if isinstance(row.get(name), bool | float | list | dict):
            return f"{name!r} must be text or a whole number"
    return None
