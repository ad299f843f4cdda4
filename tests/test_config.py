"""A configuration holds what was asked for, or says which field cannot be honoured."""

import copy
import json
import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.config import (
    MODEL_NAMES,
    RunConfig,
    TrainingConfig,
    as_toml,
    overlay,
    read_values,
)
from coterie.errors import ConfigError
from coterie.models.ease import EaseConfig
from coterie.models.graph_filter import BspmConfig, GfCfConfig
from coterie.models.ials import IalsConfig
from coterie.models.item_item import ItemKnnConfig, Rp3BetaConfig, SlimConfig
from coterie.models.linear_path_recvae import LinearPathRecVAEConfig
from coterie.models.linear_path_vae import LinearPathVAEConfig
from coterie.models.most_watched import MostWatchedConfig
from coterie.models.multdae import MultDAEConfig
from coterie.models.multvae import MultVAEConfig
from coterie.models.popularity import PopularityConfig
from coterie.models.recvae import RecVAEConfig
from coterie.models.vamp_vae import VampVAEConfig

FULL = {
    "model": {
        "name": "mult-vae",
        "hidden_dims": [9, 5],
        "latent_dim": 3,
        "keep_prob": 0.25,
        "beta": 0.1,
        "anneal_steps": 7,
        "pia": 0.5,
    },
    "training": {
        "epochs": 3,
        "batch_size": 11,
        "learning_rate": 0.01,
        "weight_decay": 0.02,
        "metric": "recall@5",
        "validate_every": 2,
        "patience": 4,
        "chunk_items": 12,
        "sampled_items": 0,
        "start": "spectral",
        "start_rank": 5,
        "shrink": 0.8,
        "average": 0.1,
        "implicit_slim": 2,
        "slim_l2": 50.0,
        "sparse_updates": False,
        "seed": 6,
    },
}

TOML = """
[model]
name = "mult-vae"
hidden_dims = [9, 5]
latent_dim = 3
keep_prob = 0.25
beta = 0.1
anneal_steps = 7
pia = 0.5

[training]
epochs = 3
batch_size = 11
learning_rate = 0.01
weight_decay = 0.02
metric = "recall@5"
validate_every = 2
patience = 4
chunk_items = 12
sampled_items = 0
start = "spectral"
start_rank = 5
shrink = 0.8
average = 0.1
implicit_slim = 2
slim_l2 = 50.0
sparse_updates = false
seed = 6
"""


KINDS: dict[str, Any] = {
    "mult-vae": MultVAEConfig,
    "mult-dae": MultDAEConfig,
    "recvae": RecVAEConfig,
    "vamp-vae": VampVAEConfig,
    "linear-path-vae": LinearPathVAEConfig,
    "linear-path-recvae": LinearPathRecVAEConfig,
    "ease": EaseConfig,
    "popularity": PopularityConfig,
    "most-watched": MostWatchedConfig,
    "item-knn": ItemKnnConfig,
    "rp3beta": Rp3BetaConfig,
    "slim": SlimConfig,
    "ials": IalsConfig,
    "gf-cf": GfCfConfig,
    "bspm": BspmConfig,
}
CLOSED_FORMS = [
    "ease", "popularity", "most-watched", "item-knn", "rp3beta", "slim", "ials", "gf-cf", "bspm",
]  # fmt: skip


def test_default_configuration_is_the_papers_mult_vae() -> None:
    model = RunConfig().model
    assert isinstance(model, MultVAEConfig)
    assert (model.hidden_dims, model.latent_dim, model.keep_prob, model.beta, model.pia) == (
        (600,),
        200,
        0.5,
        0.2,
        0.0,
    )
    assert (RunConfig().training.learning_rate, RunConfig().training.metric) == (1e-3, "ndcg@100")


@pytest.mark.parametrize(("name", "kind"), list(KINDS.items()))
def test_of_chooses_the_model_by_its_name(name: str, kind: type) -> None:
    config = RunConfig.of({"model": {"name": name}})
    assert type(config.model) is kind
    assert config.network_free() == (name in CLOSED_FORMS)


