"""The whole analysis: every measure of this room, on the same users, for every setting.

A setting is a trained model; several of one data set stand side by side. Nothing is chosen by what
is measured here, and the users are training users: it is in training that they help each other.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.errors import ConfigError, DataError, NumericalError
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.report import EvaluationReport
from coterie.lab.collaboration.bottleneck import Bottleneck, measure_bottleneck
from coterie.lab.collaboration.distances import w2_distances
from coterie.lab.collaboration.drift import Drift, neighbourhood_drift
from coterie.lab.collaboration.helping import Helping, helping
from coterie.lab.collaboration.influence import InfluenceCurve, influence_by_distance
from coterie.lab.collaboration.maps import FEWEST_USERS, align, cohort_picks, pca_map, tsne_map
from coterie.lab.collaboration.masking import (
    MaskingGeometry,
    masking_geometry,
    nearest_pairs,
    random_pairs,
)
from coterie.lab.collaboration.pairs import (
    KindDistances,
    PairRules,
    classify_pairs,
    distance_by_kind,
)
from coterie.lab.collaboration.posteriors import Posteriors, encode_users
from coterie.lab.collaboration.sharing import (
    SharingPairs,
    TheoremTable,
    draw_pairs,
    lipschitz_estimate,
    sharing_pairs,
    theorem_table,
)
from coterie.lab.collaboration.transfer import UserDraws, draw_users, gradient_transfer
from coterie.models.kinds import AlignedConfig
from coterie.networks.autoencoder import VariationalAutoencoder
from coterie.running.execution import Execution
from coterie.running.progress import Progress, Update, silent
from coterie.sparse import SparseRows, gather_sum
from coterie.training.run_folder import read_anchors
from coterie.training.runs import load_run
from coterie.training.trained_model import TrainedModel

QUALITY = "ndcg@100"
ANCHORS_DRAWN = 500
"""Of the most popular items: more would hide the users."""


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
        rules: What near, far and related mean.
        seed: Of all that is drawn.

    Raises:
        ConfigError: if a number is too small to measure anything.
    """

    users: int = 1000
    draws: int = 4
    map_users: int = 2000
    neighbours: int = 50
    keep_probs: tuple[float, ...] = (0.9, 0.7, 0.5, 0.3)
    learning_rates: tuple[float, ...] = (1e-6, 1e-5, 1e-4)
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
        transfer: `helping` of <g_u, g_v>.
        cosine: The same of the gradients' cosines, by which heavy users count no more than light
            ones.
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
    distances: KindDistances
    sharing: SharingPairs
    theorem: TheoremTable
    map_posteriors: Posteriors
    anchors: Tensor | None

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
    masking: tuple[MaskingGeometry, ...]
    masking_nearest: tuple[MaskingGeometry, ...]
    settings: tuple[Findings, ...]
    anchor_items: np.ndarray
    pca: tuple[LatentMap, ...]
    tsne: tuple[LatentMap, ...]


def load_settings(
    runs: Sequence[str], data: str | Path | None = None, device: Execution | str = "cpu"
) -> tuple[list[AnalysisSetting], Dataset]:
    """The models of run folders and the data set they were all trained on.

    Args:
        runs: Paths, or NAME=PATH; by default a setting is called like its folder, whose own name
            may have a "=" in it.
        data: Data set folder, where it is no longer where the runs were trained.
        device: Where the models are to live.

    Raises:
        ArtifactError: if a run is missing or damaged.
        ConfigError: if there is no run, two have one name, or they were trained on different data.
    """
    named = [_named(run) for run in runs]
    names = [name for name, _ in named]
    if not named or len(set(names)) < len(names):
        raise ConfigError(
            f"an analysis needs runs of different names, found {', '.join(names) or 'none'}; name"
            " them as in masked=runs/1."
        )
    first = load_run(named[0][1], data, device)
    runs_of_one = [first, *(load_run(path, first.dataset, device) for _, path in named[1:])]
    settings = [
        AnalysisSetting(name, run.model, read_anchors(run.folder))
        for name, run in zip(names, runs_of_one, strict=True)
    ]
    return settings, first.dataset


def _named(run: str) -> tuple[str, Path]:
    """The name and the folder that NAME=PATH or a path asks for."""
    name, _, path = run.partition("=")
    return (
        (Path(run).resolve().name, Path(run))
        if not path or Path(run).is_dir()
        else (name, Path(path))
    )


