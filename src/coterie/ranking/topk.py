"""The best k of every row of scores, the same on every device and on every run.

Apart from the ranker because it is pure: scores in, positions out.
"""

import math
from typing import NamedTuple

import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from coterie.errors import ConfigError, DataError, NumericalError
from coterie.sparse import SparseRows

NO_KEY = torch.iinfo(torch.int64).min
"""Stands for no item in a row of keys."""

_SMALL_GROUP = 8
# Scores that are sorted as they are: those of a user or two, or of a small catalogue.
_AT_A_GLANCE = 2**15


class TopK(NamedTuple):
    """The best items of every row, best first.

    Args:
        items: ``[n, min(k, n_items)]`` int64 item indices, -1 where a row has fewer eligible items.
        scores: As many float32 scores, -inf where ``items`` is -1.
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

    ``scores`` is overwritten: excluded items become -inf in place, as a copy of a large block would
    cost more than the ranking.

    Args:
        scores: ``[n, n_items]`` finite scores, owned by the caller.
        k: How many to keep; of more than ``n_items`` there are ``n_items``.
        seen: ``[n, n_items]`` items to leave out of each row; only the pattern is read.
        allow: ``[n_items]`` bool, the only items to keep; None keeps all.
        deny: ``[n_items]`` bool, items to leave out of every row.

    Returns:
        Items and scores ``[n, min(k, n_items)]``, on the device of ``scores``.

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
    require_finite(scores)
    exclude(scores, seen, allow, deny)
    return best_of(scores, k)


def require_finite(scores: Tensor) -> None:
    """Refuses ``[n, n_items]`` scores with a NaN or an infinity."""
    # A sum is not finite if a term is not, and costs a fraction of looking at each; a sum of large
    # finite terms may overflow.
    if math.isfinite(scores.sum()):
        return
    bad = (~scores.sum(dim=1).isfinite()).nonzero().flatten()
    bad = bad[~scores[bad].isfinite().all(dim=1)]
    if len(bad):
        raise NumericalError(
            f"scores must be finite, found NaN or infinity in {len(bad)} of {len(scores)} rows "
            f"(first rows: {bad[:5].tolist()}); check the model's weights and its learning rate."
        )


def exclude(
    scores: Tensor, seen: csr_array | SparseRows | None, allow: Tensor | None, deny: Tensor | None
) -> None:
    """Sets what is not eligible to -inf, in place; arguments as in `top_k`."""
    if allow is not None:
        scores.masked_fill_(~allow.to(scores.device), -torch.inf)
    if deny is not None:
        scores.masked_fill_(deny.to(scores.device), -torch.inf)
    if seen is not None:
        rows = seen if isinstance(seen, SparseRows) else SparseRows.from_csr(seen, scores.device)
        if (len(rows), rows.n_items) != tuple(scores.shape):
            found = (len(rows), rows.n_items)
            raise DataError(
                f"seen must have the shape of the scores {tuple(scores.shape)}, found {found}; pass"
                " the scored rows."
            )
        if len(rows) == 1:
            scores[0].index_fill_(0, rows.indices, -torch.inf)
        else:
            scores[rows.row, rows.indices] = -torch.inf


def best_of(scores: Tensor, k: int) -> TopK:
    """The k best of each row of a whole catalogue, as `top_k` ranks them.

    Args:
        scores: ``[n, n_items]`` scores, those of excluded items -inf.
        k: How many to keep; of more than ``n_items`` there are ``n_items``.
    """
    if scores.numel() <= _AT_A_GLANCE and k < scores.shape[1]:
        # Few scores need no keys, whose many small operations would take longer than all else:
        # where no two of the best are equal, and none equals the next, there is one order.
        values, items = scores.topk(k + 1, dim=1)
        values = values.float() + 0.0  # no -0.0, as in `_key`
        if (values.diff(dim=1) < 0).all():
            return TopK(items[:, :k], values[:, :k])
    return decode_keys(best_keys(scores, k))


def best_keys(scores: Tensor, k: int, first_item: int = 0, floor: Tensor | None = None) -> Tensor:
    """The k best of each row as 64-bit keys, best first, so that parts of a catalogue can be ranked
    in turn and merged.

    A key orders by higher score, then by lower item: sorting keys breaks ties. Few are made. A
    row's items fall into groups, 1.5 k of them; the k-th highest of the groups' maxima is a lower
    bound of the k-th best score, and only the items that reach it, about 1.6 k, get a key.

    Args:
        scores: ``[n, n_items]`` scores, those of excluded items -inf.
        k: How many to keep; of more than ``n_items`` there are ``n_items``.
        first_item: Catalogue index of the first column.
        floor: ``[n]`` scores below which nothing is wanted.

    Returns:
        ``[n, min(k, n_items)]`` int64, `NO_KEY` where a row has fewer eligible items.
    """
    n, n_items = scores.shape
    k = min(k, n_items)
    if n == 0:
        return torch.empty((0, k), dtype=torch.int64, device=scores.device)
    lowest = torch.finfo(scores.dtype).min
    bound = scores.new_full((n,), lowest) if floor is None else floor.clamp(min=lowest)
    maxima = _maxima(scores, min(_SMALL_GROUP, n_items // (k + k // 2 + 1)))
    n_small = maxima.shape[1]
    size = n_small // (k + k // 2 + 1)
    if size >= 1:
        large = torch.unflatten(maxima[:, : n_small // size * size], 1, (-1, size)).amax(dim=2)
        bound = torch.maximum(bound, large.topk(k, dim=1, sorted=False).values.amin(dim=1))
    row, group = (maxima >= bound.unsqueeze(1)).nonzero(as_tuple=True)
    if n > 1 and len(row) > max(4 * n * k, scores.numel() // 64):
        # So many ties at the bound that their keys would take more memory than the scores: half the
        # rows at a time.
        halves = (slice(n // 2), slice(n // 2, n))
        return torch.cat(
            [
                best_keys(scores[half], k, first_item, None if floor is None else floor[half])
                for half in halves
            ]
        )
    item = group.unsqueeze(1) + torch.arange(0, n_items, n_small, device=scores.device)
    value = scores[row.unsqueeze(1), item.clamp(max=n_items - 1)]
    kept, member = ((value >= bound[row].unsqueeze(1)) & (item < n_items)).nonzero(as_tuple=True)
    return _sorted_rows(row[kept], _key(value[kept, member], first_item + item[kept, member]), n, k)


def _maxima(scores: Tensor, size: int) -> Tensor:
    """Maxima of groups of at most ``size`` items: item i is in group i modulo their number.

    Strided groups, because reducing over a strided dimension runs at the speed of memory.
    """
    if size <= 1:
        return scores
    n_groups = -(-scores.shape[1] // size)
    whole = scores.shape[1] // n_groups * n_groups
    maxima = torch.unflatten(scores[:, :whole], 1, (-1, n_groups)).amax(dim=1)
    rest = scores[:, whole:]
    torch.maximum(maxima[:, : rest.shape[1]], rest, out=maxima[:, : rest.shape[1]])
    return maxima


def _key(value: Tensor, item: Tensor) -> Tensor:
    # Adding zero turns -0.0 into 0.0. The bits of a negative float order backwards; flipping all
    # but the sign mends that.
    bits = (value.float() + 0.0).view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) + (0x7FFFFFFF - item)


def _sorted_rows(row: Tensor, keys: Tensor, n: int, k: int) -> Tensor:
    """``[n, k]`` highest keys of each row, where ``row`` ascends."""
    if n == 1:
        missing = max(k - len(keys), 0)
        return functional.pad(keys, (0, missing), value=NO_KEY).topk(k).values.unsqueeze(0)
    counts = torch.bincount(row, minlength=n)
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    table = keys.new_full((n, max(k, int(counts.max()))), NO_KEY)
    table[row, place] = keys
    return table.topk(k, dim=1).values


def merge_keys(one: Tensor, other: Tensor, k: int) -> Tensor:
    """The k best of two rankings of the same rows over different items, as far as there are as
    many.
    """
    keys = torch.cat([one, other], dim=1)
    return keys.topk(min(k, keys.shape[1]), dim=1).values


def scores_of_keys(keys: Tensor) -> Tensor:
    """``[…]`` float32 scores of keys, -inf for `NO_KEY`."""
    ordered = (keys >> 32).int()
    return (
        (ordered ^ ((ordered >> 31) & 0x7FFFFFFF))
        .view(torch.float32)
        .masked_fill(keys == NO_KEY, -torch.inf)
    )


def decode_keys(keys: Tensor) -> TopK:
    """Items and scores of keys."""
    items = (0x7FFFFFFF - (keys & 0xFFFFFFFF)).masked_fill(keys == NO_KEY, -1)
    return TopK(items, scores_of_keys(keys))
