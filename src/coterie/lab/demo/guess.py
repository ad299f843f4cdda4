"""Which columns of a stranger's log are the user, the item, the rating and the time: by their names
or, without a header, by what is in them.

A name is cut into words. It may be a role's if one word is a noun of that role and the others say
nothing else: ``review_profilename`` is a user, ``beer_style`` no item. What is guessed is told, and
two names that are as good as each other are an error, not a choice.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from coterie.data.table_options import TableFields
from coterie.errors import ConfigError
from coterie.lab.demo.preview import Preview

Role: TypeAlias = Literal["user", "item", "rating", "timestamp"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Guess:
    """What a table's columns are taken for.

    Args:
        table: The fields of `TableOptions`, to read it with.
        unused: Columns without a role.
        is_count: Whether the rating's name says that it counts.
    """

    table: TableFields
    unused: Sequence[str]
    is_count: bool

    def column(self, role: Role) -> str | None:
        """The column of a role, if it has one."""
        return cast("str | None", self.table.get(f"{role}_column"))

    @property
    def notes(self) -> list[str]:
        """What else was guessed: that there is no header, or which encoding."""
        notes = [f"not used: {', '.join(self.unused)}"] if self.unused else []
        if columns := self.table.get("columns"):
            notes.append(f"no header, so the columns in order are called {', '.join(columns)}")
        if (encoding := self.table.get("encoding", "utf-8")) != "utf-8":
            notes.append(f"text in {encoding}")
        return notes


def guess(seen: Preview, stated: TableFields) -> Guess:
    """What the columns are, where it is not stated.

    Args:
        seen: The first rows.
        stated: What is known: columns by role, names of all columns.

    Raises:
        ConfigError: if no column can be the user's or the item's, two are as good, or the names
            stated are not those of all columns.

    Example:
        >>> seen = Preview(None, [["userId", "movieId", "rating"], ["1", "31", "2.5"]], ",")
        >>> [guess(seen, {}).column(role) for role in ROLES]
        ['userId', 'movieId', 'rating', None]
    """
    names, rows = seen.names, seen.rows
    columns = stated.get("columns")
    if names is None and not columns and has_header(rows):
        names, rows = rows[0], rows[1:]
    elif names is None:
        names = columns = columns or _names_by_content(rows)
    if rows and len(names) != len(rows[0]):
        raise ConfigError(
            f"columns must name every field, found {len(names)} names for {', '.join(rows[0])!r};"
            " name them all in order (--columns user,item,…)."
        )
    known = cast("Mapping[str, str | None]", stated)
    given = {role: known.get(f"{role}_column") for role in ROLES}
    free = [name for name in names if name not in given.values()]
    chosen = {
        role: _column(role, names, rows, free) if name is None else name
        for role, name in given.items()
    }
    how = {"columns": columns, "delimiter": seen.delimiter, "encoding": seen.encoding}
    table = how | {f"{role}_column": name for role, name in chosen.items()}
    return Guess(
        cast("TableFields", {key: value for key, value in table.items() if value is not None}),
        unused=[name for name in names if name not in chosen.values()],
        is_count=not _COUNTS.isdisjoint(_words(chosen["rating"] or "")),
    )


# Names ---------------------------------------------------------------------------------------

_NOUNS: Mapping[Role, Sequence[str]] = {
    "user": (
        "user uid",
        "visitor customer account member reviewer profile client subscriber listener reader viewer"
        " player person who",
        "session steam",
    ),
    "item": (
        "item iid",
        "product movie film series show song track book isbn game app asin sku artist business beer"
        " wine article anime recipe course video joke restaurant place venue poi page content what"
        " upc ean",
        "title url stock",
    ),
    "rating": (
        "rating ratings overall stars star score scores grade",
        "liked like recommended recommend vote",
        "weight count counts plays play playcount playcounts listens views clicks quantity qty"
        " purchases hours playtime frequency",
    ),
    "timestamp": ("timestamp ts", "time date datetime when", "created day"),
}
"""By role, the better ones first; those of a line are as good as each other."""

_RANKS: Mapping[Role, Mapping[str, int]] = {
    role: {word: rank for rank, line in enumerate(lines) for word in line.split()}
    for role, lines in _NOUNS.items()
}
_KNOWN = frozenset(word for ranks in _RANKS.values() for word in ranks)
_COUNTS = frozenset(_NOUNS["rating"][2].split())

_IDS = frozenset(
    ("id", "ids", "key", "no", "code", "asin", "isbn", "sku", "upc", "ean", "uid", "iid")
)
_TEXTS = frozenset(("name", "names", "title"))
_SAYS_NOTHING = frozenset(
    ["of", "is", "at", "in", "review", "reviews", "event", "raw", "total", "unix", "utc", "ms"]
)  # fmt: skip
_BESIDE: Mapping[Role, frozenset[str]] = {
    "user": _IDS | _TEXTS,
    "item": _IDS | _TEXTS | {"parent", "steam"},
    "rating": frozenset(_RANKS["user"]) | frozenset(_RANKS["item"]) | {"forever", "value"},
    "timestamp": frozenset(("rating", "rated", "watched", "played", "order", "purchase", "click")),
}


def _column(
    role: Role, names: Sequence[str], rows: Sequence[Sequence[str]], free: Sequence[str]
) -> str | None:
    """The one free column whose name fits the role best, and whose values do."""
    fits = {
        name: fit
        for place, name in enumerate(names)
        if name in free
        and (fit := _fit(role, name)) is not None
        and _can_be(role, [row[place] for row in rows])
    }
    best = [name for name, fit in fits.items() if fit == min(fits.values())]
    if len(best) > 1:
        raise ConfigError(
            f"one column must be the {role}'s, found {' and '.join(best)}; say which"
            f" (--{role}-column {best[0]})."
        )
    if not best and role in ("user", "item"):
        raise ConfigError(
            f"a column must be the {role}'s, found none among {', '.join(names)} whose name says"
            f" so; say which (--{role}-column NAME)."
        )
    return best[0] if best else None


def _fit(role: Role, name: str) -> tuple[int, int, int] | None:
    """How well a name fits a role, less being better; None if it is the name of something else."""
    words = _words(name)
    nouns = [_RANKS[role][word] for word in words if word in _RANKS[role]]
    rest = [word for word in words if word not in _RANKS[role]]
    if not nouns or not set(rest) <= _BESIDE[role] | _SAYS_NOTHING:
        return None
    kind = 0 if _IDS & set(words) else 2 if _TEXTS & set(words) else 1
    return min(nouns), kind, len(set(rest) - _IDS)


def _words(name: str) -> list[str]:
    """The words of a name in small letters: ``beer_beerid`` is beer, beer and id."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()
    return [word for run in re.split(r"[\W_]+", apart) if run for word in _ending_apart(run)]


