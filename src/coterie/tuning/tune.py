"""Tuning a model on the validation users: trials one after the other here, or shared among
processes.
"""

from pathlib import Path

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.errors import ConfigError
from coterie.evaluation.metrics import Metric
from coterie.files import local
from coterie.running.execution import Execution
from coterie.running.progress import Progress, silent
from coterie.tuning.processes import share
from coterie.tuning.result import TuningResult
from coterie.tuning.space import Space, check_space, configured, own_space
from coterie.tuning.study import Pruner, StudyFolder, Terms
from coterie.tuning.work import Effort, work


def tune(
    dataset: Dataset,
    base: RunConfig | None = None,
    *,
    out: str | Path,
    search: Space | None = None,
    n_trials: int = 50,
    jobs: int = 1,
    metric: str | None = None,
    pruner: Pruner = "median",
    seed: int = 0,
    device: Execution | str = "auto",
    keep: bool = False,
    command: str | None = None,
    progress: Progress = silent,
) -> TuningResult:
    """Searches a model's configurations for the one with the best metric on the validation users;
    test users take no part.

    The first trial is ``base`` where the space has it, the next ones are drawn, and from the
    eleventh on Optuna's tree-structured Parzen estimator proposes. The same call goes on with a
    study that was interrupted, killed even: finished trials count, an unfinished one goes on from
    its checkpoint. Any number of calls may share a study. One that runs alone, interrupted or not,
    tries the same configurations as any other with the same arguments.

    Args:
        dataset: With validation cases.
        base: What the searched fields are varied of; a Mult-VAE with its defaults if None.
        out: Folder of the study (see `coterie.tuning.study`).
        search: From ``"model.pia"`` and its like to a `SearchRange` or a `SearchChoice`;
            ``SEARCH`` of the configuration's classes if None.
        n_trials: Of the whole study. More of them than before go on with it.
        jobs: Processes that work at once; above 1 the data set must be one that was loaded from a
            folder.
        metric: On the validation users, also for choosing the best epoch; by default
            ``base.training.metric``.
        pruner: ``"median"`` ends a trial whose best value so far is below the median of the others'
            at its epoch, from the sixth trial on and not in the first tenth of its epochs.
        seed: Of the search; that of training is ``base.training.seed`` in every trial.
        device: As for `train`.
        keep: Keep the models of finished trials; they take much room and their configuration gives
            them again.
        command: What to name as the origin in best.toml.
        progress: Called after each trial that finishes with their number and the best so far.

    Raises:
        ConfigError: if the space is refused, there is nothing to validate on, or the study is
            another one's.
        Interrupted: if a signal asked for a stop.

    Example:
        >>> import tempfile
        >>> from coterie.simulation.service import simulate_dataset
        >>> from coterie.models.fields import SearchRange
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> ease = RunConfig.of({"model": {"name": "ease", "l2": 1}})
        >>> space = {"model.l2": SearchRange(1, 1000, log=True)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = tune(data, ease, out=folder, search=space, n_trials=4)
        >>> result.summary(), result.trials[0].values, result.config.model.l2 > 1
        ('4 trials: 4 complete', {'model.l2': 1.0}, True)
    """
    base = base or RunConfig()
    terms = _terms(dataset, base, search, metric, pruner, seed)
    if not len(dataset.cases(Part.VALIDATION).user_index):
        raise ConfigError(
            "tuning chooses by validation users, the data set has none; prepare it with"
            " --held-out-users or a share."
        )
    if n_trials < 1 or jobs < 1:
        raise ConfigError(
            f"trials and jobs must be at least 1, found {n_trials} and {jobs}; choose larger ones."
        )
    effort = Effort(n_trials, Execution.of(device).resolved(), keep, command)
    study = StudyFolder(local(out), terms)
    if jobs > 1:
        share(study, dataset.folder, effort, jobs, progress)
    else:
        work(study, dataset, effort, progress)
    return study.publish(command)


def _terms(
    dataset: Dataset,
    base: RunConfig,
    search: Space | None,
    metric: str | None,
    pruner: Pruner,
    seed: int,
) -> Terms:
    if pruner not in ("median", "none"):
        raise ConfigError(f"pruner must be median or none, found {pruner!r}; choose one.")
    metric = Metric.parse(metric or base.training.metric).name
    if not base.network_free():
        base = configured(base, {"training.metric": metric})
    space = own_space(base) if search is None else search
    check_space(base, space)
    return Terms(dataset.fingerprint, base, space, metric, pruner, seed)
