"""Coterie's Mult-VAE: the steps of `coterie.train`, without its validation and checkpoints."""

from itertools import islice

import torch
from worker import BETA, DROPOUT, HIDDEN, LATENT, LEARNING_RATE, read_task, rounds

from coterie.config import TrainingConfig
from coterie.models.multvae import MultVAEConfig
from coterie.running.execution import Execution, Precision
from coterie.sparse import SparseRows
from coterie.training.step import TrainingStep


def main(precision: Precision = "float32") -> None:
    """Trains in rounds."""
    task = read_task()
    rows = SparseRows.from_csr(task.histories)
    config = MultVAEConfig(
        hidden_dims=(HIDDEN,), latent_dim=LATENT, keep_prob=1 - DROPOUT, beta=BETA
    )
    training = TrainingConfig(learning_rate=LEARNING_RATE)
    step = TrainingStep(task.n_items, config, training, Execution("cpu", precision=precision))
    batches = task.full_batches()
    for _ in rounds(task.round_users, ("coterie", "torch")):
        for users in islice(batches, task.round_batches):
            step(rows.take(torch.from_numpy(users)))


if __name__ == "__main__":
    main()
