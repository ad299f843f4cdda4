"""RecBole's MultiVAE: its own data set read from its own file format, data loader and trainer.

Not equal: the noise of its posterior has standard deviation 0.01 instead of 1 (the work is the
same). Its `latent_dimension` counts mean and log-variance together: 400 is a z of 200. RecBole is
of the time before NumPy 2.
"""

import tempfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender.multivae import MultiVAE
from recbole.trainer import Trainer
from recbole.utils import init_seed
from scipy.sparse import csr_matrix
from worker import BATCH, BETA, DROPOUT, HIDDEN, LATENT, LEARNING_RATE, read_task, rounds

NAME = "histories"


PAPER = {
    "mlp_hidden_size": [HIDDEN],
    "latent_dimension": 2 * LATENT,
    "dropout_prob": DROPOUT,
    "anneal_cap": BETA,
    "learning_rate": LEARNING_RATE,
    "train_batch_size": BATCH,
}
"""Liang et al.'s settings by RecBole's names."""


def write_atomic_file(histories: csr_matrix, folder: Path) -> None:
    """Writes the histories as ``NAME/NAME.inter``."""
    pairs = histories.tocoo()
    (folder / NAME).mkdir()
    with (folder / NAME / f"{NAME}.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\n")
        file.writelines(
            f"{user}\t{item}\n"
            for user, item in zip(pairs.row.tolist(), pairs.col.tolist(), strict=True)
        )


def configuration(folder: Path, settings: Mapping[str, Any] = PAPER) -> Any:
    """All users' histories for training; what is not in ``settings`` is as RecBole has it."""
    values = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "train_neg_sample_args": None,
        "eval_args": {
            "split": {"RS": [1, 0, 0]},
            "order": "RO",
            "group_by": "none",
            "mode": "full",
        },
        "use_gpu": False,
        "show_progress": False,
        **settings,
    }
    return Config(model="MultiVAE", dataset=NAME, config_dict=values)


def main() -> None:
    """Trains in rounds."""
    task = read_task()
    with tempfile.TemporaryDirectory() as folder:
        write_atomic_file(task.histories, Path(folder))
        config = configuration(Path(folder))
        init_seed(config["seed"], config["reproducibility"])
        loader, _, _ = data_preparation(config, create_dataset(config))
        trainer = Trainer(config, MultiVAE(config, loader.dataset))
        for epoch, _ in enumerate(rounds(task.round_users, ("recbole", "torch", "numpy"))):
            trainer._train_epoch(islice(loader, task.round_batches), epoch)


if __name__ == "__main__":
    main()
