"""Options that several verbs take, and how their texts are read."""

import tomllib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.cli.places import existing, result_file
from coterie.errors import ConfigError

MORE = "repeat for more, or join them by commas"
"""How every option that takes a list says so."""

JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", callback=result_file, help="Also write the result as JSON."
    ),
]
Run = Annotated[Path, typer.Argument(callback=existing, help="Run folder, from train.")]
RunOrModel = Annotated[Path, typer.Argument(callback=existing, help="Run folder or model folder.")]
Prepared = Annotated[Path, typer.Argument(callback=existing, help="Data set folder, from prepare.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        callback=existing,
        help="TOML or JSON with the sections model and training; options go over it.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any field, as in model.latent_dim=64 (coterie config lists them); repeat for more.",
    ),
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, …; auto takes CUDA where there is one.")
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of the processor (default: all)."),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        callback=existing,
        help="Data set folder; by default the one the run was trained on, where it then was.",
    ),
]
InSample = Annotated[
    bool,
    typer.Option(
        "--in-sample",
        help="Measure refits, too, on users they were trained on: the values are too good.",
    ),
]
Metrics = Annotated[
    list[str],
    typer.Option(
        "--metric",
        metavar="NAME,…",
        help=(
            "recall@K and map@K (÷ min(K, held out)), recall_of_held_out@K and map_of_held_out@K (÷"
            " held out), ndcg@K, mrr@K, precision@K, hit_rate@K; of items popular or not:"
            " head_recall@K, middle_recall@K, tail_recall@K; of what lists look like: novelty@K,"
            f" popularity@K, diversity@K, coverage@K, gini@K; {MORE}."
        ),
    ),
]
Seeds = Annotated[
    list[str] | None,
    typer.Option(
        metavar="1,2,…",
        help=f"In place of the table's own; each draws a split and trains; {MORE}.",
    ),
]
Rows = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME,…", help=f"Some of the table's rows only; {MORE}."),
]
DEFAULT_METRICS = ["recall@20", "recall@50", "ndcg@100"]


class SplitPart(StrEnum):
    """Which held-out users."""

    VALIDATION = "validation"
    TEST = "test"


class Engine(StrEnum):
    """Who scores."""

    LOCAL = "local"
    RAY = "ray"


class TimeUnits(StrEnum):
    """Of times that are numbers."""

    AUTO = "auto"
    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"


class IdTypes(StrEnum):
    """What ids are."""

    AUTO = "auto"
    INTEGER = "integer"
    TEXT = "text"


class Precision(StrEnum):
    """Of the products of a training step."""

    FLOAT32 = "float32"
    BF16 = "bf16"


class LogLevel(StrEnum):
    """The least important record shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How records are written."""

    TEXT = "text"
    JSON = "json"


class StudyPruner(StrEnum):
    """What ends a trial early."""

    MEDIAN = "median"
    NONE = "none"


def listed(texts: Iterable[str] | None) -> list[str]:
    """The entries of an option that was repeated, joined by commas, or both; empty if not given.

    Example:
        >>> listed(["ndcg@100", "recall@20, recall@50"])
        ['ndcg@100', 'recall@20', 'recall@50']
    """
    entries = [entry.strip() for text in texts or () for entry in text.split(",")]
    if not all(entries):
        raise ConfigError(
            "a list must have an entry between its commas, found"
            f" {', '.join(texts or ())!r}; remove the extra comma."
        )
    return entries


def numbers(texts: Iterable[str] | None) -> tuple[float, ...]:
    """The numbers of an option such as ``--negative-value 0,1``.

    Example:
        >>> numbers(["0,1.5"])
        (0.0, 1.5)
    """
    try:
        return tuple(float(entry) for entry in listed(texts))
    except ValueError as error:
        raise ConfigError(
            f"values must be numbers, as in 0,1.5 ({error}); correct them."
        ) from error


def whole_numbers(texts: Iterable[str] | None) -> list[int]:
    """The numbers of an option such as ``--seeds 1,2,3``.

    Example:
        >>> whole_numbers(["1,2", "3"])
        [1, 2, 3]
    """
    try:
        return [int(entry) for entry in listed(texts)]
    except ValueError as error:
        raise ConfigError(
            f"seeds must be whole numbers, as in 1,2,3 ({error}); correct them."
        ) from error


def value_of(text: str) -> tuple[str, float]:
    """Reads ``WORD=NUMBER``.

    Example:
        >>> value_of("view=1")
        ('view', 1.0)
    """
    word, _, number = text.rpartition("=")
    try:
        return word, float(number)
    except ValueError as error:
        raise ConfigError(
            f"a word's value must be WORD=NUMBER, found {text!r}; as in view=1."
        ) from error


def setting_of(text: str) -> tuple[str, Any]:
    """Reads ``SECTION.FIELD=VALUE``."""
    key, equals, value = text.partition("=")
    if not equals or "." not in key:
        raise ConfigError(
            f"--set must be SECTION.FIELD=VALUE, found {text!r}; as in model.latent_dim=64."
        )
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def laid_over(config: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration file says, with options over it; those that are None were not given."""
    from coterie.config import overlay, read_values  # noqa: PLC0415

    given = {key: value for key, value in options.items() if value is not None}
    values = overlay(read_values(config) if config else {}, given)
    model = values.get("model", {})
    if not isinstance(model, dict) or "name" not in model:
        values = overlay(values, {"model.name": "mult-vae"})
    return values


def read_ids(path: Path | None) -> list[str] | None:
    """Ids from a file, one a line."""
    if path is None:
        return None
    try:
        return [
            line.strip()
            for line in path.read_text(encoding="utf-8-sig").split("\n")
            if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: must be a readable UTF-8 file with one id a line ({error}); check the path."
        ) from error
