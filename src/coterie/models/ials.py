"""iALS: a factorization whose unobserved entries count, too (Hu et al., ICDM 2008), by the library
implicit.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from coterie.models.fields import PositiveInt, SearchRange
from coterie.models.kinds import ClosedFormConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from coterie.networks.ials import Ials


class IalsConfig(ClosedFormConfig):
    """Objective and solver of an iALS.

    Example:
        >>> IalsConfig(factors=64).regularization
        10.0
    """

    name: Literal["ials"] = "ials"
    factors: PositiveInt = Field(128, description="the dimension of users and items")
    regularization: float = Field(
        10.0, gt=0, description="λ of ‖user‖² and ‖item‖², the same for all of them"
    )
    alpha: float = Field(
        10.0,
        gt=0,
        description="weight of an interaction's error; all other entries' errors weigh 1",
    )
    iterations: PositiveInt = Field(15, description="rounds of users, then items")
    seed: int = Field(0, ge=0, description="of the initial factors")

    SEARCH: ClassVar = {
        "factors": SearchRange(32, 256, log=True),
        "regularization": SearchRange(0.1, 300, log=True),
        "alpha": SearchRange(1, 100, log=True),
        "iterations": SearchRange(5, 30),
    }

    def fit(self, train: "csr_array") -> "Ials":
        """Alternates between users and items.

        Raises:
            MissingPackageError: if the package implicit is missing.
        """
        return self.empty(train.shape[1]).fit(train, self.iterations, self.seed)

    def empty(self, n_items: int) -> "Ials":
        """A network without factors."""
        from coterie.networks.ials import Ials

        return Ials(n_items, self.factors, self.regularization, self.alpha)
