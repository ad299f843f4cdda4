"""RecBole's MultiVAE, its own data set, loader and trainer. Where it differs from Liang et al.'s is
told in recbole_multivae.py.
"""

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch
from quality import Task, learn, read_task
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender.multivae import MultiVAE
from recbole.trainer import Trainer
from recbole.utils import init_seed
from recbole_multivae import PAPER, configuration, write_atomic_file
from scipy.sparse import csr_matrix


class RecBole:
    """The learner.

    Args:
        task: What to learn.
        folder: For RecBole's files.
    """

    def __init__(self, task: Task, folder: Path) -> None:
        write_atomic_file(task.histories, folder)
        self.config = configuration(folder, PAPER if task.paper else {})
        init_seed(self.config["seed"], self.config["reproducibility"])
        data = create_dataset(self.config)
        self.loader, _, _ = data_preparation(self.config, data)
        # RecBole numbers items as they come, from 1.
        self.columns = data.token2id(data.iid_field, [str(i) for i in range(data.item_num - 1)])

    def epochs(self) -> Iterator[None]:
        """Trains."""
        self.model = MultiVAE(self.config, self.loader.dataset)
        trainer = Trainer(self.config, self.model)
        for epoch in count():
            trainer._train_epoch(self.loader, epoch)
            yield

    def score(self, histories: csr_matrix) -> np.ndarray:
        """The logits, in the order of the histories' columns."""
        x = torch.zeros(histories.shape[0], len(self.columns) + 1)
        x[:, self.columns] = torch.from_numpy(histories.toarray())
        self.model.eval()
        with torch.no_grad():
            scores: np.ndarray = self.model(x)[0][:, self.columns].numpy()
        return scores


if __name__ == "__main__":
    task = read_task()
    with tempfile.TemporaryDirectory() as folder:
        learn(RecBole(task, Path(folder)), task, ("recbole", "torch", "numpy"))
