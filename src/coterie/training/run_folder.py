"""The run folder as training writes it: configuration, environment, history, checkpoint and, at
the end, the model. `coterie.training.run_record` reads it without torch.

config.json        what was asked for, and which run it is
environment.json   with which versions, on which machine and data
history.jsonl      one line an epoch: terms, schedule, validation
checkpoint.safetensors   while the run is unfinished
anchors.safetensors      PIA's, one point an item: for looking at, no model needs them
model/             the artifact, once it is finished
validated/         with train(refit=True): the validated run, whole, that model/ is a refit of
run.lock           held by the process that trains, empty

Every file but the history is replaced in one rename; the history is cut back to the checkpoint on
resuming. Of several processes that train together all read, and the first one holds the lock and
writes.
"""

import json
import platform
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import coterie
from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.errors import ArtifactError, ConfigError, ConflictError, CoterieError
from coterie.files import local, publish_file, write_json, writing_to
from coterie.locks import try_lock
from coterie.running.execution import Execution
from coterie.running.world import ALONE, World
from coterie.training.run_config import check_parent
from coterie.training.run_record import RunIdentity, differences

ANCHORS_FILE = "anchors.safetensors"
VALIDATED = "validated"


class RunFolder:
    """The files of one run, which no other process may train in meanwhile; closed as a context.

    Args:
        path: The folder; made if missing.
        config: What is asked for.
        dataset: What is trained on.
        execution: Where and how.
        resume: Whether to go on with a run that is already there.
        refit: What a refit takes over from the validated run; None if it is none.
        warm: What is known of a warm start; None if it is none, or that of a run to be resumed.

    Raises:
        ConflictError: if another process trains in the folder, or there is a run and ``resume`` is
            false.
        ConfigError: if the run there is of another configuration, data set or parent, a new warm
            run has no parent, or the processes do not see the same folder.
        CannotWriteError: if the folder cannot be written.
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
        refit: Mapping[str, Any] | None = None,
        warm: Mapping[str, Any] | None = None,
    ) -> None:
        world = execution.world
        self.path, self._world = local(path), world
        self.config_file, self.history_file = self.path / "config.json", self.path / "history.jsonl"
        self.checkpoint, self.model = self.path / "checkpoint.safetensors", self.path / "model"
        self._lock = _lock(self.path / "run.lock", world)
        wanted = {
            "config": config.as_json(),
            "dataset": dataset.fingerprint,
            "precision": execution.precision,
            "refit": None if refit is None else dict(refit),
            "warm": None if warm is None else dict(warm),
        }
        self.warm: Mapping[str, Any] | None = warm
        self._config = config
        try:
            self.identity = self._begin(wanted, _environment(dataset, execution), resume=resume)
        except BaseException:
            self.close()
            raise

    def _begin(
        self,
        wanted: dict[str, Any],
        environment: dict[str, Any],
        *,
        resume: bool,
    ) -> RunIdentity:
        """Which run it is: the one that is there, checked, or a new one, written down."""
        identity, world = new_identity(self._world, self.warm), self._world
        begun = self.config_file.exists()
        if begun:
            identity = self._check_same(wanted, resume=resume) or identity
        check_parent(self._config, self.warm)
        # All have looked before the first one writes, and it has written before any looks again.
        world.barrier()
        if world.leads and begun:
            self._sweep()
        elif world.leads:
            write_json(self.path / "environment.json", environment)
            write_json(self.config_file, wanted | identity.to_json())
        world.check_same("run folder", f"{self.path}, finished: {self.model.exists()}")
        return identity

    def _check_same(self, wanted: dict[str, Any], *, resume: bool) -> RunIdentity | None:
        if not resume:
            raise ConflictError(
                f"{self.path}: a run must have a folder of its own, this holds one; resume it"
                " (--resume) or choose another."
            )
        try:
            held = {
                "refit": None,
                "warm": None,
                **json.loads(self.config_file.read_text(encoding="utf-8")),
            }
            found, identity = {name: held[name] for name in wanted}, RunIdentity.in_json(held)
            # A field that the version of then did not have takes its default.
            found["config"] = self._config.of(found["config"]).as_json()
        except (ValueError, KeyError, TypeError, ConfigError) as error:
            raise ArtifactError(
                f"{self.config_file}: must be a configuration in JSON ({error}); restore it or"
                " start anew elsewhere."
            ) from error
        if self._config.training.start == "warm" and self.warm is None:
            # The model it started from may be gone.
            self.warm = wanted["warm"] = found["warm"]
        if found != wanted:
            raise ConfigError(
                f"{self.path}: a run resumes only with its own configuration, data set, parent and"
                f" precision, {differences(found, wanted)}."
            )
        return identity

    def _sweep(self) -> None:
        """Removes what a kill left half-written, and the checkpoint of a run that finished.

        Under the lock, as nobody else's unfinished files can be here.
        """
        for leftover in self.path.glob(".*.part*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        if self.model.exists():
            self.checkpoint.unlink(missing_ok=True)

    def keep_history(self, epoch: int) -> None:
        """Drops history lines after ``epoch``: their work was lost and is done again."""
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
        with (
            writing_to(self.history_file),
            self.history_file.open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(entry) + "\n")

    def keep_anchors(self, anchors: Tensor) -> None:
        """Writes PIA's ``[n_items, latent_dim]`` anchors."""
        if self._world.leads:
            with publish_file(self.path / ANCHORS_FILE) as aside:
                save_file({"anchors": anchors.cpu().contiguous()}, aside)

    def close(self) -> None:
        """Lets another process train here."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def new_identity(world: World = ALONE, warm: Mapping[str, Any] | None = None) -> RunIdentity:
    """The identity of a run that begins now, the same for all processes that train it; its parent
    is that of its warm start, if it has one.
    """
    seconds = world.all_reduce_max(int(time.time()))
    parent = None if warm is None else str(warm["parent"])
    return RunIdentity.of(seconds, world.all_reduce_max(secrets.randbits(32)), parent)


def _lock(path: Path, world: World) -> FileLock | None:
    """The lock of a run folder, held by the first process; where it cannot have it, all stop."""
    lock: FileLock | None = None
    refusal: CoterieError | None = None
    if world.leads:
        try:
            if (lock := try_lock(path)) is None:
                refusal = ConflictError(
                    f"{path.parent}: only one process may train in a run folder, found another at"
                    " work there; wait for it, or choose another folder."
                )
        except CoterieError as error:
            refusal = error
    if world.all_reduce_max(refusal is not None):
        raise refusal or ConflictError(
            f"{path.parent}: the first process must be able to write there, it could not; its own"
            " error says why."
        )
    return lock


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
