"""Personalized Item Alignment in training: the items' anchors and what their term weighs.

No artifact holds the anchors: scores do not need them.
"""

import torch
from torch import Tensor, nn

from coterie.networks.autoencoder import met_rows
from coterie.objectives.alignment import alignment
from coterie.sparse import SparseRows


def draw_points(n: int, latent_dim: int, generator: torch.Generator) -> Tensor:
    """``[n, latent_dim]`` initial anchors, Xavier normal."""
    return nn.init.xavier_normal_(torch.empty(n, latent_dim), generator=generator)


class Alignment(nn.Module):
    """Anchors e_i, and λ_A · L_A.

    With `sparse_gradient` the gradient of the anchors is a sparse tensor of the rows that were met.

    Args:
        anchors: ``[n_items, latent_dim]`` initial values.
        weight: λ_A.
    """

    sparse_gradient = False

    def __init__(self, anchors: Tensor, weight: float) -> None:
        super().__init__()
        self.anchors = nn.Parameter(anchors)
        self._weight = weight

    def weight(self, n_steps: int) -> float:
        """λ_A in the step after ``n_steps``."""
        return self._weight

    def points(self) -> Tensor:
        """``[n_items, latent_dim]``: where the items are."""
        return self.anchors

    def loss(self, mu: Tensor, logvar: Tensor, rows: SparseRows) -> Tensor:
        """L_A of every user, ``[n_users]``; ``rows`` are the CLEAN histories."""
        met = met_rows(rows, self.points()) if self.sparse_gradient else (rows, self.points())
        return self.loss_of(mu, logvar, *met)

    def loss_of(self, mu: Tensor, logvar: Tensor, rows: SparseRows, anchors: Tensor) -> Tensor:
        """L_A of every user, given the anchors of the columns of ``rows``."""
        return alignment(mu, logvar, anchors, rows)
