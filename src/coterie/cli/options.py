"""Options that several verbs take, and how their texts are read."""

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.errors import ConfigError

JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.")
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
        help="Data set folder; by default the one the run was trained on, where it then was."
    ),
]
Metrics = Annotated[
    list[str],
    typer.Option(
        "--metric",
        help=(
            "recall@K (÷ min(K, held out)), recall_of_held_out@K (÷ held out) or ndcg@K; repeat for"
            " more."
        ),
    ),
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


def whole_numbers(text: str) -> list[int]:
    """Reads ``1,2,3``."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"seeds must be whole numbers joined by commas, found {text!r}; as in 1,2,3."
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
    values.setdefault("model", {}).setdefault("name", "mult-vae")
    return values


def read_ids(path: Path | None) -> list[str] | None:
    """Ids from a file, one a line."""
    if path is None:
        return None
    try:
        return [
            line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: must be a readable UTF-8 file with one item id a line ({error}); check the"
            " path."
        ) from error
