"""Trained models, from where they were saved."""

from pathlib import Path

from coterie.running.execution import Execution
from coterie.training.trained_model import TrainedModel


def load(folder: str | Path, device: Execution | str = "auto") -> TrainedModel:
    """Reads the model in a run folder or a model folder, without the training data.

    Args:
        folder: From ``train(..., out=folder)``, ``coterie train`` or `TrainedModel.save`.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …; ``"auto"`` is CUDA where there is one.

    Raises:
        ArtifactError: if there is no model, it is damaged, or of another schema version.
        ConfigError: if the device is not there.

    Example:
        >>> import tempfile
        >>> from coterie.config import RunConfig
        >>> from coterie.simulation.service import simulate_dataset
        >>> from coterie.training.trainer import train
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train(data, RunConfig.of({"model": {"name": "ease"}})).save(folder)
        ...     load(folder).n_items == data.n_items
        True
    """
    return TrainedModel.load(folder, Execution.of(device).resolved().device)
