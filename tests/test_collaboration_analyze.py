"""The analysis as a whole: posteriors, findings, verdict, report and command, on small models of
the simulated service.
"""

import copy
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file, save_file
from torch import Tensor

from coterie.config import RunConfig
from coterie.data.dataset import Dataset, Interactions
from coterie.data.ids import IdMap
from coterie.data.split import Part, Split
from coterie.errors import ArtifactError, ConfigError, DataError, NumericalError
from coterie.evaluation.report import EvaluationReport
from coterie.lab.collaboration import figures, posteriors, report
from coterie.lab.collaboration.analysis import (
    QUALITY,
    Analysis,
    AnalysisOptions,
    AnalysisSetting,
    Findings,
)
from coterie.lab.collaboration.analyze import analyze
from coterie.lab.collaboration.bottleneck import Bottleneck
from coterie.lab.collaboration.drift import neighbourhood_drift
from coterie.lab.collaboration.figures import check_figures, draw, pictures_of
from coterie.lab.collaboration.pairs import PairKind
from coterie.lab.collaboration.posteriors import encode_users
from coterie.lab.collaboration.report import (
    glance,
    numbers,
    page,
    pairs_table,
    shrinkage,
    summary,
    users_table,
    write_report,
)
from coterie.lab.collaboration.settings import load_settings
from coterie.lab.collaboration.teaching import WHOLE
from coterie.lab.collaboration.verdict import Advice, verdict
from coterie.models.multdae import MultDAEConfig
from coterie.models.multvae import MultVAEConfig
from coterie.networks.multvae import MultVAE
from coterie.simulation.service import simulate_dataset
from coterie.sparse import SparseRows
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from test_sparse import sparse

Run = Callable[..., int]

OPTIONS = AnalysisOptions(users=60, draws=2, map_users=120, neighbours=10)
FEW = AnalysisOptions(users=10, draws=2, map_users=12, neighbours=3, learning_rates=(1e-5,))
MODELS: dict[str, dict[str, Any]] = {"clean": {"keep_prob": 1.0}, "masked": {}, "pia": {"pia": 0.3}}
NAMES = list(MODELS)


