"""What a store gives: editions, lists that were found, notes. And the names that it takes."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from coterie.errors import ConfigError

JSON: TypeAlias = Any
"""What JSON can say: text, finite numbers, true, false, null; lists and mappings of them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Edition:
    """One published set of lists.

    Args:
        name: Names sort; the newest edition is the one whose name sorts last.
        facts: What its publisher said of it, such as the model's version.
        n_users: Distinct users with a list. The fall-backs have none.
        published: When, UTC.
        live: Whether readers are given it now.
    """

    name: str
    facts: Mapping[str, JSON]
    n_users: int
    published: datetime
    live: bool


@dataclass(frozen=True)
class Found:
    """A list as it was published; all of it comes from one edition.

    Args:
        edition: The edition's name.
        facts: The edition's, shared between answers: not to be changed.
        source: What made the list, such as ``"model"`` or ``"popularity"``.
        item_ids: Best first.
        titles: Of each item; None where the catalogue has none.
        scores: Of each item, in float32's precision.
    """

    edition: str
    facts: Mapping[str, JSON]
    source: str
    item_ids: list[int] | list[str]
    titles: list[str | None]
    scores: list[float]


@dataclass(frozen=True)
class Note:
    """A small record that a job left in the store.

    Args:
        kind: What sort of record.
        name: Which one; a kind has each name once.
        values: What was noted.
        noted: When, UTC.
    """

    kind: str
    name: str
    values: Mapping[str, JSON]
    noted: datetime


def checked_name(name: str, what: str) -> str:
    """The name, which becomes part of a file's.

    Args:
        name: To check.
        what: It names, for the message.

    Raises:
        ConfigError: if it could mislead a file system, a shell or the order of names.

    Example:
        >>> checked_name("2027-01-15", "an edition")
        '2027-01-15'
        >>> checked_name("../live", "an edition")
        Traceback (most recent call last):
        ...
        coterie.errors.ConfigError: an edition's name must begin with a letter or digit and ...
    """
    if _NAME.fullmatch(name):
        return name
    raise ConfigError(
        f"{what}'s name must begin with a letter or digit and hold only these, '.', '_' and '-', at"
        f" most 100, found {name[:120]!r}; choose another."
    )


def as_json(values: Mapping[str, JSON], what: str) -> str:
    """A mapping as JSON text.

    Raises:
        ConfigError: if JSON cannot say it.

    Example:
        >>> as_json({"mean": float("nan")}, "a note")
        Traceback (most recent call last):
        ...
        coterie.errors.ConfigError: a note must be what JSON can say, found: Out of range float ...
    """
    try:
        return json.dumps(dict(values), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{what} must be what JSON can say, found: {error}; leave it out or turn it into text."
        ) from error
