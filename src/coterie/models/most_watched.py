"""Most watched: what people with histories as long as the user's have watched, the newest first.

The statistical baseline that deployed systems are tested against: no network, one list a segment.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from coterie.models.fields import PositiveInt, SearchChoice, SearchRange
from coterie.models.kinds import ClosedFormConfig

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_array

    from coterie.networks.most_watched import MostWatched


class MostWatchedConfig(ClosedFormConfig):
    """Counts of interactions that fade, by segments of users alike in activity.

    Example:
        >>> MostWatchedConfig(half_life_days=7).segments
        4
    """

    name: Literal["most-watched"] = "most-watched"
    half_life_days: float = Field(
        14.0, gt=0, description="days before the newest interaction at which one counts half"
    )
    segments: PositiveInt = Field(
        4, description="of users by the length of their history, about equally many in each"
    )

    SEARCH: ClassVar = {
        "half_life_days": SearchRange(1, 365, log=True),
        "segments": SearchChoice((1, 2, 4, 8)),
    }

    def fit(self, train: "csr_array") -> "MostWatched":
        """Counts the users of each item by segment, as if all were at one time."""
        return self.fit_timed(train, None)

    def fit_timed(self, train: "csr_array", timestamps: "np.ndarray | None") -> "MostWatched":
        """Counts the users of each item by segment, each by ½^(age / half-life)."""
        from coterie.networks.most_watched import MostWatched

        return MostWatched.fit(train, timestamps, self.half_life_days, self.segments)

    def empty(self, n_items: int) -> "MostWatched":
        """A network without counts."""
        from coterie.networks.most_watched import MostWatched

        return MostWatched(n_items, self.segments)
