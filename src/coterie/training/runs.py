"""A finished run, loaded: its model and the data set it was trained on, checked against each other.

`coterie.training.run_record` reads what a run folder says without loading either.
"""

from dataclasses import dataclass
from pathlib import Path

from coterie.data.dataset import Dataset
from coterie.errors import ConfigError
from coterie.running.execution import Execution
from coterie.training.run_record import dataset_folder
from coterie.training.trained_model import TrainedModel


@dataclass(frozen=True, eq=False)
class Run:
    """A model and its data set.

    Args:
        folder: Of the run, or of the model alone.
        model: As it was trained.
        dataset: Whose training users it was trained on.
    """

    folder: Path
    model: TrainedModel
    dataset: Dataset


def load_run(
    run: str | Path,
    data: str | Path | Dataset | None = None,
    device: Execution | str = "auto",
) -> Run:
    """Loads the model of a run and the data set that it was trained on.

    Args:
        run: Run folder, or a model's own folder, which does not say where its data set is.
        data: The data set or its folder, where it is no longer where the run was trained.
        device: Where the model is to live; ``"auto"`` is CUDA where there is one.

    Raises:
        ArtifactError: if the model or the data set is missing or damaged.
        ConfigError: if the model was trained on another data set, the run does not say where its
            data set is, or that folder is gone.

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
    dataset = data if isinstance(data, Dataset) else Dataset.load(data or dataset_folder(folder))
    trained_on = str(model.provenance.get("dataset"))
    if dataset.fingerprint != trained_on:
        raise ConfigError(
            f"{run}: must be used with the data set it was trained on ({trained_on[:16]}), found"
            f" another data set ({dataset.fingerprint[:16]}); give the right one (--data)."
        )
    return Run(folder, model, dataset)
