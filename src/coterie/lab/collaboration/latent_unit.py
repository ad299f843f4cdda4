"""The same model in another unit of its latent space.

Nothing that a model says depends on the unit of z: divide the code by a number and multiply the
decoder's first weights by it. Gradients do: those of the encoder grow by the number, so that it
takes a larger part in inner products over all parameters. Settings whose posteriors differ in
scale, as with and without PIA, are to be compared over all parameters in one unit.
"""

import copy
import math

import torch
from torch import nn

from coterie.errors import ConfigError
from coterie.networks.autoencoder import DenseAutoencoder, VariationalAutoencoder, by_unit


def in_unit(network: VariationalAutoencoder, unit: float) -> VariationalAutoencoder:
    """A copy that says the same of everybody, at latent points divided by ``unit``.

    The prior N(0, I) becomes N(0, I / unit²): an objective with a KL is another one there.

    Args:
        network: Of dense layers.
        unit: Above 0.

    Raises:
        ConfigError: if the network is of other layers.

    Example:
        >>> from scipy.sparse import csr_array
        >>> from coterie.models.multvae import MultVAEConfig
        >>> from coterie.sparse import SparseRows
        >>> config = MultVAEConfig(hidden_dims=(3,), latent_dim=2)
        >>> network = config.build(4, torch.Generator().manual_seed(1))
        >>> rows = SparseRows.from_csr(csr_array([[1, 1, 0, 0]]))
        >>> other = in_unit(network, 4.0)
        >>> bool(torch.allclose(network.score(rows), other.score(rows), atol=1e-6))
        True
    """
    found = copy.deepcopy(network)
    if not isinstance(found, DenseAutoencoder) or unit <= 0:
        raise ConfigError(
            f"a unit above 0 of a network of dense layers, found {unit:g} and"
            f" {type(network).__name__}; take a mult-vae."
        )
    with torch.no_grad():
        weight, bias = by_unit(found.code_layer)
        of_mu = slice(len(bias) // 2)
        weight[of_mu] /= unit
        bias[of_mu] /= unit
        bias[len(bias) // 2 :] -= 2 * math.log(unit)
        reads: nn.Module = found.decoder[0] if len(found.decoder) else found.output
        reads.get_parameter("weight").mul_(unit)
    return found
