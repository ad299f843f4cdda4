"""Cohorts: users grouped by how many interactions they have.

Lower bounds alone define them, so that every user is in exactly one: no gap, no overlap.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from coterie.errors import ConfigError

DEFAULT_COHORTS = (5, 11, 51, 101)
"""Lower bounds of 5–10, 11–50, 51–100 and 101 or more interactions, the paper's four."""


def check_cohorts(lower_bounds: Sequence[int]) -> tuple[int, ...]:
    """Returns the bounds if they are positive and ascend.

    Raises:
        ConfigError: if they do not, or there are none.
    """
    bounds = tuple(lower_bounds)
    if not bounds or bounds[0] < 1 or any(low >= high for low, high in pairwise(bounds)):
        raise ConfigError(
            f"cohorts must be ascending lower bounds from 1 up, found {list(bounds)}; try"
            f" {list(DEFAULT_COHORTS)}."
        )
    return bounds


def cohort_members(
    n_interactions: np.ndarray, lower_bounds: Sequence[int] = DEFAULT_COHORTS
) -> dict[str, np.ndarray]:
    """Which users belong to which cohort, fewest interactions first.

    Users below the first bound form a cohort of their own, which is left out when nobody is in it.

    Args:
        n_interactions: ``[n_users]`` number of interactions, at least 1.
        lower_bounds: Smallest number of interactions of each cohort, ascending.

    Returns:
        ``[n_users]`` bool by cohort name, "5-10" or "101+".

    Raises:
        ConfigError: if the bounds do not ascend from 1 up.

    Example:
        >>> {
        ...     name: mask.tolist()
        ...     for name, mask in cohort_members(np.array([3, 7, 200]), (5, 101)).items()
        ... }
        {'1-4': [True, False, False], '5-100': [False, True, False], '101+': [False, False, True]}
    """
    bounds = check_cohorts(lower_bounds)
    place = np.searchsorted(bounds, n_interactions, side="right")
    members = {} if (place > 0).all() else {_name(1, bounds[0]): place == 0}
    for position, (low, following) in enumerate(
        zip(bounds, (*bounds[1:], None), strict=True), start=1
    ):
        members[_name(low, following)] = place == position
    return members


def _name(low: int, following: int | None) -> str:
    if following is None:
        return f"{low}+"
    return str(low) if following == low + 1 else f"{low}-{following - 1}"
