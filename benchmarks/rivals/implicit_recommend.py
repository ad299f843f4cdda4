"""implicit's `recommend`: the top 100 of every user, seen items left out, from factors as wide as
Coterie's last layer.

The factors are random, which changes no product and hardly the selection. One call takes 1,000
users and shares them out to threads itself, so that each thread's own products run on one.
"""

import os

import numpy as np
from implicit.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits
from worker import HIDDEN, read_task, rounds

K, USERS_A_CALL = 100, 1000


def main() -> None:
    """Recommends in rounds."""
    task = read_task()
    rng = np.random.default_rng(0)
    model = AlternatingLeastSquares(
        factors=HIDDEN, use_gpu=False, num_threads=len(os.sched_getaffinity(0))
    )
    model.user_factors = rng.standard_normal((task.n_users, HIDDEN), dtype=np.float32)
    model.item_factors = rng.standard_normal((task.n_items, HIDDEN), dtype=np.float32)
    with threadpool_limits(1, "blas"):
        for _ in rounds(task.round_users, ("implicit", "numpy")):
            for start in range(0, task.round_users, USERS_A_CALL):
                users = np.arange(start, min(start + USERS_A_CALL, task.round_users))
                model.recommend(users, task.histories[users], N=K, filter_already_liked_items=True)


if __name__ == "__main__":
    main()
