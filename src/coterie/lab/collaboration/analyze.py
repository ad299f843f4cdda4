"""The whole analysis: every measure of this room, on the same users, for every setting.

A setting is a trained model; several of one data set stand side by side. Nothing is chosen by what
is measured here, and the users are training users: it is in training that they help each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.errors import ConfigError, DataError, NumericalError
from coterie.lab.collaboration.analysis import (
    Analysis,
    AnalysisOptions,
    AnalysisSetting,
    Findings,
)
from coterie.lab.collaboration.laid_maps import pca_maps, tsne_maps
from coterie.lab.collaboration.maps import FEWEST_USERS, cohort_picks
from coterie.lab.collaboration.masking import (
    MaskingGeometry,
    masking_geometry,
    nearest_pairs,
    random_pairs,
)
from coterie.lab.collaboration.measuring import Measuring
from coterie.lab.collaboration.pairs import classify_pairs
from coterie.lab.collaboration.teaching import People
from coterie.models.kinds import AlignedConfig
from coterie.running.progress import Progress, Update, silent

ANCHORS_DRAWN = 500
"""Of the most popular items: more would hide the users."""


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
    chosen = _Chosen.of(dataset, options)
    histories = dataset.train[chosen.users]
    progress(Update("kinds of pairs"))
    kinds, people = classify_pairs(histories, options.rules), _people(dataset, histories, options)
    progress(Update("masking geometry"))
    masking, masking_nearest = _masking(settings, histories, options.seed)
    found = []
    for setting in settings:
        measuring = Measuring(setting, dataset, chosen.users, chosen.map_users, options, progress)
        found.append(_named_errors(measuring, kinds, people))
    anchor_items = np.argsort(-dataset.train.sum(axis=0), kind="stable")[:ANCHORS_DRAWN]
    progress(Update("maps"))
    return Analysis(
        options,
        dataset,
        chosen.users,
        chosen.map_users,
        chosen.cohorts,
        kinds,
        people,
        masking,
        masking_nearest,
        tuple(found),
        anchor_items,
        pca_maps(found, anchor_items),
        tsne_maps(found, anchor_items, options.seed),
    )


@dataclass(frozen=True)
class _Chosen:
    """Whom an analysis looks at; fields as of `Analysis`."""

    users: np.ndarray
    map_users: np.ndarray
    cohorts: dict[int, np.ndarray]

    @classmethod
    def of(cls, dataset: Dataset, options: AnalysisOptions) -> "_Chosen":
        counts = np.diff(dataset.train.indptr)
        known = np.random.default_rng(options.seed).permutation(np.flatnonzero(counts > 0))
        if len(known) < max(FEWEST_USERS, options.neighbours + 1):
            raise DataError(
                f"an analysis needs {FEWEST_USERS} training users with items, and more than a"
                f" neighbourhood holds ({options.neighbours}), found {len(known)}; take fewer"
                " neighbours or more data."
            )
        picks = cohort_picks(counts[known], n_each=max(1, options.map_users // 40))
        picked = {about: known[at] for about, at in picks.items()}
        map_users = np.unique(np.concatenate([*picked.values(), known[: options.map_users]]))
        cohorts = {about: np.searchsorted(map_users, rows) for about, rows in picked.items()}
        return cls(np.sort(known[: options.users]), map_users, cohorts)


def _people(dataset: Dataset, histories: csr_array, options: AnalysisOptions) -> People | None:
    """Validation users and ``histories``; None with fewer than two to help."""
    cases = dataset.cases(Part.VALIDATION)
    n = len(cases.user_index)
    if n < 2:
        return None
    drawn = np.random.default_rng(options.seed).permutation(n)[: options.asked]
    return People.of(
        cases.take(np.sort(drawn)),
        histories,
        options.rules,
        n_by_adam=options.by_adam,
        seed=options.seed,
    )


def _masking(
    settings: Sequence[AnalysisSetting], histories: csr_array, seed: int
) -> tuple[tuple[MaskingGeometry, ...], tuple[MaskingGeometry, ...]]:
    """Of random pairs and of nearest ones, a geometry each keep_prob."""
    keep_probs = sorted({one for one in map(_keep_prob, settings) if one < 1} or {0.5})
    n = histories.shape[0]
    drawn, nearest = (
        tuple(
            masking_geometry(histories, one, pairs, seed=seed, delta=1 - one) for one in keep_probs
        )
        for pairs in (random_pairs(n, 2 * n, seed), nearest_pairs(histories))
    )
    return drawn, nearest


def _named_errors(measuring: Measuring, kinds: np.ndarray, people: People | None) -> Findings:
    try:
        return measuring.findings(kinds, people)
    except NumericalError as error:
        raise NumericalError(f"{measuring.setting.name}: {error}") from error


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
