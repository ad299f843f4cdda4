"""Cornac's VAECF: its own `learn` from its own data set, paused between rounds.

Not equal: it has no dropout and does not normalise its input (less work a step), keeps beta
constant, does not shuffle, and takes the logarithm of the soft-max plus 1e-10 (more work a step).
Layers and batch are equal.
"""

from collections.abc import Iterator
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import torch
from cornac.data import Dataset
from cornac.models.vaecf.vaecf import VAE, learn
from worker import BATCH, BETA, HIDDEN, LATENT, LEARNING_RATE, Task, read_task, rounds


def cornac_dataset(task: Task) -> Any:
    """The histories as Cornac holds them; built from arrays, as its `Dataset.build` takes them one
    by one.
    """
    pairs = task.histories.tocoo()
    triples = (
        pairs.row.astype(np.int64),
        pairs.col.astype(np.int64),
        pairs.data.astype(np.float64),
    )
    users, items = ({i: i for i in range(n)} for n in task.histories.shape)
    return Dataset(task.n_users, task.n_items, users, items, triples)


def main() -> None:
    """Trains in rounds: one call of `learn`, whose data set hands out batches when a round is asked
    for.
    """
    task = read_task()
    torch.manual_seed(0)
    data = cornac_dataset(task)
    epoch = data.user_iter

    def paced(batch_size: int, shuffle: bool) -> Iterator[np.ndarray]:
        epochs = chain.from_iterable(epoch(batch_size, shuffle) for _ in repeat(None))
        full = (batch for batch in epochs if len(batch) == batch_size)
        for _ in rounds(task.round_users, ("cornac", "torch")):
            yield from islice(full, task.round_batches)

    data.user_iter = paced
    vae = VAE(LATENT, [task.n_items, HIDDEN], "tanh", "mult")
    learn(
        vae, data, n_epochs=1, batch_size=BATCH, learn_rate=LEARNING_RATE, beta=BETA, verbose=False
    )


if __name__ == "__main__":
    main()
