"""What a run folder says, read without torch: for pages, reports and whoever looks at a run.

`coterie.training.run_folder` writes it; `coterie.training.runs` loads the model and the data set.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from coterie.config import RunConfig
from coterie.errors import ArtifactError, ConfigError, NotFoundError
from coterie.files import local, read_manifest
from coterie.training.artifact import SCHEMA


@dataclass(frozen=True)
class RunIdentity:
    """Which run it is: kept when the run goes on, and written into the model that comes of it.

    Args:
        run_id: Its own; ids of later seconds sort after those of earlier ones.
        created: When it began, ISO 8601 in UTC.
        parent: Fingerprint of the model that it went on from; None if it began anew.

    Example:
        >>> identity = RunIdentity.of(seconds=1_800_000_000, number=255)
        >>> identity.run_id, identity.created
        ('20270115T080000Z-000000ff', '2027-01-15T08:00:00+00:00')
    """

    run_id: str
    created: str
    parent: str | None = None

    @classmethod
    def of(cls, seconds: int, number: int, parent: str | None = None) -> Self:
        """The identity of a run that began so many seconds after 1970.

        Args:
            seconds: Whole, since 1970 (UTC).
            number: Random, below 2³²: it keeps apart runs that began within a second.
            parent: As in the class.
        """
        time = datetime.fromtimestamp(seconds, UTC)
        return cls(f"{time:%Y%m%dT%H%M%SZ}-{number:08x}", time.isoformat(), parent)

    @classmethod
    def in_json(cls, values: Mapping[str, Any]) -> Self | None:
        """The identity among other fields; None if they are of version 0.1.0, which kept none."""
        if "run_id" not in values:
            return None
        return cls(values["run_id"], values["created"], values["parent"])

    def to_json(self) -> dict[str, Any]:
        """The fields; `in_json` reads them back."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run as its folder describes it, whether it has finished or not.

    Args:
        folder: The run folder.
        identity: None if version 0.1.0 began it.
        config: What was asked for.
        dataset: Fingerprint of the data set.
        precision: Of the products.
        environment: Versions, machine, and where the data set was.
        history: One mapping an epoch; empty for a closed form.
        model: The model's manifest; None as long as there is no model.
        refit: What it took over from the validated run that it is a refit of; None if it is none.
        warm: Its ``parent``, ``items_carried``, ``items_new``, ``items_dropped`` and
            ``parent_steps``, if it started from a trained model; None if not.
    """

    folder: Path
    identity: RunIdentity | None
    config: RunConfig
    dataset: str
    precision: str
    environment: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    model: Mapping[str, Any] | None
    refit: Mapping[str, Any] | None = None
    warm: Mapping[str, Any] | None = None

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How the model came to be; empty as long as there is none."""
        found: Mapping[str, Any] = {} if self.model is None else self.model["provenance"]
        return found


def read_run(folder: str | Path) -> RunRecord:
    """Reads a run folder, also while a process trains in it. The model's weights are not read.

    Raises:
        NotFoundError: if there is no such folder.
        ArtifactError: if it is no run folder, or a file is damaged.
    """
    folder = local(folder)
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: must be a run folder, from train, none was found there.")
    wanted, environment = (
        _read_json(folder / name) for name in ("config.json", "environment.json")
    )
    try:
        return RunRecord(
            folder,
            RunIdentity.in_json(wanted),
            RunConfig.of(wanted["config"]),
            wanted["dataset"],
            wanted["precision"],
            environment,
            tuple(read_history(folder)),
            _read_model(folder),
            wanted.get("refit"),
            wanted.get("warm"),
        )
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(
            f"{folder / 'config.json'}: must be the configuration of a run ({error}); restore it or"
            " train anew."
        ) from error


def _read_model(folder: Path) -> dict[str, Any] | None:
    model = folder / "model"
    return read_manifest(model, SCHEMA, files=False) if model.is_dir() else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path.parent}: a run folder must hold {path.name} in JSON ({error}); check the path"
            " or train anew."
        ) from error
    return values


def read_history(run: str | Path) -> list[dict[str, Any]]:
    """The history of a run folder, one mapping an epoch; empty if it has none.

    A last line without its end, as a kill or a run at work leaves it, is no line yet.

    Raises:
        ArtifactError: if another line is damaged.
    """
    path = Path(run) / "history.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    try:
        return [json.loads(line) for line in text.split("\n")[:-1]]
    except ValueError as error:
        raise ArtifactError(
            f"{path}: must hold JSON in every line ({error}); restore it, or go on with --resume."
        ) from error


def dataset_folder(run: str | Path) -> Path:
    """Where the data set of a run lay when it was trained.

    Raises:
        ConfigError: if the run does not say or the folder is gone.
    """
    try:
        environment = json.loads((Path(run) / "environment.json").read_text(encoding="utf-8"))
        folder = environment["dataset"]["folder"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{run}: a run folder must say where its data set is ({error}); give it with --data."
        ) from error
    if folder is None or not Path(folder).is_dir():
        raise ConfigError(
            f"{run}: its data set must still be at {folder}, none was found there; give it with"
            " --data."
        )
    return Path(folder)


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Where two nested mappings differ, in words."""
    before, now = _flatten(found), _flatten(wanted)
    different = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in different)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        k: v
        for key, inner in value.items()
        for k, v in _flatten(inner, f"{prefix}.{key}".lstrip(".")).items()
    }
