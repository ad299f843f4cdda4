"""Popularity: the same ranking for everybody, by number of training users."""

from typing import TYPE_CHECKING, Literal

from coterie.models.kinds import ClosedFormConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from coterie.networks.popularity import Popularity


class PopularityConfig(ClosedFormConfig):
    """Popularity has nothing to choose.

    Example:
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> PopularityConfig().fit(data.train).n_items
        60
    """

    name: Literal["popularity"] = "popularity"

    def fit(self, train: "csr_array") -> "Popularity":
        """Counts the users of each item."""
        from coterie.networks.popularity import Popularity

        return Popularity.fit(train)

    def empty(self, n_items: int) -> "Popularity":
        """A network without counts."""
        from coterie.networks.popularity import Popularity

        return Popularity(n_items)
