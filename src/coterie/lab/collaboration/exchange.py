"""Exchange: what a step on one user gives another, over encoder, decoder and all parameters.

A step of rate η on v moves every weight by -η s_v, with s_v the gradient of v's whole objective,
and the loss of u by -η <g_u, s_v> + O(η²). The inner products are exact for the given points. They
are sums over layers of products of small inner products (`layers.py`); no gradient is written out
but one a user v where Adam scales the step, as then nothing factorizes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.errors import ConfigError, NumericalError
from coterie.lab.collaboration.layers import (
    DenseGradient,
    Direction,
    ItemsGradient,
    LayerGradient,
    NormGradient,
)
from coterie.lab.collaboration.losses import Loss, Side
from coterie.networks.autoencoder import Autoencoder, VariationalAutoencoder
from coterie.running.progress import Progress, Update, silent

Part: TypeAlias = Literal["decoder", "encoder", "all"]
PARTS: tuple[Part, ...] = ("decoder", "encoder", "all")

BYTES_AT_ONCE = 2**27
"""Of one block's gradients at the logits, by far the largest array."""

ADAM_EPSILON = 1e-8
"""Torch's, beside the root of the second moment."""

Weighed: TypeAlias = tuple[Tensor, Tensor]
"""Of the decoder and of the encoder."""


@dataclass(frozen=True, eq=False)
class Exchange:
    """<g_u, s_v> of every u with every v, above 0 where a small step on v lowers u's loss.

    Arrays are float64, in nats and units of the weights.

    Args:
        products: By decoder and encoder, ``[n_users, n_others]``.
        user_norms: ‖g_u‖ by decoder and encoder, ``[n_users]``.
        other_norms: ‖s_v‖, or that of the step as Adam scales it, ``[n_others]``. Anchors do not
            count.
    """

    products: Mapping[str, np.ndarray]
    user_norms: Mapping[str, np.ndarray]
    other_norms: Mapping[str, np.ndarray]

    def transfer(self, part: Part = "all") -> np.ndarray:
        """``[n_users, n_others]`` <g_u, s_v> over a part."""
        both: np.ndarray = np.stack([self.products[one] for one in _halves(part)]).sum(axis=0)
        return both

    def cosine(self, part: Part = "all") -> np.ndarray:
        """``[n_users, n_others]`` <g_u, s_v> / (‖g_u‖ ‖s_v‖) over a part; 0 where a norm is."""
        sizes = np.outer(_norm(self.user_norms, part), _norm(self.other_norms, part))
        found: np.ndarray = np.divide(
            self.transfer(part), sizes, out=np.zeros_like(sizes), where=sizes > 0
        )
        return found


def _halves(part: Part) -> tuple[str, ...]:
    return ("decoder", "encoder") if part == "all" else (part,)


def _norm(norms: Mapping[str, np.ndarray], part: Part) -> np.ndarray:
    squares = np.stack([norms[one] ** 2 for one in _halves(part)])
    norm: np.ndarray = np.sqrt(squares.sum(axis=0))
    return norm


def exchange(
    network: VariationalAutoencoder,
    users: Side,
    others: Side,
    *,
    second_moments: Direction | None = None,
    progress: Progress = silent,
) -> Exchange:
    """What a step on every v gives every u.

    Without Adam time grows with n_users · n_others · n_draws² · (widths of the layers), memory with
    a block of points × items. With Adam it grows with n_users · n_others · (weights of the decoder)
    and one direction is held at a time.

    Args:
        network: A variational autoencoder of dense layers and layer norms.
        users: u, with the loss that is to fall.
        others: v, with the objective whose step is taken.
        second_moments: Adam's, by parameter: the step on v is s_v / (√moment + ε), momentum and the
            moments held as they are. None = plain gradient descent.
        progress: Called after every block of v.

    Raises:
        ConfigError: if a parameter of the network is in no layer that is known here, or has no
            second moment.
        NumericalError: if a gradient is not finite.

    Example:
        >>> from scipy.sparse import csr_array
        >>> from coterie.lab.collaboration.losses import HiddenItems, mean_path, whole_objective
        >>> from coterie.models.multvae import MultVAEConfig
        >>> from coterie.sparse import SparseRows
        >>> model = MultVAEConfig(hidden_dims=(3,), latent_dim=2, beta=0.1)
        >>> network = model.build(4, torch.Generator().manual_seed(1))
        >>> shown, hidden, others = (
        ...     SparseRows.from_csr(csr_array(one))
        ...     for one in ([[1, 0, 0, 0]], [[0, 1, 0, 0]], [[1, 1, 0, 0], [0, 0, 1, 1]])
        ... )
        >>> objective = whole_objective(model, network, others, None)
        >>> found = exchange(
        ...     network, mean_path(shown, HiddenItems(shown, hidden)), mean_path(others, objective)
        ... )
        >>> np.sign(found.transfer("decoder")).tolist()
        [[1.0, -1.0]]
    """
    meet = _Plain() if second_moments is None else _Scaled(second_moments)
    meet.begin(network, users)
    blocks = _blocks(network, others)
    rows, norms = [], []
    for done, block in enumerate(blocks, start=1):
        products, own = meet.block(network, others.take(block))
        rows.append(products)
        norms.append(own)
        progress(Update("exchange", done, len(blocks), "blocks"))
    return Exchange(
        products=_named([torch.cat(one, dim=1) for one in zip(*rows, strict=True)]),
        user_norms=_named(meet.user_norms),
        other_norms=_named([torch.cat(one) for one in zip(*norms, strict=True)]),
    )


