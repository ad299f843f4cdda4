"""What a page is before it is HTML: a title, a template, and values that JSON can say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coterie.errors import ConfigError


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: Its head.
        kind: How its values are shown: ``text``, ``number``, ``count``, ``percent``, ``seconds``,
            ``lift`` (a percentage with its sign), ``user``, ``item``, ``version`` or ``run``. The
            last four are ids and become links.
    """

    name: str
    kind: str = "number"


@dataclass(frozen=True)
class Table:
    """Rows under columns. A value is text, a number, a truth, or None where nothing is known.

    Args:
        name: Unique on its page; the name of the file that it is copied as.
        caption: What the rows are.
        columns: One a value.
        rows: Each as long as ``columns``.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]

    def to_json(self) -> dict[str, Any]:
        """As JSON values, a mapping a row."""
        names = [column.name for column in self.columns]
        rows = [dict(zip(names, row, strict=True)) for row in self.rows]
        return {"caption": self.caption, "rows": rows}


@dataclass(frozen=True)
class Figure:
    """A drawing and the table of what it shows.

    Args:
        title: What one sees in it, in a sentence.
        wide: SVG for a screen of at least 40 rem.
        narrow: SVG for a telephone.
        table: The same figures.
    """

    title: str
    wide: str
    narrow: str
    table: Table

    def to_json(self) -> dict[str, Any]:
        """As JSON values: what it shows, not how it is drawn."""
        return {"title": self.title, **self.table.to_json()}


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        title: In the browser's tab and above everything.
        template: Of the folder ``templates``.
        values: What the template shows: JSON values, tables and figures.
        status: Of HTTP.
    """

    title: str
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200

    def to_json(self) -> dict[str, Any]:
        """The page's JSON. What is no number is null, as JSON has no word for it.

        Example:
            >>> Page("A page", "page.html.j2", {"lift": float("nan"), "of": [1, 2]}).to_json()
            {'title': 'A page', 'lift': None, 'of': [1, 2]}
        """
        return {"title": self.title, **_plain(self.values)}


@dataclass(frozen=True)
class File:
    """What is no page: a report inside a page, the points of the map.

    Args:
        content: Its bytes.
        media_type: What they are.
        policy: Its own content security policy, if the pages' does not do.
    """

    content: bytes
    media_type: str
    policy: str = ""


def _plain(value: Any) -> Any:
    if isinstance(value, Table | Figure):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Asked:
    """What an address asks for, beside its path.

    Args:
        query: Its parameters, each with all its values.
    """

    query: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        """A parameter; the last, if it is given several times."""
        return self.query[name][-1] if self.query.get(name) else default

    def texts(self, name: str) -> list[str]:
        """Every value of a parameter."""
        return list(self.query.get(name, ()))

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number from 1.

        Raises:
            ConfigError: if it is none, or larger than ``most``.
        """
        text = self.text(name, str(default))
        if text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= most:
            return int(text)
        raise ConfigError(
            f"{name} must be a whole number from 1 to {most}, found {text[:40]!r}; correct it."
        )
