"""Graph filters: the interactions themselves, smoothed over users and items; nothing is learned.

One network: BSPM sharpens what GF-CF smooths. It holds the training interactions, though not whose
they are (decision 14).
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from coterie.models.fields import PositiveInt, SearchChoice, SearchRange
from coterie.models.kinds import ClosedFormConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from coterie.networks.graph_filter import GraphFilter

Rank = Annotated[
    PositiveInt,
    Field(description="leading singular vectors of the ideal filter; at most as many as there are"),
]
Weight = Annotated[
    float, Field(ge=0, description="w, of the ideal filter beside the linear one; 0 = without")
]


class GraphFilterConfig(ClosedFormConfig):
    """A model of a linear and an ideal low-pass filter."""

    rank: Rank = 256
    ideal_weight: Weight = 0.3

    SEARCH: ClassVar = {
        "rank": SearchRange(32, 1024, log=True),
        "ideal_weight": SearchRange(0.003, 3, log=True),
    }

    def fit(self, train: "csr_array") -> "GraphFilter":
        """The interactions and their leading singular vectors."""
        return self.empty(train.shape[1]).fit(train, self.rank)

    def empty(self, n_items: int) -> "GraphFilter":
        """A network without interactions, which takes as many as are loaded."""
        from coterie.networks.graph_filter import GraphFilter

        return GraphFilter(n_items, self.ideal_weight)


class GfCfConfig(GraphFilterConfig):
    """GF-CF: a linear and an ideal filter (Shen et al., CIKM 2021); defaults as published.

    Example:
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> GfCfConfig(rank=16).fit(data.train).n_items
        60
    """

    name: Literal["gf-cf"] = "gf-cf"


class BspmConfig(GraphFilterConfig):
    """BSPM: GF-CF's blur, sharpened by an ODE (Choi et al., SIGIR 2023, early merge). Defaults are
    the authors' for Gowalla.

    Their single step is not yet the ODE: of the leading vector it leaves 0.65, the ODE 0.08.

    Example:
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> BspmConfig(rank=16, time=1, steps=2).fit(data.train).n_items
        60
    """

    name: Literal["bspm"] = "bspm"
    rank: Rank = 448
    ideal_weight: Weight = 0.2
    time: float = Field(2.5, ge=0, description="T, for which dy/dt = -y P sharpens; 0 = not at all")
    steps: PositiveInt = Field(
        1, description="of Runge–Kutta; stable where T / steps is at most 2.7"
    )

    SEARCH: ClassVar = {
        **GraphFilterConfig.SEARCH,
        "time": SearchRange(0, 5),
        "steps": SearchChoice((1, 2, 3)),
    }

    def empty(self, n_items: int) -> "GraphFilter":
        """A network without interactions, which takes as many as are loaded."""
        from coterie.networks.graph_filter import GraphFilter

        return GraphFilter(n_items, self.ideal_weight, self.time, self.steps)


GraphFilterModelConfig: TypeAlias = GfCfConfig | BspmConfig
