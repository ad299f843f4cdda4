"""The best k of every row of scores, the same on every device and on every run.

Apart from recommending because evaluation ranks by the same function: what is measured is what is served.
"""

from typing import NamedTuple

import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.errors import ConfigError, DataError, NumericalError
from coterie.sparse import SparseRows


class TopK(NamedTuple):
    """The best items of every row, best first.

    Args:
        items: ``[n, k]`` int64 item indices, -1 where a row has fewer than k eligible items.
        scores: ``[n, k]`` float32 scores, -inf where ``items`` is -1.
    """

    items: Tensor
    scores: Tensor


def top_k(
    scores: Tensor,
    k: int,
    *,
    seen: csr_array | SparseRows | None = None,
    allow: Tensor | None = None,
    deny: Tensor | None = None,
) -> TopK:
    """Ranks each row by higher score first, equal scores by lower item index.

    ``scores`` is overwritten: excluded items become -inf in place, as a copy of a large block would cost more
    than the ranking.

    Args:
        scores: ``[n, n_items]`` finite scores, owned by the caller.
        k: How many to keep; may exceed ``n_items``.
        seen: ``[n, n_items]`` items to leave out of each row; only the pattern is read.
        allow: ``[n_items]`` bool, the only items to keep; None keeps all.
        deny: ``[n_items]`` bool, items to leave out of every row.

    Returns:
        Items and scores ``[n, k]``, on the device of ``scores``.

    Raises:
        ConfigError: if ``k`` is below 1.
        DataError: if ``seen`` has another shape than ``scores``.
        NumericalError: if a score is not finite.

    Example:
        >>> best = top_k(torch.tensor([[0.5, 2.0, 2.0], [1.0, 0.0, 3.0]]), k=2)
        >>> best.items.tolist()
        [[1, 2], [2, 0]]
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, found {k}; ask for one recommendation or more.")
    _require_finite(scores)
    _exclude(scores, seen, allow, deny)
    items = _best_set(scores, min(k, scores.shape[1]))
    return _pad(_in_order(scores, items), k)


def _require_finite(scores: Tensor) -> None:
    # One pass without a mask of the block's size; NaN carries through both minimum and maximum.
    low, high = torch.aminmax(scores, dim=1)
    bad = (~(low.isfinite() & high.isfinite())).nonzero().flatten()
    if len(bad):
        raise NumericalError(
            f"scores must be finite, found NaN or infinity in {len(bad)} of {len(scores)} rows "
            f"(first rows: {bad[:5].tolist()}); check the model's weights and its learning rate."
        )


def _exclude(scores: Tensor, seen: csr_array | SparseRows | None, allow: Tensor | None, deny: Tensor | None) -> None:
    if allow is not None:
        scores.masked_fill_(~allow.to(scores.device), -torch.inf)
    if deny is not None:
        scores.masked_fill_(deny.to(scores.device), -torch.inf)
    if seen is not None:
        rows = seen if isinstance(seen, SparseRows) else SparseRows.from_csr(seen, scores.device)
        if (len(rows), rows.n_items) != tuple(scores.shape):
            found = (len(rows), rows.n_items)
            raise DataError(f"seen must have the shape of the scores {tuple(scores.shape)}, found {found}; pass the scored rows.")
        scores[rows.row, rows.indices] = -torch.inf


def _best_set(scores: Tensor, width: int) -> Tensor:
    """The ``[n, width]`` items of each row's best set, in no particular order.

    ``torch.topk`` may take any of the items equal to the last one kept. One more value than needed shows in
    which rows that happened, and only those are decided again.
    """
    n_items = scores.shape[1]
    values, items = torch.topk(scores, min(width + 1, n_items), dim=1)
    if width == n_items:
        return items
    last, next_one = values[:, width - 1], values[:, width]
    items = items[:, :width]
    tied = ((last == next_one) & (last > -torch.inf)).nonzero().flatten()
    if len(tied):
        items[tied] = _lowest_of_equals(scores[tied], last[tied, None], width)
    return items


def _lowest_of_equals(scores: Tensor, boundary: Tensor, width: int) -> Tensor:
    """All items above the ``[m, 1]`` boundary, then the lowest indices of those equal to it, ``width`` a row."""
    above, equal = scores > boundary, scores == boundary
    room = width - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
    return chosen.nonzero()[:, 1].view(len(scores), width)


def _in_order(scores: Tensor, items: Tensor) -> TopK:
    items = items.sort(dim=1).values
    # Adding zero turns -0.0 into 0.0, which some sorts would put apart.
    values, order = (scores.gather(1, items).float() + 0.0).sort(dim=1, descending=True, stable=True)
    return TopK(items.gather(1, order).masked_fill_(values.isneginf(), -1), values)


def _pad(best: TopK, k: int) -> TopK:
    missing = k - best.items.shape[1]
    if missing <= 0:
        return best
    pad = torch.nn.functional.pad
    return TopK(pad(best.items, (0, missing), value=-1), pad(best.scores, (0, missing), value=-torch.inf))
