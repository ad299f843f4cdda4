"""The network of sparse item × item weights, and three ways to come by them: neighbours, random
walks and SLIM, all fitted by irspack (decision 7).
"""

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, csr_matrix, diags_array
from torch import Tensor

from coterie.errors import ConfigError
from coterie.extras import require
from coterie.networks.network import Network
from coterie.sparse import SparseRows, gather_sum

# Users whose products are added up at once: few enough for the processor's cache, which makes it
# twice as fast.
_USERS_AT_ONCE = 16
# Times popularity it is what an item scores that has no weight with the history. Counts below 2²⁴
# stay apart and end below 2⁻⁹⁶, which adds nothing to a float32 above 2⁻⁷¹: real scores keep their
# bits.
_UNKNOWN = 2.0**-120
# The largest catalogue whose weights are shown as a dense matrix, 1 GiB of float32.
_DENSE_ITEMS = 2**14


class ItemItem(Network):
    """Scores x W for a sparse ``[n_items, n_items]`` W with an empty diagonal, kept as compressed
    rows.

    Most items have no weight with a short history. Their zeros say nothing, so that they are ranked
    by popularity: each scores its number of users times 2⁻¹²⁰, too little to move a real score.

    Memory and time grow with the number of weights. On CUDA the sums are taken in any order, so
    that the last bits of a score may differ from call to call.

    Args:
        weight: ``[n_items, n_items]``; an empty one takes as many weights as are loaded.
        popularity: ``[n_items]`` training users of each item; without it zeros stay zeros, as in
            models of version 0.1.0.

    Example:
        >>> model = ItemItem(csr_array([[0, 2, 0], [0, 0, 0.5], [0, 0, 0]]))
        >>> model.score(SparseRows.from_csr(csr_array([[1, 1, 0], [0, 0, 0]]))).tolist()
        [[0.0, 2.0, 0.5], [0.0, 0.0, 0.0]]
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    popularity: Tensor | None

    def __init__(self, weight: csr_array, popularity: np.ndarray | None = None) -> None:
        super().__init__()
        self.n_items = weight.shape[0]
        self.register_buffer("indptr", torch.from_numpy(weight.indptr.astype(np.int64)))
        self.register_buffer("indices", torch.from_numpy(weight.indices.astype(np.int64)))
        self.register_buffer("values", torch.from_numpy(weight.data.astype(np.float32)))
        counts = None if popularity is None else torch.from_numpy(popularity.astype(np.float32))
        self.register_buffer("popularity", counts)

    @classmethod
    def empty(cls, n_items: int) -> "ItemItem":
        """One without weights, which takes as many as are loaded."""
        return cls(csr_array((n_items, n_items)))

    def score(self, rows: SparseRows) -> Tensor:
        """``[n_users, n_items]``: the rows of W summed over the history; popularity, scaled to next
        to nothing, where there are none.
        """
        scores, weight = self._unknown.repeat(len(rows), 1), self._weight
        for users in torch.split(torch.arange(len(rows), device=scores.device), _USERS_AT_ONCE):
            block = rows.take(users)
            terms = weight.take(block.indices)
            assert terms.values is not None
            place = torch.repeat_interleave(
                users[block.row] * self.n_items, terms.counts, output_size=len(terms.indices)
            )
            scores.view(-1).index_add_(0, place + terms.indices, terms.values)
        return scores

    def score_items(self, rows: SparseRows, items: Tensor) -> Tensor:
        """``[n_users, m]``, by the weights between the histories' items and these."""
        local, met = rows.compact()
        terms, (wanted, column) = self._weight.take(met), torch.unique(items, return_inverse=True)
        assert terms.values is not None
        place = items.new_full((self.n_items,), -1)
        place[wanted] = torch.arange(len(wanted), device=place.device)
        found = place[terms.indices] >= 0
        weight = self.values.new_zeros(len(met), len(wanted))
        weight[terms.row[found], place[terms.indices[found]]] = terms.values[found]
        return gather_sum(local, weight)[:, column] + self._unknown[items]

    @property
    def _weight(self) -> SparseRows:
        return SparseRows(self.indices, self.indptr, self.n_items, self.values)

    @property
    def _unknown(self) -> Tensor:
        """``[n_items]`` what an item scores that has no weight with the history."""
        if self.popularity is None:
            return self.values.new_zeros(self.n_items)
        return self.popularity * _UNKNOWN

    def item_vectors(self) -> Tensor:
        """``[n_items, n_items]``: what each item is scored from, the columns of W.

        Raises:
            ConfigError: if the catalogue is too large for a dense matrix.
        """
        if self.n_items > _DENSE_ITEMS:
            raise ConfigError(
                f"similar items by sparse weights need a dense matrix of at most {_DENSE_ITEMS}"
                f" items, found {self.n_items}; use mult-vae, mult-dae or ials."
            )
        vectors = self.values.new_zeros(self.n_items, self.n_items)
        vectors[self.indices, SparseRows(self.indices, self.indptr, self.n_items).row] = self.values
        return vectors

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Takes over as many weights as there are, if they make a matrix."""
        for name in ("indices", "values"):
            if (value := state_dict.get(prefix + name)) is not None:
                setattr(self, name, self.get_buffer(name).new_empty(value.shape))
        if prefix + "popularity" in state_dict:
            self.popularity = self.values.new_empty(self.n_items)
        super()._load_from_state_dict(state_dict, prefix, *args)
        weight = SparseRows(self.indices, self.indptr, self.n_items)
        if not weight.is_sound() or self.values.shape != self.indices.shape:
            errors: list[str] = args[-1]
            errors.append(
                f"indptr, indices and values must be a matrix of {self.n_items} rows and columns,"
                " found they are not."
            )


def fit_knn(train: csr_array, neighbours: int, shrinkage: float, *, bm25: bool) -> ItemItem:
    """Neighbours by cosine, of a ``[n_users, n_items]`` binary matrix.

    The library keeps the best of each row; transposed, each item is scored from the items closest
    to it.

    References:
        Deshpande and Karypis (2004); Robertson et al. (1995) for BM25, k1 = 1.2, b = 0.75.
    """
    options = {
        "normalize": True,
        "shrinkage": shrinkage,
        "top_k": neighbours,
        "feature_weighting": "BM_25" if bm25 else "NONE",
    }
    return _network(_cosines(csr_matrix(train, dtype=np.float64), **options), train)


def fit_rp3beta(train: csr_array, neighbours: int, alpha: float, beta: float) -> ItemItem:
    """W_ij = Σ_u (1 / n_i)^α (1 / n_u)^α / n_j^β over the users u of both, the best of each column.

    The library's own RP3beta has no use for α on binary data: it raises the entries, not the
    probabilities, to it. As the best of a column do not depend on its scale, they are those of a
    product X'ᵀX' of weighted histories.

    References:
        Paudel et al. (2017), section 4.
    """
    n_u, n_i = (np.maximum(train.sum(axis=axis, dtype=np.float64), 1) for axis in (1, 0))
    weighted = (
        diags_array(n_u ** (-alpha / 2)) @ train.astype(np.float64) @ diags_array(n_i**-alpha)
    )
    product = _cosines(csr_matrix(weighted), normalize=False, top_k=neighbours)
    return _network(product @ diags_array(n_i ** (alpha - beta)), train)


def fit_slim(train: csr_array, l1: float, l2: float, *, nonnegative: bool) -> ItemItem:
    """Minimises ½‖X - X B‖² + l2 ½‖B‖² + l1 |B| with a zero diagonal, item by item.

    With more than one thread the weights differ from fit to fit by as much as the solver's
    tolerance, 1e-4.

    References:
        Ning and Karypis (2011), equation 3.
    """
    # The library takes the sum of both weights per user, and the first one's share.
    total = l1 + l2
    recommender = _library().SLIMRecommender(
        csr_matrix(train, dtype=np.float64),
        alpha=total / train.shape[0],
        l1_ratio=l1 / total,
        positive_only=nonnegative,
        n_threads=torch.get_num_threads(),
    )
    return _network(recommender.learn().W, train)


def _library() -> Any:
    return require("irspack", "baselines", "item-knn, rp3beta and slim")


def _cosines(matrix: csr_matrix, **options: Any) -> csr_matrix:
    """The library's cosines, the best of each column."""
    recommender = _library().CosineKNNRecommender(
        matrix, **options, n_threads=torch.get_num_threads()
    )
    return recommender.learn().W.T


def _network(weight: Any, train: csr_array) -> ItemItem:
    weight = csr_array(weight)
    weight.eliminate_zeros()
    weight.sort_indices()
    return ItemItem(weight, train.sum(axis=0))