def analyze(
    settings: Sequence[AnalysisSetting],
    dataset: Dataset,
    options: AnalysisOptions | None = None,
    *,
    progress: Progress = silent,
) -> Analysis:
    """Measures every setting on the same training users of ``dataset``.

    Args:
        settings: One or more.
        dataset: That they were trained on.
        options: How much is measured; no more users than there are.
        progress: Called when a measure begins, and as it goes on.

    Raises:
        ConfigError: if there is no setting, a model has no posterior, or anchors are not of its
            items and latent space.
        DataError: if there are too few training users with items.
        NumericalError: if a model's posteriors or gradients are not finite.

    Example:
        >>> from coterie.config import RunConfig
        >>> from coterie.simulation.service import simulate_dataset
        >>> from coterie.training.trainer import train
        >>> data = simulate_dataset(n_users=200, n_items=40, held_out_users=20, seed=1)
        >>> small = {
        ...     "model": {"name": "mult-vae", "hidden_dims": [10], "latent_dim": 4},
        ...     "training": {"epochs": 2},
        ... }
        >>> options = AnalysisOptions(users=30, draws=2, map_users=50, neighbours=5)
        >>> found = analyze(
        ...     [AnalysisSetting("masked", train(data, RunConfig.of(small)))], data, options
        ... )
        >>> found.settings[0].bottleneck.n_users, len(found.settings[0].drift)
        (50, 4)
    """
    options = options or AnalysisOptions()
    _check(settings)
    train, rng = dataset.train, np.random.default_rng(options.seed)
    counts = np.diff(train.indptr)
    known = rng.permutation(np.flatnonzero(counts > 0))
    if len(known) < max(FEWEST_USERS, options.neighbours + 1):
        raise DataError(
            f"an analysis needs {FEWEST_USERS} training users with items, and more than a"
            f" neighbourhood holds ({options.neighbours}), found {len(known)}; take fewer"
            " neighbours or more data."
        )
    users = np.sort(known[: options.users])
    picked = {
        about: known[at]
        for about, at in cohort_picks(counts[known], n_each=max(1, options.map_users // 40)).items()
    }
    map_users = np.unique(np.concatenate([*picked.values(), known[: options.map_users]]))
    cohorts = {about: np.searchsorted(map_users, rows) for about, rows in picked.items()}
    histories = train[users]
    progress(Update("kinds of pairs"))
    kinds = classify_pairs(histories, options.rules)
    keep_probs = sorted({one for one in map(_keep_prob, settings) if one < 1} or {0.5})
    progress(Update("masking geometry"))
    drawn, nearest = (
        random_pairs(len(users), 2 * len(users), options.seed),
        nearest_pairs(histories),
    )
    masking, masking_nearest = (
        tuple(
            masking_geometry(histories, one, pairs, seed=options.seed, delta=1 - one)
            for one in keep_probs
        )
        for pairs in (drawn, nearest)
    )
    found = []
    for setting in settings:
        try:
            found.append(
                _measure(setting, dataset, train, users, map_users, kinds, options, progress)
            )
        except NumericalError as error:
            raise NumericalError(f"{setting.name}: {error}") from error
    anchor_items = np.argsort(-train.sum(axis=0), kind="stable")[:ANCHORS_DRAWN]
    progress(Update("maps"))
    pca, tsne = _pca_maps(found, anchor_items), _tsne_maps(found, anchor_items, options.seed)
    return Analysis(
        options,
        dataset,
        users,
        map_users,
        cohorts,
        kinds,
        masking,
        masking_nearest,
        tuple(found),
        anchor_items,
        pca,
        tsne,
    )


def _keep_prob(setting: AnalysisSetting) -> float:
    return float(getattr(setting.model.config.model, "keep_prob", 1.0))


def _check(settings: Sequence[AnalysisSetting]) -> None:
    if not settings:
        raise ConfigError(
            "an analysis needs at least one setting, found none; give a trained model."
        )
    for setting in settings:
        model = setting.model.config.model
        if not isinstance(model, AlignedConfig):
            raise ConfigError(
                f"posteriors need a variational autoencoder, {setting.name} is {model.name};"
                " analyze a mult-vae or a recvae."
            )
        expected = [setting.model.n_items, model.latent_dim]
        if setting.anchors is not None and list(setting.anchors.shape) != expected:
            raise ConfigError(
                f"anchors must be {expected}, one point of the latent space an item, found"
                f" {list(setting.anchors.shape)} for {setting.name}; take those of the same run, or"
                " none."
            )


def _pca_maps(settings: Sequence[Findings], items: np.ndarray) -> tuple[LatentMap, ...]:
    maps = [pca_map(one.map_posteriors.mu) for one in settings]
    laid = [align(one.points, maps[0].points, rescale=False) for one in maps]
    anchors = [
        None if one.anchors is None else move.apply(plane.transform(one.anchors[items]))
        for one, plane, move in zip(settings, maps, laid, strict=True)
    ]
    return tuple(
        LatentMap(one.name, move.apply(plane.points), placed, plane.shares, move.disparity)
        for one, plane, placed, move in zip(settings, maps, anchors, laid, strict=True)
    )


def _tsne_maps(settings: Sequence[Findings], items: np.ndarray, seed: int) -> tuple[LatentMap, ...]:
    first = tsne_map(settings[0].map_posteriors.mu, seed=seed)
    maps = []
    for one in settings:
        found = (
            first
            if one is settings[0]
            else tsne_map(one.map_posteriors.mu, seed=seed, initial=first.points)
        )
        move = align(found.points, first.points)
        anchors = None if one.anchors is None else move.apply(found.transform(one.anchors[items]))
        maps.append(LatentMap(one.name, move.apply(found.points), anchors, None, move.disparity))
    return tuple(maps)


def _measure(
    setting: AnalysisSetting,
    dataset: Dataset,
    train: csr_array,
    users: np.ndarray,
    map_users: np.ndarray,
    kinds: np.ndarray,
    options: AnalysisOptions,
    progress: Progress,
) -> Findings:
    network, model, seed = setting.model.network, setting.model.config.model, options.seed
    assert isinstance(model, AlignedConfig)
    assert isinstance(network, VariationalAutoencoder)
    device = setting.model.device
    rows, map_rows = (SparseRows.from_csr(train[some], device) for some in (users, map_users))
    generator = torch.Generator(device).manual_seed(seed)

    progress(Update(f"{setting.name}: transfer"))
    keep_prob = model.keep_prob
    transfer = (
        gradient_transfer(
            network,
            _drawn_as_in_training(network, rows, keep_prob, options.draws, generator),
            progress=progress,
        )
        .cpu()
        .numpy()
    )
    norms = np.sqrt(transfer.diagonal().clip(min=0))
    cosine = transfer / np.maximum(np.outer(norms, norms), np.finfo(np.float32).tiny)
    posteriors = encode_users(network, rows)
    distance = w2_distances(posteriors, posteriors).cpu().numpy()
    directions = functional.normalize(posteriors.mu, dim=1)

    progress(Update(f"{setting.name}: sharing radius"))
    drawn = draw_users(posteriors, rows, options.draws, generator)
    user, other = draw_pairs(len(users), 2 * len(users), seed, n_others=20)
    sharing = sharing_pairs(
        network,
        posteriors,
        drawn,
        user,
        other,
        lipschitz_estimate(network, posteriors, rows, len(users), generator),
    )
    theorem = theorem_table(
        network, drawn, sharing, np.array(options.learning_rates), progress=progress
    )

    progress(Update(f"{setting.name}: drift"))
    anchors = None if setting.anchors is None else setting.anchors.to(device)
    centroids = (
        None if anchors is None else gather_sum(map_rows, anchors) / map_rows.counts.unsqueeze(1)
    )
    drift = tuple(
        neighbourhood_drift(
            network,
            map_rows,
            keep_prob=keep_prob,
            k=options.neighbours,
            n_draws=options.draws,
            seed=seed,
            centroids=centroids,
            progress=progress,
        )
        for keep_prob in options.keep_probs
    )

    progress(Update(f"{setting.name}: bottleneck"))
    map_posteriors = encode_users(network, map_rows)
    cases = dataset.cases(Part.VALIDATION)
    quality = (
        evaluate(setting.model, cases, metrics=(QUALITY,), user_ids=dataset.users)
        if len(cases.user_index)
        else None
    )
    return Findings(
        name=setting.name,
        model=model.name,
        keep_prob=keep_prob,
        kl_weight=model.kl_weight,
        pia=model.pia,
        rest=_rest(setting.model.config),
        quality=quality,
        bottleneck=measure_bottleneck(map_posteriors, n_draws=options.draws, seed=seed),
        drift=drift,
        influence=influence_by_distance(transfer, distance, norms, seed=seed),
        influence_by_angle=influence_by_distance(
            transfer, 1 - (directions @ directions.T).cpu().numpy(), norms, seed=seed
        ),
        transfer=helping(transfer, kinds, seed=seed),
        cosine=helping(cosine, kinds, seed=seed),
        distances=distance_by_kind(distance, kinds, seed=seed),
        sharing=sharing,
        theorem=theorem,
        map_posteriors=map_posteriors,
        anchors=anchors,
    )


def _rest(config: RunConfig) -> str:
    """What two settings must have in common to differ in keep_prob, the weight of the KL or λ_A
    alone.
    """
    shown_apart = ("keep_prob", "beta", "gamma", "seed")
    return json.dumps(
        {
            part: {
                name: value
                for name, value in fields.items()
                if name not in shown_apart and not name.startswith("pia")
            }
            for part, fields in config.as_json().items()
        }
    )


def _drawn_as_in_training(
    network: VariationalAutoencoder,
    rows: SparseRows,
    keep_prob: float,
    n_draws: int,
    generator: torch.Generator,
) -> UserDraws:
    """Latent points as the decoder meets them in training: a mask of its own for each."""
    points = [
        encode_users(network, rows, keep_prob=keep_prob, generator=generator).draw(1, generator)[0]
        for _ in range(n_draws)
    ]
    return UserDraws(rows, torch.stack(points, dim=1))
