"""Recommendations that were written, read back: for whoever serves or shows them, without torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coterie.data.ids import IdMap
from coterie.errors import ArtifactError, DataError, NotFoundError
from coterie.files import read_manifest
from coterie.ranking.identity import ModelIdentity
from coterie.ranking.recommendations import Recommendations

SCHEMA = "coterie.recommendations/2"

# Readers of Parquet folders pass over names that begin with an underscore.
REQUEST, MANIFEST = "_request.json", "_manifest.json"

_BEFORE = {REQUEST: "request.json", MANIFEST: "manifest.json"}
"""What version 0.1.0 called them."""

_COLUMNS = ["user_id", "rank", "item_id", "score", "source"]


def read_recommendations(path: str | Path) -> Recommendations:
    """Reads a complete folder of recommendations, every checksum checked, or a Parquet file.

    All of it is in memory then. Users for whom no item was left have no row, and are not there.

    Args:
        path: What ``coterie recommend`` or `coterie.recommend_to_folder` wrote.

    Raises:
        NotFoundError: if nothing is there.
        ArtifactError: if it is damaged or no recommendations, or the folder is not complete.

    Example:
        >>> import tempfile
        >>> table = pa.table({"user_id": ["ann"], "rank": [1], "item_id": [7], "score": [0.5]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pq.write_table(
        ...         table.append_column("source", pa.array(["model"])), f"{folder}/a.parquet"
        ...     )
        ...     read_recommendations(f"{folder}/a.parquet").for_user("ann")[0].item_id
        7
    """
    # A link is followed once, so that all files are of one version.
    path = Path(path).resolve()
    if not path.exists():
        raise NotFoundError(f"{path}: must be recommendations, nothing was found there.")
    manifest = _manifest(path) if path.is_dir() else {}
    parts = (
        [name for name in sorted(manifest["files"]) if name.startswith("part-")]
        if manifest
        else [""]
    )
    try:
        table = pa.concat_tables([pq.read_table(path / part) for part in parts])
        table.select(_COLUMNS)
        users, offsets = _by_user(table["user_id"].combine_chunks())
    except (KeyError, OSError, pa.ArrowException, DataError) as error:
        raise ArtifactError(
            f"{path}: must be recommendations in Parquet, as recommend writes them ({error});"
            " write them anew."
        ) from error
    unknown = [tuple(manifest.get(f"unknown_{name}", ())) for name in ("allow", "deny")]
    return Recommendations(users, offsets, table, {}, unknown[0], unknown[1], manifest.get("model"))


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest, whose ``model`` is made a `ModelIdentity`."""
    if (folder / MANIFEST).exists() or not (folder / _BEFORE[MANIFEST]).exists():
        manifest = read_manifest(folder, SCHEMA, name=MANIFEST)
        model = ModelIdentity(manifest["model_name"], manifest["model"], manifest["run_id"])
    else:
        manifest = read_manifest(folder, "coterie.recommendations/1")
        request = json.loads((folder / _BEFORE[REQUEST]).read_text(encoding="utf-8"))
        model = ModelIdentity("", request["model"])
    return manifest | {"model": model}


def _by_user(user_ids: pa.Array) -> tuple[IdMap, np.ndarray]:
    """The users in order, and where the rows of each start and the last one's end."""
    encoded = user_ids.dictionary_encode()
    user = encoded.indices.to_numpy(zero_copy_only=False)
    if (np.diff(user) < 0).any():
        raise DataError("a user's rows must follow one another, found them apart")
    offsets = np.searchsorted(user, np.arange(len(encoded.dictionary) + 1))
    return IdMap.of(encoded.dictionary), offsets
