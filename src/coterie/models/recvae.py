"""RecVAE: a deeper encoder, a linear decoder, a composite prior (Shenbin et al., WSDM 2020)."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from coterie.models.autoencoder import Autoencoder, SparseLinear, input_scale
from coterie.models.fields import PositiveInt, Range
from coterie.models.stepped import AlignedConfig, Part
from coterie.sparse import SparseRows

DEPTH = 5
"""Dense layers of the encoder, the first one included."""

LAYER_NORM_EPS = 0.1
"""As in the authors' code, where the usual 1e-5 is not even the default of their own constructor.
"""


class RecVAEConfig(AlignedConfig):
    """Architecture and objective of a RecVAE."""

    name: Literal["recvae"] = "recvae"
    hidden_dim: PositiveInt = Field(600, description="width of the encoder's five layers")
    latent_dim: PositiveInt = Field(200, description="the dimension of z")
    keep_prob: float = Field(
        0.5,
        gt=0,
        le=1,
        description="probability that an input entry survives masking while the encoder learns",
    )
    gamma: float = Field(
        0.005, ge=0, description="weight of the KL for each of a user's items: γ · n_u"
    )
    encoder_epochs: PositiveInt = Field(
        3, description="passes over the users, an epoch, in which the encoder alone learns"
    )
    decoder_epochs: PositiveInt = Field(
        1, description="passes after them in which the decoder alone learns, from clean input"
    )

    SEARCH: ClassVar = {
        "latent_dim": Range(50, 400, log=True),
        "keep_prob": Range(0.3, 0.9),
        "gamma": Range(0.0005, 0.05, log=True),
        "pia": Range(0.05, 5.0, log=True),
    }

    @property
    def passes(self) -> tuple[Part, ...]:
        """What learns in each pass of an epoch."""
        parts: list[Part] = ["encoder"] * self.encoder_epochs
        parts += ["decoder"] * self.decoder_epochs
        return tuple(parts)


class RecVAE(Autoencoder):
    """I-600-600-600-600-600-200-I by default: q(z given x) = N(mu, diag exp(logvar)), p(x given z)
    = Mult(n, softmax(Wz + b)).

    Every layer of the encoder adds the outputs of all before it, then swish, then layer norm.

    Example:
        >>> from scipy.sparse import csr_array
        >>> network = RecVAE(
        ...     4, RecVAEConfig(hidden_dim=3, latent_dim=2), torch.Generator().manual_seed(1)
        ... )
        >>> network.score(
        ...     SparseRows.from_csr(csr_array([[1, 0, 1, 0], [0, 0, 0, 0]]))
        ... ).isfinite().all().item()
        True
    """

    def __init__(self, n_items: int, config: RecVAEConfig, generator: torch.Generator) -> None:
        width, latent_dim = config.hidden_dim, config.latent_dim
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

    def posterior(self, rows: SparseRows, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each ``[n_users, latent_dim]``, of histories; ``scale`` as in
        `input_scale`, clean by default.
        """
        mu, logvar = self.encode(rows, input_scale(rows.counts) if scale is None else scale).chunk(
            2, dim=1
        )
        return mu, logvar

    forward = (
        posterior  # so that torch.func.functional_call can ask the encoder of an earlier epoch
    )

    def point(self, rows: SparseRows) -> Tensor:
        """The posterior mean."""
        return self.posterior(rows)[0]


def _linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(n_in, n_out, device="meta")
    layer.weight, layer.bias = (
        nn.Parameter(_uniform(shape, n_in, generator)) for shape in ((n_out, n_in), (n_out,))
    )
    return layer


def _uniform(shape: tuple[int, ...], n_in: int, generator: torch.Generator) -> Tensor:
    """The initial weights that torch gives a dense layer, which the authors left as they are."""
    return torch.empty(shape).uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
