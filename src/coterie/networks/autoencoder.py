"""What the autoencoders share: an encoder that reads sparse histories and a decoder up to its last
layer.
"""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.networks.network import Network
from coterie.networks.onnx_graph import OnnxGraph
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


class Autoencoder(Network):
    """An encoder and a decoder around a code.

    The first and the last layer meet the items; the last one's product is left to the objective,
    which fuses it with the soft-max, to whoever ranks by factors, and to `decode`.

    Args:
        first: The first layer.
        last: The last one.
    """

    n_carried: int
    """How many dimensions `carry` can take."""

    def __init__(self, first: SparseLinear, last: SparseLinear) -> None:
        super().__init__()
        self.n_items = len(last.weight)
        self.input, self.output = first, last

    def encode(self, rows: SparseRows, scale: Tensor | None = None) -> Tensor:
        """The code ``[n_users, code_dim]`` of histories.

        Args:
            rows: ``[n_users, n_items]``.
            scale: ``[n_users]`` what every entry weighs; `input_scale` of these rows by default,
                as of clean histories.
        """
        scale = input_scale(rows.counts) if scale is None else scale
        return self.encode_hidden(self.input.gather(rows) * scale.unsqueeze(1) + self.input.bias)

    def encode_dense(self, x: Tensor) -> Tensor:
        """The code ``[n, code_dim]`` of ``[n, n_items]`` dense rows, divided by their L2 norm as
        histories are; a row of zeros stays zero.
        """
        return self.encode_hidden(
            functional.normalize(x, dim=1) @ self.input.weight + self.input.bias
        )

    @abstractmethod
    def encode_hidden(self, h: Tensor) -> Tensor:
        """The encoder without its first layer: ``[n_users, hidden]`` before its activation to
        ``[n_users, code_dim]``.
        """

    @abstractmethod
    def decode_hidden(self, z: Tensor) -> Tensor:
        """The decoder without its last layer: ``[n_users, latent_dim]`` to ``[n_users,
        hidden]``.
        """

    @abstractmethod
    def carry(self, first: Tensor) -> None:
        """Sets weights so that a few units of every layer hand on x̂ ``first`` from the items to the
        last layer, each activation bending it a little; all other units stay as they were drawn.

        Args:
            first: ``[n_items, k]`` of the first layer, k at most `n_carried`.
        """

    def chosen(self) -> dict[str, Tensor]:
        """What validation chooses beside the weights, by name; the tensors themselves."""
        return {}

    def compile_layers(self) -> None:
        """Compiles what lies between the first and the last layer; those two run as they are, their
        shapes change with every batch.
        """
        self.encode_hidden = torch.compile(self.encode_hidden, dynamic=True)  # type: ignore[method-assign]
        self.decode_hidden = torch.compile(self.decode_hidden, dynamic=True)  # type: ignore[method-assign]

    @abstractmethod
    def point(self, rows: SparseRows, scale: Tensor | None = None) -> Tensor:
        """The latent point ``[n_users, latent_dim]`` that histories are decoded from when they are
        scored; arguments as in `encode`.
        """

    def decode(self, z: Tensor) -> Tensor:
        """Logits ``[n_users, n_items]`` of ``[n_users, latent_dim]`` latent points."""
        return self.decode_hidden(z) @ self.output.weight.t() + self.output.bias

    def score(self, rows: SparseRows) -> Tensor:
        """Logits ``[n_users, n_items]``."""
        return self.decode(self.point(rows))

    def score_items(self, rows: SparseRows, items: Tensor) -> Tensor:
        """``[n_users, m]``: the last layer is multiplied for these items alone."""
        hidden = self.decode_hidden(self.point(rows))
        return hidden @ self.output.weight[items].t() + self.output.bias[items]

    def item_vectors(self) -> Tensor:
        """``[n_items, hidden]``: the decoder's last layer, whose inner product with a user's hidden
        state scores an item.
        """
        return self.output.weight.detach()

    @abstractmethod
    def add_scores(self, graph: OnnxGraph, **output: str) -> str:
        """Adds the nodes of `score` to an ONNX graph; see `coterie.networks.network.Exportable`."""

    def add_first_layer(self, graph: OnnxGraph) -> str:
        """Adds what the first layer gives for clean histories."""
        norm = graph.node("Sqrt", graph.counts)
        mean = graph.node("Div", graph.history_sum(self.input.weight), norm)
        return graph.node("Add", mean, graph.weight(self.input.bias))


class LinearOutput(Autoencoder):
    """An autoencoder whose scores are its last layer alone: inner products of few dimensions."""

    def user_factors(self, rows: SparseRows) -> Tensor:
        """``[n_users, dim]``: the last hidden layer, a one for the bias, zeros. Times
        `item_factors` they are the logits.
        """
        return _factors(self.decode_hidden(self.point(rows)), 1)

    def item_factors(self) -> Tensor:
        """``[n_items, dim]``: the last layer's weights, its bias, zeros."""
        return _factors(self.output.weight.detach(), self.output.bias.detach())


