"""ImplicitSLIM: the items' vectors drawn to where a sparse linear model would put them.

It lets a network learn from item-item structure that gradients of whole histories find slowly, at
the cost of a few products with the interactions and without any matrix of items by items.
"""

import numpy as np
import torch
from scipy.sparse import csr_array

from coterie.networks.autoencoder import Autoencoder


def implicit_slim(vectors: np.ndarray, train: csr_array, l2: float) -> np.ndarray:
    """The vectors that a linear item-item model rebuilds best from each other, held as a whole
    where they were.

        V = argmin ‖(I - B)ᵀ V‖²  with  WᵀV = WᵀW

    B is EASE's with ridge λ, whose (I - B)(I - B)ᵀ has the inverse K = (G + λI) D² (G + λI), where
    G = RᵀR and D, the diagonal of (G + λI)⁻¹, is taken to be 1 / (n_i + λ). So
    V = K W (WᵀKW)⁻¹ WᵀW: each vector smoothed twice over the items it is consumed with, and all of
    them turned back.

    Args:
        vectors: ``[n_items, dim]`` W.
        train: ``[n_users, n_items]`` binary R.
        l2: λ, above 0.

    Returns:
        ``[n_items, dim]`` in the type of ``vectors``.

    References:
        Shenbin and Nikolenko, "ImplicitSLIM and How it Improves Embedding-based Collaborative
        Filtering" (ICLR 2024, arXiv 2406.00198), whose α is infinite here, and rare items are not
        left out.

    Example:
        >>> train = csr_array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
        >>> vectors = np.array([[1.0], [0.0], [0.5]])
        >>> implicit_slim(vectors, train, l2=1.0).round(2).tolist()
        [[1.07], [0.98], [0.37]]
    """
    ridge, by_item = vectors.dtype.type(l2), csr_array(train.T)
    popularity = train.sum(axis=0, dtype=np.float64)
    square = ((popularity + l2) ** -2.0).astype(vectors.dtype)[:, None]

    def with_ridge(w: np.ndarray) -> np.ndarray:
        product: np.ndarray = by_item @ (train @ w) + ridge * w
        return product

    smoothed = with_ridge(square * with_ridge(vectors))
    # What is as small as the vectors' dimension has room for all digits; a dimension of zeros has
    # no inverse and stays zero.
    wide = vectors.astype(np.float64)
    turn = np.linalg.pinv(wide.T @ smoothed, hermitian=True) @ (wide.T @ wide)
    drawn: np.ndarray = smoothed @ turn.astype(vectors.dtype)
    return drawn


def draw_together(network: Autoencoder, train: csr_array, l2: float) -> None:
    """`implicit_slim` of the first and the last layer's vectors of items.

    Args:
        network: On any device; its weights are moved in place.
        train: ``[n_users, n_items]`` binary interactions.
        l2: λ.
    """
    ones = train.astype(np.float32)
    for layer in (network.input, network.output):
        vectors = implicit_slim(layer.weight.detach().cpu().numpy(), ones, l2)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(vectors))
