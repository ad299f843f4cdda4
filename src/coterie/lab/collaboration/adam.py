"""Adam's second moments, where a run kept none: what its scale would be at the weights as they are.

The step on one user is then s_v / (√moment + ε). Momentum, and what the user's own gradient does to
the moments, are left out: one user in a batch of hundreds hardly moves them.
"""

from dataclasses import replace

import torch
from torch import Tensor

from coterie.lab.collaboration.exchange import point_gradients
from coterie.lab.collaboration.losses import WholeObjective, drawn_as_trained
from coterie.networks.autoencoder import VariationalAutoencoder


def estimated_second_moments(
    network: VariationalAutoencoder,
    objective: WholeObjective,
    *,
    keep_prob: float,
    batch_size: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The mean square of the gradients of batches, over one pass in a drawn order.

    Args:
        network: A variational autoencoder.
        objective: Of the users of the pass.
        keep_prob: Of the masks, one a user, as is one latent point.
        batch_size: Users a batch: the squares of larger ones are smaller.
        generator: Of order, masks and noise, on the device of the rows.

    Returns:
        A tensor a parameter, by name.
    """
    device = objective.rows.offsets.device
    order = torch.randperm(len(objective.rows), generator=generator, device=device)
    latent_dim = network.encode_hidden(network.input.bias.unsqueeze(0)).shape[1] // 2
    total: dict[str, Tensor] = {}
    batches = torch.split(order, batch_size)
    for batch in batches:
        some = replace(objective, rows=objective.rows.take(batch))
        side = drawn_as_trained(some, latent_dim, keep_prob, 1, generator)
        for layer in point_gradients(network, side):
            for name, mean in layer.mean().items():
                total[name] = total.get(name, torch.zeros_like(mean)) + mean.square()
    return {name: one / len(batches) for name, one in total.items()}
