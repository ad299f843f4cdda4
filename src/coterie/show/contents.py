"""What a folder or file holds, as a value that people and machines read."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_KIBI = 1024


@dataclass(frozen=True)
class Contents:
    """What is somewhere, and its key facts.

    Args:
        kind: ``"data set"``, ``"run"``, ``"model"``, ``"recommendations"``, …
        path: Where.
        facts: By name, in the order to be read. JSON values; None for what is not known.

    Example:
        >>> print(Contents("model", Path("runs/pia"), {"items": 20108, "best_epoch": None}))
        model  runs/pia
          items  20,108
    """

    kind: str
    path: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = shown(self.facts)
        width = max(map(len, lines), default=0)
        rows = [_wrapped(f"  {name:{width}}  ", value) for name, value in lines.items()]
        return "\n".join([f"{self.kind}  {self.path}", *rows])

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"kind": self.kind, "path": str(self.path), "facts": dict(self.facts)}


def shown(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts in words, one line each; nested ones under ``outer inner``.

    Example:
        >>> shown({"first_timestamp": 0, "last": {"loss": 0.5}, "bytes": 2048})
        {'first interaction': '1970-01-01T00:00:00Z', 'last loss': '0.5', 'size': '2.0 KiB'}
    """
    lines: dict[str, str] = {}
    for name, value in facts.items():
        label = _LABELS.get(name, name.replace("_", " "))
        if name in _IN_ONE_LINE and isinstance(value, Mapping):
            lines[label] = ", ".join(f"{key}={_plain(one)}" for key, one in value.items())
        elif isinstance(value, Mapping):
            lines |= {f"{label} {inner}".lstrip(): text for inner, text in shown(value).items()}
        elif value is not None:
            lines[label] = _text(name, value)
    return lines


def date(seconds: float) -> str:
    """Seconds since 1970 as a date and time, UTC.

    Example:
        >>> date(1_700_000_000)
        '2023-11-14T22:13:20Z'
    """
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


_LABELS = {
    "first_timestamp": "first interaction",
    "last_timestamp": "last interaction",
    "bytes": "size",
    "contains": "",
}
_IN_ONE_LINE = ("configuration", "training", "rules", "written_by", "search", "states", "metrics")
_WIDTH = 100


def _wrapped(label: str, value: str) -> str:
    """A line, or several where a list is long; a word such as a path stays whole."""
    lines = textwrap.wrap(
        value, _WIDTH - len(label), break_long_words=False, break_on_hyphens=False
    )
    return label + f"\n{' ' * len(label)}".join(lines or [""])


def _text(name: str, value: Any) -> str:
    if name == "bytes":
        return size(value)
    if name.endswith("_timestamp"):
        return _date_if_one(value)
    if isinstance(value, int) and not isinstance(value, bool) and name != "seed":
        return f"{value:,}"
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else _plain(value)


def _date_if_one(seconds: Any) -> str:
    try:
        return date(seconds)
    except (ValueError, OverflowError, OSError):
        return f"{seconds:,} seconds since 1970"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key}={_plain(one)}" for key, one in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def size(n_bytes: int) -> str:
    """A number of bytes, for people.

    Example:
        >>> size(512), size(3_500_000)
        ('512 B', '3.3 MiB')
    """
    number, unit = float(n_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < _KIBI:
            break
        number, unit = number / _KIBI, larger
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
