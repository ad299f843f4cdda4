"""The network of graph filters: a history smoothed by the interactions of all training users, and
sharpened again.
"""

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.networks.network import Network
from coterie.networks.spectrum import normalised, singular_vectors
from coterie.sparse import SparseRows, gather_sum

# Users whose scores are filtered at once: few enough for the processor's cache.
_USERS_AT_ONCE = 64


class GraphFilter(Network):
    """A history x is smoothed to y = x P + w · x Π. From there dy/dt = -y P sharpens it, for a time
    T; where that ends are the scores.

    P = R̃ᵀR̃, where R̃ are the training interactions divided by the roots of both degrees, is the
    linear filter. Π = D^-½ V Vᵀ D^½ is the ideal one, of the items' degrees D and the leading right
    singular vectors V of R̃. Sharpening is integrated by Runge and Kutta's classical method.

    P is never formed: a product with it is two sums over the interactions, so that time grows with
    their number. The network holds the interactions, though not whose they are. An item that
    nothing reaches scores 0; it is not ranked by popularity, as a w above 0 leaves hardly any.

    Args:
        n_items: Size of the catalogue.
        ideal_weight: w.
        time: T; 0 does not sharpen.
        steps: Of Runge–Kutta, at least 1.

    References:
        Shen et al. (2021) and their code for y; Choi et al. (2023) and theirs for sharpening.

    Example:
        >>> train = csr_array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
        >>> model = GraphFilter(4, ideal_weight=0.3).fit(train, rank=2)
        >>> model.score(SparseRows.from_csr(csr_array([[1, 0, 0, 0]]))).argsort().tolist()
        [[3, 2, 1, 0]]
    """

    indptr: Tensor
    indices: Tensor
    vectors: Tensor
    user_indptr: Tensor
    user_indices: Tensor
    user_degrees: Tensor
    item_degrees: Tensor

    def __init__(
        self, n_items: int, ideal_weight: float, time: float = 0.0, steps: int = 1
    ) -> None:
        super().__init__()
        self.n_items = n_items
        self.ideal_weight, self.time, self.steps = ideal_weight, time, steps
        self.register_buffer("indptr", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("indices", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("vectors", torch.zeros(n_items, 0))
        self._derive()

    def fit(self, train: csr_array, rank: int) -> "GraphFilter":
        """Takes a ``[n_users, n_items]`` binary matrix and its leading vectors, at most as many as
        it has; returns itself.
        """
        self.indptr = torch.from_numpy(train.indptr.astype(np.int64))
        self.indices = torch.from_numpy(train.indices.astype(np.int64))
        self.vectors = torch.from_numpy(singular_vectors(normalised(train), rank).vectors)
        self._derive()
        return self

    def score(self, rows: SparseRows) -> Tensor:
        """``[n_users, n_items]``."""
        scores = self.vectors.new_empty(len(rows), self.n_items)
        users = torch.arange(len(rows), device=scores.device)
        for block, place in zip(
            torch.split(users, _USERS_AT_ONCE), torch.split(scores, _USERS_AT_ONCE), strict=True
        ):
            filtered = self._sharpened(self._blurred(rows.take(block)))
            place.copy_(filtered.mul_(self.item_degrees.sqrt()).t())
        return scores

    def score_items(self, rows: SparseRows, items: Tensor) -> Tensor:
        """``[n_users, m]``. The filters are linear: their transpose goes over these items once,
        however many the users are.

        Scores are D^½ g(S) (S + w · V Vᵀ) D^-½ x, where S is `_smoothed` and g(S) `_sharpened`.
        As Sᵀ = D S D⁻¹, item i weighs a history by (D^½ S + w · D^-½ V Vᵀ D) g(S) D^-½ e_i.
        """
        roots, column = self.item_degrees.sqrt(), torch.arange(len(items), device=items.device)
        asked = self.vectors.new_zeros(self.n_items, len(items))
        asked[items, column] = roots[items, 0].reciprocal()
        sharpened = self._sharpened(asked)
        leading = self.vectors @ (self.vectors.t() @ (sharpened * self.item_degrees))
        linear = self._smoothed(sharpened).mul_(roots)
        return gather_sum(rows, linear.add_(leading.div_(roots), alpha=self.ideal_weight))

    def item_vectors(self) -> Tensor:
        """``[n_items, rank]``: V, whose inner products are the ideal filter's weights."""
        return self.vectors

    # What follows works on D^-½ y, ``[n_items, n_users]``, of scores y: there Π is V Vᵀ D^-½, and
    # a product with P is the mean over an item's users of the means over their items.

    def _blurred(self, rows: SparseRows) -> Tensor:
        """After both filters: x P + w · x Π."""
        weights = self.item_degrees[rows.indices, 0].rsqrt()
        histories = self.vectors.new_zeros(self.n_items, len(rows))
        histories[rows.indices, rows.row] = weights
        linear, leading = self._smoothed(histories), gather_sum(rows, self.vectors, weights)
        return linear.addmm_(self.vectors, leading.t(), alpha=self.ideal_weight)

    def _sharpened(self, scores: Tensor) -> Tensor:
        """After the time T. As the ODE is linear, a step of Runge–Kutta is the Taylor polynomial of
        degree 4, here from the inside out.
        """
        step = self.time / self.steps
        for _ in range(self.steps if self.time else 0):
            nested = scores
            for order in (4, 3, 2, 1):
                nested = torch.sub(scores, self._smoothed(nested), alpha=step / order)
            scores = nested
        return scores

    def _smoothed(self, scores: Tensor) -> Tensor:
        """Times P."""
        of_users = gather_sum(self._items_of_users, scores).div_(self.user_degrees)
        return gather_sum(self._users_of_items, of_users).div_(self.item_degrees)

    @property
    def _items_of_users(self) -> SparseRows:
        return SparseRows(self.indices, self.indptr, self.n_items)

    @property
    def _users_of_items(self) -> SparseRows:
        return SparseRows(self.user_indices, self.user_indptr, len(self.indptr) - 1)

    def _derive(self) -> None:
        """The users of each item, and the degrees: they follow from the interactions and are no
        part of the artifact.
        """
        users = self._items_of_users.transposed()
        derived = {"user_indptr": users.offsets, "user_indices": users.indices}
        for name, of in (("user_degrees", self._items_of_users), ("item_degrees", users)):
            derived[name] = of.counts.clamp(min=1).float()[:, None]
        for name, value in derived.items():
            self.register_buffer(name, value, persistent=False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Takes over as many interactions and vectors as there are, if they make matrices."""
        for name, fixed in (("indptr", ()), ("indices", ()), ("vectors", (self.n_items,))):
            if (value := state_dict.get(prefix + name)) is not None:
                shape = (*fixed, *value.shape[len(fixed) :])
                setattr(self, name, self.get_buffer(name).new_empty(shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self._items_of_users.is_sound() and self.vectors.ndim == 2:
            self._derive()
        else:
            errors: list[str] = args[-1]
            errors.append(
                f"indptr and indices must be a matrix of {self.n_items} columns, vectors one of as"
                " many rows, found they are not."
            )
