"""A linear path beside an autoencoder's decoder: its fields, and how it is chosen.

Linear item–item models win on sparse catalogues and large ones, variational autoencoders on dense
ones. Here the two meet in the decoder's logits: f(z) + w · n_u^a · x B. The autoencoder, with PIA,
is trained as it always is; the linear path B is a closed form; which epoch is best is judged by the
sum. Decision 9 says what else was tried, decision 16 how path and weight are chosen.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeAlias, TypedDict, cast

from pydantic import Field, model_validator

from coterie.errors import ConfigError
from coterie.models.ease import EaseConfig
from coterie.models.fields import StrictConfig
from coterie.models.graph_filter import BspmConfig, GfCfConfig, GraphFilterModelConfig
from coterie.models.item_item import ItemItemConfig
from coterie.models.kinds import AlignedConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from coterie.networks.autoencoder import Autoencoder
    from coterie.networks.linear_path import LinearPath
    from coterie.networks.network import Judge, Network

log = logging.getLogger(__name__)

PathConfig: TypeAlias = Annotated[
    EaseConfig | ItemItemConfig | GraphFilterModelConfig, Field(discriminator="name")
]
"""What the linear path can be."""

_EASE_STEP, _EASE_ENDS = 3.0, (5.0, 50_000.0)
"""The factor between λ that are tried, from `EaseConfig`'s own on, and where they end."""
_EASE_EXPONENTS = (0.0, 0.1, 0.2, 0.3)
_MOST_EASE_SOLVED, _MOST_EASE_ITEMS = 12_000, 25_000
"""Items, or users where fewer, that EASE solves for in minutes; and items whose weights are in a
path's reach, 2.5 GB.
"""


class Beside(TypedDict):
    """What a network of two paths takes beside its autoencoder's arguments."""

    path: "Network"
    path_weight: float
    path_activity: float


class LinearPathConfig(StrictConfig):
    """What stands before an autoencoder's configuration among a class's bases, and adds the linear
    path.

    What is left open is chosen on validation users: the path before training, by what it is worth
    alone; its weight anew at each validation. No path and the path alone are among the weights, so
    that the sum is not below its parts there.
    """

    path: PathConfig | None = Field(
        None,
        description=(
            "the linear item–item model: ease, rp3beta, item-knn, slim, gf-cf or bspm; absent ="
            " chosen among ease, gf-cf and bspm on validation users"
        ),
    )
    path_weight: float | None = Field(
        None,
        ge=0,
        description=(
            "w, by which its scores are multiplied before they are added to the logits; absent ="
            " chosen on validation users"
        ),
    )
    path_activity: float | None = Field(
        None,
        ge=-2,
        le=2,
        description=(
            "a, where w is multiplied by the number of a user's items to the power of a; absent ="
            " chosen with w, or 0 where w is given"
        ),
    )

    ALONE: ClassVar[type[AlignedConfig]]
    """The configuration of the autoencoder alone."""

    @model_validator(mode="before")
    @classmethod
    def _given_weight_is_everybodys(cls, values: Any) -> Any:
        """As in what was written before there was an exponent."""
        if isinstance(values, dict) and values.get("path_weight") is not None:
            given = values.get("path_activity")
            return {**values, "path_activity": 0.0 if given is None else given}
        return values

    def beside(self, n_items: int) -> Beside:
        """An empty path, a small one until it is chosen, and what is known of its weight."""
        return {
            "path": (self.path or GfCfConfig()).empty(n_items),
            "path_weight": self.path_weight or 0.0,
            "path_activity": self.path_activity or 0.0,
        }

    def choose(self, train: "csr_array", judge: "Judge | None") -> Self:
        """With a path, chosen if it is open.

        Raises:
            ConfigError: if path or weight are open, and there are no validation users.
        """
        absent = [name for name in ("path", "path_weight") if getattr(self, name) is None]
        if judge is None and absent:
            raise ConfigError(
                "path and path_weight must be given where there are no validation users to choose"
                f" them on, found no {' and no '.join(absent)}; set both (model.path,"
                " model.path_weight)."
            )
        path = self.path or choose_path(train, cast("Judge", judge))
        return self.model_copy(update={"path": path})

    def fit_beside(self, network: "Autoencoder", train: "csr_array") -> None:
        """Fits the path, which `choose` has filled in."""
        path = cast("PathConfig", self.path)
        log.info("the linear path, %s, is fitted to %d histories", path.name, train.shape[0])
        network.path = path.fit(train).to(network.output.weight.device)

    def weigh(self, network: "Autoencoder", judge: "Judge") -> None:
        """Gives the path the weight with which the sum ranks validation users best, if it is
        open.
        """
        from coterie.networks.path_weight import choose_weight

        if self.path_weight is None:
            choose_weight(cast("LinearPath", network), judge, self.path_activity)

    def resolved(self, network: "Autoencoder") -> Self:
        """With what was chosen of the weight."""
        chosen = {name: float(value) for name, value in network.chosen().items()}
        return self.model_copy(update=chosen)

    def without_path(self) -> AlignedConfig:
        """The autoencoder alone."""
        shared = set(self.ALONE.model_fields) - {"name"}
        return self.ALONE(**self.model_dump(include=shared))


def choose_path(train: "csr_array", judge: "Judge") -> PathConfig:
    """The path that ranks validation users best by itself: EASE, its λ climbed to by factors of 3,
    then of √3, its scores divided by a power of popularity or not, where the catalogue is not too
    large; GF-CF; BSPM.

    Args:
        train: ``[n_users, n_items]`` binary interactions.
        judge: Of the validation users.
    """
    found: dict[PathConfig, float] = {}
    for path in (GfCfConfig(), BspmConfig()):
        found[path] = judge.value(judge.scores(path.fit(train)))
    n_users, n_items = train.shape
    if n_items <= _MOST_EASE_ITEMS and min(n_users, n_items) <= _MOST_EASE_SOLVED:
        found |= _ease_paths(train, judge)
    best = max(found, key=lambda path: found[path])
    log.info("of %d paths %s is best alone: %.4f", len(found), best, found[best])
    return best


def _ease_paths(train: "csr_array", judge: "Judge") -> dict[PathConfig, float]:
    """EASE at each λ on the way to the best one and half a step around it, with its exponents."""
    found: dict[PathConfig, float] = {}
    popularity = train.sum(axis=0).clip(min=1)

    def value(l2: float) -> float:
        scores = judge.scores(EaseConfig(l2=l2).fit(train))
        by_exponent: dict[PathConfig, float] = {
            EaseConfig(l2=l2, popularity_exponent=a): judge.value(
                scores / scores.new_tensor(popularity**a)
            )
            for a in _EASE_EXPONENTS
        }
        found.update(by_exponent)
        return max(by_exponent.values())

    best = _climbed_to(EaseConfig().l2, value)
    for finer in (best * _EASE_STEP**0.5, best / _EASE_STEP**0.5):
        if _within_ends(finer):
            value(finer)
    return found


def _climbed_to(first: float, value: Callable[[float], float]) -> float:
    """The λ after which steps, up or else down, are not better any more."""
    best, reached = first, value(first)
    for step in (_EASE_STEP, 1 / _EASE_STEP):
        while _within_ends(best * step) and (here := value(best * step)) > reached:
            best, reached = best * step, here
        if best != first:
            break
    return best


def _within_ends(l2: float) -> bool:
    return _EASE_ENDS[0] <= l2 <= _EASE_ENDS[1]
