"""The average of the weights over the last steps, which ranks better than the weights of one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """A moving average of parameters over the last part of all steps so far, whether they are ten
    or a million.

    After t steps the newest weights count 1 / (1 + share · t), so that the average looks back on
    share · t steps: the polynomial-decay averaging of Shamir and Zhang (2013), section 4.

    Args:
        parameters: What is averaged, by name.
        share: Of all steps, in (0, 1).

    Example:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> average = WeightAverage({"weight": weight}, share=0.1)
        >>> _ = weight.data.fill_(1)
        >>> average.update(n_steps=30)
        >>> with average.in_place():
        ...     weight.item()
        0.25
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], share: float) -> None:
        self._parameters, self._share = dict(parameters), share
        self._average = {name: value.detach().clone() for name, value in parameters.items()}

    def update(self, n_steps: int) -> None:
        """Moves the average towards the weights after ``n_steps`` steps."""
        with torch.no_grad():
            for name, value in self._parameters.items():
                self._average[name].lerp_(value, 1 / (1 + self._share * n_steps))

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
