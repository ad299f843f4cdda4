"""What an analysis is: how much is measured, of which settings, and what was found."""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from coterie.data.dataset import Dataset
from coterie.errors import ConfigError
from coterie.evaluation.report import EvaluationReport
from coterie.lab.collaboration.bottleneck import Bottleneck
from coterie.lab.collaboration.drift import Drift
from coterie.lab.collaboration.helping import Helping
from coterie.lab.collaboration.influence import InfluenceCurve
from coterie.lab.collaboration.maps import FEWEST_USERS
from coterie.lab.collaboration.masking import MaskingGeometry
from coterie.lab.collaboration.pairs import KindDistances, PairRules
from coterie.lab.collaboration.posteriors import Posteriors
from coterie.lab.collaboration.semantics import Semantics
from coterie.lab.collaboration.sharing import SharingPairs, TheoremTable
from coterie.lab.collaboration.teaching import WHOLE, People, Teaching
from coterie.training.trained_model import TrainedModel

QUALITY = "ndcg@100"


@dataclass(frozen=True)
class AnalysisOptions:
    """How much is measured.

    Args:
        users: Training users whose transfer is measured, all with all.
        draws: Latent points, and masks, of each of them.
        map_users: Training users in the maps and in the neighbourhoods whose drift is measured.
        neighbours: Size of a neighbourhood.
        keep_probs: Masks whose drift is measured, of every setting alike.
        learning_rates: Of the steps that are really taken.
        asked: Validation users, at most, whom steps on ``users`` may help.
        by_adam: How many of ``users`` are also stepped on as Adam would.
        rules: What near, far and related mean.
        seed: Of all that is drawn.

    Raises:
        ConfigError: if a number is too small to measure anything.

    Example:
        >>> AnalysisOptions(users=200, map_users=400).neighbours
        50
    """

    users: int = 1000
    draws: int = 4
    map_users: int = 2000
    neighbours: int = 50
    keep_probs: tuple[float, ...] = (0.9, 0.7, 0.5, 0.3)
    learning_rates: tuple[float, ...] = (1e-6, 1e-5, 1e-4)
    asked: int = 1000
    by_adam: int = 100
    rules: PairRules = field(default_factory=PairRules)
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            min(self.users, self.draws) < 2
            or self.neighbours < 1
            or self.map_users < max(FEWEST_USERS, self.neighbours + 1)
        ):
            raise ConfigError(
                "an analysis needs 2 users or more, 2 draws or more, neighbours, and"
                f" {FEWEST_USERS} users in the map or more than a neighbourhood holds, found users"
                f" {self.users}, draws {self.draws}, neighbours {self.neighbours}, map users"
                f" {self.map_users}; try the defaults."
            )


@dataclass(frozen=True, eq=False)
class AnalysisSetting:
    """A model to look into.

    Args:
        name: As it is to be called in tables and figures.
        model: A trained variational autoencoder.
        anchors: ``[n_items, latent_dim]`` PIA's, where it was trained with them and they were kept.

    Example:
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> from coterie.models.multvae import MultVAEConfig
        >>> from coterie.training.trainer import train
        >>> model = train(data, MultVAEConfig(hidden_dims=(20,), latent_dim=8), epochs=2)
        >>> AnalysisSetting("masked", model).anchors is None
        True
    """

    name: str
    model: TrainedModel
    anchors: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LatentMap:
    """A setting in the plane, laid over the first setting's.

    Args:
        name: Of the setting.
        users: ``[m, 2]`` the map's users.
        anchors: ``[n_anchors, 2]`` those of the analysis' ``anchor_items``; None without PIA.
        shares: ``[2]`` share of the variance along each axis; None for t-SNE, whose axes mean
            nothing.
        disparity: From the first setting's map, 0 = the same shape, 1 = nothing in common.
    """

    name: str
    users: np.ndarray
    anchors: np.ndarray | None
    shares: np.ndarray | None
    disparity: float


@dataclass(frozen=True, eq=False)
class Findings:
    """What was measured of one setting.

    Args:
        name: Of the setting.
        model: Name of the model.
        keep_prob: ρ of its training.
        kl_weight: β, or RecVAE's γ.
        pia: λ_A.
        rest: All else of its configuration, as JSON, but PIA's other options and the seed.
        quality: NDCG@100 of the validation users; None without any.
        bottleneck: What passes the latent space.
        drift: One for each of the options' ``keep_probs``.
        influence: Transfer by latent distance, W2, which is larger between active users.
        influence_by_angle: Transfer by 1 - cosine of the posterior means, in which activity plays
            less of a part.
        transfer: `helping` of <g_u, g_v>, over the decoder.
        cosine: The same of the gradients' cosines, by which heavy users count no more than light
            ones.
        teaching: What steps on training users give validation users, over all parameters; None
            without validation users, or where the run kept too little (`untaught`).
        untaught: Why not.
        semantics: Recall of the nearest users by history.
        distances: Latent distances by kind of pair.
        sharing: The radius and its parts.
        theorem: Steps that were really taken.
        map_posteriors: Of the map's users.
        anchors: As the setting's.
    """

    name: str
    model: str
    keep_prob: float
    kl_weight: float
    pia: float
    rest: str
    quality: EvaluationReport | None
    bottleneck: Bottleneck
    drift: tuple[Drift, ...]
    influence: InfluenceCurve
    influence_by_angle: InfluenceCurve
    transfer: Helping
    cosine: Helping
    teaching: Teaching | None
    untaught: str
    semantics: Semantics
    distances: KindDistances
    sharing: SharingPairs
    theorem: TheoremTable
    map_posteriors: Posteriors
    anchors: Tensor | None

    @property
    def whole(self) -> Helping:
        """Of hidden items over all parameters, where that was measured; else over the decoder."""
        return self.cosine if self.teaching is None else self.teaching.by_kind[WHOLE]

    def drift_at(self, keep_prob: float) -> Drift:
        """The drift that was measured nearest to a keep_prob."""
        return min(self.drift, key=lambda drift: abs(drift.keep_prob - keep_prob))


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was measured of all settings, on the same users.

    Args:
        options: How much.
        dataset: Whose training users were looked at.
        users: ``[n]`` rows of the training matrix whose transfer was measured.
        map_users: ``[m]`` rows of the training matrix in the maps.
        cohorts: ``[n_each]`` positions among ``map_users`` of those with about 5, 50 and 350
            interactions.
        kinds: ``[n, n]`` as `classify_pairs` gives them.
        people: Validation users, and ``users``, between whom teaching was measured; None without
            validation users.
        masking: What masks do to the distances between inputs of random pairs, for every keep_prob
            below 1 that a setting was trained with (or 0.5); its δ is 1 - keep_prob, which is what
            masks do to a pair without common items in the mean.
        masking_nearest: The same of every user with the one of the most alike history, among
            ``users``.
        settings: In the order of the arguments.
        anchor_items: ``[n_anchors]`` the items whose anchors are in the maps, the most popular
            ones.
        pca: Principal components, one a setting.
        tsne: Neighbourhoods, one a setting.
    """

    options: AnalysisOptions
    dataset: Dataset
    users: np.ndarray
    map_users: np.ndarray
    cohorts: dict[int, np.ndarray]
    kinds: np.ndarray
    people: People | None
    masking: tuple[MaskingGeometry, ...]
    masking_nearest: tuple[MaskingGeometry, ...]
    settings: tuple[Findings, ...]
    anchor_items: np.ndarray
    pca: tuple[LatentMap, ...]
    tsne: tuple[LatentMap, ...]