def _named(both: Weighed | list[Tensor]) -> dict[str, np.ndarray]:
    arrays = (one.double().cpu().numpy() for one in both)
    return dict(zip(("decoder", "encoder"), arrays, strict=True))


def _blocks(network: Autoencoder, side: Side) -> tuple[Tensor, ...]:
    weight = network.output.weight
    size = side.n_draws * network.n_items * weight.element_size()
    return torch.split(torch.arange(len(side), device=weight.device), max(1, BYTES_AT_ONCE // size))


@dataclass
class _Meeting(ABC):
    """How the users' gradients meet those of a block of others.

    Args:
        users: Gradients of the users, a list of layers for each block of them.
        n_draws: Of the users.
        user_norms: ‖g_u‖.
    """

    users: list[list[LayerGradient]] = field(default_factory=list)
    n_draws: int = 1
    user_norms: Weighed = field(default_factory=lambda: (torch.zeros(0), torch.zeros(0)))

    def begin(self, network: VariationalAutoencoder, users: Side) -> None:
        """Takes the users' gradients."""
        self.n_draws = users.n_draws
        sides = [users.take(block) for block in _blocks(network, users)]
        self.users = [point_gradients(network, side) for side in sides]
        norms = [gradient_norms(layers, users.n_draws) for layers in self.users]
        decoder, encoder = (torch.cat(one) for one in zip(*norms, strict=True))
        self.user_norms = decoder, encoder

    @abstractmethod
    def block(self, network: VariationalAutoencoder, others: Side) -> tuple[Weighed, Weighed]:
        """Products ``[n_users, n_block]`` and the others' norms ``[n_block]``."""


class _Plain(_Meeting):
    """The step is the gradient."""

    def block(self, network: VariationalAutoencoder, others: Side) -> tuple[Weighed, Weighed]:
        """By products of layers."""
        steps = point_gradients(network, others)
        parts = [self._products(layers, steps, others.n_draws) for layers in self.users]
        decoder, encoder = (torch.cat(one) for one in zip(*parts, strict=True))
        return (decoder, encoder), gradient_norms(steps, others.n_draws)

    def _products(
        self, layers: list[LayerGradient], steps: list[LayerGradient], n_draws: int
    ) -> Weighed:
        def means(one: LayerGradient, other: LayerGradient) -> Tensor:
            found = one.products(other)
            shape = found.shape[0] // self.n_draws, self.n_draws, found.shape[1] // n_draws
            return found.view(*shape, n_draws).mean(dim=(1, 3))

        return _by_part(
            [(one.layer, means(one, other)) for one, other in zip(layers, steps, strict=True)]
        )


class _Scaled(_Meeting):
    """The step is the gradient as Adam scales it.

    Args:
        second_moments: By parameter.
    """

    def __init__(self, second_moments: Direction) -> None:
        super().__init__()
        self._scales = {
            name: 1 / (moment.sqrt() + ADAM_EPSILON) for name, moment in second_moments.items()
        }

    def block(self, network: VariationalAutoencoder, others: Side) -> tuple[Weighed, Weighed]:
        """One direction written out for each of the others."""
        self._check(network)
        alone = [others.take(one.view(1)) for one in torch.arange(len(others))]
        steps = [self._step(point_gradients(network, one)) for one in alone]
        products = [self._along(step) for step in steps]
        norms = [
            _by_part([(n.rpartition(".")[0], v.square().sum()) for n, v in step.items()])
            for step in steps
        ]
        decoder, encoder = (torch.stack(one, dim=1) for one in zip(*products, strict=True))
        in_decoder, in_encoder = (torch.stack(one).sqrt() for one in zip(*norms, strict=True))
        return (decoder, encoder), (in_decoder, in_encoder)

    def _check(self, network: VariationalAutoencoder) -> None:
        missing = [name for name in _learned(network) if name not in self._scales]
        if missing:
            raise ConfigError(
                f"Adam's scale needs the second moment of every parameter, {missing[0]} has none;"
                " take them from a snapshot, or from estimated_second_moments."
            )

    def _step(self, layers: list[LayerGradient]) -> dict[str, Tensor]:
        written = {name: value for one in layers for name, value in one.mean().items()}
        return {name: value * self._scales[name].to(value) for name, value in written.items()}

    def _along(self, step: Direction) -> Weighed:
        parts = []
        for layers in self.users:
            found = [(one.layer, one.along(step)) for one in layers]
            means = [(name, one.view(-1, self.n_draws).mean(dim=1)) for name, one in found]
            parts.append(_by_part(means))
        decoder, encoder = (torch.cat(one) for one in zip(*parts, strict=True))
        return decoder, encoder


def part_of(layer: str) -> str:
    """Decoder or encoder, by the name of a layer."""
    return "decoder" if layer.startswith(("decoder", "output")) else "encoder"


def _by_part(of_layers: list[tuple[str, Tensor]]) -> Weighed:
    """Sums over the layers of decoder and encoder."""
    decoder, encoder = (
        torch.stack([value for layer, value in of_layers if part_of(layer) == part]).sum(dim=0)
        for part in ("decoder", "encoder")
    )
    return decoder, encoder


def gradient_norms(layers: list[LayerGradient], n_draws: int) -> Weighed:
    """Norms ``[n_users]`` of the users' mean gradients over decoder and encoder."""
    squares = [(one.layer, one.own_products(n_draws).mean(dim=(1, 2))) for one in layers]
    decoder, encoder = _by_part(squares)
    return decoder.clamp(min=0).sqrt(), encoder.clamp(min=0).sqrt()


def point_gradients(network: VariationalAutoencoder, side: Side) -> list[LayerGradient]:
    """The gradients of single points over every layer, in a fixed order.

    Raises:
        ConfigError: if a parameter is in no layer that is known here.
        NumericalError: if a gradient is not finite.
    """
    with torch.enable_grad(), _listening(network) as calls:
        first = network.input.gather(side.seen) * side.scale.unsqueeze(1) + network.input.bias
        first = first.detach().requires_grad_()
        mu, logvar = network.encode_hidden(first).chunk(2, dim=1)
        z = mu if side.noise is None else mu + (logvar / 2).exp() * side.noise.to(mu)
        hidden = network.decode_hidden(z)
    _check_known(network, calls)
    with torch.enable_grad():  # Apart: a prior may call the encoder once more.
        beside = side.loss.beside(network, z, mu, logvar).sum()
    delta, at_hidden = _at_logits(network, hidden.detach(), side.loss)
    outputs = [first, *(call.output for call in calls)]
    at_first, *inner = torch.autograd.grad((hidden * at_hidden).sum() + beside, outputs)
    layers: list[LayerGradient] = [
        DenseGradient("output", delta, hidden.detach()),
        ItemsGradient("input", at_first, side.seen, side.scale.to(at_first)),
    ]
    return layers + [call.gradient(one) for call, one in zip(calls, inner, strict=True)]


def _at_logits(network: Autoencoder, hidden: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """δ of the last layer, and the gradient at its input."""
    with torch.no_grad():
        weight, bias = network.output.weight, network.output.bias
        delta = loss.at_logits(torch.addmm(bias, hidden, weight.t()))
        at_hidden = delta @ weight
    if not bool(at_hidden.isfinite().all()):
        raise NumericalError(
            "gradients must be finite, found NaN or infinity: the weights are damaged; train the"
            " model again."
        )
    return delta, at_hidden


@dataclass(frozen=True)
class _Call:
    """A layer as it was called."""

    layer: str
    module: nn.Module
    h: Tensor
    output: Tensor

    def gradient(self, delta: Tensor) -> LayerGradient:
        if isinstance(self.module, nn.LayerNorm):
            shape, eps = self.module.normalized_shape, self.module.eps
            return NormGradient(
                self.layer, delta * functional.layer_norm(self.h, list(shape), eps=eps), delta
            )
        return DenseGradient(self.layer, delta, self.h)


@contextmanager
def _listening(network: Autoencoder) -> Iterator[list[_Call]]:
    """The calls of all dense layers and layer norms."""
    calls: list[_Call] = []

    def listener(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: calls.append(
            _Call(name, module, inputs[0].detach(), output)
        )

    hooks = [
        module.register_forward_hook(listener(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.LayerNorm)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _check_known(network: Autoencoder, calls: list[_Call]) -> None:
    called = ["input", "output", *(call.layer for call in calls)]
    known = {f"{layer}.{name}" for layer in called for name in ("weight", "bias")}
    strange = sorted(set(_learned(network)) - known)
    if strange or len(set(called)) < len(called):
        raise ConfigError(
            "exchange is measured over dense layers and layer norms that are called once, found"
            f" {strange[0] if strange else 'one that is called twice'} in"
            f" {type(network).__name__}; take a mult-vae or a recvae."
        )


def _learned(network: Autoencoder) -> list[str]:
    """Names of what is trained in steps; a linear path beside the autoencoder is fitted before."""
    return [name for name, _ in network.named_parameters() if not name.startswith("path.")]