def fit(
    dataset: Dataset, out: Path | None = None, *, name: str = "mult-vae", **fields: Any
) -> TrainedModel:
    width = {"hidden_dim": 16} if name == "recvae" else {"hidden_dims": [16]}
    model = {"name": name, "latent_dim": 8, **width, **fields}
    return train(
        dataset,
        RunConfig.of({"model": model, "training": {"epochs": 5, "batch_size": 50}}),
        out=out,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and three runs on it."""
    folder = tmp_path_factory.mktemp("runs")
    simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1).save(folder / "data")
    for name, fields in MODELS.items():
        fit(Dataset.load(folder / "data"), folder / name, **fields)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[list[AnalysisSetting], Dataset]:
    return load_settings([str(folder / name) for name in NAMES])


@pytest.fixture(scope="module")
def dataset(loaded: tuple[list[AnalysisSetting], Dataset]) -> Dataset:
    return loaded[1]


@pytest.fixture(scope="module")
def settings(loaded: tuple[list[AnalysisSetting], Dataset]) -> dict[str, AnalysisSetting]:
    return {one.name: one for one in loaded[0]}


@pytest.fixture(scope="module")
def analysis(loaded: tuple[list[AnalysisSetting], Dataset]) -> Analysis:
    return analyze(*loaded, OPTIONS)


@pytest.fixture(scope="module")
def written(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "out"
    write_report(analysis, folder)
    return folder


@pytest.fixture
def run(run_coterie: Run) -> Run:
    """Runs ``coterie analyze …``."""
    return partial(run_coterie, "analyze")


def with_network(
    setting: AnalysisSetting,
    change: Callable[[Any], None],
    name: str = "changed",
    anchors: Tensor | None = None,
) -> AnalysisSetting:
    """The setting with a network of its own, which ``change`` may change."""
    network = copy.deepcopy(setting.model.network)
    with torch.no_grad():
        change(network)
    return AnalysisSetting(name, replace(setting.model, network=network), anchors)


def undefined(value: Any, path: str = "") -> Iterator[str]:
    """Where a JSON value is null."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from undefined(inner, f"{path}.{name}")
    elif value is None:
        yield path


# Posteriors.


def test_posteriors_of_clean_histories_are_the_models(
    settings: dict[str, AnalysisSetting], dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = settings["masked"].model, SparseRows.from_csr(dataset.train)
    mu, logvar = model.encode(dataset.train)
    for at_once in (posteriors.USERS_AT_ONCE, 7):
        monkeypatch.setattr(posteriors, "USERS_AT_ONCE", at_once)
        found = encode_users(model.network, rows)  # type: ignore[arg-type]
        torch.testing.assert_close(found.mu, mu)
        torch.testing.assert_close(found.sigma, torch.exp(logvar / 2))
    assert len(found) == len(rows)
    assert found.latent_dim == 8
    assert encode_users(copy.deepcopy(model.network).double(), rows).mu.dtype == torch.float64  # type: ignore[arg-type]


def test_masks_move_the_means_by_the_variance_that_drift_reports(
    settings: dict[str, AnalysisSetting], dataset: Dataset
) -> None:
    network, dense = (
        settings["masked"].model.network,
        torch.from_numpy(dataset.train[:40].toarray()),
    )
    assert isinstance(network, MultVAE)
    rows, generator = SparseRows.from_csr(dataset.train[:40]), torch.Generator().manual_seed(5)
    one, two = (
        encode_users(network, rows, keep_prob=0.5, generator=generator).mu for _ in range(2)
    )
    assert not torch.equal(one, two)
    # Masks and encoder once more, densely.
    clean = dense / dense.norm(dim=1, keepdim=True)
    means = []
    for _ in range(300):
        masked = clean * (torch.rand(dense.shape, generator=generator) < 0.5) / 0.5
        means.append(
            network.encode_hidden(
                masked.float() @ network.input.weight + network.input.bias
            ).detach()[:, :8]
        )
    drift = neighbourhood_drift(network, rows, keep_prob=0.5, k=5, n_draws=60, seed=3)
    expected = torch.stack(means).var(dim=0).sum(dim=1)
    # Of one number, 60 draws give a variance to 18 %; here it is of 8 dimensions and 40 users.
    assert drift.variance.mean() == pytest.approx(float(expected.mean()), rel=0.06)
    np.testing.assert_allclose(drift.variance, expected.numpy(), rtol=0.6)


def test_posteriors_refuse_what_has_none(
    settings: dict[str, AnalysisSetting], dataset: Dataset
) -> None:
    network, rows = settings["masked"].model.network, SparseRows.from_csr(dataset.train[:5])
    assert isinstance(network, MultVAE)
    dae = MultDAEConfig(hidden_dims=(4,), latent_dim=2).build(dataset.n_items, torch.Generator())
    with pytest.raises(ConfigError, match="need a variational autoencoder, found MultDAE"):
        encode_users(dae, rows)
    with pytest.raises(ConfigError, match="need a generator"):
        encode_users(network, rows, keep_prob=0.5)
    with pytest.raises(
        DataError, match=r"at least one item, found user 1 without any \(1 in all\)"
    ):
        encode_users(network, sparse(dataset.train[:3].toarray() * [[1], [0], [1]]))
    with pytest.raises(DataError, match="found no user"):
        encode_users(network, SparseRows.from_csr(dataset.train[:0]))
    broken = copy.deepcopy(network)
    broken.input.weight.data[0, 0] = torch.nan
    with pytest.raises(NumericalError, match="posteriors must be finite"):
        encode_users(broken, SparseRows.from_csr(dataset.train))


# The analysis.


def test_same_seed_same_numbers_whoever_is_beside(
    analysis: Analysis, settings: dict[str, AnalysisSetting], dataset: Dataset
) -> None:
    one, again = (analyze([settings["pia"]], dataset, OPTIONS) for _ in range(2))
    assert json.dumps(numbers(one)) == json.dumps(numbers(again))
    assert users_table(one).equals(users_table(again))
    assert pairs_table(one).equals(pairs_table(again))
    told, beside = numbers(one), numbers(analysis)
    assert told["settings"]["pia"] == beside["settings"]["pia"]
    other = analyze([settings["pia"]], dataset, replace(FEW, seed=1))
    assert set(other.users) != set(analyze([settings["pia"]], dataset, FEW).users)


def test_all_settings_are_measured_on_the_same_users(analysis: Analysis) -> None:
    told = numbers(analysis)
    n = len(analysis.users)
    assert [one.name for one in analysis.settings] == NAMES
    assert n == 60
    assert len(analysis.map_users) >= 120
    for users in (analysis.users, analysis.map_users):
        assert (np.diff(users) > 0).all()
    for one in analysis.settings:
        parts = told["settings"][one.name]
        # Nobody is paired with themselves.
        assert (
            one.transfer.n_pairs.sum()
            == n * (n - 1)
            == one.influence.pairs.sum()
            == one.influence_by_angle.pairs.sum()
        )
        assert one.transfer.n_pairs.tolist() == [
            (analysis.kinds == kind).sum() for kind in PairKind
        ]
        assert one.transfer.share.sum() == pytest.approx(1)
        assert one.cosine.share.sum() == pytest.approx(1)
        assert np.nanmax(np.abs(one.cosine.mean)) <= 1
        assert parts["sharing"]["broken"] == 0
        assert (one.sharing.user != one.sharing.other).all()
        assert [drift.keep_prob for drift in one.drift] == list(OPTIONS.keep_probs)
        assert len(one.map_posteriors) == one.bottleneck.n_users == len(analysis.map_users)
        assert one.quality is not None
        assert len(one.quality) == len(analysis.dataset.cases(Part.VALIDATION).user_index) == 40
    # Undefined are only axes of a map that has none, and distances to anchors that are not there.
    absent = {f".maps.tsne.{name}.shares" for name in NAMES}
    absent |= {
        f".settings.{name}.drift.{at}.centroid_distance"
        for name in ("clean", "masked")
        for at in range(4)
    }
    # Of cohorts, those in which there is nobody: whoever is in one is in it in every setting.
    of_cohorts = {one.split(".teaching.")[1] for one in undefined(told) if ".by_cohort." in one}
    absent |= {f".settings.{name}.teaching.{one}" for name in NAMES for one in of_cohorts}
    assert set(undefined(told)) == absent


def test_cohorts_are_the_users_nearest_to_their_numbers(analysis: Analysis) -> None:
    every = np.diff(analysis.dataset.train.indptr)
    counts = figures.interactions(analysis)
    assert np.array_equal(counts, every[analysis.map_users])
    for about, members in analysis.cohorts.items():
        assert len(members) == 3
        distances = np.sort(np.abs(every[every > 0] - about))[:3]
        assert np.sort(np.abs(counts[members] - about)).tolist() == distances.tolist()


def test_recvae_and_the_linear_path_are_looked_into_too(dataset: Dataset) -> None:
    models = [
        AnalysisSetting(name, fit(dataset, name=name)) for name in ("recvae", "linear-path-vae")
    ]
    found = analyze(models, dataset, OPTIONS)
    told = numbers(found)
    assert {path.rsplit(".", 1)[1] for path in undefined(told) if ".by_cohort." not in path} == {
        "shares",
        "centroid_distance",
    }
    assert all(one.teaching is not None for one in found.settings)
    assert [one.kl_weight for one in found.settings] == [0.005, 0.2]
    assert all(part["sharing"]["broken"] == 0 for part in told["settings"].values())


def test_anchors_are_in_the_maps_and_in_the_drift(
    analysis: Analysis, settings: dict[str, AnalysisSetting]
) -> None:
    assert [one.anchors is not None for one in settings.values()] == [False, False, True]
    for maps in (analysis.pca, analysis.tsne):
        assert [one.anchors is not None for one in maps] == [False, False, True]
        assert maps[2].anchors is not None
        assert maps[2].anchors.shape == (len(analysis.anchor_items), 2)
        assert maps[0].disparity == pytest.approx(0, abs=1e-9)
    popularity = analysis.dataset.train.sum(axis=0)
    assert (np.diff(popularity[analysis.anchor_items]) <= 0).all()
    distance = analysis.settings[2].drift[0].centroid_distance
    assert distance is not None
    assert (distance > 0).all()


# Bad input.


def test_a_data_set_that_moved_is_asked_for(folder: Path, tmp_path: Path) -> None:
    elsewhere = (folder / "data").rename(tmp_path / "data")
    try:
        with pytest.raises(ConfigError, match="give it with --data"):
            load_settings([str(folder / "masked")])
        assert load_settings([str(folder / "masked")], elsewhere)[0][0].name == "masked"
    finally:
        elsewhere.rename(folder / "data")


def test_runs_that_do_not_belong_together_are_refused(folder: Path, tmp_path: Path) -> None:
    simulate_dataset(n_users=100, n_items=60, held_out_users=10, seed=2).save(tmp_path / "data")
    train(
        Dataset.load(tmp_path / "data"),
        RunConfig.of({"model": {"name": "ease"}}),
        out=tmp_path / "ease",
    )
    masked = str(folder / "masked")
    for runs, kind, words in (
        (
            [masked, str(tmp_path / "ease")],
            ConfigError,
            "ease: must be used with the data set it was trained on",
        ),
        (
            [masked, f"masked={folder / 'pia'}"],
            ConfigError,
            "different names, found masked, masked",
        ),
        ([], ConfigError, "found none"),
        ([str(tmp_path / "no-run")], ArtifactError, "must hold manifest.json"),
        ([str(folder / "data")], ArtifactError, "schema must be 'coterie.model/1'"),
    ):
        with pytest.raises(kind, match=words):
            load_settings(runs)


def test_a_setting_is_called_as_asked_or_like_its_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pia=0.3").symlink_to(folder / "pia")
    asked = [str(tmp_path / "pia=0.3"), f"λ={tmp_path / 'pia=0.3'}", f"{folder / 'masked'}/"]
    assert [one.name for one in load_settings(asked)[0]] == ["pia", "λ", "masked"]
    monkeypatch.chdir(folder / "clean")
    assert load_settings(["."])[0][0].name == "clean"


@pytest.mark.parametrize(
    "model", [{"name": "ease"}, {"name": "mult-dae", "hidden_dims": [4], "latent_dim": 2}]
)
def test_models_without_posterior_are_refused(model: dict[str, Any], dataset: Dataset) -> None:
    config = {"model": model} | ({"training": {"epochs": 1}} if model["name"] == "mult-dae" else {})
    with pytest.raises(
        ConfigError,
        match=f"need a variational autoencoder, other is {model['name']}; analyze a mult-vae",
    ):
        analyze([AnalysisSetting("other", train(dataset, RunConfig.of(config)))], dataset, OPTIONS)


def test_too_few_users_are_refused(settings: dict[str, AnalysisSetting], dataset: Dataset) -> None:
    one_to_train_on = simulate_dataset(n_users=3, n_items=60, held_out_users=1, seed=1)
    assert one_to_train_on.train.shape[0] == 1
    with pytest.raises(
        DataError,
        match=r"needs 10 training users with items.*found 1; take fewer neighbours or more data",
    ):
        analyze([settings["masked"]], one_to_train_on, OPTIONS)
    with pytest.raises(DataError, match=r"more than a neighbourhood holds \(220\), found 220"):
        analyze([settings["masked"]], dataset, replace(OPTIONS, neighbours=220, map_users=300))
    with pytest.raises(ConfigError, match="at least one setting"):
        analyze([], dataset, OPTIONS)
    wrongs: list[dict[str, Any]] = [
        {"neighbours": 120},
        {"users": 1},
        {"draws": 1},
        {"neighbours": 0},
        {"map_users": 9, "neighbours": 2},
    ]
    for wrong in wrongs:
        with pytest.raises(ConfigError, match=f"found users.*{next(iter(wrong.values()))}"):
            replace(OPTIONS, **wrong)


def test_users_without_items_are_left_out(
    settings: dict[str, AnalysisSetting], dataset: Dataset
) -> None:
    x, split = dataset.interactions, dataset.split
    emptied = np.flatnonzero(split.user_part == Part.TRAIN)[[0, 7]]
    counts = np.where(np.isin(np.arange(x.n_users), emptied), 0, np.diff(x.indptr))
    kept = ~np.isin(np.repeat(np.arange(x.n_users), np.diff(x.indptr)), emptied)
    interactions = Interactions(
        x.users, x.items, np.concatenate([[0], counts.cumsum()]), x.indices[kept]
    )
    with_empty = Dataset(interactions, Split(split.user_part, split.interaction_part[kept]))
    found = analyze([settings["masked"]], with_empty, replace(FEW, users=300, map_users=300))
    assert (
        found.users.tolist()
        == found.map_users.tolist()
        == [row for row in range(220) if row not in (0, 7)]
    )
    assert not set(dataset.users.ids_of(emptied)) & set(users_table(found)["user_id"].to_pylist())


@pytest.mark.parametrize("weight", ["input.weight", "output.weight"])
def test_a_weight_that_is_not_finite_is_told_of(
    weight: str, settings: dict[str, AnalysisSetting], dataset: Dataset, tmp_path: Path
) -> None:
    def damage(network: MultVAE) -> None:
        network.get_parameter(weight)[:, 0] = torch.nan

    with_network(settings["masked"], damage).model.save(tmp_path / "damaged")
    loaded = AnalysisSetting("damaged", TrainedModel.load(tmp_path / "damaged"))
    with pytest.raises(NumericalError, match=r"damaged: (posteriors|gradients) must be finite"):
        analyze([settings["masked"], loaded], dataset, OPTIONS)


def test_damaged_anchors_are_refused(
    folder: Path, settings: dict[str, AnalysisSetting], dataset: Dataset
) -> None:
    file = folder / "pia" / "anchors.safetensors"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-50])
        with pytest.raises(ArtifactError, match="not a whole file of anchors"):
            load_settings([str(folder / "pia")])
        save_file(
            {
                "anchors": load_file(folder / "pia" / "model" / "weights.safetensors")[
                    "input.weight"
                ][:5]
            },
            file,
        )
        with pytest.raises(
            ConfigError, match=r"anchors must be \[60, 8\].*found \[5, 16\] for pia"
        ):
            analyze(load_settings([str(folder / "pia")])[0], dataset, OPTIONS)
    finally:
        file.write_bytes(whole)


