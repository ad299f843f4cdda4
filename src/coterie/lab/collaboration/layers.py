"""The gradient of a single point over one layer, as the few vectors it is made of.

At one point the gradient of a dense layer is δ ⊗ h, that of its bias δ: the gradient at the layer's
output and the layer's input. So inner products of gradients are products of inner products of
vectors, and no gradient is written out. The first layer's input is a history, which stays sparse.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from coterie.sparse import SparseRows, gather_sum

Direction = Mapping[str, Tensor]
"""A direction in the space of the weights, written out: a tensor a parameter, by its name."""


class LayerGradient(Protocol):
    """The gradients of points over one layer."""

    @property
    def layer(self) -> str:
        """Its name in the network."""
        ...

    def products(self, other: "LayerGradient") -> Tensor:
        """``[n, m]`` inner products of every point's with every one of ``other``'s points."""
        ...

    def own_products(self, n_draws: int) -> Tensor:
        """``[n_users, n_draws, n_draws]`` inner products among the points of one user, which stand
        side by side.
        """
        ...

    def along(self, direction: Direction) -> Tensor:
        """``[n]`` inner products with a direction."""
        ...

    def mean(self) -> Direction:
        """The mean over points, written out."""
        ...


@dataclass(frozen=True)
class DenseGradient:
    """Of a dense layer whose weight is ``[n_out, n_in]``.

    Args:
        layer: Its name.
        delta: ``[n, n_out]``.
        h: ``[n, n_in]``.
    """

    layer: str
    delta: Tensor
    h: Tensor

    def products(self, other: LayerGradient) -> Tensor:
        """(δ · δ') (h · h' + 1)."""
        assert isinstance(other, DenseGradient)
        return (self.h @ other.h.t()).add_(1).mul_(self.delta @ other.delta.t())

    def own_products(self, n_draws: int) -> Tensor:
        """As `products`, among the points of one user."""
        return _grams(self.h, n_draws).add_(1).mul_(_grams(self.delta, n_draws))

    def along(self, direction: Direction) -> Tensor:
        """δᵀ W h + δ · b."""
        by_weight = (self.delta @ direction[f"{self.layer}.weight"] * self.h).sum(dim=1)
        return by_weight + self.delta @ direction[f"{self.layer}.bias"]

    def mean(self) -> Direction:
        """The mean of δ ⊗ h, and of δ."""
        weight = self.delta.t() @ self.h / len(self.delta)
        return {f"{self.layer}.weight": weight, f"{self.layer}.bias": self.delta.mean(dim=0)}


@dataclass(frozen=True)
class ItemsGradient:
    """Of the layer that reads histories, whose weight is ``[n_items, n_out]``.

    Args:
        layer: Its name.
        delta: ``[n, n_out]``.
        rows: ``[n, n_items]`` what it was shown.
        scale: ``[n]`` the value of every entry of a row.
    """

    layer: str
    delta: Tensor
    rows: SparseRows
    scale: Tensor

    def products(self, other: LayerGradient) -> Tensor:
        """(δ · δ') (x · x' + 1), x · x' by gathering the entries of x."""
        assert isinstance(other, ItemsGradient)
        inputs = gather_sum(self.rows, other.dense().t().contiguous()) * self.scale.unsqueeze(1)
        return inputs.add_(1).mul_(self.delta @ other.delta.t())

    def own_products(self, n_draws: int) -> Tensor:
        """As `products`, among the points of one user."""
        return _grams(self.dense(), n_draws).add_(1).mul_(_grams(self.delta, n_draws))

    def along(self, direction: Direction) -> Tensor:
        """Rows of W gathered, times δ."""
        summed = gather_sum(self.rows, direction[f"{self.layer}.weight"])
        moved = summed * self.scale.unsqueeze(1) + direction[f"{self.layer}.bias"]
        return (moved * self.delta).sum(dim=1)

    def mean(self) -> Direction:
        """The mean of x ⊗ δ, and of δ."""
        weight = self.dense().t() @ self.delta / len(self.delta)
        return {f"{self.layer}.weight": weight, f"{self.layer}.bias": self.delta.mean(dim=0)}

    def dense(self) -> Tensor:
        """``[n, n_items]`` the input."""
        x = self.delta.new_zeros(len(self.rows), self.rows.n_items)
        x[self.rows.row, self.rows.indices] = self.scale[self.rows.row].to(x.dtype)
        return x


@dataclass(frozen=True)
class NormGradient:
    """Of a layer norm, whose gradients are as small as its vectors: they are written out.

    Args:
        layer: Its name.
        weight: ``[n, width]`` gradients of the scale.
        bias: ``[n, width]`` gradients of the shift.
    """

    layer: str
    weight: Tensor
    bias: Tensor

    def products(self, other: LayerGradient) -> Tensor:
        """Inner products of vectors."""
        assert isinstance(other, NormGradient)
        return self.weight @ other.weight.t() + self.bias @ other.bias.t()

    def own_products(self, n_draws: int) -> Tensor:
        """As `products`, among the points of one user."""
        return _grams(self.weight, n_draws) + _grams(self.bias, n_draws)

    def along(self, direction: Direction) -> Tensor:
        """Inner products of vectors."""
        by_weight = self.weight @ direction[f"{self.layer}.weight"]
        return by_weight + self.bias @ direction[f"{self.layer}.bias"]

    def mean(self) -> Direction:
        """Both means."""
        means = {"weight": self.weight.mean(dim=0), "bias": self.bias.mean(dim=0)}
        return {f"{self.layer}.{name}": value for name, value in means.items()}


def _grams(vectors: Tensor, n_draws: int) -> Tensor:
    by_user = vectors.view(-1, n_draws, vectors.shape[1])
    return torch.bmm(by_user, by_user.mT)