def test_load_reads_toml_and_json_alike(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(TOML, encoding="utf-8")
    (tmp_path / "run.json").write_text(json.dumps(FULL), encoding="utf-8")
    config = RunConfig.load(tmp_path / "run.toml")
    assert config == RunConfig.load(str(tmp_path / "run.json")) == RunConfig.of(FULL)
    assert config.as_json() == FULL


def test_every_field_is_in_the_full_example() -> None:
    # The round trips above hold for every field only if none is missing here.
    assert set(FULL["model"]) == set(MultVAEConfig.model_fields)
    assert set(FULL["training"]) == set(TrainingConfig.model_fields)


@given(
    st.lists(st.integers(1, 1000), max_size=3),
    st.floats(0, 1, exclude_min=True),
    st.floats(0, allow_infinity=False, allow_nan=False),
    st.integers(0),
)
def test_as_json_comes_back_exactly(
    hidden_dims: list[int], keep_prob: float, pia: float, seed: int
) -> None:
    values = {
        "model": {
            "hidden_dims": hidden_dims,
            "keep_prob": keep_prob,
            "pia": pia,
            "name": "mult-vae",
        },
        "training": {"seed": seed},
    }
    config = RunConfig.of(values)
    assert RunConfig.of(json.loads(json.dumps(config.as_json()))) == config


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_training_is_refused_for_a_closed_form(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[training\] must be absent for {name}"):
        RunConfig.of({"model": {"name": name}, "training": {"epochs": 3}})
    with pytest.raises(ConfigError, match=rf"\[training\] must be absent for {name}"):
        RunConfig(model=KINDS[name](), training=TrainingConfig())
    config = RunConfig.of({"model": {"name": name}})
    assert "training" not in config.as_json()
    assert RunConfig.of(config.as_json()) == config


@pytest.mark.parametrize("place", ["model", "training"])
def test_of_refuses_an_unknown_field(place: str) -> None:
    with pytest.raises(ConfigError, match=rf"{place}.*lerning_rate.*found 0.1"):
        RunConfig.of(
            {"model": {"name": "mult-vae"}, place: {"name": "mult-vae", "lerning_rate": 0.1}}
        )
    with pytest.raises(ConfigError, match="trainig"):
        RunConfig.of({"trainig": {}})


def test_of_refuses_a_field_of_another_model() -> None:
    with pytest.raises(ConfigError, match=r"model\.mult-dae\.beta"):
        RunConfig.of({"model": {"name": "mult-dae", "beta": 0.2}})


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("mult-vae", "latent_dim", 0),
        ("mult-vae", "latent_dim", 2.5),
        ("mult-vae", "hidden_dims", [600, 0]),
        ("mult-vae", "hidden_dims", 600),
        ("mult-vae", "keep_prob", 0),
        ("mult-vae", "keep_prob", 1.01),
        ("mult-vae", "beta", -0.1),
        ("mult-vae", "beta", float("nan")),
        ("mult-vae", "anneal_steps", -1),
        ("mult-vae", "pia", float("inf")),
        ("mult-dae", "latent_dim", -3),
        ("mult-dae", "keep_prob", 0),
        ("ease", "l2", 0),
        ("ease", "popularity_exponent", -0.1),
        ("item-knn", "neighbours", 0),
        ("item-knn", "shrinkage", -1),
        ("item-knn", "weighting", "tf-idf"),
        ("rp3beta", "neighbours", 2.5),
        ("rp3beta", "alpha", -0.1),
        ("rp3beta", "beta", -0.1),
        ("slim", "l1", 0),
        ("slim", "l2", 0),
        ("slim", "nonnegative", "mostly"),
        ("ials", "factors", 0),
        ("ials", "regularization", 0),
        ("ials", "alpha", 0),
        ("ials", "iterations", 0),
        ("ials", "seed", -1),
        ("gf-cf", "rank", 0),
        ("gf-cf", "ideal_weight", -0.1),
        ("bspm", "time", -1),
        ("bspm", "steps", 0),
    ],
)
def test_of_names_a_model_field_out_of_range(name: str, field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{name}\.{field}"):
        RunConfig.of({"model": {"name": name, field: value}})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("learning_rate", "fast"),
        ("weight_decay", -1e-9),
        ("validate_every", 0),
        ("patience", 0),
        ("chunk_items", -1),
        ("sampled_items", -1),
        ("start", "lukewarm"),
        ("start_rank", -1),
        ("shrink", -0.1),
        ("shrink", 1.1),
        ("average", 1.0),
        ("implicit_slim", -1),
        ("slim_l2", 0),
        ("sparse_updates", "often"),
        ("seed", -1),
        ("metric", 100),
        ("metric", "ndgc@100"),
    ],
)
def test_of_names_a_training_field_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"training\.{field}.*found {value!r}"):
        RunConfig.of({"training": {field: value}})


def test_a_rank_is_refused_with_random_weights() -> None:
    with pytest.raises(ConfigError, match="start_rank must be 0 with random weights, found 7"):
        RunConfig.of({"training": {"start_rank": 7}})


def test_ridge_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="slim_l2 must be 100 without implicit_slim, found 5"):
        RunConfig.of({"training": {"slim_l2": 5}})


@pytest.mark.parametrize("start", ["random", "spectral"])
def test_shrinking_is_refused_where_there_is_nothing_to_shrink(start: str) -> None:
    with pytest.raises(ConfigError, match=f"shrink must be 0.8 with {start} weights, .* found 0.5"):
        RunConfig.of({"training": {"start": start, "shrink": 0.5}})
    assert RunConfig.of({"training": {"start": "warm", "shrink": 0.5}}).training.shrink == 0.5


