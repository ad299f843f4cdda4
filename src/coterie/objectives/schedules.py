"""Weights as pure functions of the step."""


def linear_warm_up(step: int, steps: int, maximum: float) -> float:
    """Rises linearly from 0 at step 0 to ``maximum`` at ``steps`` and STAYS there; 0 steps:
    ``maximum`` at once.

    References:
        Liang et al. (2018), section 2.2.2 (KL annealing).

    Example:
        >>> [linear_warm_up(step, 100, 0.2) for step in (0, 50, 100, 1000)]
        [0.0, 0.1, 0.2, 0.2]
    """
    return maximum if step >= steps else maximum * step / steps
