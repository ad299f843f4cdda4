"""irspack's MultVAE (JAX, dm-haiku, optax), its own trainer. Compiling does not count: it is done
before.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from irspack.recommenders.multvae import MultVAERecommender
from irspack_multvae import PAPER
from quality import Task, learn, read_task
from scipy.sparse import csr_matrix


class Irspack:
    """The learner.

    Args:
        task: What to learn.
    """

    def __init__(self, task: Task) -> None:
        np.random.seed(0)
        self.recommender = MultVAERecommender(task.histories, **(PAPER if task.paper else {}))
        self.recommender.start_learning()
        self.trainer = self.recommender.trainer
        self._compile()

    def _compile(self) -> None:
        """Takes a step with each size of batch and throws away what comes of it."""
        trainer, n_users = self.trainer, self.trainer.n_users
        for size in {min(n_users, trainer.minibatch_size), n_users % trainer.minibatch_size} - {0}:
            x, beta = jnp.zeros((size, trainer.n_items)), jnp.asarray(0.0)
            state = trainer.params, jax.random.PRNGKey(0), trainer.opt_state
            jax.block_until_ready(trainer.update_function(*state, x, beta, trainer.dropout_p))

    def epochs(self) -> Iterator[None]:
        """Trains."""
        while True:
            self.recommender.run_epoch()
            # JAX returns before the work is done.
            jax.block_until_ready(self.trainer.params)
            yield

    def score(self, histories: csr_matrix) -> np.ndarray:
        """The logarithms of the soft-max."""
        scores: np.ndarray = self.recommender.get_score_cold_user(histories)
        return scores


if __name__ == "__main__":
    task = read_task()
    learn(Irspack(task), task, ("irspack", "jax", "dm-haiku", "optax"))
