"""How a table is written and what its columns mean, as far as it does not say so itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from coterie.errors import ConfigError

IdType: TypeAlias = Literal["auto", "integer", "text"]
TimeUnit: TypeAlias = Literal["auto", "s", "ms", "us", "ns"]

NULL_WORDS = ("", "NULL", "null", "None", "NaN", "nan", "<NA>", r"\N")
"""Texts that mean a missing value: those that SQL, pandas and MySQL write."""


class TextFields(TypedDict, total=False):
    """The fields of `TableOptions` that say how delimited text is written."""

    columns: Sequence[str] | None
    delimiter: str | None
    quote: str
    encoding: str


class TableFields(TextFields, total=False):
    """The fields of `TableOptions`, for functions that take them by name."""

    user_column: str | None
    item_column: str | None
    rating_column: str | None
    timestamp_column: str | None
    null_words: Sequence[str]
    rating_values: Mapping[str, float]
    negative_ratings: bool
    timestamp_unit: TimeUnit
    user_id_type: IdType
    item_id_type: IdType
    pattern: bool
    partitions: bool
    query: str | None
    test: Any


@dataclass(frozen=True)
class TableOptions:
    """How a table is written and what its columns mean.

    Args:
        user_column: Column of user ids; ``user_id`` if None.
        item_column: Column of item ids; ``item_id`` if None.
        rating_column: Column of ratings or counts, numbers or truth values, if there is one.
        timestamp_column: Column of times, if there is one.
        columns: Names of all columns in order, of delimited text without a header.
        delimiter: Between fields of delimited text, one or two characters; if None comma, tab,
            semicolon, bar or two colons, whichever gives the columns that are named.
        quote: Around fields of delimited text that hold a delimiter, one sign; ``""`` if quotes are
            signs like others.
        encoding: Of text, as Python names encodings.
        null_words: Texts that stand for a missing id.
        rating_values: What words in the rating column mean, as in ``{"view": 1, "buy": 3}``.
        negative_ratings: Whether numbers below 0 are ratings; else they are an error, as a mark of
            something else.
        timestamp_unit: Of times that are numbers: ``s``, ``ms``, ``us`` or ``ns`` since 1970;
            ``auto`` tells it by their size (see `coterie.data.columns.seconds_sql`).
        user_id_type: ``integer``, ``text``, or ``auto``: integers in formats that keep types if the
            column is numeric, in text if every id is written as a whole number.
        item_id_type: Likewise.
        pattern: Whether stars, question marks and brackets in a path stand for other signs.
        partitions: Whether ``key=value`` in the path of a file is a column.
        query: SQL that gives the rows, where the path is the URL of a database.
        test: Another source of the same kind, whose rows are for the test: a given split.

    Raises:
        ConfigError: if a value cannot be honoured.

    Example:
        >>> TableOptions(user_column="who").wanted
        ['who', 'item_id']
    """

    user_column: str | None = None
    item_column: str | None = None
    rating_column: str | None = None
    timestamp_column: str | None = None
    columns: Sequence[str] | None = None
    delimiter: str | None = None
    quote: str = '"'
    encoding: str = "utf-8"
    null_words: Sequence[str] = NULL_WORDS
    rating_values: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    negative_ratings: bool = False
    timestamp_unit: TimeUnit = "auto"
    user_id_type: IdType = "auto"
    item_id_type: IdType = "auto"
    pattern: bool = False
    partitions: bool = False
    query: str | None = None
    test: Any = None

    def __post_init__(self) -> None:
        for name in ("user_column", "item_column", "rating_column", "timestamp_column"):
            column: Any = getattr(self, name)
            if column is not None:  # a frame's numbers as Arrow calls its columns
                object.__setattr__(self, name, str(column))
        if "" in (self.user_column, self.item_column, self.rating_column, self.timestamp_column):
            raise ConfigError(
                "a column must have a name, found an empty one; leave that option out."
            )
        if self.delimiter is not None and not 1 <= len(self.delimiter) <= 2:
            raise ConfigError(
                f"delimiter must be one or two characters, found {self.delimiter!r}; as in '::'."
            )
        if len(self.quote.encode()) > 1 or (self.quote and self.quote in (self.delimiter or "")):
            raise ConfigError(
                f"quote must be one sign that is no delimiter, found {self.quote!r}; as in '\"', or"
                " '' for none (--quote none)."
            )
        for name, kind in (
            ("timestamp_unit", TimeUnit), ("user_id_type", IdType), ("item_id_type", IdType),
        ):  # fmt: skip
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(
                    f"{name} must be one of {', '.join(get_args(kind))}, found"
                    f" {getattr(self, name)!r}; choose one of them."
                )

    @property
    def user(self) -> str:
        """Column of user ids."""
        return self.user_column or "user_id"

    @property
    def item(self) -> str:
        """Column of item ids."""
        return self.item_column or "item_id"

    @property
    def wanted(self) -> list[str]:
        """The columns that are read."""
        named = (self.user, self.item, self.rating_column, self.timestamp_column)
        return [name for name in named if name]

    def rules(self) -> dict[str, Any]:
        """What the manifest tells of how values were read, as JSON values."""
        named = {"user_id": self.user, "item_id": self.item, "rating": self.rating_column}
        named["timestamp"] = self.timestamp_column
        columns = {role: name for role, name in named.items() if name is not None}
        rules: dict[str, Any] = {"null_words": list(self.null_words), "columns": columns}
        if self.timestamp_column is not None:
            rules["timestamp_unit"] = self.timestamp_unit
        if self.rating_values:
            rules["rating_values"] = dict(self.rating_values)
        return rules

    def stated(self) -> dict[str, Any]:
        """What differs from the defaults, by name: what makes a source a table."""
        names = [one.name for one in fields(self) if one.name not in ("negative_ratings", "test")]
        stated = {
            name: getattr(self, name)
            for name in names
            if getattr(self, name) != getattr(_DEFAULT, name)
        }
        return stated if self.test is None else {**stated, "test": "test"}


_DEFAULT = TableOptions()

_MOST_NAMES = 8
_USES = {"rating": "--rating-column", "timestamp": "--timestamp-column"}


def not_used(reading: Mapping[str, Any]) -> str:
    """What to say of columns that were there and not read, where there are ratings or times to be
    looked for among them; else nothing.

    Args:
        reading: How a table was read, as `coterie.data.log.InteractionLog.reading` has it.

    Example:
        >>> read = {"columns": {"user_id": "who", "item_id": "what"}, "columns_not_used": ["stars"]}
        >>> not_used(read).partition(" (")[0]
        'columns not used: stars'
    """
    names = reading.get("columns_not_used", [])
    roles = [role for role in _USES if role not in reading.get("columns", {})]
    if not names or not roles:
        return ""
    listed = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
    options = ", ".join(_USES[role] for role in roles)
    return f"columns not used: {listed} (to use them: {options}; in Python {', '.join(roles)})"
