"""RecVAE's network and its composite prior (Shenbin et al., WSDM 2020)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.networks.autoencoder import (
    Autoencoder,
    LinearOutput,
    SparseLinear,
    VariationalAutoencoder,
    by_unit,
    narrow,
)
from coterie.networks.onnx_graph import OnnxGraph
from coterie.networks.prior import Prior
from coterie.objectives.divergence import composite_log_density, sampled_kl
from coterie.sparse import SparseRows

DEPTH = 5
"""Dense layers of the encoder, the first one included."""

LAYER_NORM_EPS = 0.1
"""As in the authors' code, where the usual 1e-5 is not even the default of their own constructor.
"""


class SkipVAE(VariationalAutoencoder):
    """I-600-600-600-600-600-200-I by default: p(x given z) = Mult(n, softmax(Wz + b)).

    Every layer of the encoder adds the outputs of all before it, then swish, then layer norm.

    Args:
        n_items: Size of the catalogue.
        hidden_dim: Width of the encoder's layers.
        latent_dim: Of z.
        generator: For the initial weights.
    """

    def __init__(
        self, n_items: int, hidden_dim: int, latent_dim: int, generator: torch.Generator
    ) -> None:
        width = hidden_dim
        first = SparseLinear(
            _uniform((n_items, width), n_items, generator), _uniform((width,), n_items, generator)
        )
        layers = [_linear(width, width, generator) for _ in range(DEPTH - 1)]
        code = _linear(width, 2 * latent_dim, generator)
        last = SparseLinear(
            _uniform((n_items, latent_dim), latent_dim, generator),
            _uniform((n_items,), latent_dim, generator),
        )
        super().__init__(first, last)
        self.encoder, self.code = nn.ModuleList(layers), code
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=LAYER_NORM_EPS) for _ in range(DEPTH))
        self.n_carried = min(width // 2, latent_dim)

    def encode_hidden(self, h: Tensor) -> Tensor:
        """Densely connected layers and the two heads: ``[n_users, 2 · latent_dim]``."""
        outputs = [self.norms[0](functional.silu(h))]
        for layer, norm in zip(self.encoder, list(self.norms)[1:], strict=True):
            outputs.append(
                norm(functional.silu(layer(outputs[-1]) + torch.stack(outputs).sum(dim=0)))
            )
        code: Tensor = self.code(outputs[-1])
        return code

    def decode_hidden(self, z: Tensor) -> Tensor:
        """``z`` itself: the decoder is its last layer."""
        return z

    def carry(self, first: Tensor) -> None:
        """By pairs of units that see each dimension with both signs, and whose difference the code
        takes: swish(h) - swish(-h) = h. What the norm takes from both is gone from it.
        """
        k = first.shape[1]
        with torch.no_grad():
            self.input.weight[:, : 2 * k] = torch.cat([first, -first], dim=1)
            self.input.bias[: 2 * k] = 0
            for layer in self.encoder:
                weight, bias = by_unit(layer)
                weight[: 2 * k], bias[: 2 * k] = 0, 0
            weight, bias = by_unit(self.code)
            weight[:k], bias[:k] = 0, 0
            weight[:k, :k].fill_diagonal_(0.5)
            weight[:k, k : 2 * k].fill_diagonal_(-0.5)
        narrow(self.code)

    def add_scores(self, graph: OnnxGraph, **output: str) -> str:
        """Adds the nodes of `score` at the posterior mean, the first half of the code."""
        outputs: list[str] = []
        h = self.add_first_layer(graph)
        for layer, norm in zip([*self.encoder, self.code], self.norms, strict=True):
            swish = graph.node("Mul", h, graph.node("Sigmoid", h))
            scale, bias = (graph.weight(norm.get_parameter(name)) for name in ("weight", "bias"))
            outputs.append(
                graph.node("LayerNormalization", swish, scale, bias, epsilon=LAYER_NORM_EPS)
            )
            h = graph.linear(outputs[-1], layer)
            if layer is not self.code:
                h = graph.node("Sum", h, *outputs)
        return graph.linear(graph.columns(h, 0, len(self.code.bias) // 2), self.output, **output)


class RecVAE(SkipVAE, LinearOutput):
    """A `SkipVAE` whose logits are its scores.

    Example:
        >>> from scipy.sparse import csr_array
        >>> network = RecVAE(4, 3, 2, torch.Generator().manual_seed(1))
        >>> network.score(
        ...     SparseRows.from_csr(csr_array([[1, 0, 1, 0], [0, 0, 0, 0]]))
        ... ).isfinite().all().item()
        True
    """


class CompositePrior(Prior):
    """A mixture of N(0, I), an earlier posterior of the same user and a wide normal, weighed by γ
    for each of the user's items.

    The earlier posterior is that of the encoder before the last decoder passes, from the clean
    history; before the first ones it is the initial encoder's.

    Args:
        network: Whose encoder it begins with.
        gamma: γ.
    """

    def __init__(self, network: Autoencoder, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.earlier = {
            name: value.detach().clone()
            for name, value in network.named_parameters()
            if not name.startswith("output.")
        }

    def divergence(
        self, network: Autoencoder, z: Tensor, mu: Tensor, logvar: Tensor, rows: SparseRows
    ) -> Tensor:
        """An estimate from ``z``, unbiased; it may be negative."""
        with torch.no_grad():
            earlier = torch.func.functional_call(network, self.earlier, (rows,))
        density = composite_log_density(z, *(part.float() for part in earlier))
        return sampled_kl(z, mu, logvar, density)

    def weight(self, n_steps: int, rows: SparseRows) -> Tensor:
        """``[n_users]``: γ · n_u."""
        return self.gamma * rows.counts

    def schedule(self, n_steps: int) -> dict[str, float]:
        """γ."""
        return {"gamma": self.gamma}

    def before_decoder(self, network: Autoencoder) -> None:
        """Takes over the encoder; once more after a resumption, to no effect, as the encoder has
        not moved since.
        """
        for name, value in network.named_parameters():
            if name in self.earlier:
                self.earlier[name].copy_(value.detach())

    def memory(self) -> dict[str, Tensor]:
        """The earlier encoder."""
        return self.earlier


def _linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(n_in, n_out, device="meta")
    layer.weight, layer.bias = (
        nn.Parameter(_uniform(shape, n_in, generator)) for shape in ((n_out, n_in), (n_out,))
    )
    return layer


def _uniform(shape: tuple[int, ...], n_in: int, generator: torch.Generator) -> Tensor:
    """The initial weights that torch gives a dense layer, which the authors left as they are."""
    return torch.empty(shape).uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