def test_weight_decay_is_refused_with_sparse_updates() -> None:
    with pytest.raises(ConfigError, match="weight_decay must be 0 with sparse_updates"):
        RunConfig.of({"training": {"sparse_updates": True, "weight_decay": 0.1}})


def test_chunks_are_refused_with_a_sample() -> None:
    with pytest.raises(ConfigError, match="chunk_items must be 0 with sampled_items"):
        RunConfig.of({"training": {"sampled_items": 64, "chunk_items": 16}})


def test_of_names_every_fault_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.of(
            {"model": {"name": "mult-vae", "beta": -1, "pai": 1}, "training": {"epochs": 0}}
        )
    for place in ("model.mult-vae.beta", "model.mult-vae.pai", "training.epochs"):
        assert place in str(caught.value)


def test_of_refuses_an_unknown_model_and_names_the_known() -> None:
    with pytest.raises(ConfigError, match="mult-dae"):
        RunConfig.of({"model": {"name": "mult-var"}})


@pytest.mark.parametrize(
    "values", [[], 3, None, "mult-vae", {"model": []}, {"model": {"beta": 0.2, "name": ["x"]}}]
)
def test_of_refuses_what_is_no_mapping(values: Any) -> None:
    with pytest.raises(ConfigError):
        RunConfig.of(values)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.toml", "[model\n"), ("a.json", "{'model'"), ("a.toml", "x = \xff"), ("a.json", "")],
)
def test_load_refuses_a_malformed_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"readable TOML or JSON") as caught:
        RunConfig.load(tmp_path / name)
    assert name in str(caught.value)


def test_load_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        RunConfig.load(tmp_path / "none.toml")


def test_read_values_leaves_checking_to_others(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[model]\npai = 3\n", encoding="utf-8")
    assert read_values(tmp_path / "a.toml") == {"model": {"pai": 3}}


def test_config_is_a_value() -> None:
    config = RunConfig.of(FULL)
    with pytest.raises(ValueError, match="frozen"):
        config.training.epochs = 9  # type: ignore[misc]
    assert hash(config) == hash(RunConfig.of(FULL))


# Built in Python, written, and laid over.


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (MultVAEConfig, {"pia": -1}),
        (MultVAEConfig, {"pai": 1}),
        (EaseConfig, {"l2": "much"}),
        (TrainingConfig, {"epochs": 0}),
        (RunConfig, {"trainig": {}}),
        (LinearPathVAEConfig, {"path": {"name": "ease", "l2": 0}}),
    ],
)
def test_a_wrong_value_in_python_is_a_configuration_error(kind: Any, values: Any) -> None:
    (field,) = values
    with pytest.raises(ConfigError, match=rf"{field}.*coterie config"):
        kind(**values)


def test_a_copy_and_a_pickle_are_the_same_value() -> None:
    config = RunConfig.of(FULL)
    assert pickle.loads(pickle.dumps(config)) == config.model_copy() == config


@pytest.mark.parametrize("name", list(MODEL_NAMES))
@pytest.mark.parametrize("comments", [False, True])
def test_toml_comes_back_exactly(name: str, comments: bool) -> None:
    config = RunConfig.of({"model": {"name": name}})
    text = as_toml(config, comments=comments)
    assert RunConfig.of(tomllib.loads(text)) == config
    assert ("#" in text) == (comments and name != "popularity")


def test_toml_tells_of_every_field_above_it() -> None:
    lines = as_toml(RunConfig.of(FULL), comments=True).splitlines()
    for field, about in TrainingConfig.model_fields.items():
        (place,) = (i for i, line in enumerate(lines) if line.startswith(f"{field} ="))
        assert lines[place - 1].startswith(f"# {about.description}")


def test_overlay_leaves_its_argument_alone_and_goes_as_deep_as_asked() -> None:
    values = {"model": {"name": "linear-path-vae", "path": {"name": "ease", "l2": 3.0}}}
    before = copy.deepcopy(values)
    laid = overlay(values, {"model.path.l2": 7.0, "training.seed": 2})
    assert laid == {
        "model": {"name": "linear-path-vae", "path": {"name": "ease", "l2": 7.0}},
        "training": {"seed": 2},
    }
    assert values == before


@pytest.mark.parametrize(
    ("key", "complaint"), [("pia", "SECTION.FIELD"), ("model.name.x", "name must hold fields")]
)
def test_overlay_refuses_what_is_no_place(key: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        overlay({"model": {"name": "ease"}}, {key: 1})


@pytest.mark.parametrize("name", list(MODEL_NAMES))
def test_every_model_takes_a_seed(name: str) -> None:
    config = RunConfig.of({"model": {"name": name}})
    seeded = config.with_seed(9)
    draws = name == "ials" or not config.network_free()
    assert (seeded != config) == draws
    found = seeded.as_json()
    assert [found[part]["seed"] for part in found if "seed" in found[part]] == [9] * draws
    assert seeded.with_seed(0) == config
