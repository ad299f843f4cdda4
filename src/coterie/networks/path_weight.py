"""The weight of a linear path, and how it follows a user's activity, chosen on validation users."""

from collections.abc import Iterable

import torch
from torch import Tensor

from coterie.networks.linear_path import LinearPath, by_activity
from coterie.networks.network import Judge

ALONE = 2.0**60
"""So large a weight that the path ranks alone, and the decoder what the path leaves equal."""

# Exponents of 2 by which the path's deviation is tried over the decoder's, and the finer steps
# around the best one.
_COARSE, _FINE = range(-5, 7), (-0.5, -0.25, 0.25, 0.5)
# Exponents of a user's number of items, outwards from 0, and those of 2 by which each is tried
# around the weight that is best without.
_ACTIVITIES, _AROUND = ((0.25, 0.5, 1.0, 2.0), (-0.25, -0.5)), (-1, 0, 1)


def choose_weight(network: LinearPath, judge: Judge, activity: float | None = None) -> None:
    """Gives the path the weight w · n_u^a with which the sum is best: none, one of a grid, or
    `ALONE`.

    A grid, since the metric is a step function of the weight. Its unit brings the path's scores to
    the decoder's standard deviation; around the best of its weights, a factor of 2 apart, four more
    are tried. Then a goes up and down from 0 as long as that is better, with three weights each,
    around the one with which a user of typical activity keeps theirs; and the best has finer steps
    again. Of equals the a nearest to 0 is taken, then the least w.

    Args:
        network: With its path.
        judge: Of the validation users.
        activity: a, where it is given; None = it is chosen, too.
    """
    tried = _Tried(network, judge)
    tried.over_the_grid(activity or 0.0)
    tried.around_the_best()
    if activity is None:
        tried.other_activities()
        if tried.best()[0] != 0:
            tried.around_the_best()
    network.path_activity, network.path_weight = tried.best()


class _Tried:
    """What the sum is worth with each pair of a and w that was tried."""

    def __init__(self, network: LinearPath, judge: Judge) -> None:
        with torch.no_grad():
            self._decoder = network.decode(network.point(judge.rows))
            self._path = judge.scores(network.path)
        self._judge = judge
        self._found: dict[tuple[float, float], float] = {}

    def _lifted(self, activity: float) -> Tensor:
        return self._path * by_activity(self._judge.rows, activity)

    def _attempt(self, activity: float, weights: Iterable[float]) -> None:
        path = self._lifted(activity)
        for weight in weights:
            self._found[activity, weight] = self._judge.value(self._decoder + weight * path)

    def over_the_grid(self, activity: float) -> None:
        """No path, the path alone, and weights between them."""
        deviation = self._lifted(activity).std()
        unit = float(self._decoder.std() / deviation) if deviation > 0 else 0.0
        self._attempt(activity, [0.0, ALONE, *(unit * 2.0**step for step in _COARSE)])

    def around_the_best(self) -> None:
        """Finer steps, unless no path or the path alone is best."""
        activity, weight = self.best()
        if 0 < weight < ALONE:
            self._attempt(activity, [weight * 2**step for step in _FINE])

    def other_activities(self) -> None:
        """Outwards from 0, from the best weight so far that is neither 0 nor `ALONE`."""
        between = [pair for pair in self._found if 0 < pair[1] < ALONE]
        _, weight = max(between, key=self._rank, default=(0.0, 0.0))
        typical = float(self._judge.rows.counts.clamp(min=1).double().log().mean().exp())
        for side in _ACTIVITIES if weight else ():
            for a in side:
                self._attempt(a, [weight / typical**a * 2.0**step for step in _AROUND])
                if self.best()[0] != a:
                    break

    def best(self) -> tuple[float, float]:
        """The best a and w."""
        return max(self._found, key=self._rank)

    def _rank(self, pair: tuple[float, float]) -> tuple[float, float, float]:
        activity, weight = pair
        return self._found[pair], -abs(activity), -weight
