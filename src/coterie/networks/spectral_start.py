"""The spectral start: an autoencoder that begins as a truncated singular value decomposition.

Random weights have to find first what a decomposition finds in seconds: the directions in which
histories differ most.
"""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array

from coterie.networks.autoencoder import Autoencoder
from coterie.networks.spectrum import above_chance, normalised, singular_vectors
from coterie.sparse import SparseRows

# Users whose likelihood scales the last layer, of as many logits as take 256 MiB.
_MOST_USERS, _MOST_LOGITS = 1000, 2**26


def start_spectrally(network: Autoencoder, train: csr_array, rank: int = 0) -> None:
    """Sets weights so that the network ranks as the leading singular vectors V of the normalised
    interactions do: log popularity + c · V g(σ · Vᵀ D_i^-½ x̂), where g is what the activations make
    of it.

    σ brings the largest standard deviation of a hidden unit to 1; c makes the training histories
    most likely. Units beyond the rank stay as they were drawn, and the last layer's weights of them
    are 0 at first, so that they add no noise.

    Args:
        network: On the CPU, where every device's training starts from the same weights.
        train: ``[n_users, n_items]`` binary interactions.
        rank: Vectors at most; a network may take fewer (`Autoencoder.n_carried`). 0 takes those
            whose singular values stand out from chance.

    Example:
        >>> from coterie.networks.multvae import MultVAE
        >>> train = csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]])
        >>> network = MultVAE(4, (3,), 2, torch.Generator().manual_seed(1))
        >>> start_spectrally(network, train, rank=2)
        >>> scores = network.score(SparseRows.from_csr(csr_array([[1, 0, 0, 0]])))[0]
        >>> bool(scores[:2].min() > scores[2:].max())
        True
    """
    most = min(rank or network.n_carried, network.n_carried)
    values, vectors = singular_vectors(normalised(train), most)
    vectors = vectors if rank else vectors[:, : above_chance(train, values)]
    network.carry(torch.from_numpy(_first_layer(vectors, train)))
    popularity = train.sum(axis=0, dtype=np.float64) + 1
    last = torch.from_numpy(vectors)
    with torch.no_grad():
        network.output.bias.copy_(torch.from_numpy(np.log(popularity / popularity.sum())))
        network.output.weight.zero_()
        network.output.weight[:, : last.shape[1]] = last
        network.output.weight.mul_(_likeliest_scale(network, train))


def _first_layer(vectors: np.ndarray, train: csr_array) -> np.ndarray:
    """``[n_items, k]``: D_i^-½ V, so that no hidden unit's standard deviation is above 1."""
    by_item, by_user = (np.maximum(train.sum(axis=axis), 1) ** -0.5 for axis in (0, 1))
    weight = vectors * by_item[:, None].astype(np.float32)
    hidden = (train.astype(np.float32) @ weight) * by_user[:, None]
    largest = hidden.std(axis=0).max(initial=0)
    scaled: np.ndarray = weight / largest if largest > 0 else weight
    return scaled


def _likeliest_scale(network: Autoencoder, train: csr_array) -> float:
    """By which the last layer's weights make histories most likely; the likelihood is concave in
    it.
    """
    n_users = min(len(train.indptr) - 1, _MOST_USERS, max(_MOST_LOGITS // network.n_items, 1))
    rows = SparseRows.from_csr(train[np.linspace(0, train.shape[0] - 1, n_users).astype(int)])
    hidden = network.decode_hidden(network.point(rows))
    logits, bias = hidden @ network.output.weight.t(), network.output.bias
    of_history = logits[rows.row, rows.indices].sum()

    def nll(scale: float) -> float:
        normalizers = torch.logsumexp(scale * logits + bias, dim=1)
        return float((rows.counts * normalizers).sum() - scale * of_history)

    return float(minimize_scalar(nll, bracket=(0, 1), tol=1e-3).x)