# A collapsed model, beside one that was never trained.


def collapse(network: MultVAE) -> None:
    for parameter in network.encoder[-1].parameters():
        parameter.zero_()


def renew(network: MultVAE) -> None:
    fresh = MultVAEConfig(hidden_dims=(16,), latent_dim=8).build(
        network.n_items, torch.Generator().manual_seed(3)
    )
    network.load_state_dict(fresh.state_dict())


def test_a_collapsed_model_is_told_of_and_does_not_crash(
    settings: dict[str, AnalysisSetting], dataset: Dataset, tmp_path: Path
) -> None:
    changed = [
        with_network(settings["masked"], collapse, "collapsed"),
        with_network(settings["masked"], renew, "untrained"),
        with_network(settings["pia"], collapse, "aligned", settings["pia"].anchors),
    ]
    found = analyze(changed, dataset, OPTIONS)
    write_report(found, tmp_path / "report")
    one = found.settings[0]
    assert len(one.influence.pairs) == len(one.influence_by_angle.pairs) == 1
    assert not any(maps[0].users.any() for maps in (found.pca, found.tsne))
    told = json.loads((tmp_path / "report" / "numbers.json").read_text())["settings"]
    assert all(part["sharing"]["broken"] == 0 for part in told.values())
    for name in ("collapsed", "aligned"):
        assert told[name]["bottleneck"]["n_active"] == 0
        assert {part["relative"] for part in told[name]["relative_distance"].values()} == {None}
        assert {drift[part] for drift in told[name]["drift"] for part in ("overlap", "ratio")} == {
            None
        }
        advice = by_subject(verdict(found), name)
        assert (advice["collapse"].level, advice["collapse"].says.split(":")[0]) == (
            "act",
            "Collapsed",
        )
        assert "see collapse" in advice["drift"].says
    # Of an untrained network no dimension is empty in units of the prior, and yet its noise hides
    # everybody.
    untrained = by_subject(verdict(found), "untrained")["collapse"]
    assert untrained.level != "fine"
    assert "nan" not in summary(found)
    assert shrinkage(found) == []


