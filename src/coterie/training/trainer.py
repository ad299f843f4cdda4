"""Training: a data set and a configuration in, a trained model out."""

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.errors import ConfigError, ConflictError
from coterie.files import local
from coterie.models.kinds import ClosedFormConfig, ModelConfig
from coterie.networks.network import Network
from coterie.running.execution import Execution
from coterie.running.interrupt import StopRequest
from coterie.running.progress import Progress, silent
from coterie.training.chosen import Chosen, check_validates
from coterie.training.loop import TrainingLoop, share_state
from coterie.training.run_config import TrainingFields, check_parent, run_config
from coterie.training.run_folder import VALIDATED, RunFolder, new_identity
from coterie.training.trained_model import TrainedModel
from coterie.training.warm_start import WarmStart

log = logging.getLogger(__name__)


def train(
    dataset: Dataset,
    config: RunConfig | ModelConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    refit: bool = False,
    warm_from: WarmStart | TrainedModel | str | Path | None = None,
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
        refit: Whether to train once more, on everybody, as the function `refit` does after this
            one. The model returned, and that of ``out``, is then the one that has seen all; the
            validated run, whole, is ``out/validated``: measure that one.
        warm_from: A trained model, or the folder of one or of a run, from whose weights training
            starts (`WarmStart`): its layers must be those of ``config``, its catalogue may be
            another. ``start`` of the configuration is then ``"warm"``: β goes on from where it was,
            Adam begins anew, weights are multiplied by ``shrink``. A run that is resumed needs it
            no longer; if it is given and there, it must be the same.
        device: The name of a device, or an `Execution` that also says threads and precision.
        progress: Called after every step with the epochs done, and after every epoch with its line
            of the history as facts. What it raises ends the run, which can be resumed.
        checkpoint_seconds: From one checkpoint to the next; a SIGKILL loses at most so much work.
        fields: Single fields of the training, over what ``config`` says: ``epochs=5``.

    Raises:
        ConfigError: if the arguments contradict one another, the run in ``out`` or those of another
            process, ``refit`` has no validation users to choose the number of epochs by, or
            ``warm_from`` does not fit.
        NotFoundError: if ``warm_from`` is not there.
        ArtifactError: if it is damaged.
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
    config = run_config(config, warm=warm_from is not None, **fields)
    _check_places(out, resume=resume, refit=refit)
    if refit:
        check_validates(dataset, config)
    warm = _found(warm_from, resume=resume)
    if warm is not None:
        warm.check(config, dataset)
    with Execution.of(device).begin() as execution:
        execution.world.check_same("refit", str(refit))
        work = _Work(execution, resume, progress, checkpoint_seconds, warm)
        if not refit:
            return work.train(dataset, config, out)
        validated = work.train(dataset, config, None if out is None else Path(out) / VALIDATED)
        return work.refit(Chosen.of(validated.config, validated.provenance), dataset, out)


def refit(
    run: str | Path,
    dataset: Dataset,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    warm_from: WarmStart | TrainedModel | str | Path | None = None,
    device: Execution | str = "auto",
    progress: Progress = silent,
    checkpoint_seconds: float = 60.0,
) -> TrainedModel:
    """Trains a finished run's configuration once more, from new weights, on everybody in a data
    set: for production, after all is chosen.

    Nobody is left to measure the model on; the run says how good it is. The data set may be the
    run's own or a later one. Every interaction of every user trains, whatever part it is in, for as
    many epochs as were best in the run, with its seed; a closed form is computed.

    Epochs are kept, not steps: each user is seen as often as in the run, and with more users there
    are more steps. What is scheduled goes by steps, as configured: β (``anneal_steps``) ends its
    rise after the same number of steps, which is earlier in the training, and where the run ended
    before that, β ends higher.

    Args:
        run: Folder of the run; a refit will do, too, and hands on what it took over.
        dataset: What to train on.
        out: As in `train`, like all that is not named here.
        resume: As in `train`.
        warm_from: As in `train`; needed by the refit of a run that had one, and the same.
        device: As in `train`.
        progress: As in `train`.
        checkpoint_seconds: As in `train`.

    Raises:
        NotFoundError: if the run is not there, or has not finished.
        ArtifactError: if it is damaged.
        ConfigError: if the number of epochs was not chosen by validation, and as in `train`.
        ConflictError: as in `train`.
        CannotWriteError: as in `train`.
        Interrupted: as in `train`.
        NumericalError: as in `train`.

    Example:
        >>> import tempfile
        >>> from coterie.models.ease import EaseConfig
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = train(data, EaseConfig(), out=folder)
        ...     model = refit(folder, data)
        >>> model.provenance["train_users"], data.n_users
        (300, 300)
    """
    _check_places(out, resume=resume)
    chosen, warm = Chosen.by(run), _found(warm_from, resume=resume)
    chosen.check_parent(warm)
    if warm is not None:
        warm.check(chosen.config, dataset)
    with Execution.of(device).begin() as execution:
        work = _Work(execution, resume, progress, checkpoint_seconds, warm)
        return work.refit(chosen, dataset, out)


def _found(
    warm_from: WarmStart | TrainedModel | str | Path | None, *, resume: bool
) -> WarmStart | None:
    """What a warm start begins with; a run that is resumed may have outlived it."""
    if warm_from is None:
        return None
    if resume and isinstance(warm_from, str | Path) and not local(warm_from).exists():
        return None
    return WarmStart.of(warm_from)


def _check_places(out: str | Path | None, *, resume: bool, refit: bool = False) -> None:
    """What only the second of two trainings would stumble over, or the first would pass over."""
    if out is None:
        if resume:
            raise ConfigError("a run is resumed in its folder, found none; pass out.")
        return
    begun, validated = ((Path(out) / name).exists() for name in ("config.json", VALIDATED))
    if refit and begun and not validated:
        found = "a run begun without a refit; choose another, or refit that run (--refit-of)."
    elif validated and not begun and not refit:
        found = "the first part of a refit; go on with it (--refit --resume), or choose another."
    else:
        return
    raise ConflictError(f"{out}: a run must have a folder of its own, this holds {found}")


@dataclass(frozen=True)
class _Work:
    """How a run is made.

    Args:
        execution: Where and how, begun.
        resume: As in `train`.
        progress: As in `train`.
        checkpoint_seconds: As in `train`.
        warm: What it starts from, if it is a trained model.
    """

    execution: Execution
    resume: bool
    progress: Progress
    checkpoint_seconds: float
    warm: WarmStart | None

    def refit(self, chosen: Chosen, dataset: Dataset, out: str | Path | None) -> TrainedModel:
        """Trains on everybody what a validated run chose."""
        return self.train(dataset.for_refit(), chosen.config, out, chosen.facts)

    def train(
        self,
        dataset: Dataset,
        config: RunConfig,
        out: str | Path | None,
        refit: Mapping[str, Any] | None = None,
    ) -> TrainedModel:
        """Trains once; ``refit`` is what was taken over from a validated run, if anything was."""
        execution, world = self.execution, self.execution.world
        warm: Mapping[str, Any] | None
        warm = None if self.warm is None else self.warm.facts(dataset.items)
        self._check_same(dataset, config, out, {"refit": refit, "warm": warm})
        with ExitStack() as stack:
            folder = None
            if out is not None:
                folder = RunFolder(
                    out, config, dataset, execution, resume=self.resume, refit=refit, warm=warm
                )
                stack.enter_context(folder)
                warm = folder.warm
                if folder.model.exists():
                    return TrainedModel.load(folder.model, execution.device)
            check_parent(config, warm)
            identity = new_identity(world, warm) if folder is None else folder.identity
            network, resolved, summary = self._network(dataset, config, folder, refit)
            provenance = {"dataset": dataset.fingerprint, **identity.to_json(), **summary}
            provenance |= warm or {}
            model = _model(network, resolved, dataset, provenance)
            if folder is not None and world.leads:
                model.save(folder.model)
                folder.checkpoint.unlink(missing_ok=True)
            world.barrier()
        return model

    def _network(
        self,
        dataset: Dataset,
        config: RunConfig,
        folder: RunFolder | None,
        refit: Mapping[str, Any] | None,
    ) -> tuple[Network, RunConfig, dict[str, Any]]:
        """The network, its configuration with nothing left open, and how it came to be."""
        execution, is_refit = self.execution, refit is not None
        if isinstance(config.model, ClosedFormConfig):
            network, summary = _fitted(config.model, dataset, execution), dict[str, Any]()
        else:
            loop = TrainingLoop(
                dataset,
                config,
                execution,
                folder,
                self.checkpoint_seconds,
                refit=is_refit,
                warm=self.warm,
            )
            network, summary = _trained(loop, self.progress if execution.world.leads else silent)
            config = loop.resolved(config)
        facts = {} if refit is None else _seen(dataset) | dict(refit)
        return network, config, summary | facts

    def _check_same(
        self,
        dataset: Dataset,
        config: RunConfig,
        out: str | Path | None,
        beginning: Mapping[str, Any],
    ) -> None:
        """Every process of a launch must be asked for the same."""
        arguments = {
            "config": config.as_json(),
            "dataset": dataset.fingerprint,
            "precision": self.execution.precision,
            "out": str(out),
            "resume": self.resume,
            **beginning,
        }
        self.execution.world.check_same("arguments", json.dumps(arguments))


def _seen(dataset: Dataset) -> dict[str, Any]:
    """That a refit has seen everybody, and how much that is."""
    n_users, n_interactions = dataset.train.shape[0], int(dataset.train.nnz)
    return {"refit": True, "train_users": n_users, "train_interactions": n_interactions}


def _fitted(model: ClosedFormConfig, dataset: Dataset, execution: Execution) -> Network:
    network = model.fit_timed(dataset.train, dataset.train_timestamps).to(execution.device)
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
    return loop.best_network(), loop.summary()


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
    stage = f"{entry['stage']}, " if "stage" in entry else ""
    return f"{stage}epoch {entry['epoch']}: {', '.join(terms)}, best epoch {entry['best_epoch']}"
