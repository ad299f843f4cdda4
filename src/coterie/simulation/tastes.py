"""The users of the simulated service: profiles, who follows which, and how active each is.

Apart from `simulate`, which turns users into interactions.
"""

from dataclasses import dataclass

import numpy as np

from coterie.simulation.draws import choose, normalised

ACTIVITY_SPREAD = 1.3
"""Standard deviation of the logarithm of a user's activity above the minimum."""

LIGHT_BELOW = 0.5
"""Users less active than this many such standard deviations above the median are light (69 % of
them).
"""


@dataclass(frozen=True, eq=False)
class Users:
    """The planted truth about some users.

    Two users of one ``profile`` are related: near each other where both are heavy (the same
    niches), far apart where one is light (its niches are a subset of the other's).

    Args:
        profile: ``[n]`` int64, the profile each follows.
        is_light: ``[n]`` bool, takes only one or two niches of the profile.
        n_items: ``[n]`` int64, number of interactions.
        tastes: ``[n, n_niches]`` float64, rows sum to one; zero outside a user's niches.
    """

    profile: np.ndarray
    is_light: np.ndarray
    n_items: np.ndarray
    tastes: np.ndarray

    def __getitem__(self, rows: slice | np.ndarray) -> "Users":
        return Users(self.profile[rows], self.is_light[rows], self.n_items[rows], self.tastes[rows])


@dataclass(frozen=True)
class Activity:
    """The law of how many items a user takes: log-normal above a minimum, cut at a maximum.

    Args:
        mean_items: Mean, as it would be without the cut.
        min_items: Fewest.
        max_items: Most.
    """

    mean_items: float
    min_items: int
    max_items: int

    def counts(self, normal: np.ndarray) -> np.ndarray:
        """``[n]`` int64 numbers of items for ``[n]`` standard normal draws: the higher, the more.

        Example:
            >>> Activity(mean_items=40, min_items=5, max_items=750).counts(
            ...     np.array([-9.0, 0.0, 9.0])
            ... ).tolist()
            [5, 20, 750]
        """
        mean_above = self.mean_items - self.min_items + 0.5  # The half makes up for rounding down.
        above = mean_above * np.exp(ACTIVITY_SPREAD * normal - ACTIVITY_SPREAD**2 / 2)
        return np.minimum(self.min_items + above, self.max_items).astype(np.int64)


def make_profiles(n_niches: int, rng: np.random.Generator) -> np.ndarray:
    """``[4 * n_niches, n_niches]`` float64: weights of the 3 to 8 niches of each profile, rows sum
    to one.
    """
    n_profiles = 4 * n_niches
    # Niches differ in how many profiles hold them, so that overall popularity is worth something.
    weights = np.tile((1.0 + np.arange(n_niches)) ** -0.5, (n_profiles, 1))
    most = min(8, max(3, n_niches // 2))
    chosen = choose(weights, rng.integers(3, most + 1, size=n_profiles), rng)
    return normalised(chosen * rng.gamma(2.0, size=chosen.shape))


def make_users(
    n_users: int, profiles: np.ndarray, activity: Activity, rng: np.random.Generator
) -> Users:
    """Draws users: a profile, an activity, and a taste of their own within the profile.

    Args:
        n_users: How many.
        profiles: ``[n_profiles, n_niches]`` from `make_profiles`.
        activity: Law of the number of items.
        rng: Source of all randomness.
    """
    profile = rng.integers(len(profiles), size=n_users)
    normal = rng.standard_normal(n_users)
    is_light = normal < LIGHT_BELOW
    weights = profiles[profile]
    few = choose(weights, rng.integers(1, 3, size=n_users), rng)
    personal = weights * rng.gamma(4.0, size=weights.shape)
    tastes = normalised(np.where(is_light[:, None] & ~few, 0.0, personal))
    return Users(profile, is_light, activity.counts(normal), tastes)
