"""Popularity: the same ranking for everybody, by number of training users."""

from typing import TYPE_CHECKING, Literal

from coterie.models.kinds import ClosedFormConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from coterie.networks.popularity import Popularity


class PopularityConfig(ClosedFormConfig):
    """Popularity has nothing to choose."""

    name: Literal["popularity"] = "popularity"

    def fit(self, train: "csr_array") -> "Popularity":
        """Counts the users of each item."""
        from coterie.networks.popularity import Popularity

        return Popularity.fit(train)

    def empty(self, n_items: int) -> "Popularity":
        """A network without counts."""
        from coterie.networks.popularity import Popularity

        return Popularity(n_items)
