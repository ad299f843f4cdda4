"""Which items stand for the catalogue where the soft-max is estimated from a sample."""

import numpy as np
import torch
from torch import Tensor


class Proposal:
    """Items drawn by popularity for half, evenly for half.

    The soft-max's mass lies mostly where popularity lies; the even half bounds the weight of items
    that popularity knows nothing of.

    Args:
        n_items: Size of the catalogue.
        popularity: ``[n_items]`` users of each item; None, or nothing but zeros, draws evenly.
        device: Where the items are drawn.
    """

    def __init__(
        self, n_items: int, popularity: np.ndarray | None, device: torch.device | str
    ) -> None:
        probability = torch.full((n_items,), 1 / n_items, dtype=torch.float64)
        if popularity is not None and popularity.any():
            probability = (probability + torch.from_numpy(popularity / popularity.sum())) / 2
        self.probability = probability.to(device)
        self._cumulative = self.probability.cumsum(0)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``[n]`` int64 items, with replacement, and the expected number of times that each of them
        is drawn, float32.
        """
        draws = torch.rand(
            n, generator=generator, dtype=torch.float64, device=self.probability.device
        )
        items = torch.searchsorted(self._cumulative, draws).clamp(max=len(self.probability) - 1)
        return items, (n * self.probability[items]).float()
