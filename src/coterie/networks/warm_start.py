"""The warm start: an autoencoder that begins with a trained one's weights, though its catalogue is
another.

Only what meets items knows the catalogue: the first layer, the last one and PIA's anchors. Rows of
items that both have are carried over; those of new items are made of the others'.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.networks.alignment import Alignment
from coterie.networks.autoencoder import Autoencoder, VariationalAutoencoder
from coterie.sparse import SparseRows

_OF_ITEMS, _BIAS_OF_ITEMS = ("input.weight", "output.weight"), "output.bias"
"""The parameters with a row for each item; all others are alike in any catalogue."""

# Items that a new one without neighbours takes after, where features tell which are near.
_NEAREST = 10
# Users whose hidden states live at once.
_BLOCK = 10_000


@dataclass(frozen=True, eq=False)
class Parent:
    """A trained network, and where the items of a new catalogue are in its own.

    Args:
        network: The trained one.
        origin: ``[n_items]`` int64, the parent's row of each item of the new catalogue, -1 of those
            that are new; at least one is not.
        train: ``[n_users, n_items]`` binary interactions to train on, of the new catalogue.
        anchors: ``[n_parent_items, latent_dim]`` PIA's, where they are known.
        features: ``[n_items, d]`` of the new catalogue's items, by whose cosine items are near.
    """

    network: Autoencoder
    origin: np.ndarray
    train: csr_array
    anchors: Tensor | None = None
    features: np.ndarray | None = None

    def rows(self, table: Tensor) -> Tensor:
        """``[n_items, d]`` of the parent's ``[n_parent_items, d]``.

        The row of a new item is the mean of those of the carried items in the histories that hold
        it, each weighed by the number of histories. Where there are none it is the mean of the ten
        that are nearest by features, or of all.
        """
        found = table.detach().cpu().numpy()[np.maximum(self.origin, 0)]
        new, carried = self._new, found[self._carried]
        weights = self._with_new(np.ones((len(carried), 1), np.float32))
        sums, alone = self._with_new(carried), weights[:, 0] == 0
        found[new] = sums / np.maximum(weights, 1)
        for item in new[alone]:
            found[item] = carried[self._nearest(item)].mean(axis=0)
        return torch.from_numpy(found)

    def biases(self, bias: Tensor) -> Tensor:
        """``[n_items]`` of the parent's ``[n_parent_items]``; those of new items are fitted to the
        logarithm of how many histories hold them, by least squares over the carried ones.
        """
        found = bias.detach().cpu().numpy()[np.maximum(self.origin, 0)]
        counts = np.log(np.maximum(self.train.sum(axis=0, dtype=np.float64), 1))
        design = np.stack([counts, np.ones_like(counts)], axis=1)
        line = np.linalg.lstsq(design[self._carried], found[self._carried], rcond=None)[0]
        found[self._new] = design[self._new] @ line
        return torch.from_numpy(found)

    @cached_property
    def _new(self) -> np.ndarray:
        return np.flatnonzero(self.origin < 0)

    @cached_property
    def _carried(self) -> np.ndarray:
        return np.flatnonzero(self.origin >= 0)

    def _with_new(self, table: np.ndarray) -> np.ndarray:
        """``[n_new, d]``: for each new item the sum, over all histories that hold it, of the rows
        ``[n_carried, d]`` of the carried items in them.
        """
        sums = np.zeros((len(self._new), table.shape[1]))
        of_new, of_carried = (
            csr_array(self.train[:, items], dtype=np.float32)
            for items in (self._new, self._carried)
        )
        for begin in range(0, self.train.shape[0] if len(self._new) else 0, _BLOCK):
            users = slice(begin, begin + _BLOCK)
            sums += of_new[users].T @ (of_carried[users] @ table)
        return sums

    def _nearest(self, item: int) -> np.ndarray | slice:
        """Places among the carried items of those nearest to one; all where nothing tells."""
        if self.features is None or not self.features[item].any():
            return slice(None)
        others = self.features[self._carried]
        lengths = np.maximum(np.linalg.norm(others, axis=1), np.finfo(np.float32).tiny)
        return np.argsort(-(others @ self.features[item]) / lengths, kind="stable")[:_NEAREST]


def start_warm(network: Autoencoder, parent: Parent, shrink: float) -> None:
    """Sets weights to ``shrink`` times the parent's plus 1 - ``shrink`` times what was drawn.

    What a network has beside its layers is left alone: a linear path is fitted, not carried.

    Args:
        network: On the CPU, its weights drawn; of the parent's layers, whatever its catalogue.
        parent: Whose weights are carried over.
        shrink: 1 is a plain copy, 0 a start from random weights.

    References:
        Ash and Adams (2020), shrink and perturb. The noise here is a fresh draw, so that weights
        that begin at 1, as those of layer norms do, are not shrunk below.

    Example:
        >>> from coterie.networks.multvae import MultVAE
        >>> old, new = (MultVAE(n, (3,), 2, torch.Generator().manual_seed(n)) for n in (2, 3))
        >>> train = csr_array([[1, 0, 1], [0, 1, 1]])
        >>> start_warm(new, Parent(old, np.array([1, 0, -1]), train), shrink=1.0)
        >>> bool(torch.equal(new.input.weight[:2], old.input.weight.flip(0)))
        True
    """
    with torch.no_grad():
        trained = dict(parent.network.named_parameters())
        for name, drawn in network.named_parameters():
            value = trained[name].cpu()
            if name in _OF_ITEMS:
                value = parent.rows(value)
            elif name == _BIAS_OF_ITEMS:
                value = parent.biases(value)
            drawn.lerp_(value, shrink)


def start_anchors(alignment: Alignment, parent: Parent, shrink: float) -> None:
    """Sets PIA's anchors as `start_warm` sets weights, from the parent's.

    Args:
        alignment: On the CPU, its anchors drawn.
        parent: With anchors.
        shrink: As in `start_warm`.
    """
    assert parent.anchors is not None, "only anchors that are known are carried over"
    with torch.no_grad():
        alignment.anchors.lerp_(parent.rows(parent.anchors), shrink)


def rest_anchors(alignment: Alignment, network: VariationalAutoencoder, train: csr_array) -> None:
    """Sets PIA's anchors where they rest with the network as it is: each at the mean of the
    posterior means of the users who hold its item, who count one over the size of their history.

    Args:
        alignment: On the CPU.
        network: On any device.
        train: ``[n_users, n_items]`` binary interactions.
    """
    n_items, latent_dim = alignment.anchors.shape
    device = network.input.weight.device
    sums, weights = np.zeros((n_items, latent_dim)), np.zeros((n_items, 1))
    with torch.no_grad():
        for begin in range(0, train.shape[0], _BLOCK):
            block = csr_array(train[begin : begin + _BLOCK], dtype=np.float32)
            share = 1 / np.maximum(block.sum(axis=1), 1)[:, None]
            mu = network.posterior(SparseRows.from_csr(block, device))[0].cpu().numpy()
            sums += block.T @ (share * mu)
            weights += block.T @ share
        met = torch.from_numpy(weights[:, 0] > 0)
        rest = torch.from_numpy(sums / np.maximum(weights, np.finfo(np.float32).tiny)).float()
        alignment.anchors[met] = rest[met]
