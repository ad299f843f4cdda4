"""EASE: the linear autoencoder with a closed form (Steck, WWW 2019)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from coterie.models.fields import SearchRange
from coterie.models.kinds import ClosedFormConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from coterie.networks.ease import Ease


class EaseConfig(ClosedFormConfig):
    """EASE has one number to choose; with a second one it shuns popular items, as RP3β does.

    Example:
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> EaseConfig(l2=100).fit(data.train).n_items
        60
    """

    name: Literal["ease"] = "ease"
    l2: float = Field(500.0, gt=0, description="λ, added to the diagonal of XᵀX")
    popularity_exponent: float = Field(
        0.0,
        ge=0,
        description="of the popularity that an item's scores are divided by; 0 as published",
    )

    SEARCH: ClassVar = {
        "l2": SearchRange(10, 10_000, log=True),
        "popularity_exponent": SearchRange(0, 0.5),
    }

    def fit(self, train: "csr_array") -> "Ease":
        """Solves for the weights.

        Raises:
            NumericalError: if λ is too small to make the Gram matrix + λI invertible in float64.
        """
        from coterie.networks.ease import Ease

        return Ease.fit(train, self.l2, self.popularity_exponent)

    def empty(self, n_items: int) -> "Ease":
        """A network without weights."""
        from coterie.networks.ease import Ease

        return Ease(n_items)
