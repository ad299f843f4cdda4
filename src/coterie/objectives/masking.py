"""Masking: which entries of a history the encoder sees in training."""

import torch

from coterie.errors import ConfigError
from coterie.sparse import SparseRows


def mask_items(rows: SparseRows, keep_prob: float, generator: torch.Generator) -> SparseRows:
    """Keeps each entry with probability ``keep_prob``, independently.

    Inverted dropout also divides the kept values by ``keep_prob``; as all entries of a row weigh
    the same, that is left to the row's scale.

    Args:
        rows: ``[n_users, n_items]`` clean histories.
        keep_prob: In (0, 1]; 1 returns ``rows`` itself.
        generator: On the device of ``rows``.

    Raises:
        ConfigError: if ``keep_prob`` is outside (0, 1].

    References:
        Liang et al. (2018), section 2.1.2; dropout rate = 1 - keep_prob.
    """
    if not 0 < keep_prob <= 1:
        raise ConfigError(
            f"keep_prob must be in (0, 1], found {keep_prob}; 0.5 is Mult-VAE's, 1 is no masking."
        )
    if keep_prob == 1:
        return rows
    draw = torch.rand(len(rows.indices), generator=generator, device=rows.indices.device)
    return rows.where(draw < keep_prob)