# The verdict.


def by_subject(advice: tuple[Advice, ...], setting: str) -> dict[str, Advice]:
    return {one.about: one for one in advice if one.setting == setting}


def judged(analysis: Analysis, *settings: Findings) -> dict[str, Advice]:
    """What is said of the first of these settings."""
    return by_subject(verdict(replace(analysis, settings=settings)), settings[0].name)


def with_alive(bottleneck: Bottleneck, n_alive: int, probability: float = 1.0) -> Bottleneck:
    """So many of 20 dimensions, in a unit in which no variance is large."""
    variance = np.where(np.arange(20) < n_alive, 1.0, 1e-3)
    return replace(
        bottleneck,
        mean_variance=1e-6 * variance,
        posterior_variance=np.full(20, 1e-6),
        own_probability=probability,
    )


@pytest.mark.parametrize(
    ("n_alive", "level", "words"),
    [(0, "act", "Collapsed"), (9, "look", "11 dimensions carry nothing"), (20, "fine", "No")],
)
def test_verdict_on_collapse(n_alive: int, level: str, words: str, analysis: Analysis) -> None:
    one = analysis.settings[1]
    bottleneck = with_alive(one.bottleneck, n_alive)
    advice = judged(analysis, replace(one, bottleneck=bottleneck))["collapse"]
    assert (advice.level, words in advice.says) == (level, True)
    assert f"{n_alive} of 20 dimensions alive" in advice.rests_on
    if level == "act":
        assert "β (0.2)" in advice.says
        recvae = judged(analysis, replace(one, bottleneck=bottleneck, model="recvae"))
        assert "γ (0.2)" in recvae["collapse"].says


