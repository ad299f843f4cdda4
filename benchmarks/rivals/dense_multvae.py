"""The Mult-VAE step as it is usually written in PyTorch: `dense_step` of
coterie.lab.bench.training_step on shuffled batches.
"""

import numpy as np
from worker import BATCH, DROPOUT, HIDDEN, LATENT, Task, read_task, rounds

from coterie.lab.bench.training_step import dense_step
from coterie.models.multvae import MultVAEConfig


class NextBatch:
    """Stands for the matrix of one batch where `dense_step` reads one: a new batch at every
    reading.

    Args:
        task: Where the batches come from.
    """

    def __init__(self, task: Task) -> None:
        self.shape = (BATCH, task.n_items)
        self._histories, self._batches = task.histories, task.full_batches()

    def toarray(self) -> np.ndarray:
        """``[batch, n_items]`` float32."""
        rows: np.ndarray = self._histories[next(self._batches)].toarray()
        return rows


def main() -> None:
    """Trains in rounds."""
    task = read_task()
    step = dense_step(
        NextBatch(task),
        MultVAEConfig(hidden_dims=(HIDDEN,), latent_dim=LATENT, keep_prob=1 - DROPOUT),
        "cpu",
    )
    for _ in rounds(task.round_users, ("torch",)):
        for _ in range(task.round_batches):
            step()


if __name__ == "__main__":
    main()
