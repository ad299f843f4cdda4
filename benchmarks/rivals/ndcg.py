"""NDCG as coterie.evaluation computes it, where there is no Coterie: NumPy alone."""

import numpy as np


def ndcg(scores: np.ndarray, fold_in: np.ndarray, held_out: np.ndarray, k: int) -> np.ndarray:
    """The NDCG@k of each user, folded-in items left out.

    Args:
        scores: ``[n, n_items]`` floats.
        fold_in: ``[n, n_items]`` bool, what the model was shown.
        held_out: ``[n, n_items]`` bool, what must be found; at least one in every row.

    Returns:
        ``[n]`` float64 in [0, 1].

    References:
        Liang et al. (2018), section 4.2.
    """
    left = np.where(fold_in, -np.inf, scores)
    k = min(k, left.shape[1])
    best = np.sort(np.argpartition(-left, k - 1, axis=1)[:, :k], axis=1)
    # Of equal scores in the list the lower item first; at its end it is left to chance.
    order = np.argsort(-np.take_along_axis(left, best, axis=1), axis=1, kind="stable")
    hits = np.take_along_axis(held_out, np.take_along_axis(best, order, axis=1), axis=1)
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = discount.cumsum()[np.minimum(held_out.sum(axis=1), k) - 1]
    values: np.ndarray = (hits * discount).sum(axis=1) / ideal
    return values