@pytest.mark.parametrize(("probability", "level"), [(0.04, "look"), (0.63, "fine")])
def test_verdict_on_confused_users(probability: float, level: str, analysis: Analysis) -> None:
    one = analysis.settings[1]
    bottleneck = with_alive(one.bottleneck, 20, probability)
    advice = judged(analysis, replace(one, bottleneck=bottleneck))["collapse"]
    assert (advice.level, "confused" in advice.says) == (level, level != "fine")
    assert f"with probability {probability}" in advice.rests_on


def test_verdict_acts_on_confused_users_where_a_looser_setting_ranks_better(
    analysis: Analysis,
) -> None:
    one = analysis.settings[1]
    assert one.quality is not None
    confused = replace(one, bottleneck=with_alive(one.bottleneck, 20, 0.1))
    better = {QUALITY: one.quality.metrics[QUALITY] + np.tile([0.03, 0.01], len(one.quality) // 2)}
    told = replace(one.bottleneck, information_nats=one.bottleneck.information_nats + 1)
    looser = replace(
        one,
        name="looser",
        kl_weight=0.1,
        bottleneck=told,
        quality=replace(one.quality, metrics=better),
    )
    assert judged(analysis, confused, looser)["collapse"].level == "act"
    assert "looser confuses them less" in judged(analysis, confused, looser)["collapse"].says
    assert judged(analysis, confused, replace(looser, kl_weight=0.3))["collapse"].level == "look"
    assert judged(analysis, confused, replace(looser, quality=None))["collapse"].level == "look"


@pytest.mark.parametrize(
    ("overlap", "in_sigma", "level"),
    [(0.02, 0.5, "act"), (0.2, 1.5, "look"), (0.2, 0.5, "fine")],
)
def test_verdict_on_drift(overlap: float, in_sigma: float, level: str, analysis: Analysis) -> None:
    """By chance, 10 of 119 others are common to 4 %. Only the setting's own keep_prob counts."""
    one = analysis.settings[1]
    drift = tuple(
        replace(
            at,
            overlap=np.full(120, overlap if at.keep_prob == 0.5 else 1 - overlap),
            sigma=at.within / in_sigma,
        )
        for at in one.drift
    )
    advice = judged(analysis, replace(one, drift=drift))["drift"]
    assert advice.level == level
    assert f"{overlap:.0%} [" in advice.rests_on
    assert "4.4% by chance" in advice.rests_on
    if level != "fine":
        clean = judged(analysis, replace(one, drift=drift, keep_prob=1.0))["drift"]
        assert "above 0.5" in advice.says
        assert "keep_prob 0.5" in clean.says


@pytest.mark.parametrize(
    ("mean", "level", "words"),
    [(0.1, "fine", "help"), (0.0, "look", "undecided"), (-0.1, "look", "way")],
)
def test_verdict_on_locality(mean: float, level: str, words: str, analysis: Analysis) -> None:
    one = analysis.settings[1]
    assert one.teaching is not None
    whole = one.teaching.by_kind[WHOLE]
    around = mean + np.concatenate([[0], np.linspace(-0.05, 0.05, len(whole.pairs) - 1)])
    held = replace(whole, pairs=np.ones_like(whole.pairs), net=np.tile(around[:, None], 5))
    taught = replace(one.teaching, by_kind=dict(one.teaching.by_kind) | {WHOLE: held})
    for found in (replace(one, teaching=taught), replace(one, teaching=None, cosine=held)):
        advice = judged(analysis, found)["locality"]
        assert (advice.level, words in advice.says) == (level, True)
        assert f"{mean:+.4f} [" in advice.rests_on


@pytest.mark.parametrize(
    ("near", "far", "level"), [(0.3, 0.1, "fine"), (0.1, 0.3, "look"), (0.2, 0.15, "look")]
)
def test_verdict_on_influence(near: float, far: float, level: str, analysis: Analysis) -> None:
    one = analysis.settings[1]
    middle = np.array([near, 0, far])
    curve = replace(
        one.influence_by_angle, cosine=middle, cosine_low=middle - 0.05, cosine_high=middle + 0.05
    )
    advice = judged(analysis, replace(one, influence_by_angle=curve))["influence"]
    assert advice.level == level
    assert f"{near:.4f} among" in advice.rests_on


@pytest.mark.parametrize(
    ("gain", "level", "words"),
    [(0.02, "fine", "0.1 and 0.9"), (-0.02, "act", "0.03"), (0.0, "look", "undecided")],
)
def test_verdict_on_pia(gain: float, level: str, words: str, analysis: Analysis) -> None:
    _, masked, pia = analysis.settings
    assert masked.quality is not None
    noise = np.tile([0.01, -0.01], len(masked.quality) // 2)
    better = {QUALITY: masked.quality.metrics[QUALITY] + gain + noise}
    advice = judged(
        analysis, replace(pia, quality=replace(masked.quality, metrics=better)), masked
    )["PIA"]
    assert (advice.level, words in advice.says) == (level, True)
    # Forty users of ± 0.01: 1.96 standard errors of 0.0016.
    low, high = map(float, advice.rests_on.split("[")[1].split("]")[0].split(","))
    assert (low, high) == pytest.approx((gain - 0.0031, gain + 0.0031), abs=3e-4)


def test_verdict_on_pia_needs_a_reference(analysis: Analysis) -> None:
    clean, masked, pia = analysis.settings
    for settings, words in (
        ((pia,), "a run beside it that differs in λ_A alone"),
        ((pia, clean), "a run beside it that differs in λ_A alone"),
        (
            (pia, replace(masked, rest="of another size")),
            "a run beside it that differs in λ_A alone",
        ),
        ((replace(pia, quality=None), replace(masked, quality=None)), "validation users"),
        ((masked, pia), "Try λ_A 0.1, 0.3, 1 "),
    ):
        advice = judged(analysis, *settings)["PIA"]
        assert (advice.level, words in advice.says) == ("look", True)


def test_without_validation_users_there_is_no_quality(
    settings: dict[str, AnalysisSetting], dataset: Dataset
) -> None:
    found = analyze([settings["pia"]], dataset.without_validation(), OPTIONS)
    told = numbers(found)["settings"]["pia"]["quality"]
    assert (told["users"], told["mean"], told["error"]) == (0, None, None)
    assert [row[4] for row in glance(found)] == ["NDCG@100", ""]
    assert (found.people, found.settings[0].teaching) == (None, None)
    assert "not measured" in page(found, _no_images(found))
    draw(figures.PICTURES[0], found).savefig(BytesIO())
    only = EvaluationReport(IdMap.of([1]), np.array([9]), {QUALITY: np.array([0.5])})
    one_user = replace(found, settings=tuple(replace(one, quality=only) for one in found.settings))
    assert numbers(one_user)["settings"]["pia"]["quality"]["error"] is None
    draw(figures.PICTURES[0], one_user).savefig(BytesIO())


def _no_images(found: Analysis) -> dict[str, tuple[str, int]]:
    return {picture.name: ("", 1) for picture in pictures_of(found)}


def test_pia_without_its_anchors_is_not_measured_and_says_so(
    settings: dict[str, AnalysisSetting], dataset: Dataset
) -> None:
    found = analyze([replace(settings["pia"], anchors=None)], dataset, FEW)
    assert found.settings[0].teaching is None
    assert "anchors" in found.settings[0].untaught
    for picture in pictures_of(found):
        draw(picture, found).savefig(BytesIO())


# The report.


def test_report_is_whole(written: Path, analysis: Analysis) -> None:
    pngs = {f"{picture.name}.png" for picture in pictures_of(analysis)}
    tables = {"report.html", "numbers.json", "users.parquet", "pairs.parquet", "manifest.json"}
    tables |= {"map.bin", "map-names.json"}
    assert {file.name for file in written.iterdir()} == pngs | tables
    assert list(written.parent.iterdir()) == [written]
    for name in pngs:
        height, width, _ = imread(written / name).shape
        assert 100 < height < 3000
        assert 500 < width < 3000

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    told = json.loads((written / "numbers.json").read_text(), parse_constant=refuse)
    assert told == json.loads(json.dumps(numbers(analysis)))


def test_tables_join_with_the_data_set(written: Path, analysis: Analysis) -> None:
    dataset = analysis.dataset
    rows = np.flatnonzero(dataset.split.user_part == Part.TRAIN)
    trained = dict(
        zip(dataset.users.ids_of(rows), np.diff(dataset.train.indptr).tolist(), strict=True)
    )
    users, pairs = (
        pq.read_table(written / f"{name}.parquet").to_pandas() for name in ("users", "pairs")
    )
    assert len(users) == 3 * len(analysis.map_users)
    drift = [
        f"{name}_{keep_prob:g}"
        for name in ("overlap", "variance")
        for keep_prob in OPTIONS.keep_probs
    ]
    assert list(users) == [
        "setting",
        "user_id",
        "interactions",
        *drift,
        "pca_x",
        "pca_y",
        "tsne_x",
        "tsne_y",
    ]
    assert [trained[one] for one in users["user_id"]] == users["interactions"].tolist()
    of_settings = [users.loc[users["setting"] == name, "user_id"].tolist() for name in NAMES]
    assert of_settings[0] == of_settings[1] == of_settings[2]
    assert len(set(of_settings[0])) == len(analysis.map_users)
    assert len(pairs) == sum(len(one.sharing.user) for one in analysis.settings)
    changes = [f"change_{rate:g}" for rate in OPTIONS.learning_rates]
    measured = [
        "inside",
        "inside_exactly",
        "gradient_norm",
        "other_norm",
        "transfer",
        "gradient_distance",
        "mismatch",
        "radius",
    ]
    assert list(pairs) == [
        "setting",
        "user_id",
        "other_id",
        "kind",
        *measured,
        "w1_low",
        "w1_high",
        *changes,
    ]
    assert set(pairs["user_id"]) | set(pairs["other_id"]) <= trained.keys()
    assert (pairs["user_id"] != pairs["other_id"]).all()
    assert (pairs["w1_low"] <= pairs["w1_high"] * (1 + 1e-6)).all()
    # The kind of a pair is found again from ids alone.
    place = {
        one: at
        for at, one in enumerate(np.array(dataset.users.ids_of(rows))[analysis.users].tolist())
    }
    for pair in pairs.sample(30, random_state=1).itertuples():
        assert (
            PairKind[pair.kind.upper()] == analysis.kinds[place[pair.user_id], place[pair.other_id]]
        )


class Page(HTMLParser):
    """The tags of a page, with what they refer to, and its text outside scripts."""

    VOID = ("meta", "img", "br", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "script":
            self.text += data


def test_page_works_offline_and_tells_each_figure_once(written: Path, analysis: Analysis) -> None:
    found = Page((written / "report.html").read_text(encoding="utf-8"))
    assert found.open == []
    images = [attributes for tag, attributes in found.tags if tag == "img"]
    assert all(str(one["src"]).startswith("data:image/png;base64,iVBOR") for one in images)
    assert [one["alt"] for one in images] == [
        f"{picture.title}: {picture.shows}" for picture in pictures_of(analysis)
    ]
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    links = [str(attributes["href"]) for _, attributes in found.tags if "href" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in found.tags}
    assert not any("src" in attributes for tag, attributes in found.tags if tag != "img")
    for name in NAMES:
        assert name in found.text
    for one in verdict(analysis):
        assert one.says in found.text


def called(analysis: Analysis, name: str) -> Analysis:
    """The analysis, its last setting of another name."""
    parts: dict[str, Any] = {}
    for part in ("settings", "pca", "tsne"):
        *others, last = getattr(analysis, part)
        parts[part] = (*others, replace(last, name=name))
    return replace(analysis, **parts)


def test_page_escapes_names_and_titles(analysis: Analysis) -> None:
    rude = "<b>&"
    titles = tuple(f"<i>{item}</script>" for item in range(analysis.dataset.n_items))
    found = replace(called(analysis, rude), dataset=replace(analysis.dataset, titles=titles))
    text = page(found, {picture.name: ("", 1) for picture in pictures_of(found)})
    read = Page(text)
    assert read.open == []
    assert not {"b", "i"} & {tag for tag, _ in read.tags}
    assert rude in read.text
    # plotly reads marks of its own in what it writes, so titles must be escaped inside the script
    # as well.
    script = text.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&")
    assert "&lt;i&gt;0&lt;" in script
    assert "<i>0" not in script
    assert users_table(found)["setting"].to_pylist()[-1] == rude


@pytest.mark.parametrize("name", ["<b>&", "_run", "$x_{$"])
def test_figures_write_names_as_they_are(name: str, analysis: Analysis) -> None:
    found = called(analysis, name)
    pictures = {
        picture.name: draw(picture, found)
        for picture in figures.PICTURES
        if picture.name in ("drift", "quality")
    }
    for figure in pictures.values():
        figure.savefig(BytesIO())
    assert [
        text.get_text().strip().replace("\\", "")
        for text in pictures["drift"].legends[0].get_texts()
    ] == ["clean", "masked", name]


def test_only_an_older_report_is_replaced(
    analysis: Analysis, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "PICTURES", figures.PICTURES[:2])
    write_report(analysis, tmp_path / "report")
    monkeypatch.setattr(figures, "PICTURES", figures.PICTURES[:1])
    write_report(analysis, tmp_path / "report")
    assert [file.name for file in tmp_path.glob("report/*.png")] == ["quality.png"]
    before = {file: file.read_bytes() for file in (folder / "data").iterdir()}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for foreign in (tmp_path / "other", folder / "data"):
        with pytest.raises(ConfigError, match="only an empty folder or an older result"):
            write_report(analysis, foreign)
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"
    assert {file: file.read_bytes() for file in (folder / "data").iterdir()} == before

    def fail(*_: Any) -> str:
        raise RuntimeError("no page")

    monkeypatch.setattr(report, "page", fail)
    for name in ("report", "new"):
        with pytest.raises(RuntimeError, match="no page"):
            write_report(analysis, tmp_path / name)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other", "report"]
    assert (tmp_path / "report" / "report.html").exists()


def test_sweep_is_drawn_where_three_settings_differ_in_one_thing_alone(analysis: Analysis) -> None:
    one = analysis.settings[1]
    assert figures.SWEEP not in pictures_of(analysis)

    def of(*changes: dict[str, Any]) -> Analysis:
        return replace(
            analysis,
            settings=tuple(
                replace(one, name=str(at), **change) for at, change in enumerate(changes)
            ),
        )

    for name, values in (
        ("kl_weight", (0.5, 0.0, 0.1)),
        ("pia", (1.0, 0.0, 0.3)),
        ("keep_prob", (1.0, 0.3, 0.5)),
    ):
        swept = of(*({name: value} for value in values))
        assert pictures_of(swept)[1] is figures.SWEEP
        found, settings = figures.sweep_of(swept)
        assert (found, [getattr(setting, name) for setting in settings]) == (name, sorted(values))
    draw(figures.SWEEP, swept).savefig(BytesIO())
    others: list[list[dict[str, Any]]] = [
        [{"kl_weight": 0.1}, {"kl_weight": 0.2}],
        [{}, {}, {}],
        [{"kl_weight": 0.1}, {"kl_weight": 0.2}, {"kl_weight": 0.3, "pia": 0.3}],
        [{"kl_weight": 0.1}, {"kl_weight": 0.2}, {"kl_weight": 0.3, "rest": "of another size"}],
    ]
    for changes in others:
        assert figures.SWEEP not in pictures_of(of(*changes))


def test_seeds_and_pia_options_are_no_other_configuration(
    dataset: Dataset, analysis: Analysis, settings: dict[str, AnalysisSetting]
) -> None:
    assert analysis.settings[0].rest == analysis.settings[1].rest == analysis.settings[2].rest
    config = settings["pia"].model.config
    for changed, same in (
        (config.model.model_copy(update={"pia_rarity": 0.5}), True),
        (config.model.model_copy(update={"latent_dim": 9}), False),
    ):
        model = replace(settings["pia"].model, config=config.model_copy(update={"model": changed}))
        found = analyze([AnalysisSetting("other", model)], dataset, FEW)
        assert (found.settings[0].rest == analysis.settings[2].rest) == same


def test_shrinkage_needs_a_counterpart_without_pia(analysis: Analysis) -> None:
    clean, masked, pia = analysis.settings
    strong = replace(pia, name="strong", pia=3.0)
    assert (
        shrinkage(replace(analysis, settings=(clean, pia)))
        == shrinkage(replace(analysis, settings=(masked,)))
        == []
    )
    # Variances a quarter and a ninth of those without: τ is 1/2, so L = 0.6 (at λ_A 0.3), which
    # predicts τ = 1/11 for the other.
    less = [
        replace(
            one, drift=tuple(replace(drift, variance=drift.variance * by) for drift in masked.drift)
        )
        for one, by in ((strong, 1 / 9), (pia, 1 / 4))
    ]
    rows = shrinkage(replace(analysis, settings=(*less, masked, clean)))
    assert [row[:5] for row in rows] == [
        ["pia", "masked", "0.3", "0.250", "0.250"],
        ["strong", "masked", "3", "0.111", f"{1 / 121:.3f}"],
    ]


@pytest.mark.parametrize("package", ["jinja2", "matplotlib", "openTSNE", "plotly"])
def test_a_missing_package_is_named(
    package: str, analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ConfigError, match=rf"needs the package {package}; pip install 'coterie\[analysis\]'"
    ):
        check_figures()
    with pytest.raises(ConfigError, match=package):
        write_report(analysis, tmp_path / "report")
    assert not any(tmp_path.iterdir())


# The command.

SMALL = ["--users", 60, "--draws", 2, "--map-users", 60, "--neighbours", 5]


def test_analyze_prints_what_it_found_and_where_it_is(
    folder: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [folder / "clean", f"a mask={folder / 'masked'}"]
    assert run(*runs, "--out", tmp_path / "report", *SMALL, "--json", tmp_path / "told.json") == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].split()[:2] == ["setting", "keep_prob"]
    assert [line.split("  ")[0] for line in lines[1:3]] == ["clean", "a mask"]
    assert "a mask: Trained without. Try λ_A 0.1, 0.3, 1" in printed
    assert f"{tmp_path / 'report'}/report.html" in printed
    assert (tmp_path / "report" / "report.html").is_file()
    told = json.loads((tmp_path / "told.json").read_text())
    assert told == json.loads((tmp_path / "report" / "numbers.json").read_text())
    assert list(told["settings"]) == ["a mask", "clean"]
    assert told["options"]["neighbours"] == 5


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--draws", "1"], 2, "Invalid value for"),
        (["--near", "0.9"], 2, "pair rules need"),
        (["--neighbours", "70"], 2, "more than a neighbourhood holds"),
        (["masked"], 2, "different names"),
        (["--data", "pia"], 4, "coterie.dataset/1 folder must hold"),
        (["--device", "cuda:99"], 2, "cuda:99"),
        (["gone"], 4, "manifest.json"),
    ],
)
def test_analyze_refuses_what_it_cannot_honour(
    options: list[str],
    code: int,
    words: str,
    folder: Path,
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    assert run("masked", "--out", tmp_path / "report", *SMALL, *options) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "report").exists()


def test_analyze_needs_a_folder(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder / "masked") == 2
    assert "--out" in capsys.readouterr().err


def test_summary_says_what_to_do_of_all_that_is_not_fine(analysis: Analysis) -> None:
    told = summary(analysis)
    for one in verdict(analysis):
        assert (f"{one.setting}: {one.says}" in told) == (one.level != "fine")
