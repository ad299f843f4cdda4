"""Sparse item × item weights: neighbours, random walks and SLIM, for catalogues where a dense
matrix has no place.

One network, three ways to come by its weights, all fitted by irspack (extra ``coterie[baselines]``,
decision 7).
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from coterie.models.fields import PositiveInt, SearchChoice, SearchRange
from coterie.models.kinds import ClosedFormConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from coterie.networks.item_item import ItemItem

Neighbours = Annotated[
    PositiveInt, Field(description="items that each item is scored from, itself counted")
]
_NEIGHBOURS = SearchChoice((50, 100, 200, 400, 800))


class SparseItemConfig(ClosedFormConfig):
    """A model of sparse item × item weights."""

    def empty(self, n_items: int) -> "ItemItem":
        """A network without weights, which takes as many as are loaded."""
        from coterie.networks.item_item import ItemItem

        return ItemItem.empty(n_items)


class ItemKnnConfig(SparseItemConfig):
    """Neighbours by cosine: two items are alike if the same users have them.

    Example:
        >>> ItemKnnConfig(neighbours=50).weighting
        'bm25'
    """

    name: Literal["item-knn"] = "item-knn"
    neighbours: Neighbours = 200
    shrinkage: float = Field(
        0.0, ge=0, description="added to the cosine's denominator: doubts cosines of rare items"
    )
    weighting: Literal["none", "bm25"] = Field(
        "bm25", description="bm25 weighs the users of one of the two items, long histories less"
    )

    SEARCH: ClassVar = {
        "neighbours": _NEIGHBOURS,
        "shrinkage": SearchRange(0, 100),
        "weighting": SearchChoice(("none", "bm25")),
    }

    def fit(self, train: "csr_array") -> "ItemItem":
        """The nearest neighbours of every item."""
        from coterie.networks.item_item import fit_knn

        return fit_knn(train, self.neighbours, self.shrinkage, bm25=self.weighting == "bm25")


class Rp3BetaConfig(SparseItemConfig):
    """Random walks of three steps, from an item over its users to their items, that shun popular
    items.

    Example:
        >>> Rp3BetaConfig(alpha=0.8).beta
        0.2
    """

    name: Literal["rp3beta"] = "rp3beta"
    neighbours: Neighbours = 200
    alpha: float = Field(0.6, ge=0, description="exponent of each step's probability")
    beta: float = Field(
        0.2, ge=0, description="exponent of the popularity that a walk's end is divided by"
    )

    SEARCH: ClassVar = {
        "neighbours": _NEIGHBOURS,
        "alpha": SearchRange(0.2, 1.2),
        "beta": SearchRange(0, 0.8),
    }

    def fit(self, train: "csr_array") -> "ItemItem":
        """The probabilities of the walks."""
        from coterie.networks.item_item import fit_rp3beta

        return fit_rp3beta(train, self.neighbours, self.alpha, self.beta)


class SlimConfig(SparseItemConfig):
    """SLIM: every item regressed on the others with an elastic net, which leaves few weights.

    Example:
        >>> SlimConfig(l1=0.5).nonnegative
        True
    """

    name: Literal["slim"] = "slim"
    l1: float = Field(
        1.0, gt=0, description="weight of |B| beside ½‖X - X B‖²: the larger, the sparser"
    )
    l2: float = Field(
        100.0, gt=0, description="weight of ½‖B‖² beside ½‖X - X B‖², which is EASE's λ"
    )
    nonnegative: bool = Field(True, description="whether weights are at least 0, as published")

    SEARCH: ClassVar = {
        "l1": SearchRange(0.1, 20, log=True),
        "l2": SearchRange(1, 1000, log=True),
        "nonnegative": SearchChoice((True, False)),
    }

    def fit(self, train: "csr_array") -> "ItemItem":
        """The regressions."""
        from coterie.networks.item_item import fit_slim

        return fit_slim(train, self.l1, self.l2, nonnegative=self.nonnegative)


ItemItemConfig: TypeAlias = ItemKnnConfig | Rp3BetaConfig | SlimConfig
