"""Settings from run folders."""

from collections.abc import Sequence
from pathlib import Path

from coterie.data.dataset import Dataset
from coterie.errors import ConfigError
from coterie.lab.collaboration.analysis import AnalysisSetting
from coterie.running.execution import Execution
from coterie.training.run_folder import read_anchors
from coterie.training.runs import load_run


def load_settings(
    runs: Sequence[str], data: str | Path | None = None, device: Execution | str = "cpu"
) -> tuple[list[AnalysisSetting], Dataset]:
    """The models of run folders and the data set they were all trained on.

    Args:
        runs: Paths, or NAME=PATH; by default a setting is called like its folder, whose own name
            may have a "=" in it.
        data: Data set folder, where it is no longer where the runs were trained.
        device: Where the models are to live.

    Raises:
        ArtifactError: if a run is missing or damaged.
        ConfigError: if there is no run, two have one name, or they were trained on different data.

    Example:
        >>> import tempfile
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> from coterie.models.multvae import MultVAEConfig
        >>> from coterie.training.trainer import train
        >>> config = MultVAEConfig(hidden_dims=(20,), latent_dim=8, pia=0.3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.save(f"{folder}/data")
        ...     _ = train(Dataset.load(f"{folder}/data"), config, epochs=1, out=f"{folder}/run")
        ...     (setting,), _ = load_settings([f"pia={folder}/run"], f"{folder}/data")
        >>> setting.name, setting.anchors.shape
        ('pia', torch.Size([60, 8]))
    """
    named = [_named(run) for run in runs]
    names = [name for name, _ in named]
    if not named or len(set(names)) < len(names):
        raise ConfigError(
            f"an analysis needs runs of different names, found {', '.join(names) or 'none'}; name"
            " them as in masked=runs/1."
        )
    first = load_run(named[0][1], data, device)
    runs_of_one = [first, *(load_run(path, first.dataset, device) for _, path in named[1:])]
    settings = [
        AnalysisSetting(name, run.model, read_anchors(run.folder))
        for name, run in zip(names, runs_of_one, strict=True)
    ]
    return settings, first.dataset


def _named(run: str) -> tuple[str, Path]:
    """The name and the folder that NAME=PATH or a path asks for."""
    name, _, path = run.partition("=")
    return (
        (Path(run).resolve().name, Path(run))
        if not path or Path(run).is_dir()
        else (name, Path(path))
    )
