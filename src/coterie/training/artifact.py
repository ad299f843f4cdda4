"""What a saved model says of itself; read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.config import RunConfig
from coterie.errors import ArtifactError, ConfigError
from coterie.files import local, read_manifest, recover

SCHEMA = "coterie.model/1"


@dataclass(frozen=True)
class ModelManifest:
    """The manifest of a saved model.

    Args:
        config: What the model is and how it was trained.
        provenance: Data set fingerprint and training summary; JSON values.
        written_by: Versions, by package.
    """

    config: RunConfig
    provenance: Mapping[str, Any]
    written_by: Mapping[str, str]


def model_folder(folder: str | Path) -> Path:
    """The folder itself, or the model's in a run folder.

    A link is followed once, so that all files read below are of one version.
    """
    folder = local(folder)
    recover(folder / "model")
    return (folder / "model" if (folder / "model").is_dir() else folder).resolve()


def read_model_manifest(folder: str | Path) -> ModelManifest:
    """Reads the manifest of a saved model, or of the one in a run folder, and checks the files.

    Raises:
        ArtifactError: if it is missing, damaged, or of another schema version.
    """
    folder = model_folder(folder)
    manifest = read_manifest(folder, SCHEMA)
    try:
        config = RunConfig.of(manifest["config"])
        return ModelManifest(config, manifest["provenance"], manifest.get("written_by", {}))
    except (KeyError, ConfigError) as error:
        raise ArtifactError(
            f"{folder}: not a whole model ({error}); restore it or train anew."
        ) from error
