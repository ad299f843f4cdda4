"""Sparse item × item weights: neighbours, random walks and SLIM, for catalogues where a dense
matrix has no place.

One network, three ways to come by its weights, all fitted by irspack (extra ``coterie[baselines]``,
decision 7).
"""

import warnings
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csc_matrix, csr_array, csr_matrix, diags_array
from torch import Tensor, nn

from coterie.errors import ConfigError
from coterie.models.fields import Choice, ModelConfig, PositiveInt, Range
from coterie.sparse import SparseRows

# Users whose products are added up at once: few enough for the processor's cache, which makes it
# twice as fast.
_USERS_AT_ONCE = 16
# The largest catalogue whose weights are shown as a dense matrix, 1 GiB of float32.
_DENSE_ITEMS = 2**14


class ItemKnnConfig(ModelConfig):
    """Neighbours by cosine: two items are alike if the same users have them."""

    name: Literal["item-knn"] = "item-knn"
    neighbours: PositiveInt = Field(
        200, description="items that each item is scored from, itself counted"
    )
    shrinkage: float = Field(
        0.0, ge=0, description="added to the cosine's denominator: doubts cosines of rare items"
    )
    weighting: Literal["none", "bm25"] = Field(
        "bm25", description="bm25 weighs the users of one of the two items, long histories less"
    )

    SEARCH: ClassVar = {
        "neighbours": Choice((50, 100, 200, 400, 800)),
        "shrinkage": Range(0, 100),
        "weighting": Choice(("none", "bm25")),
    }


class Rp3BetaConfig(ModelConfig):
    """Random walks of three steps, from an item over its users to their items, that shun popular
    items.
    """

    name: Literal["rp3beta"] = "rp3beta"
    neighbours: PositiveInt = Field(
        200, description="items that each item is scored from, itself counted"
    )
    alpha: float = Field(0.6, ge=0, description="exponent of each step's probability")
    beta: float = Field(
        0.2, ge=0, description="exponent of the popularity that a walk's end is divided by"
    )

    SEARCH: ClassVar = {
        "neighbours": Choice((50, 100, 200, 400, 800)),
        "alpha": Range(0.2, 1.2),
        "beta": Range(0, 0.8),
    }


class SlimConfig(ModelConfig):
    """SLIM: every item regressed on the others with an elastic net, which leaves few weights."""

    name: Literal["slim"] = "slim"
    l1: float = Field(
        1.0, gt=0, description="weight of |B| beside ½‖X - X B‖²: the larger, the sparser"
    )
    l2: float = Field(
        100.0, gt=0, description="weight of ½‖B‖² beside ½‖X - X B‖², which is EASE's λ"
    )
    nonnegative: bool = Field(True, description="whether weights are at least 0, as published")

    SEARCH: ClassVar = {
        "l1": Range(0.1, 20, log=True),
        "l2": Range(1, 1000, log=True),
        "nonnegative": Choice((True, False)),
    }


ItemItemConfig: TypeAlias = ItemKnnConfig | Rp3BetaConfig | SlimConfig


