"""Random numbers as functions of seed, stream and number (decision 2)."""

import numpy as np
import torch

# Streams of random numbers, kept apart so that none depends on how much another has drawn.
WEIGHTS, ORDER, NOISE = range(3)


def seeded(
    seed: int, stream: int, number: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator that depends on nothing but its arguments.

    Each step's randomness is a function of (seed, step): a resumed run needs no saved generator,
    and draws what an uninterrupted one would have.
    """
    state = np.random.SeedSequence([seed, stream, number]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
