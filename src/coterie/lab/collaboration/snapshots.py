"""Moments of a training, kept to be looked into: weights, anchors and Adam's second moments.

A run keeps its best epoch alone, without moments. What transfer does along training, and at equal
loss, is measured on these.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Cases
from coterie.errors import ArtifactError, ConfigError
from coterie.files import local, publish_file
from coterie.lab.collaboration.hidden import hidden_nll
from coterie.models.kinds import AlignedConfig
from coterie.networks.autoencoder import VariationalAutoencoder
from coterie.running.execution import Execution
from coterie.running.progress import Progress, silent
from coterie.sparse import SparseRows
from coterie.training.loop import TrainingLoop

SCHEMA = "coterie.snapshot/1"
USERS_AT_ONCE = 1000


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A model at the end of an epoch.

    Args:
        config: Of the run.
        epoch: Its number, from 1.
        best: Whether it is the one that validation chose.
        quality: The validation metric; None without validation users.
        hidden_nats: Mean over the validation users of the loss of their hidden items, see
            `hidden_nll`; None without any.
        weights: Of the network, by name.
        anchors: ``[n_items, latent_dim]`` with PIA.
        second_moments: Adam's, of the network's parameters by name, corrected for their start.
    """

    config: RunConfig
    epoch: int
    best: bool
    quality: float | None
    hidden_nats: float | None
    weights: dict[str, Tensor]
    anchors: Tensor | None
    second_moments: dict[str, Tensor]

    def network(self, n_items: int) -> VariationalAutoencoder:
        """The network with these weights."""
        network = _aligned(self.config).empty(n_items)
        network.load_state_dict(self.weights)
        assert isinstance(network, VariationalAutoencoder)
        return network.eval()

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file, whole or not at all."""
        tensors = {f"weights.{name}": value for name, value in self.weights.items()}
        tensors |= {f"second.{name}": value for name, value in self.second_moments.items()}
        tensors |= {} if self.anchors is None else {"anchors": self.anchors}
        told = {name: getattr(self, name) for name in ("epoch", "best", "quality", "hidden_nats")}
        told |= {"config": self.config.as_json()}
        with publish_file(local(path)) as aside:
            save_file(
                {name: value.cpu().contiguous() for name, value in tensors.items()},
                aside,
                {"schema": SCHEMA, "told": json.dumps(told)},
            )

    @classmethod
    def load(cls, path: str | Path) -> "Snapshot":
        """Reads what `save` wrote.

        Raises:
            ArtifactError: if the file is damaged, or none of these.
        """
        try:
            with safe_open(local(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("schema") != SCHEMA:
                    raise ArtifactError(
                        f"{path}: schema must be {SCHEMA!r}, found {metadata.get('schema')!r}; use"
                        " what train_with_snapshots wrote."
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                told: dict[str, Any] = json.loads(metadata["told"])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise ArtifactError(f"{path}: not a whole snapshot ({error}); train anew.") from error
        return cls(
            config=RunConfig.of(told.pop("config")),
            weights=_named(tensors, "weights."),
            anchors=tensors.get("anchors"),
            second_moments=_named(tensors, "second."),
            **told,
        )


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = {name.removeprefix(prefix): one for name, one in tensors.items()}
    return {name: one for name, one in found.items() if prefix + name in tensors}


def doubling(n_epochs: int) -> tuple[int, ...]:
    """1, 2, 4, 8, … up to ``n_epochs``.

    Example:
        >>> doubling(20)
        (1, 2, 4, 8, 16)
    """
    return tuple(2**power for power in range(n_epochs.bit_length()))


def train_with_snapshots(
    dataset: Dataset,
    config: RunConfig,
    folder: str | Path,
    *,
    epochs: Iterable[int] | None = None,
    device: Execution | str = "cpu",
    progress: Progress = silent,
) -> list[Path]:
    """Trains as `coterie.training.trainer.train` does, step for step, and keeps some epochs.

    Args:
        dataset: With its split.
        config: Of a variational autoencoder.
        folder: Where ``epoch-0001.safetensors``, … and ``best.safetensors`` go.
        epochs: Which to keep beside the best one; `doubling` by default.
        device: As of a training.
        progress: As of a training.

    Returns:
        The files in order of their epochs, the best one last.

    Raises:
        ConfigError: if the model is no variational autoencoder.

    Example:
        >>> import tempfile
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> config = RunConfig.of(
        ...     {
        ...         "model": {"name": "mult-vae", "hidden_dims": [8], "latent_dim": 4},
        ...         "training": {"epochs": 3},
        ...     }
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = train_with_snapshots(data, config, folder)
        ...     [Snapshot.load(file).epoch for file in files[:2]], files[-1].name
        ([1, 2], 'best.safetensors')
    """
    _aligned(config)
    kept = set(doubling(config.training.epochs) if epochs is None else epochs)
    files, best = [], None
    with Execution.of(device).begin() as execution:
        for found in _epochs(TrainingLoop(dataset, config, execution), config, progress):
            best = found if found.best else best
            if found.epoch in kept:
                files.append(local(folder) / f"epoch-{found.epoch:04d}.safetensors")
                replace(found, best=False).save(files[-1])
    if best is not None:
        files.append(local(folder) / "best.safetensors")
        best.save(files[-1])
    return files


def _epochs(loop: TrainingLoop, config: RunConfig, progress: Progress) -> Iterator[Snapshot]:
    """A snapshot at the end of every epoch; ``best`` if none before was better."""
    while not loop.finished():
        for users, part in loop.batches():
            loop.advance(users, part)
        entry = loop.close_epoch()
        found = _snapshot(loop, config, entry)
        progress(loop.update(entry | {"hidden_nats": found.hidden_nats}))
        yield found


def _snapshot(loop: TrainingLoop, config: RunConfig, entry: dict[str, Any]) -> Snapshot:
    step = loop.step
    with step.averaged():
        weights = {name: value.clone() for name, value in step.network.state_dict().items()}
        anchors = None if step.anchors is None else step.anchors.detach().clone()
        network = step.network
        assert isinstance(network, VariationalAutoencoder)
        hidden = mean_hidden_nats(network, loop.cases)
    return Snapshot(
        config,
        epoch=entry["epoch"],
        best=entry["best_epoch"] == entry["epoch"],
        quality=entry.get("validation", {}).get(config.training.metric),
        hidden_nats=hidden,
        weights=weights,
        anchors=anchors,
        second_moments=_second_moments(loop),
    )


def mean_hidden_nats(network: VariationalAutoencoder, cases: Cases) -> float | None:
    """`hidden_nll` in the mean over cases; None without any."""
    n, device = len(cases.user_index), network.output.weight.device
    if not n:
        return None
    total = 0.0
    with torch.no_grad():
        for start in range(0, n, USERS_AT_ONCE):
            some = cases.take(np.arange(start, min(n, start + USERS_AT_ONCE)))
            shown, hidden = (
                SparseRows.from_csr(one, device) for one in (some.fold_in, some.held_out)
            )
            total += float(hidden_nll(network.decode(network.point(shown)), shown, hidden).sum())
    return total / n


def _second_moments(loop: TrainingLoop) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, parameter in loop.step.network.named_parameters():
        for optimizer in loop.step.optimizers.by_name.values():
            state = optimizer.state.get(parameter)
            if state:
                decay = optimizer.defaults["betas"][1]
                found[name] = state["exp_avg_sq"] / (1 - decay ** float(state["step"]))
    return found


def _aligned(config: RunConfig) -> AlignedConfig:
    if not isinstance(config.model, AlignedConfig):
        raise ConfigError(
            f"snapshots are of variational autoencoders, found {config.model.name}; train a"
            " mult-vae or a recvae."
        )
    return config.model