def _ending_apart(run: str) -> list[str]:
    for ending in ("id", "ids", "name"):
        stem = run.removesuffix(ending)
        if run not in _KNOWN and stem in _KNOWN and stem != run:
            return [stem, ending]
    return [run]


# Content -------------------------------------------------------------------------------------

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_TRUTH = re.compile("true|false", re.IGNORECASE)
_TIME = re.compile(r"\d{9,19}|(19|20)\d{6}|\d{4}-\d{2}-\d{2}([T ].*)?")
_PRODUCT_CODE = re.compile(r"B0[0-9A-Z]{8}|\d{9}[\dX]")
"""Of Amazon's, one of its own or an ISBN."""


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row of delimited text is one: it holds no number, and names a role or
    stands above a column of numbers.

    Example:
        >>> has_header([["who", "what"], ["ann", "hat"]]), has_header([["ann", "hat"]])
        (True, False)
    """
    first, *rest = rows
    if any(map(_NUMBER.fullmatch, first)):
        return False
    named = any(_fit(role, name) for role in ROLES for name in first)
    return named or any(_all(_NUMBER, column) for column in zip(*rest, strict=True))


def _all(pattern: re.Pattern[str], values: Sequence[str]) -> bool:
    """Whether all that is there is written so, and something is."""
    there = [value for value in values if value]
    return bool(there) and all(map(pattern.fullmatch, there))


def _can_be(role: Role, values: Sequence[str]) -> bool:
    if role == "rating":
        return _all(_NUMBER, values) or _all(_TRUTH, values)
    return role != "timestamp" or _all(_TIME, values)


def _names_by_content(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names for two to four columns without any: user and item first, as is the custom; then times
    are told from ratings by their size.
    """
    columns = list(zip(*rows, strict=True))
    if not 2 <= len(columns) <= 4:
        raise ConfigError(
            f"columns without a header must be two to four to be guessed, found {len(columns)} in"
            f" {', '.join(rows[0])!r}; name them all in order (--columns user,item,…)."
        )
    turned = _all(_PRODUCT_CODE, columns[0]) and not _all(_PRODUCT_CODE, columns[1])
    names = ["item", "user"] if turned else ["user", "item"]
    for place, column in enumerate(columns[2:], start=3):
        role = "time" if _all(_TIME, column) else "rating" if _all(_NUMBER, column) else ""
        names.append(role if role and role not in names else f"column {place}")
    return names
