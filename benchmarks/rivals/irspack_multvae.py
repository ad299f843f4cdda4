"""irspack's MultVAE (JAX, dm-haiku, optax), its own trainer and epochs.

Equal in architecture and, as far as its code was read, in objective; it is compiled during the
warm-up. An epoch is shortened to the first users of the (shuffled) histories, a whole number of
batches, so that one shape is compiled.
"""

import jax
import numpy as np
from irspack.recommenders.multvae import MultVAERecommender
from worker import BATCH, BETA, DROPOUT, HIDDEN, LATENT, LEARNING_RATE, read_task, rounds

PAPER = {
    "dim_z": LATENT,
    "enc_hidden_dims": HIDDEN,
    "dropout_p": DROPOUT,
    "kl_anneal_goal": BETA,
    "minibatch_size": BATCH,
    "learning_rate": LEARNING_RATE,
}
"""Liang et al.'s settings by irspack's names. β rises over 50 epochs, as irspack has it."""


def main() -> None:
    """Trains in rounds."""
    task = read_task()
    np.random.seed(0)
    recommender = MultVAERecommender(task.histories, **PAPER)
    recommender.start_learning()
    trainer = recommender.trainer
    trainer.n_users = task.round_users
    for _ in rounds(task.round_users, ("irspack", "jax", "dm-haiku", "optax")):
        recommender.run_epoch()
        # JAX returns before the work is done.
        jax.block_until_ready(trainer.params)


if __name__ == "__main__":
    main()
