"""What Mult-VAE and Mult-DAE share: an encoder that reads sparse histories and a decoder up to its last layer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.sparse import SparseRows, gather_sum


def input_scale(counts: Tensor) -> Tensor:
    """The value of every entry of a history at the encoder's input: 1 / ‖x_u‖₂.

    Args:
        counts: ``[n_users]`` number of items, BEFORE any masking: the norm is that of the clean history.

    Returns:
        ``[n_users]`` float32, 1 / sqrt(n_u); finite for an empty history, which stays zero.
    """
    return counts.clamp(min=1).to(torch.float32).rsqrt()


class SparseLinear(nn.Module):
    """A linear layer between items and a hidden space, stored ``[n_items, dim]`` so that rows can be gathered.

    With `sparse_gradient` the gradient of its weight is a sparse tensor of the rows that were met.
    """

    sparse_gradient = False

    def __init__(self, n_items: int, dim: int, n_bias: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(_xavier_normal((n_items, dim), generator))
        self.bias = nn.Parameter(_small_normal(n_bias, generator))

    def gather(self, rows: SparseRows) -> Tensor:
        """The sums ``[n_users, dim]`` of the weights of each user's items, without the bias."""
        return gather_sum(*met_rows(rows, self.weight)) if self.sparse_gradient else gather_sum(rows, self.weight)


def met_rows(rows: SparseRows, weight: Tensor) -> tuple[SparseRows, Tensor]:
    """Histories over their own items alone, and those items' rows of ``weight``, whose gradient then is sparse."""
    local, items = rows.compact()
    return local, functional.embedding(items, weight, sparse=True)


class Autoencoder(nn.Module, ABC):
    """An encoder and a decoder around a code, with tanh between layers.

    The first and the last layer meet the items; the last one's product is left to the objective, which fuses it
    with the soft-max, to whoever ranks by `user_factors` and `item_factors`, and to `decode`.

    Args:
        n_items: Size of the catalogue.
        hidden_dims: Widths between items and code, on both sides (mirrored in the decoder).
        code_dim: What the encoder puts out, e.g. mean and log-variance together.
        latent_dim: What the decoder takes in.
        generator: For the initial weights: Xavier normal, biases normal(0, 0.001).
    """

    def __init__(self, n_items: int, hidden_dims: Sequence[int], code_dim: int, latent_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        encoder = [*hidden_dims, code_dim]
        decoder = [latent_dim, *reversed(hidden_dims)]
        self.n_items = n_items
        self.input = SparseLinear(n_items, encoder[0], encoder[0], generator)
        self.encoder = nn.ModuleList(_linear(i, o, generator) for i, o in pairwise(encoder))
        self.decoder = nn.ModuleList(_linear(i, o, generator) for i, o in pairwise(decoder))
        self.output = SparseLinear(n_items, decoder[-1], n_items, generator)

    def encode(self, rows: SparseRows, scale: Tensor) -> Tensor:
        """The code of ``[n_users, n_items]`` histories whose entries all weigh ``scale`` ([n_users]): ``[n_users, code_dim]``."""
        return self.encode_hidden(self.input.gather(rows) * scale.unsqueeze(1) + self.input.bias)

    def encode_hidden(self, h: Tensor) -> Tensor:
        """The encoder without its first layer: ``[n_users, hidden]`` before its tanh to ``[n_users, code_dim]``."""
        for layer in self.encoder:
            h = layer(torch.tanh(h))
        return h

    def compile_layers(self) -> None:
        """Compiles what lies between the first and the last layer; those two run as they are, their shapes change with every batch."""
        self.encode_hidden = torch.compile(self.encode_hidden, dynamic=True)  # type: ignore[method-assign]
        self.decode_hidden = torch.compile(self.decode_hidden, dynamic=True)  # type: ignore[method-assign]

    def decode_hidden(self, z: Tensor) -> Tensor:
        """The decoder without its last layer: ``[n_users, latent_dim]`` to ``[n_users, hidden]``."""
        for layer in self.decoder:
            z = torch.tanh(layer(z))
        return z

    def decode(self, z: Tensor) -> Tensor:
        """Logits ``[n_users, n_items]`` of ``[n_users, latent_dim]`` latent points."""
        return self.decode_hidden(z) @ self.output.weight.t() + self.output.bias

    @abstractmethod
    def point(self, rows: SparseRows) -> Tensor:
        """The latent point ``[n_users, latent_dim]`` that clean histories are decoded from when they are scored."""

    def score(self, rows: SparseRows) -> Tensor:
        """Logits ``[n_users, n_items]``."""
        return self.decode(self.point(rows))

    def user_factors(self, rows: SparseRows) -> Tensor:
        """``[n_users, dim]``: the last hidden layer, a one for the bias, zeros. Times `item_factors` they are the logits."""
        hidden = self.decode_hidden(self.point(rows))
        return _factors(hidden, hidden.new_ones(len(hidden)))

    def item_factors(self) -> Tensor:
        """``[n_items, dim]``: the last layer's weights, its bias, zeros."""
        return _factors(self.output.weight.detach(), self.output.bias.detach())

    def item_vectors(self) -> Tensor:
        """``[n_items, hidden]``: the decoder's last layer, whose inner product with a user's hidden state scores an item."""
        return self.output.weight.detach()


def _factors(vectors: Tensor, last: Tensor) -> Tensor:
    """``[n, dim]`` vectors and one column more; zeros fill each row up to 64 bytes' multiple, as products are faster then."""
    n, dim = vectors.shape
    factors = vectors.new_zeros(n, -(-(dim + 1) // 16) * 16)
    factors[:, :dim], factors[:, dim] = vectors, last
    return factors


def _linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    # On no device: the layer's own initial weights would draw from the global generator.
    layer = nn.Linear(n_in, n_out, device="meta")
    layer.weight = nn.Parameter(_xavier_normal((n_out, n_in), generator))
    layer.bias = nn.Parameter(_small_normal(n_out, generator))
    return layer


def _xavier_normal(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return nn.init.xavier_normal_(torch.empty(shape), generator=generator)


def _small_normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.empty(n).normal_(0, 0.001, generator=generator)