class VariationalAutoencoder(Autoencoder):
    """An autoencoder whose code is a posterior: q(z given x) = N(mu, diag exp(logvar))."""

    def posterior(self, rows: SparseRows, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each ``[n_users, latent_dim]``, of histories; arguments as in
        `encode`.
        """
        mu, logvar = self.encode(rows, scale).chunk(2, dim=1)
        return mu, logvar

    forward = posterior  # so that functional_call can ask for that of other weights

    def point(self, rows: SparseRows, scale: Tensor | None = None) -> Tensor:
        """The posterior mean."""
        return self.posterior(rows, scale)[0]


class DenseAutoencoder(Autoencoder):
    """Dense layers with an activation between them: tanh, or gates.

    A gated layer (Dauphin et al. 2017) is a dense one times the sigmoid of another: the two are
    stored side by side, twice as wide.

    Args:
        n_items: Size of the catalogue.
        hidden_dims: Widths between items and code, on both sides (mirrored in the decoder).
        code_dim: What the encoder puts out, e.g. mean and log-variance together.
        latent_dim: What the decoder takes in.
        generator: For the initial weights: Xavier normal, biases normal(0, 0.001).
        gated: Gates instead of tanh.
    """

    def __init__(
        self,
        n_items: int,
        hidden_dims: Sequence[int],
        code_dim: int,
        latent_dim: int,
        generator: torch.Generator,
        *,
        gated: bool = False,
    ) -> None:
        wide = 2 if gated else 1
        # An activation follows every layer but the last of each side.
        encoder_out = [*(wide * dim for dim in hidden_dims), code_dim]
        decoder_in = [latent_dim, *reversed(hidden_dims)]
        first = SparseLinear(
            _xavier_normal((n_items, encoder_out[0]), generator),
            _small_normal(encoder_out[0], generator),
        )
        encoder = zip(hidden_dims, encoder_out[1:], strict=True)
        decoder = [(n_in, wide * n_out) for n_in, n_out in pairwise(decoder_in)]
        inner = [[_linear(*shape, generator) for shape in shapes] for shapes in (encoder, decoder)]
        last = SparseLinear(
            _xavier_normal((n_items, decoder_in[-1]), generator), _small_normal(n_items, generator)
        )
        super().__init__(first, last)
        self.encoder, self.decoder = (nn.ModuleList(layers) for layers in inner)
        self.gated = gated
        self.n_carried = min([*hidden_dims, latent_dim])

    def activate(self, h: Tensor) -> Tensor:
        """Between two layers: tanh, or the first half times the sigmoid of the second."""
        return functional.glu(h, dim=1) if self.gated else torch.tanh(h)

    def encode_hidden(self, h: Tensor) -> Tensor:
        """An activation and a dense layer, in turn."""
        for layer in self.encoder:
            h = layer(self.activate(h))
        return h

    def decode_hidden(self, z: Tensor) -> Tensor:
        """A dense layer and an activation, in turn."""
        for layer in self.decoder:
            z = self.activate(layer(z))
        return z

    def carry(self, first: Tensor) -> None:
        """By the first units of every layer; of a gated one they are doubled, and their gates half
        open whatever comes in.
        """
        k = first.shape[1]
        layers = [self.input, *self.encoder, *self.decoder]
        with torch.no_grad():
            self.input.weight[:, :k], self.input.bias[:k] = first, 0
            for layer in layers[1:]:
                weight, bias = by_unit(layer)
                weight[:k], bias[:k] = 0, 0
                weight[:k, :k].fill_diagonal_(1)
            for layer in layers if self.gated else ():
                if layer is not self.code_layer:
                    weight, bias = by_unit(layer)
                    gates = slice(len(bias) // 2, len(bias) // 2 + k)
                    weight[:k] *= 2
                    weight[gates], bias[gates] = 0, 0

    @property
    def code_layer(self) -> nn.Module:
        """The encoder's last one, which may be its first."""
        layers: list[nn.Module] = [self.input, *self.encoder]
        return layers[-1]

    def add_code(self, graph: OnnxGraph) -> tuple[str, int]:
        """Adds the encoder; returns the code, and its width."""
        h, layers = self.add_first_layer(graph), [self.input, *self.encoder]
        for before, layer in pairwise(layers):
            h = graph.linear(self._add_activation(graph, h, before), layer)
        return h, len(layers[-1].get_parameter("bias"))

    def add_decoder(self, graph: OnnxGraph, z: str, **output: str) -> str:
        """Adds the decoder; returns the logits."""
        for layer in self.decoder:
            z = self._add_activation(graph, graph.linear(z, layer), layer)
        return graph.linear(z, self.output, **output)

    def _add_activation(self, graph: OnnxGraph, h: str, layer: nn.Module) -> str:
        if not self.gated:
            return graph.node("Tanh", h)
        width = len(layer.get_parameter("bias"))
        value, gate = (graph.columns(h, *half) for half in ((0, width // 2), (width // 2, width)))
        return graph.node("Mul", value, graph.node("Sigmoid", gate))


def by_unit(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """A layer's weight as ``[n_out, n_in]``, a view, and its bias ``[n_out]``."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    return (weight.t() if isinstance(layer, SparseLinear) else weight), bias


# Of a posterior that starts narrow: its log-variance, and the share left of its drawn weights.
_NARROW_LOGVAR, _NARROW_SHARE = -2.0, 0.1


def narrow(code: nn.Module) -> None:
    """Lets a code, mean and log-variance side by side, start narrow, and so for any history."""
    with torch.no_grad():
        weight, bias = by_unit(code)
        logvar = slice(len(bias) // 2, None)
        weight[logvar] *= _NARROW_SHARE
        bias[logvar] = _NARROW_LOGVAR


def _factors(vectors: Tensor, last: Tensor | float) -> Tensor:
    """``[n, dim]`` vectors and one column more; zeros fill each row up to 64 bytes' multiple, as
    products are faster then.
    """
    n, dim = vectors.shape
    rest = vectors.new_zeros(n, 16 - dim % 16)
    rest[:, 0] = last
    return torch.cat([vectors, rest], dim=1)


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
