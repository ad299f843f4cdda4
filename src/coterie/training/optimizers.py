"""What moves the weights: Adam, lazy Adam for the matrices of items, one of each for every part
that learns in turns.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from coterie.config import TrainingConfig
from coterie.models.kinds import TrainedPart
from coterie.networks.alignment import Alignment
from coterie.networks.autoencoder import Autoencoder
from coterie.networks.prior import Prior


class Optimizers:
    """The optimizers of a step, by the name of their moments in a checkpoint.

    With sparse updates lazy Adam moves the matrices of items. Weight decay is of the network's
    matrices alone, not of biases, anchors or what a prior learns.

    Args:
        network: What learns.
        prior: Whose parameters learn with the encoder.
        alignment: Whose anchors learn with the encoder.
        training: Learning rate, weight decay, sparse updates and whether items are sampled.
        in_turns: Whether encoder and decoder learn in turns: each then has optimizers of its own.
    """

    def __init__(
        self,
        network: Autoencoder,
        prior: Prior | None,
        alignment: Alignment | None,
        training: TrainingConfig,
        *,
        in_turns: bool,
    ) -> None:
        self._training, self._in_turns = training, in_turns
        self._learns: TrainedPart | None = None
        beside = [p for one in (prior, alignment) if one is not None for p in one.parameters()]
        self._beside = set(beside)
        self._lazy = _lazy_parameters(network, alignment, training)
        last = set(network.output.parameters()) if in_turns else set()
        first = [*(p for p in network.parameters() if p not in last), *beside]
        self.by_name = self._adams("encoder-" if in_turns else "", first)
        if in_turns:
            self.by_name |= self._adams("decoder-", network.output.parameters())

    def _adams(
        self, prefix: str, parameters: Iterable[nn.Parameter]
    ) -> dict[str, torch.optim.Optimizer]:
        rate = self._training.learning_rate
        dense: list[nn.Parameter] = []
        lazy: list[nn.Parameter] = []
        for parameter in parameters:
            (lazy if parameter in self._lazy else dense).append(parameter)
        decays = [p for p in dense if p.ndim > 1 and p not in self._beside]
        groups: list[dict[str, Any]] = [
            {"params": decays, "weight_decay": self._training.weight_decay},
            {"params": [p for p in dense if p.ndim == 1 or p in self._beside]},
        ]
        adams: dict[str, torch.optim.Optimizer] = {
            f"{prefix}adam": torch.optim.Adam(groups, lr=rate, fused=True)
        }
        if lazy:
            adams[f"{prefix}sparse-adam"] = torch.optim.SparseAdam(lazy, lr=rate)
        return adams

    def of(self, part: TrainedPart) -> list[torch.optim.Optimizer]:
        """Those that move a part."""
        return [one for name, one in self.by_name.items() if part == "all" or name.startswith(part)]

    def turn_to(self, part: TrainedPart) -> bool:
        """Freezes what does not learn, whose gradients then are not computed; says whether another
        part learnt before.
        """
        if part == self._learns or not self._in_turns:
            return False
        learning = self.of(part)
        for optimizer in self.by_name.values():
            for parameter in _parameters(optimizer):
                parameter.requires_grad_(optimizer in learning)
        self._learns = part
        return True

    def dense_parameters(self, part: TrainedPart) -> list[nn.Parameter]:
        """Those of a part whose gradients are no sparse tensors."""
        adams = (one for one in self.of(part) if isinstance(one, torch.optim.Adam))
        return [parameter for adam in adams for parameter in _parameters(adam)]

    def step(self, part: TrainedPart) -> None:
        """Moves a part by its gradients, which are then gone."""
        for optimizer in self.of(part):
            optimizer.step()
            # At once, not before the next step: gradients are as large as the weights, and
            # validation comes in between.
            optimizer.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """The moments, as ``NAME.NUMBER.MOMENT``."""
        return {
            f"{name}.{number}.{moment}": torch.as_tensor(value)
            for name, optimizer in self.by_name.items()
            for number, moments in optimizer.state_dict()["state"].items()
            for moment, value in moments.items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave."""
        for name, optimizer in self.by_name.items():
            moments: dict[int, dict[str, Any]] = {}
            for key, value in state.items():
                if key.startswith(f"{name}."):
                    _, number, moment = key.split(".")
                    # Lazy Adam counts its steps in a plain number.
                    counter = name.endswith("sparse-adam") and moment == "step"
                    moments.setdefault(int(number), {})[moment] = int(value) if counter else value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _lazy_parameters(
    network: Autoencoder, alignment: Alignment | None, training: TrainingConfig
) -> set[nn.Parameter]:
    """The matrices of items whose gradients are sparse: the last layer's only from a sample."""
    if not training.sparse_updates:
        return set()
    network.input.sparse_gradient = True
    lazy = {network.input.weight}
    if training.sampled_items:
        lazy.add(network.output.weight)
    if alignment is not None:
        alignment.sparse_gradient = True
        lazy.add(alignment.anchors)
    return lazy


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
