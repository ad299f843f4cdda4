"""Coterie's top 100 of every user: encoding of the histories, product, seen items left out,
selection; initial weights.
"""

import numpy as np
import torch
from worker import HIDDEN, LATENT, read_task, rounds

from coterie.config import RunConfig
from coterie.data.ids import IdMap
from coterie.models.multvae import MultVAEConfig
from coterie.ranking.ranker import Ranker
from coterie.training.trained_model import TrainedModel

K, USERS_A_BLOCK = 100, 1000


def main() -> None:
    """Ranks in rounds."""
    task = read_task()
    config = MultVAEConfig(hidden_dims=(HIDDEN,), latent_dim=LATENT)
    network = config.build(task.n_items, torch.Generator().manual_seed(0)).eval()
    nobody = np.zeros(task.n_items, dtype=np.int64)
    ranker = Ranker(
        TrainedModel(network, RunConfig(model=config), IdMap.of(range(task.n_items)), None, nobody),
        K,
    )
    for _ in rounds(task.round_users, ("coterie", "torch")):
        for start in range(0, task.round_users, USERS_A_BLOCK):
            block = task.histories[start : min(start + USERS_A_BLOCK, task.round_users)]
            ranker.rank(block, seen=block)


if __name__ == "__main__":
    main()
