"""What the autoencoders share: an encoder that reads sparse histories and a decoder up to its last
layer.
"""

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
        counts: ``[n_users]`` number of items, BEFORE any masking: the norm is that of the clean
            history.

    Returns:
        ``[n_users]`` float32, 1 / sqrt(n_u); finite for an empty history, which stays zero.
    """
    return counts.clamp(min=1).to(torch.float32).rsqrt()


class SparseLinear(nn.Module):
    """A linear layer between items and a hidden space, stored ``[n_items, dim]`` so that rows can
    be gathered.

    With `sparse_gradient` the gradient of its weight is a sparse tensor of the rows that were met.
    """

    sparse_gradient = False

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def gather(self, rows: SparseRows) -> Tensor:
        """The sums ``[n_users, dim]`` of the weights of each user's items, without the bias."""
        return (
            gather_sum(*met_rows(rows, self.weight))
            if self.sparse_gradient
            else gather_sum(rows, self.weight)
        )


def met_rows(rows: SparseRows, weight: Tensor) -> tuple[SparseRows, Tensor]:
    """Histories over their own items alone, and those items' rows of ``weight``, whose gradient
    then is sparse.
    """
    local, items = rows.compact()
    return local, functional.embedding(items, weight, sparse=True)


class Autoencoder(nn.Module, ABC):
    """An encoder and a decoder around a code.

    The first and the last layer meet the items; the last one's product is left to the objective,
    which fuses it with the soft-max, to whoever ranks by `user_factors` and `item_factors`, and to
    `decode`.

    Args:
        first: The first layer.
        last: The last one.
    """

    def __init__(self, first: SparseLinear, last: SparseLinear) -> None:
        super().__init__()
        self.n_items = len(last.weight)
        self.input, self.output = first, last

    def encode(self, rows: SparseRows, scale: Tensor) -> Tensor:
        """The code of ``[n_users, n_items]`` histories whose entries all weigh ``scale``
        ([n_users]): ``[n_users, code_dim]``.
        """
        return self.encode_hidden(self.input.gather(rows) * scale.unsqueeze(1) + self.input.bias)

    @abstractmethod
    def encode_hidden(self, h: Tensor) -> Tensor:
        """The encoder without its first layer: ``[n_users, hidden]`` before its activation to
        ``[n_users, code_dim]``.
        """

    def compile_layers(self) -> None:
        """Compiles what lies between the first and the last layer; those two run as they are, their
        shapes change with every batch.
        """
        self.encode_hidden = torch.compile(self.encode_hidden, dynamic=True)  # type: ignore[method-assign]
        self.decode_hidden = torch.compile(self.decode_hidden, dynamic=True)  # type: ignore[method-assign]

    @abstractmethod
    def decode_hidden(self, z: Tensor) -> Tensor:
        """The decoder without its last layer: ``[n_users, latent_dim]`` to ``[n_users,
        hidden]``.
        """

    def decode(self, z: Tensor) -> Tensor:
        """Logits ``[n_users, n_items]`` of ``[n_users, latent_dim]`` latent points."""
        return self.decode_hidden(z) @ self.output.weight.t() + self.output.bias

    @abstractmethod
    def point(self, rows: SparseRows) -> Tensor:
        """The latent point ``[n_users, latent_dim]`` that clean histories are decoded from when
        they are scored.
        """

    def score(self, rows: SparseRows) -> Tensor:
        """Logits ``[n_users, n_items]``."""
        return self.decode(self.point(rows))

    def user_factors(self, rows: SparseRows) -> Tensor:
        """``[n_users, dim]``: the last hidden layer, a one for the bias, zeros. Times
        `item_factors` they are the logits.
        """
        hidden = self.decode_hidden(self.point(rows))
        return _factors(hidden, hidden.new_ones(len(hidden)))

    def item_factors(self) -> Tensor | None:
        """``[n_items, dim]``: the last layer's weights, its bias, zeros."""
        return _factors(self.output.weight.detach(), self.output.bias.detach())

    def item_vectors(self) -> Tensor:
        """``[n_items, hidden]``: the decoder's last layer, whose inner product with a user's hidden
        state scores an item.
        """
        return self.output.weight.detach()


class TanhAutoencoder(Autoencoder):
    """Dense layers with tanh between them, as in Mult-VAE and Mult-DAE.

    Args:
        n_items: Size of the catalogue.
        hidden_dims: Widths between items and code, on both sides (mirrored in the decoder).
        code_dim: What the encoder puts out, e.g. mean and log-variance together.
        latent_dim: What the decoder takes in.
        generator: For the initial weights: Xavier normal, biases normal(0, 0.001).
    """

    def __init__(
        self,
        n_items: int,
        hidden_dims: Sequence[int],
        code_dim: int,
        latent_dim: int,
        generator: torch.Generator,
    ) -> None:
        encoder = [*hidden_dims, code_dim]
        decoder = [latent_dim, *reversed(hidden_dims)]
        first = SparseLinear(
            _xavier_normal((n_items, encoder[0]), generator), _small_normal(encoder[0], generator)
        )
        inner = [
            [_linear(i, o, generator) for i, o in pairwise(dims)] for dims in (encoder, decoder)
        ]
        last = SparseLinear(
            _xavier_normal((n_items, decoder[-1]), generator), _small_normal(n_items, generator)
        )
        super().__init__(first, last)
        self.encoder, self.decoder = (nn.ModuleList(layers) for layers in inner)

    def encode_hidden(self, h: Tensor) -> Tensor:
        """Tanh and a dense layer, in turn."""
        for layer in self.encoder:
            h = layer(torch.tanh(h))
        return h

    def decode_hidden(self, z: Tensor) -> Tensor:
        """A dense layer and tanh, in turn."""
        for layer in self.decoder:
            z = torch.tanh(layer(z))
        return z


def _factors(vectors: Tensor, last: Tensor) -> Tensor:
    """``[n, dim]`` vectors and one column more; zeros fill each row up to 64 bytes' multiple, as
    products are faster then.
    """
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
