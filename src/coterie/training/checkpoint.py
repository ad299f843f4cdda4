"""Checkpoints: all a run needs to go on as if it had never stopped, in one file that is replaced in
one rename.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from coterie.errors import ArtifactError
from coterie.files import publish_file

SCHEMA = "coterie.checkpoint/2"


@dataclass
class Position:
    """Where a run stands.

    Args:
        epoch: Finished epochs.
        batch: Finished batches of the epoch under way.
        n_steps: Optimisation steps in all.
        sums: Sums of the terms over the batches of the epoch under way.
        best_epoch: Epoch of the best validation value so far; 0 before the first.
        best_value: That value.
    """

    epoch: int = 0
    batch: int = 0
    n_steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    best_value: float | None = None


def save_checkpoint(
    path: Path, position: Position, state: dict[str, Tensor], best: dict[str, Tensor]
) -> None:
    """Writes position, the step's state and the best weights so far."""
    tensors = state | {f"best.{name}": value for name, value in best.items()}
    written = json.dumps(asdict(position))
    metadata = {"schema": SCHEMA, "position": written, "sha256": _checksum(tensors, written)}
    with publish_file(path) as aside:
        save_file({name: value.contiguous() for name, value in tensors.items()}, aside, metadata)


def load_checkpoint(
    path: Path, device: str
) -> tuple[Position, dict[str, Tensor], dict[str, Tensor]]:
    """Reads what `save_checkpoint` wrote.

    Raises:
        ArtifactError: if the file is damaged or of another schema.
    """
    try:
        with safe_open(path, framework="pt", device=device) as file:
            metadata = file.metadata() or {}
            if metadata.get("schema") != SCHEMA:
                raise ArtifactError(
                    f"{path}: schema must be {SCHEMA!r}, found {metadata.get('schema')!r}; use the"
                    " version that wrote it."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            if metadata["sha256"] != _checksum(tensors, metadata["position"]):
                raise ArtifactError(
                    f"{path}: its values differ from its checksum; remove it to start anew."
                )
            position = Position(**json.loads(metadata["position"]))
    except (SafetensorError, OSError, KeyError) as error:
        raise ArtifactError(
            f"{path}: not a whole checkpoint ({error}); remove it to start anew."
        ) from error
    best = {
        name.removeprefix("best."): value
        for name, value in tensors.items()
        if name.startswith("best.")
    }
    state = {name: value for name, value in tensors.items() if not name.startswith("best.")}
    return position, state, best


def _checksum(tensors: dict[str, Tensor], position: str) -> str:
    """Hex SHA-256 of names, values and position: safetensors itself holds none."""
    digest = hashlib.sha256(position.encode())
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + b"\0")
        digest.update(value.cpu().contiguous().view(-1).numpy().data)
    return digest.hexdigest()
