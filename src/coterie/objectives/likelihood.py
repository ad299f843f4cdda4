"""The multinomial likelihood of a user's items, fused with the decoder's last layer.

The last layer and the soft-max over all items are most of a training step. Kept apart they hold
four batch × items arrays and pass over them a dozen times; together they need one array, which the
backward pass turns into the gradient in place. Where even that is too large the items are taken in
chunks, whose logits are computed again in the backward pass; and where time is too short for all
items, they are sampled.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from coterie.sparse import SparseRows

# Rows of the logits start on 64-byte boundaries: MKL multiplies faster then
# (bench/training_step.py), and the numbers of items in the field's data sets (20,108; 17,769;
# 41,140) are no multiples of 16.
ALIGNMENT = 16


class LogitBuffer:
    """One batch × items array used by every step in turn, because allocating it anew costs page
    faults.

    It belongs to one forward pass at a time: `multinomial_nll` claims it, and a backward pass whose
    logits were overwritten since is refused.
    """

    def __init__(self) -> None:
        self.turn = 0
        self._memory = torch.empty(0)

    def claim(self, n_rows: int, n_items: int, like: Tensor) -> Tensor:
        """An uninitialised ``[n_rows, n_items rounded up to 16]`` array on the device and of the
        type of ``like``.
        """
        width = -(-n_items // ALIGNMENT) * ALIGNMENT
        memory = self._memory
        if (
            memory.numel() < n_rows * width
            or memory.device != like.device
            or memory.dtype != like.dtype
        ):
            self._memory = memory = torch.empty(
                n_rows * width, dtype=like.dtype, device=like.device
            )
        self.turn += 1
        return memory[: n_rows * width].view(n_rows, width)


def multinomial_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    positives: SparseRows,
    buffer: LogitBuffer | None = None,
    chunk_items: int | None = None,
) -> Tensor:
    """Negative log-likelihood of every user's items: -Σ_{i∈S_u} log softmax(W h_u + b)_i.

    A SUM over the user's items; average it over users only.

    Args:
        hidden: ``[n_users, dim]`` last hidden layer of the decoder.
        weight: ``[n_items, dim]`` last layer.
        bias: ``[n_items]``.
        positives: ``[n_users, n_items]`` the CLEAN histories.
        buffer: Memory to use again from step to step.
        chunk_items: If fewer than the items there are, the array is ``[n_users, chunk_items]``, at
            the price of a fourth product: the backward pass computes each chunk's logits again.

    Returns:
        ``[n_users]`` in nats, float32 or wider; 0 for an empty history. Under autocast the three
        products run in its type and everything else in float32.

    References:
        Liang et al. (2018), equation 2, without the multinomial coefficient, which no parameter
        changes.

    Example:
        >>> import numpy as np
        >>> from scipy.sparse import csr_array
        >>> rows = SparseRows.from_csr(csr_array(np.array([[1, 1, 0, 0]])))
        >>> nll = multinomial_nll(torch.zeros(1, 2), torch.zeros(4, 2), torch.zeros(4), rows)
        >>> bool(torch.isclose(nll, 2 * torch.tensor(4.0).log()))
        True
    """
    buffer = buffer or LogitBuffer()
    if chunk_items is None or chunk_items >= len(weight):
        whole: Tensor = _MultinomialNLL.apply(hidden, weight, bias, positives, buffer)  # type: ignore[no-untyped-call]
        return whole
    chunked: Tensor = _ChunkedNLL.apply(hidden, weight, bias, positives, buffer, chunk_items)  # type: ignore[no-untyped-call]
    return chunked


def sampled_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    positives: SparseRows,
    sample: Tensor,
    expected: Tensor,
    *,
    sparse_gradient: bool = False,
) -> Tensor:
    """An estimate of `multinomial_nll` from a sample of the catalogue, for millions of items.

        Ẑ_u = Σ_{i∈S_u} exp(s_ui) + Σ_{j∈sample, j∉S_u} exp(s_uj) / E[times j is drawn]

    takes the place of the normalizer: its expectation over the draws is the normalizer, as the
    user's own items are counted exactly and every other item by its importance. Its logarithm is
    then too low on average, by about half of the variance of Ẑ_u / Z_u, which falls as one over the
    size of the sample.

    Args:
        hidden: ``[n_users, dim]`` last hidden layer of the decoder.
        weight: ``[n_items, dim]`` last layer.
        bias: ``[n_items]``.
        positives: ``[n_users, n_items]`` the CLEAN histories.
        sample: ``[m]`` int64 items, drawn with replacement, the same for all users.
        expected: ``[m]`` expected number of times that each of them is drawn, m times its
            probability.
        sparse_gradient: Whether the gradient of ``weight`` is a sparse tensor of the rows met.

    Returns:
        ``[n_users]`` in nats; 0 for an empty history.

    References:
        Jean et al. (2015), "On Using Very Large Target Vocabulary", section 3; Bengio and Senécal
        (2008).

    Example:
        >>> import numpy as np
        >>> from scipy.sparse import csr_array
        >>> rows = SparseRows.from_csr(csr_array(np.array([[1, 1, 0, 0]])))
        >>> every_item = torch.arange(4)
        >>> nll = sampled_nll(
        ...     torch.zeros(1, 2),
        ...     torch.zeros(4, 2),
        ...     torch.zeros(4),
        ...     rows,
        ...     every_item,
        ...     torch.ones(4),
        ... )
        >>> bool(torch.isclose(nll, 2 * torch.tensor(4.0).log()))
        True
    """
    row, n_users = positives.row, len(hidden)
    positive_weight, sample_weight = (
        functional.embedding(items, weight, sparse=sparse_gradient)
        for items in (positives.indices, sample)
    )
    of_positives = (hidden[row] * positive_weight).sum(dim=1) + bias[positives.indices]
    of_sample = hidden @ sample_weight.t() + (bias[sample] - expected.log())
    user, place = _members(positives, sample)
    of_sample = of_sample.index_put((user, place), of_sample.new_tensor(-torch.inf))
    highest = torch.full((n_users,), -torch.inf, dtype=of_sample.dtype, device=of_sample.device)
    highest = highest.scatter_reduce(0, row, of_positives.detach(), "amax").maximum(
        of_sample.detach().amax(dim=1)
    )
    total = (
        (of_sample - highest.unsqueeze(1))
        .exp()
        .sum(dim=1)
        .index_add(0, row, (of_positives - highest[row]).exp())
    )
    summed = torch.zeros_like(total).index_add(0, row, of_positives)
    return positives.counts * (highest + total.log()) - summed


def _members(positives: SparseRows, sample: Tensor) -> tuple[Tensor, Tensor]:
    """Users and places in the sample of sampled items that the user has, each ``[n_found]``."""
    drawn, place = sample.sort()
    first = torch.searchsorted(drawn, positives.indices)
    times = torch.searchsorted(drawn, positives.indices, right=True) - first
    ends = times.cumsum(0)
    within = torch.arange(int(times.sum()), device=sample.device) - torch.repeat_interleave(
        ends - times, times
    )
    return (
        torch.repeat_interleave(positives.row, times),
        place[torch.repeat_interleave(first, times) + within],
    )


class _MultinomialNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        positives: SparseRows,
        buffer: LogitBuffer,
    ) -> Tensor:
        narrow = _product_type(hidden)
        ctx.types = hidden.dtype, weight.dtype
        hidden, weight = hidden.to(narrow), weight.to(narrow)
        padded = _logits(hidden, weight, bias, buffer)
        padded[:, len(weight) :] = -torch.inf
        row = positives.row
        at_positives = padded[row, positives.indices]
        log_normalizer = _soft_max_in_place(padded)
        # In the type of the products: the backward pass runs outside of autocast, and converts
        # nothing twice.
        ctx.save_for_backward(hidden, weight)
        ctx.padded, ctx.positives, ctx.row, ctx.buffer, ctx.turn = (
            padded,
            positives,
            row,
            buffer,
            buffer.turn,
        )
        summed = torch.zeros_like(log_normalizer).index_add_(0, row, at_positives)
        return positives.counts * log_normalizer - summed

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        if ctx.turn != ctx.buffer.turn:
            raise RuntimeError(
                "the logits of this step were overwritten by a later one; give each its own"
                " LogitBuffer."
            )
        ctx.buffer.turn += 1
        hidden, weight = ctx.saved_tensors
        positives, row = ctx.positives, ctx.row
        # ∂nll_u/∂logit_i = n_u softmax_i - [i ∈ S_u], times the incoming gradient of u.
        ctx.padded.mul_((positives.counts * grad).unsqueeze(1))
        grad_logits = ctx.padded[:, : len(weight)]
        grad_logits[row, positives.indices] -= grad[row]
        # One product each: a frozen decoder saves the second, a frozen encoder the first.
        to_hidden, to_weight, to_bias, *_ = ctx.needs_input_grad
        grad_bias = grad_logits.t() @ grad_logits.new_ones(len(grad_logits)) if to_bias else None
        grad_logits = grad_logits.to(weight.dtype)
        grad_hidden = (grad_logits @ weight).to(ctx.types[0]) if to_hidden else None
        grad_weight = (grad_logits.t() @ hidden).to(ctx.types[1]) if to_weight else None
        return grad_hidden, grad_weight, grad_bias, None, None


class _ChunkedNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        positives: SparseRows,
        buffer: LogitBuffer,
        chunk_items: int,
    ) -> Tensor:
        ctx.narrow = _product_type(hidden)
        narrow_hidden = hidden.to(ctx.narrow)
        row, log_normalizer, summed = (
            positives.row,
            bias.new_full((len(hidden),), -torch.inf),
            bias.new_zeros(len(hidden)),
        )
        for chunk in _chunks(len(weight), chunk_items):
            logits = _logits(narrow_hidden, weight[chunk], bias[chunk], buffer)[
                :, : chunk.stop - chunk.start
            ]
            inside = (
                ((positives.indices >= chunk.start) & (positives.indices < chunk.stop))
                .nonzero()
                .squeeze(1)
            )
            summed.index_add_(
                0, row[inside], logits[row[inside], positives.indices[inside] - chunk.start]
            )
            highest = logits.amax(dim=1).maximum(log_normalizer)
            total = (
                logits.sub_(highest.unsqueeze(1)).exp_().sum(dim=1)
                + (log_normalizer - highest).exp()
            )
            log_normalizer = highest + total.log()
        ctx.save_for_backward(hidden, weight, bias, log_normalizer)
        ctx.positives, ctx.row, ctx.buffer, ctx.chunk_items = positives, row, buffer, chunk_items
        return positives.counts * log_normalizer - summed

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, bias, log_normalizer = ctx.saved_tensors
        positives, row = ctx.positives, ctx.row
        narrow_hidden = hidden.to(ctx.narrow)
        scale = (positives.counts * grad).unsqueeze(1)
        to_hidden, to_weight, to_bias, *_ = ctx.needs_input_grad
        grad_hidden = torch.zeros_like(hidden, dtype=bias.dtype) if to_hidden else None
        grad_weight, grad_bias = (
            torch.empty_like(weight) if to_weight else None,
            (torch.empty_like(bias) if to_bias else None),
        )
        for chunk in _chunks(len(weight), ctx.chunk_items):
            logits = _logits(narrow_hidden, weight[chunk], bias[chunk], ctx.buffer)[
                :, : chunk.stop - chunk.start
            ]
            grad_logits = logits.sub_(log_normalizer.unsqueeze(1)).exp_().mul_(scale)
            inside = (
                ((positives.indices >= chunk.start) & (positives.indices < chunk.stop))
                .nonzero()
                .squeeze(1)
            )
            grad_logits[row[inside], positives.indices[inside] - chunk.start] -= grad[row[inside]]
            if grad_bias is not None:
                grad_bias[chunk] = grad_logits.sum(dim=0)
            grad_logits = grad_logits.to(ctx.narrow)
            if grad_hidden is not None:
                grad_hidden += grad_logits @ weight[chunk].to(ctx.narrow)
            if grad_weight is not None:
                grad_weight[chunk] = grad_logits.t() @ narrow_hidden
        return (
            None if grad_hidden is None else grad_hidden.to(hidden.dtype),
            grad_weight,
            grad_bias,
            None,
            None,
            None,
        )


def _chunks(n_items: int, size: int) -> Iterator[slice]:
    for start in range(0, n_items, size):
        yield slice(start, min(start + size, n_items))


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor, buffer: LogitBuffer) -> Tensor:
    """Logits in the type of ``bias`` at the start of the buffer's rows; ``hidden`` is of the
    products' type.
    """
    padded = buffer.claim(len(hidden), len(weight), bias)
    logits = padded[:, : len(weight)]
    if hidden.dtype == bias.dtype:
        torch.mm(hidden, weight.t(), out=logits)
    else:
        logits.copy_(hidden @ weight.to(hidden.dtype).t())
    logits.add_(bias)
    return padded


def _product_type(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _soft_max_in_place(logits: Tensor) -> Tensor:
    """Replaces ``[n, n_items]`` logits by their soft-max; returns the ``[n]`` logarithms of the
    normalizers.

    log Σ exp = max - log softmax(max) needs no second pass of exponentials, and softmax(max) ≥ 1 /
    n_items.
    """
    highest, where = logits.max(dim=1, keepdim=True)
    if logits.device.type == "cpu":
        torch.softmax(logits, dim=1, out=logits)
    else:  # aliasing input and output is only known to be safe in the CPU kernel
        logits.copy_(torch.softmax(logits, dim=1))
    return (highest - logits.gather(1, where).log()).squeeze(1)
