"""The weight of a linear path, chosen on validation users."""

from collections.abc import Iterable

import torch

from coterie.networks.linear_path_vae import LinearPathVAE
from coterie.networks.network import Judge

ALONE = 2.0**60
"""So large a weight that the path ranks alone, and the decoder what the path leaves equal."""

# Exponents of 2 by which the path's deviation is tried over the decoder's, and the finer steps
# around the best one.
_COARSE, _FINE = range(-5, 7), (-0.5, -0.25, 0.25, 0.5)


def choose_weight(network: LinearPathVAE, judge: Judge) -> None:
    """Gives the path the weight with which the sum is best: none, one of a grid, or `ALONE`.

    A grid, since the metric is a step function of the weight. Its unit brings the path's scores to
    the decoder's standard deviation; around the best of its weights, a factor of 2 apart, four more
    are tried. Of equals the least is taken.

    Args:
        network: With its path.
        judge: Of the validation users.
    """
    with torch.no_grad():
        decoder = network.decode(network.point(judge.rows))
        path = judge.scores(network.path)
    unit = float(decoder.std() / path.std()) if path.std() > 0 else 0.0
    found: dict[float, float] = {}

    def best(weights: Iterable[float]) -> float:
        for weight in weights:
            found[weight] = judge.value(decoder + weight * path)
        return max(sorted(found), key=lambda weight: found[weight])

    coarse = best([0.0, ALONE, *(unit * 2.0**exponent for exponent in _COARSE)])
    fine = (coarse * 2**step for step in _FINE) if 0 < coarse < ALONE else ()
    network.path_weight = best(fine)
