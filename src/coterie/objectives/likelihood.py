"""The multinomial likelihood of a user's items, fused with the decoder's last layer.

The last layer and the soft-max over all items are most of a training step. Kept apart they hold four
batch × items arrays and pass over them a dozen times; together they need one array, which the backward
pass turns into the gradient in place.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from coterie.sparse import SparseRows

# Rows of the logits start on 64-byte boundaries: MKL multiplies faster then (benchmarks/training_step.py), and
# the numbers of items in the field's data sets (20,108; 17,769; 41,140) are no multiples of 16.
ALIGNMENT = 16


class LogitBuffer:
    """One batch × items array used by every step in turn, because allocating it anew costs page faults.

    It belongs to one forward pass at a time: `multinomial_nll` claims it, and a backward pass whose logits were
    overwritten since is refused.
    """

    def __init__(self) -> None:
        self.turn = 0
        self._memory = torch.empty(0)

    def claim(self, n_rows: int, n_items: int, like: Tensor) -> Tensor:
        """An uninitialised ``[n_rows, n_items rounded up to 16]`` array on the device and of the type of ``like``."""
        width = -(-n_items // ALIGNMENT) * ALIGNMENT
        memory = self._memory
        if memory.numel() < n_rows * width or memory.device != like.device or memory.dtype != like.dtype:
            self._memory = memory = torch.empty(n_rows * width, dtype=like.dtype, device=like.device)
        self.turn += 1
        return memory[: n_rows * width].view(n_rows, width)


def multinomial_nll(hidden: Tensor, weight: Tensor, bias: Tensor, positives: SparseRows, buffer: LogitBuffer | None = None) -> Tensor:
    """Negative log-likelihood of every user's items: -Σ_{i∈S_u} log softmax(W h_u + b)_i.

    A SUM over the user's items; average it over users only.

    Args:
        hidden: ``[n_users, dim]`` last hidden layer of the decoder.
        weight: ``[n_items, dim]`` last layer.
        bias: ``[n_items]``.
        positives: ``[n_users, n_items]`` the CLEAN histories.
        buffer: Memory to use again from step to step.

    Returns:
        ``[n_users]`` in nats, float32 or wider; 0 for an empty history. Under autocast the three products run in its
        type and everything else in float32.

    References:
        Liang et al. (2018), equation 2, without the multinomial coefficient, which no parameter changes.

    Example:
        >>> import numpy as np
        >>> from scipy.sparse import csr_array
        >>> rows = SparseRows.from_csr(csr_array(np.array([[1, 1, 0, 0]])))
        >>> nll = multinomial_nll(torch.zeros(1, 2), torch.zeros(4, 2), torch.zeros(4), rows)
        >>> bool(torch.isclose(nll, 2 * torch.tensor(4.0).log()))
        True
    """
    nll: Tensor = _MultinomialNLL.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, positives, buffer or LogitBuffer()
    )
    return nll


class _MultinomialNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, positives: SparseRows, buffer: LogitBuffer) -> Tensor:
        narrow = _product_type(hidden)
        n_items = len(weight)
        padded = buffer.claim(len(hidden), n_items, bias)
        logits = padded[:, :n_items]
        if narrow == bias.dtype:
            torch.mm(hidden, weight.t(), out=logits)
        else:
            logits.copy_(hidden.to(narrow) @ weight.to(narrow).t())
        logits.add_(bias)
        padded[:, n_items:] = -torch.inf
        row = positives.row
        at_positives = logits[row, positives.indices]
        log_normalizer = _soft_max_in_place(padded)
        ctx.save_for_backward(hidden, weight)
        ctx.padded, ctx.positives, ctx.row, ctx.buffer, ctx.turn, ctx.narrow = padded, positives, row, buffer, buffer.turn, narrow
        summed = torch.zeros_like(log_normalizer).index_add_(0, row, at_positives)
        return positives.counts * log_normalizer - summed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        if ctx.turn != ctx.buffer.turn:
            raise RuntimeError("the logits of this step were overwritten by a later one; give each its own LogitBuffer.")
        ctx.buffer.turn += 1
        hidden, weight = ctx.saved_tensors
        positives, row = ctx.positives, ctx.row
        # ∂nll_u/∂logit_i = n_u softmax_i - [i ∈ S_u], times the incoming gradient of u.
        ctx.padded.mul_((positives.counts * grad).unsqueeze(1))
        grad_logits = ctx.padded[:, : len(weight)]
        grad_logits[row, positives.indices] -= grad[row]
        # The forward pass's type: the backward pass runs outside of autocast.
        narrow = ctx.narrow
        ones = grad_logits.new_ones(len(grad_logits))
        grad_bias = grad_logits.t() @ ones
        grad_logits = grad_logits.to(narrow)
        grad_hidden = grad_logits @ weight.to(narrow)
        grad_weight = grad_logits.t() @ hidden.to(narrow)
        return grad_hidden.to(hidden.dtype), grad_weight.to(weight.dtype), grad_bias, None, None


def _product_type(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _soft_max_in_place(logits: Tensor) -> Tensor:
    """Replaces ``[n, n_items]`` logits by their soft-max; returns the ``[n]`` logarithms of the normalizers.

    log Σ exp = max - log softmax(max) needs no second pass of exponentials, and softmax(max) ≥ 1 / n_items.
    """
    highest, where = logits.max(dim=1, keepdim=True)
    if logits.device.type == "cpu":
        torch.softmax(logits, dim=1, out=logits)
    else:  # aliasing input and output is only known to be safe in the CPU kernel
        logits.copy_(torch.softmax(logits, dim=1))
    return (highest - logits.gather(1, where).log()).squeeze(1)
