"""Single files that Coterie writes or reads, recognised by what is in them."""

import json
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coterie.errors import ArtifactError
from coterie.show.folders import Facts, read_json

_RECOMMENDATIONS = {"user_id", "rank", "item_id", "score"}
_READERS = {
    ".parquet": "read_parquet",
    ".csv": "read_csv",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
}
_HEADER_LIMIT = 100_000_000
"""Bytes of a safetensors header; its format sets this bound."""


def file_kind(path: Path) -> tuple[str, Facts] | None:
    """Kind and facts of a file; None if nothing is known of it.

    Raises:
        ArtifactError: if it is damaged.
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in _READERS:
        return _table(path, _READERS[suffix])
    known = _KNOWN.get(suffix)
    return None if known is None else known(path)


def _table(path: Path, reader: str) -> tuple[str, Facts]:
    import duckdb  # noqa: PLC0415 - other files need none

    from coterie.data.scan import exactly  # noqa: PLC0415

    with duckdb.connect() as database:
        try:
            scan = f"{reader}({exactly(str(path))}, hive_partitioning = false)"
            database.execute(f"CREATE VIEW it AS SELECT * FROM {scan}")
            columns = [name for name, *_ in database.execute("DESCRIBE it").fetchall()]
            kind, facts = _rows_of(database, columns)
        except duckdb.Error as error:
            raise ArtifactError(
                f"{path}: must be a whole table ({str(error).splitlines()[0]}); restore it."
            ) from error
    return kind, {**facts, "columns": columns}


def _rows_of(database: Any, columns: list[str]) -> tuple[str, Facts]:
    if not set(columns) >= _RECOMMENDATIONS:
        return "table", {"rows": database.execute("SELECT count(*) FROM it").fetchall()[0][0]}
    counted = "count(DISTINCT user_id), count(*), max(rank)"
    (totals,) = database.execute(f"SELECT {counted} FROM it").fetchall()
    return "recommendations", dict(zip(("users", "rows", "k"), totals, strict=True))


def _json(path: Path) -> tuple[str, Facts] | None:
    value = read_json(path)
    for kind, names in _JSON_KINDS.items():
        if names <= value.keys():
            return kind, _JSON_FACTS[kind](value)
    return None


def _evaluation(value: Facts) -> Facts:
    means = {name: one.get("mean") for name, one in value["metrics"].items()}
    means |= {name: one.get("value") for name, one in value.get("of_all_lists", {}).items()}
    return {**{name: value.get(name) for name in ("run", "split", "users")}, "metrics": means}


def _comparison(value: Facts) -> Facts:
    means = {name: one.get("difference") for name, one in value["metrics"].items()}
    named = {name: value.get(name) for name in ("candidate", "reference", "split", "n_resamples")}
    return {**named, "metrics": means}


def _book(value: Facts) -> Facts:
    wanted = value.get("asked", {})
    return {
        "table": value["table"],
        "title": value.get("title"),
        "seeds": wanted.get("seeds"),
        "rows": list(value["rows"]),
    }


def _numbers(value: Facts) -> Facts:
    return {
        "models": list(value["settings"]),
        "users": value["users"],
        "data_set": value["dataset"],
    }


_JSON_KINDS = {
    "comparison": {"candidate", "reference", "metrics"},
    "evaluation": {"metrics", "cohorts", "users"},
    "results": {"table", "rows", "published"},
    "numbers of an analysis": {"settings", "verdict", "dataset"},
    "configuration": {"model"},
}
_JSON_FACTS: dict[str, Callable[[Facts], Facts]] = {
    "comparison": _comparison,
    "evaluation": _evaluation,
    "results": _book,
    "numbers of an analysis": _numbers,
    "configuration": dict,
}


def _toml(path: Path) -> tuple[str, Facts] | None:
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: must be readable TOML ({error}); correct it.") from error
    return ("configuration", value) if "model" in value else None


def _safetensors(path: Path) -> tuple[str, Facts]:
    tensors = _safetensors_header(path)
    metadata: dict[str, str] = tensors.pop("__metadata__", {})
    shapes = {name: list(one["shape"]) for name, one in tensors.items()}
    if metadata.get("schema", "").startswith("coterie.checkpoint/"):
        position = json.loads(metadata["position"])
        names = ("epoch", "batch", "n_steps", "best_epoch", "best_value")
        return "checkpoint", {name: position.get(name) for name in names}
    return "weights", {"tensors": {name: "×".join(map(str, s)) for name, s in shapes.items()}}


def _safetensors_header(path: Path) -> dict[str, Any]:
    """The names, types and shapes in a safetensors file, without its numbers."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _HEADER_LIMIT:
                raise ValueError(f"a header of {length} bytes")
            header: dict[str, Any] = json.loads(file.read(length))
    except (ValueError, struct.error) as error:
        raise ArtifactError(f"{path}: must be whole safetensors ({error}); restore it.") from error
    return header


_KNOWN: dict[str, Callable[[Path], tuple[str, Facts] | None]] = {
    ".json": _json,
    ".toml": _toml,
    ".safetensors": _safetensors,
}
