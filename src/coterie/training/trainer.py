"""Training: a data set and a configuration in, a trained model out."""

import json
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.errors import ConfigError
from coterie.models.kinds import ClosedFormConfig, ModelConfig
from coterie.networks.network import Network
from coterie.running.execution import Execution
from coterie.running.interrupt import StopRequest
from coterie.running.progress import Progress, silent
from coterie.training.loop import TrainingLoop, share_state
from coterie.training.run_config import TrainingFields, run_config
from coterie.training.run_folder import RunFolder, new_identity
from coterie.training.trained_model import TrainedModel

log = logging.getLogger(__name__)


def train(
    dataset: Dataset,
    config: RunConfig | ModelConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    device: Execution | str = "auto",
    progress: Progress = silent,
    checkpoint_seconds: float = 60.0,
    **fields: Unpack[TrainingFields],
) -> TrainedModel:
    """Trains a model; the epoch with the best validation metric is the one returned.

    Seeded: on the CPU, with the same number of threads, the same arguments give the same weights,
    interrupted and resumed or not; SLIM on several threads up to its solver's tolerance. Without
    validation cases every epoch is run and the last one returned.

    Several processes that call this together, under torchrun or another launcher that sets the
    ``env://`` variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) or with a process
    group already initialised, train one model: each takes its part of every batch of ``batch_size``
    users. Order, masks and noise are those of one process, and the weights differ from its only by
    rounding. All are given the same arguments and see the same ``out``, where the first one writes;
    all return the model. A run may be resumed by another number of processes. A closed form is
    computed by every process for itself.

    Args:
        dataset: With its split.
        config: Of a run, or of a model that is trained with the defaults; a Mult-VAE with its
            defaults if None.
        out: Run folder (see `run_folder`). With it, SIGINT and SIGTERM stop cleanly after the step
            under way.
        resume: Go on with the run in ``out``, from its last checkpoint or, if it has none, from the
            start.
        device: The name of a device, or an `Execution` that also says threads and precision.
        progress: Called after every step with the epochs done, and after every epoch with its line
            of the history as facts. What it raises ends the run, which can be resumed.
        checkpoint_seconds: From one checkpoint to the next; a SIGKILL loses at most so much work.
        fields: Single fields of the training, over what ``config`` says: ``epochs=5``.

    Raises:
        ConfigError: if the arguments contradict one another, the run in ``out`` or those of another
            process.
        ConflictError: if another process trains in ``out``, or it holds a run and ``resume`` is
            false.
        CannotWriteError: if ``out`` cannot be written.
        Interrupted: if a signal asked for a stop; the checkpoint is on disk.
        NumericalError: if a loss stopped being finite.

    Example:
        >>> from coterie.models.multvae import MultVAEConfig
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> model = train(data, MultVAEConfig(hidden_dims=(20,), latent_dim=8), epochs=2)
        >>> model.score(data.train[:3]).shape == (3, data.n_items)
        True
    """
    config = run_config(config, **fields)
    if out is None and resume:
        raise ConfigError("a run is resumed in its folder, found none; pass out.")
    with Execution.of(device).begin() as execution, ExitStack() as stack:
        _check_same(dataset, config, execution, out, resume=resume)
        folder = None
        if out is not None:
            folder = RunFolder(out, config, dataset, execution, resume=resume)
            stack.enter_context(folder)
            if folder.model.exists():
                return TrainedModel.load(folder.model, execution.device)
        identity = new_identity(execution.world) if folder is None else folder.identity
        if isinstance(config.model, ClosedFormConfig):
            network, summary = _fitted(config.model, dataset, execution), dict[str, Any]()
        else:
            loop = TrainingLoop(dataset, config, execution, folder, checkpoint_seconds)
            network, summary = _trained(loop, progress if execution.world.leads else silent)
        provenance = {"dataset": dataset.fingerprint, **identity.to_json(), **summary}
        model = _model(network, config, dataset, provenance)
        if folder is not None and execution.world.leads:
            model.save(folder.model)
            folder.checkpoint.unlink(missing_ok=True)
        execution.world.barrier()
    return model


def _check_same(
    dataset: Dataset,
    config: RunConfig,
    execution: Execution,
    out: str | Path | None,
    *,
    resume: bool,
) -> None:
    """Every process of a launch must be asked for the same."""
    arguments = {
        "config": config.as_json(),
        "dataset": dataset.fingerprint,
        "precision": execution.precision,
        "out": str(out),
        "resume": resume,
    }
    execution.world.check_same("arguments", json.dumps(arguments))


def _fitted(model: ClosedFormConfig, dataset: Dataset, execution: Execution) -> Network:
    network = model.fit(dataset.train).to(execution.device)
    share_state(network, execution.world)
    return network


def _trained(loop: TrainingLoop, progress: Progress) -> tuple[Network, dict[str, Any]]:
    with StopRequest(active=loop.folder is not None) as stop:
        while not loop.finished():
            for users, part in loop.batches():
                loop.advance(users, part)
                loop.pause(stop)
                progress(loop.update())
            entry = loop.close_epoch()
            log.info(_in_words(entry), extra={"progress": True, "epoch": entry})
            loop.pause(stop)
            progress(loop.update(entry))
    if loop.folder is not None and "anchors" in loop.best:
        loop.folder.keep_anchors(loop.best["anchors"])
    position = loop.position
    summary = {"best_epoch": position.best_epoch, "best_validation": position.best_value}
    return loop.best_network(), summary


def _model(
    network: Network, config: RunConfig, dataset: Dataset, provenance: dict[str, Any]
) -> TrainedModel:
    popularity = np.asarray(dataset.train.sum(axis=0), dtype=np.int64)
    return TrainedModel(
        network.eval(), config.served(), dataset.items, dataset.titles, popularity, provenance
    )


def _in_words(entry: dict[str, Any]) -> str:
    terms = [f"{name} {entry[name]:.4g}" for name in ("loss", "nll", "kl", "pia") if name in entry]
    terms += [f"{name} {value:.4f}" for name, value in entry.get("validation", {}).items()]
    return f"epoch {entry['epoch']}: {', '.join(terms)}, best epoch {entry['best_epoch']}"
