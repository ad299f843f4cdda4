"""The run folder: configuration, environment, history, checkpoint and, at the end, the model.

config.json        what was asked for
environment.json   with which versions, on which machine and data
history.jsonl      one line an epoch: terms, schedule, validation
checkpoint.safetensors   while the run is unfinished
anchors.safetensors      PIA's, one point an item: for looking at, no model needs them
model/             the artifact, once it is finished

Every file but the history is replaced in one rename; the history is cut back to the checkpoint on
resuming. Of several processes that train together all read, and the first one writes.
"""

import json
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import coterie
from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.errors import ArtifactError, ConfigError
from coterie.files import publish_file, write_json
from coterie.running.execution import Execution

ANCHORS_FILE = "anchors.safetensors"


class RunFolder:
    """The files of one run.

    Args:
        path: The folder; made if missing.
        config: What is asked for.
        dataset: What is trained on.
        execution: Where and how.
        resume: Whether to go on with a run that is already there.

    Raises:
        ConfigError: if there is a run and ``resume`` is false, it was another configuration or data
            set, or the processes do not see the same folder.
        ArtifactError: if its ``config.json`` is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        config: RunConfig,
        dataset: Dataset,
        execution: Execution,
        *,
        resume: bool,
    ) -> None:
        world = execution.world
        self.path, self._world = Path(path), world
        self.config_file, self.history_file = self.path / "config.json", self.path / "history.jsonl"
        self.checkpoint, self.model = self.path / "checkpoint.safetensors", self.path / "model"
        asked = {
            "config": config.as_json(),
            "dataset": dataset.fingerprint,
            "precision": execution.precision,
        }
        begun = self.config_file.exists()
        if begun:
            self._check_same(asked, type(config), resume=resume)
        # All have looked before the first one writes, and it has written before any looks again.
        world.barrier()
        if world.leads and begun:
            self._sweep()
        elif world.leads:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / "environment.json", _environment(dataset, execution))
            write_json(self.config_file, asked)
        world.check_same("run folder", f"{self.path}, finished: {self.model.exists()}")

    def _check_same(self, asked: dict[str, Any], kind: type[RunConfig], *, resume: bool) -> None:
        if not resume:
            raise ConfigError(
                f"{self.path}: a run must have a folder of its own, this holds one; resume it"
                " (--resume) or choose another."
            )
        try:
            found = json.loads(self.config_file.read_text(encoding="utf-8"))
            # A field that the version of then did not have takes its default.
            found["config"] = kind.of(found["config"]).as_json()
        except (ValueError, KeyError, TypeError, ConfigError) as error:
            raise ArtifactError(
                f"{self.config_file}: must be a configuration in JSON ({error}); restore it or"
                " start anew elsewhere."
            ) from error
        if found != asked:
            raise ConfigError(
                f"{self.path}: a run resumes only with its own configuration, data set and"
                f" precision, {differences(found, asked)}."
            )

    def _sweep(self) -> None:
        """Removes what a kill left half-written, and the checkpoint of a run that finished."""
        for leftover in self.path.glob(".*.part*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        if self.model.exists():
            self.checkpoint.unlink(missing_ok=True)

    def keep_history(self, epoch: int) -> None:
        """Drops history lines after ``epoch``: the work they tell of was lost and is done again."""
        if not self._world.leads:
            return
        lines = (
            self.history_file.read_text(encoding="utf-8").splitlines()
            if self.history_file.exists()
            else []
        )
        with publish_file(self.history_file) as aside:
            aside.write_text("".join(f"{line}\n" for line in lines[:epoch]), encoding="utf-8")

    def append_history(self, entry: dict[str, Any]) -> None:
        """Adds one line."""
        if not self._world.leads:
            return
        with self.history_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def keep_anchors(self, anchors: Tensor) -> None:
        """Writes PIA's ``[n_items, latent_dim]`` anchors."""
        if self._world.leads:
            with publish_file(self.path / ANCHORS_FILE) as aside:
                save_file({"anchors": anchors.cpu().contiguous()}, aside)


def read_anchors(run: str | Path) -> Tensor | None:
    """PIA's ``[n_items, latent_dim]`` anchors of a finished run, float32; None if it has none.

    Raises:
        ArtifactError: if their file is damaged.
    """
    path = Path(run) / ANCHORS_FILE
    try:
        return load_file(path)["anchors"] if path.exists() else None
    except (SafetensorError, OSError, KeyError) as error:
        raise ArtifactError(
            f"{path}: not a whole file of anchors ({error}); train the run anew, or remove the file"
            " to go without."
        ) from error


def read_history(run: str | Path) -> list[dict[str, Any]]:
    """The history of a run folder, one mapping an epoch."""
    return [
        json.loads(line)
        for line in (Path(run) / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def dataset_folder(run: str | Path) -> Path:
    """Where the data set of a run lay when it was trained.

    Raises:
        ConfigError: if the run does not tell or the folder is gone.
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


def _environment(dataset: Dataset, execution: Execution) -> dict[str, Any]:
    device = execution.device
    return {
        "coterie": coterie.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "processes": execution.world.size,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "dataset": {
            "fingerprint": dataset.fingerprint,
            "folder": None if dataset.folder is None else str(dataset.folder),
            "users": dataset.n_users,
            "items": dataset.n_items,
        },
    }


def differences(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """Where two nested mappings differ, in words."""
    before, now = _flatten(found), _flatten(asked)
    different = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in different)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        k: v
        for key, inner in value.items()
        for k, v in _flatten(inner, f"{prefix}.{key}".lstrip(".")).items()
    }
