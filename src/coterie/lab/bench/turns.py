"""Timing several things in turn, so that the machine's drift touches them alike, and what is said
of the outcome.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from coterie.plain_table import plain_table


@dataclass(frozen=True)
class Turns:
    """Seconds of each contestant, round by round.

    Args:
        seconds: One list a contestant, equally long.
        users: Users that each contestant served in a round.
        facts: What was measured and where; JSON values only.
        ratios: Named quotients of contestants, the medians of the rounds' own quotients.

    Example:
        >>> turns = Turns({"ours": [1.0, 3.0, 2.0], "theirs": [2.0, 3.0, 8.0]}, users=10)
        >>> turns.ratio("ours", "theirs"), turns.median("theirs")
        (0.5, 3.0)
    """

    seconds: Mapping[str, list[float]]
    users: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, other: str) -> float:
        """Median over rounds of one's time over the other's in the same round."""
        return statistics.median(
            a / b for a, b in zip(self.seconds[name], self.seconds[other], strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values."""
        medians = {name: self.median(name) for name in self.seconds}
        return {
            **self.facts,
            **self.ratios,
            "users": self.users,
            "median_seconds": medians,
            "seconds": dict(self.seconds),
        }

    def __str__(self) -> str:
        rows = [
            [name, f"{1000 * self.median(name):.1f}", f"{self.users / self.median(name):,.0f}"]
            for name in self.seconds
        ]
        table = plain_table(["", "ms", "users/s"], rows, [False, True, True])
        shown_ratios = [
            f"{name.replace('_', ' ')} {value:.2f}" for name, value in self.ratios.items()
        ]
        facts = [f"{name.replace('_', ' ')} {value}" for name, value in self.facts.items()]
        return "\n".join([", ".join(facts), table, *shown_ratios])


def take_turns(
    contestants: Mapping[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Seconds of each, all in turn within every round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for counted in range(rounds + 1):
        for name, run in contestants.items():
            _finish(device)
            start = time.perf_counter()
            run()
            _finish(device)
            if counted:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on beside the code."""
    where = (
        torch.cuda.get_device_name()
        if device.startswith("cuda")
        else f"{torch.get_num_threads()} CPU threads"
    )
    return {"torch": torch.__version__, "machine": where}


def random_histories(n_users: int, n_items: int, items_per_user: int, seed: int = 0) -> csr_array:
    """``[n_users, n_items]`` binary, with Zipf-like popularity; repeated draws merge, so that users
    have about the mean asked for.
    """
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(1 / np.arange(10, n_items + 10))
    draws = items_per_user * 17 // 16
    drawn = np.searchsorted(cumulative, rng.random(n_users * draws) * cumulative[-1]).clip(
        max=n_items - 1
    )
    rows = np.repeat(np.arange(n_users), draws)
    matrix = csr_array(
        (np.ones(len(drawn), dtype=np.float32), (rows, drawn)), shape=(n_users, n_items)
    )
    # It also sorts them, which not every SciPy has done by now.
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
