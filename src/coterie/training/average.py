"""The average of the weights over the last steps, which ranks better than the weights of one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of parameters.

    The first steps count for more than their share, lest the initial weights linger: the decay
    after t steps is at most (1 + t) / (10 + t).

    Args:
        parameters: What is averaged, by name. Their values now are the average's first.
        decay: Share of the average that a step leaves, in (0, 1).

    Example:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> average = WeightAverage({"weight": weight}, decay=0.5)
        >>> _ = weight.data.fill_(1)
        >>> average.update(n_steps=100)
        >>> with average.in_place():
        ...     weight.item()
        0.5
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = dict(parameters), decay
        self._average = {name: value.detach().clone() for name, value in parameters.items()}

    def update(self, n_steps: int) -> None:
        """Moves the average towards the weights after ``n_steps`` steps."""
        decay = min(self._decay, (1 + n_steps) / (10 + n_steps))
        with torch.no_grad():
            for name, value in self._parameters.items():
                self._average[name].lerp_(value, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Lets the average stand in the weights' place."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, value in self._parameters.items():
            value.data, self._average[name] = self._average[name], value.data

    def state(self) -> dict[str, Tensor]:
        """The average itself, by name."""
        return {f"average.{name}": value for name, value in self._average.items()}
