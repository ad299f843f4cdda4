"""The loss that collaboration is about: the items of a user that the model was not shown.

What was shown stands outside of the soft-max, as it does outside of the lists. The reconstruction
of a history punishes others for raising what its user does not have yet; this loss does not.
"""

import torch
from torch import Tensor

from coterie.sparse import SparseRows


def hidden_nll(logits: Tensor, shown: SparseRows, hidden: SparseRows) -> Tensor:
    """-Σ_{i hidden} log softmax(logits without what was shown)_i of every user.

    A SUM over the user's hidden items, as the likelihood is one over all.

    Args:
        logits: ``[n_users, n_items]``.
        shown: ``[n_users, n_items]`` what was folded in.
        hidden: ``[n_users, n_items]`` what is to be found; none of it was shown.

    Returns:
        ``[n_users]`` in nats.

    Example:
        >>> from scipy.sparse import csr_array
        >>> shown, hidden = csr_array([[1, 0, 0]]), csr_array([[0, 1, 0]])
        >>> rows = SparseRows.from_csr(shown), SparseRows.from_csr(hidden)
        >>> hidden_nll(torch.zeros(1, 3), *rows).exp().round(decimals=4).item()  # one of two
        2.0
    """
    open_logits = logits.index_put(
        (shown.row, shown.indices), logits.new_tensor(-torch.inf).expand(len(shown.indices))
    )
    total = open_logits.logsumexp(dim=1)
    found = logits[hidden.row, hidden.indices]
    summed = torch.zeros_like(total).index_add(0, hidden.row, found)
    return hidden.counts * total - summed
