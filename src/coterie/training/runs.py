"""A finished run, loaded: its model and the data set it was trained on, checked against each other.

`coterie.training.run_record` reads what a run folder says without loading either.
"""

from dataclasses import dataclass
from pathlib import Path

from coterie.data.dataset import Dataset
from coterie.errors import ConfigError
from coterie.running.execution import Execution
from coterie.training.run_folder import VALIDATED
from coterie.training.run_record import dataset_folder
from coterie.training.trained_model import TrainedModel


@dataclass(frozen=True, eq=False)
class Run:
    """A model and its data set.

    Args:
        folder: Of the run, or of the model alone.
        model: As it was trained.
        dataset: Whose training users it was trained on; a refit on all of its users.
    """

    folder: Path
    model: TrainedModel
    dataset: Dataset


def load_run(
    run: str | Path,
    data: str | Path | Dataset | None = None,
    device: Execution | str = "auto",
    *,
    in_sample: bool = False,
) -> Run:
    """Loads the model of a run and the data set that it was trained on, to measure or look into it.

    A refit was trained on the users that its data set holds out, and is refused: measured on them
    it looks better than it is.

    Args:
        run: Run folder, or a model's own folder, which does not say where its data set is.
        data: The data set or its folder, where it is no longer where the run was trained.
        device: Where the model is to live; ``"auto"`` is CUDA where there is one.
        in_sample: Whether a refit will do all the same.

    Raises:
        ArtifactError: if the model or the data set is missing or damaged.
        ConfigError: if the model is a refit, or was trained on another data set; if the run does
            not say where its data set is, or that folder is gone.

    Example:
        >>> import tempfile
        >>> from coterie.config import RunConfig
        >>> from coterie.simulation.service import simulate_dataset
        >>> from coterie.training.trainer import train
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = train(data, RunConfig.of({"model": {"name": "ease"}}), out=folder)
        ...     run = load_run(folder, data, device="cpu")
        >>> run.model.config.model.name, run.dataset.n_items
        ('ease', 60)
    """
    folder = Path(run)
    model = TrainedModel.load(folder, Execution.of(device).resolved().device)
    if model.is_refit and not in_sample:
        raise ConfigError(
            f"{run}: a run must be measured on users it was not trained on, this is a refit on"
            f" everybody; use the validated run ({folder / VALIDATED}, or that of --refit-of), or"
            " ask for values in sample (evaluate --in-sample, load_run(in_sample=True))."
        )
    dataset = data if isinstance(data, Dataset) else Dataset.load(data or dataset_folder(folder))
    trained_on = str(model.provenance.get("dataset"))
    found = (dataset.for_refit() if model.is_refit else dataset).fingerprint
    if found != trained_on:
        raise ConfigError(
            f"{run}: must be used with the data set it was trained on ({trained_on[:16]}), found"
            f" another data set ({found[:16]}); give the right one (--data)."
        )
    return Run(folder, model, dataset)