class ItemItem(nn.Module):
    """Scores x W for a sparse ``[n_items, n_items]`` W with an empty diagonal, kept as compressed
    rows.

    Memory and time grow with the number of weights. On CUDA the sums are taken in any order, so
    that the last bits of a score may differ from call to call.

    Args:
        weight: ``[n_items, n_items]``; an empty one takes the size of what is loaded.

    Example:
        >>> model = ItemItem(csr_array([[0, 2, 0], [0, 0, 0.5], [0, 0, 0]]))
        >>> model.score(SparseRows.from_csr(csr_array([[1, 1, 0], [0, 0, 0]]))).tolist()
        [[0.0, 2.0, 0.5], [0.0, 0.0, 0.0]]
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor

    def __init__(self, weight: csr_array) -> None:
        super().__init__()
        self.n_items = weight.shape[0]
        self.register_buffer("indptr", torch.from_numpy(weight.indptr.astype(np.int64)))
        self.register_buffer("indices", torch.from_numpy(weight.indices.astype(np.int64)))
        self.register_buffer("values", torch.from_numpy(weight.data.astype(np.float32)))

    @classmethod
    def fit(cls, train: csr_array, config: ItemItemConfig) -> "ItemItem":
        """Computes W from a ``[n_users, n_items]`` binary matrix, with as many threads as torch
        has.

        Raises:
            ConfigError: if the package irspack is missing.
        """
        library = _library()
        if isinstance(config, ItemKnnConfig):
            weight = _knn(library, train, config)
        elif isinstance(config, Rp3BetaConfig):
            weight = _rp3beta(library, train, config)
        else:
            weight = _slim(library, train, config)
        weight = csr_array(weight)
        weight.eliminate_zeros()
        weight.sort_indices()
        return cls(weight)

    def score(self, rows: SparseRows) -> Tensor:
        """``[n_users, n_items]``: the rows of W summed over the history."""
        scores = self.values.new_zeros(len(rows), self.n_items)
        weight = SparseRows(self.indices, self.indptr, self.n_items, self.values)
        for users in torch.split(torch.arange(len(rows), device=scores.device), _USERS_AT_ONCE):
            block = rows.take(users)
            terms = weight.take(block.indices)
            assert terms.values is not None
            place = torch.repeat_interleave(
                users[block.row] * self.n_items, terms.counts, output_size=len(terms.indices)
            )
            scores.view(-1).index_add_(0, place + terms.indices, terms.values)
        return scores

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
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not self._is_matrix():
            errors: list[str] = args[-1]
            errors.append(
                f"indptr, indices and values must be a matrix of {self.n_items} rows and columns,"
                " found they are not."
            )

    def _is_matrix(self) -> bool:
        rises = bool((self.indptr.diff() >= 0).all()) and int(self.indptr[0]) == 0
        fits = self.indices.shape == self.values.shape == (int(self.indptr[-1]),)
        return rises and fits and bool(((self.indices >= 0) & (self.indices < self.n_items)).all())


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            # Of an outdated way to configure pydantic, of no concern to whoever fits a model.
            warnings.simplefilter("ignore", DeprecationWarning)
            import irspack  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "item-knn, rp3beta and slim need the package irspack; pip install 'coterie[baselines]'."
        ) from error
    return irspack


def _knn(library: Any, train: csr_array, config: ItemKnnConfig) -> csr_matrix:
    """The library keeps the best of each row; transposed, each item is scored from the items
    closest to it.

    References:
        Deshpande and Karypis (2004); Robertson et al. (1995) for BM25, k1 = 1.2, b = 0.75.
    """
    weighting = {"none": "NONE", "bm25": "BM_25"}[config.weighting]
    options = {
        "normalize": True,
        "shrinkage": config.shrinkage,
        "top_k": config.neighbours,
        "feature_weighting": weighting,
    }
    recommender = library.CosineKNNRecommender(
        csr_matrix(train, dtype=np.float64), **options, n_threads=torch.get_num_threads()
    )
    return recommender.learn().W.T


def _rp3beta(library: Any, train: csr_array, config: Rp3BetaConfig) -> csr_matrix:
    """W_ij = Σ_u (1 / n_i)^α (1 / n_u)^α / n_j^β over the users u of both, the best of each column.

    The library's own RP3beta has no use for α on binary data: it raises the entries, not the
    probabilities, to it. As the best of a column do not depend on its scale, they are those of a
    product X'ᵀX' of weighted histories.

    References:
        Paudel et al. (2017), section 4.
    """
    n_u, n_i = (np.maximum(train.sum(axis=axis, dtype=np.float64), 1) for axis in (1, 0))
    weighted = (
        diags_array(n_u ** (-config.alpha / 2))
        @ train.astype(np.float64)
        @ diags_array(n_i**-config.alpha)
    )
    options = {"normalize": False, "top_k": config.neighbours, "n_threads": torch.get_num_threads()}
    product = library.CosineKNNRecommender(csr_matrix(weighted), **options).learn().W.T
    return product @ diags_array(n_i ** (config.alpha - config.beta))


def _slim(library: Any, train: csr_array, config: SlimConfig) -> csc_matrix:
    """Minimises ½‖X - X B‖² + l2 ½‖B‖² + l1 |B| with a zero diagonal, item by item.

    With more than one thread the weights differ from fit to fit by as much as the solver's
    tolerance, 1e-4.

    References:
        Ning and Karypis (2011), equation 3.
    """
    # The library takes the sum of both weights per user, and the first one's share.
    total = config.l1 + config.l2
    strength = {"alpha": total / train.shape[0], "l1_ratio": config.l1 / total}
    options = {"positive_only": config.nonnegative, "n_threads": torch.get_num_threads()}
    return (
        library.SLIMRecommender(csr_matrix(train, dtype=np.float64), **strength, **options)
        .learn()
        .W
    )
