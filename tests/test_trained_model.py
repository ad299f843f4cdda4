"""The artifact: exact, self-contained, and refused as soon as a byte of it is wrong."""

import json
import pickletools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from coterie.config import RunConfig
from coterie.data.dataset import Dataset, Interactions
from coterie.data.ids import IdMap
from coterie.errors import ArtifactError, ConfigError, ConflictError, DataError
from coterie.files import sha256
from coterie.ranking.identity import ModelIdentity
from coterie.simulation.service import simulate_dataset
from coterie.stream.to_folder import recommend_to_folder
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from scorer_contract import check_recommender, check_scorer, random_histories

DATA = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=2)
TRAINING = {"epochs": 2, "batch_size": 60, "metric": "ndcg@10"}
VAE = {"name": "mult-vae", "hidden_dims": [16], "latent_dim": 6}
VALUES: dict[str, dict[str, Any]] = {
    "popularity": {"model": {"name": "popularity"}},
    "ease": {"model": {"name": "ease", "l2": 20}},
    "item-knn": {"model": {"name": "item-knn", "neighbours": 10}},
    "rp3beta": {"model": {"name": "rp3beta", "neighbours": 10}},
    "slim": {"model": {"name": "slim", "l2": 20}},
    "ials": {"model": {"name": "ials", "factors": 8}},
    "gf-cf": {"model": {"name": "gf-cf", "rank": 8}},
    "bspm": {"model": {"name": "bspm", "rank": 8}},
    "mult-dae": {"model": {"name": "mult-dae", "latent_dim": 6}, "training": TRAINING},
    "mult-vae": {"model": VAE, "training": TRAINING},
    "mult-vae+pia": {"model": {**VAE, "pia": 0.3}, "training": TRAINING},
}
FILES = ["items.parquet", "manifest.json", "weights.safetensors"]


def trained(name: str, data: Dataset = DATA) -> TrainedModel:
    return train(data, RunConfig.of(VALUES[name]))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "model"
    trained("mult-vae").save(folder)
    return folder


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "copy"))


def change_manifest(folder: Path, **fields: Any) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, **fields}), encoding="utf-8")


def renew_checksums(folder: Path) -> None:
    """As a careless hand might: the files are other ones, and the manifest agrees with them."""
    change_manifest(
        folder, files={name: sha256(folder / name) for name in FILES if name != "manifest.json"}
    )


@pytest.mark.parametrize("name", list(VALUES))
def test_load_gives_back_what_was_saved(name: str, tmp_path: Path) -> None:
    model, histories = trained(name), random_histories(10, DATA.n_items, 0)
    model.save(tmp_path / "model")
    loaded = TrainedModel.load(tmp_path / "model")
    assert torch.equal(loaded.score(histories), model.score(histories))
    assert loaded.config == model.config == RunConfig.of(VALUES[name])
    assert loaded.items == model.items
    assert loaded.titles == model.titles == DATA.titles
    assert loaded.provenance == model.provenance
    assert loaded.provenance["dataset"] == DATA.fingerprint
    assert loaded.popularity.dtype == model.popularity.dtype == np.int64
    assert (
        loaded.popularity.tolist() == model.popularity.tolist() == DATA.train.sum(axis=0).tolist()
    )
    check_scorer(loaded, histories)
    if name != "popularity":
        check_recommender(loaded)
        assert torch.equal(loaded.item_vectors(), model.item_vectors())


@pytest.mark.parametrize("kind", ["strings", "integers"])
@pytest.mark.parametrize("titled", [True, False])
def test_ids_and_titles_survive(kind: str, titled: bool, tmp_path: Path) -> None:
    n_items = DATA.n_items
    ids = IdMap.of(
        [f"film {i} é中" for i in range(n_items)]
        if kind == "strings"
        else [2**53 + 7 * i for i in range(n_items)]
    )
    x = DATA.interactions
    titles = tuple(None if i == 3 else f"Title “{i}”" for i in range(n_items)) if titled else None
    data = Dataset(Interactions(x.users, ids, x.indptr, x.indices), DATA.split, titles)
    trained("mult-vae", data).save(tmp_path / "model")
    loaded = TrainedModel.load(tmp_path / "model")
    assert loaded.items == ids
    assert loaded.items.are_integers == (kind == "integers")
    assert loaded.titles == titles


def test_encode_is_the_posterior_of_the_clean_history(artifact: Path) -> None:
    model, histories = TrainedModel.load(artifact), random_histories(10, DATA.n_items, 0)
    mu, logvar = model.encode(histories)
    assert mu.shape == logvar.shape == (10, 6)
    assert not mu.requires_grad
    assert torch.equal(model.encode(histories)[0], mu)
    torch.testing.assert_close(model.network.decode(mu), model.score(histories))  # type: ignore[operator]


@pytest.mark.parametrize("name", ["ease", "popularity", "mult-dae"])
def test_encode_is_refused_without_a_posterior(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"this is {name}; train mult-vae"):
        trained(name).encode(random_histories(3, DATA.n_items, 0))


def test_load_finds_the_artifact_of_a_run_folder(tmp_path: Path) -> None:
    model = train(DATA, RunConfig.of(VALUES["mult-vae"]), out=tmp_path / "run")
    histories = random_histories(5, DATA.n_items, 0)
    assert torch.equal(
        TrainedModel.load(str(tmp_path / "run")).score(histories), model.score(histories)
    )


def test_load_needs_no_data_set(tmp_path: Path) -> None:
    DATA.save(tmp_path / "data")
    train(Dataset.load(tmp_path / "data"), RunConfig.of(VALUES["mult-vae"])).save(
        tmp_path / "model"
    )
    shutil.rmtree(tmp_path / "data")
    assert (
        TrainedModel.load(tmp_path / "model")
        .score(random_histories(3, DATA.n_items, 0))
        .isfinite()
        .all()
    )
    # And knows no place on the machine that made it.
    for file in (tmp_path / "model").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()


def test_save_replaces_an_older_artifact_whole(tmp_path: Path) -> None:
    trained("ease").save(tmp_path / "model")
    (tmp_path / "model" / "left over").write_text("x")
    trained("mult-vae").save(tmp_path / "model")
    assert sorted(file.name for file in tmp_path.rglob("*")) == sorted([*FILES, "model"])
    assert TrainedModel.load(tmp_path / "model").config.model.name == "mult-vae"


def test_save_writes_equal_bytes_for_equal_models(tmp_path: Path) -> None:
    trained("mult-vae").save(tmp_path / "one")
    TrainedModel.load(tmp_path / "one").save(tmp_path / "two")
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", list(VALUES))
def test_artifact_is_three_files_and_none_is_a_pickle(name: str, tmp_path: Path) -> None:
    trained(name).save(tmp_path / "model")
    files = sorted((tmp_path / "model").iterdir())
    assert [file.name for file in files] == FILES
    for file in files:
        content = file.read_bytes()
        # The start of pickle protocols 2 to 5, of a zip (as torch.save writes) and of .npz.
        assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"))
        with pytest.raises(ValueError, match=r".+"):
            list(pickletools.genops(content))


def test_anchors_are_not_in_the_artifact(tmp_path: Path) -> None:
    for name in ("mult-vae", "mult-vae+pia"):
        trained(name).save(tmp_path / name)
    without, weights = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("mult-vae", "mult-vae+pia")
    )
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in without.items()
    }
    assert not any("anchor" in name for name in weights)
    sizes = [
        (tmp_path / name / "weights.safetensors").stat().st_size
        for name in ("mult-vae", "mult-vae+pia")
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", ["items.parquet", "weights.safetensors"])
def test_a_flipped_byte_is_refused(name: str, copy: Path) -> None:
    file = copy / name
    whole = file.read_bytes()
    for place in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=rf"{name}: its bytes differ"):
            TrainedModel.load(copy)
    file.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=rf"{name}: its bytes differ"):
        TrainedModel.load(copy)


def test_a_flipped_byte_of_the_manifest_is_refused_or_changes_no_score(copy: Path) -> None:
    histories = random_histories(3, DATA.n_items, 0)
    expected = TrainedModel.load(copy).score(histories)
    file, n_refused = copy / "manifest.json", 0
    whole = file.read_bytes()
    for place in range(0, len(whole), 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :])
        # What is only told, such as the data set's fingerprint, has no second copy to be compared
        # with.
        try:
            loaded = TrainedModel.load(copy)
        except ArtifactError:
            n_refused += 1
        else:
            assert torch.equal(loaded.score(histories), expected)
    assert n_refused > len(whole) / 6


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        TrainedModel.load(copy)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="none was found"):
        TrainedModel.load(tmp_path / "none")


@pytest.mark.parametrize("schema", ["coterie.model/2", "coterie.dataset/1", 1, None])
def test_another_schema_is_refused(schema: Any, copy: Path) -> None:
    change_manifest(copy, schema=schema)
    with pytest.raises(
        ArtifactError, match=r"schema must be 'coterie.model/1', found .*; use the Coterie version"
    ):
        TrainedModel.load(copy)


def test_a_data_set_is_no_model(tmp_path: Path) -> None:
    DATA.save(tmp_path / "data")
    with pytest.raises(ArtifactError, match=r"coterie\.dataset"):
        TrainedModel.load(tmp_path / "data")


@pytest.mark.parametrize(
    "fields",
    [
        {"config": {"model": {**VAE, "latent_dim": 7}}},
        {"config": {"model": {"name": "mult-dae", "latent_dim": 6}}},
        {"config": {"model": {"name": "gru4rec"}}},
        {"config": 3},
        {"files": {}},
        {"files": []},
        {"files": {"weights.safetensors": "0"}},
    ],
    ids=[
        "another width",
        "another model",
        "unknown model",
        "no configuration",
        "no checksums",
        "a list of files",
        "one checksum",
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(fields: dict[str, Any], copy: Path) -> None:
    change_manifest(copy, **fields)
    with pytest.raises(ArtifactError, match=r".+"):
        TrainedModel.load(copy)


def test_files_of_two_models_are_refused(copy: Path) -> None:
    # Checksums agree, contents do not: fewer items than the network has.
    table = pq.read_table(copy / "items.parquet")
    pq.write_table(table.slice(0, 10), copy / "items.parquet")
    renew_checksums(copy)
    with pytest.raises(ArtifactError, match="not a whole model"):
        TrainedModel.load(copy)
    pq.write_table(pa.table({"item_id": table["item_id"]}), copy / "items.parquet")
    renew_checksums(copy)
    with pytest.raises(ArtifactError, match="not a whole model"):
        TrainedModel.load(copy)


@pytest.mark.parametrize("field", ["items", "popularity", "titles"])
def test_a_model_refuses_a_catalogue_of_another_size(field: str, artifact: Path) -> None:
    model = TrainedModel.load(artifact)
    parts = {
        **vars(model),
        field: {"items": IdMap.of([1, 2]), "popularity": np.ones(2), "titles": ("a", "b")}[field],
    }
    with pytest.raises(DataError, match=r"one entry for each of the network's 50 items, found 2"):
        TrainedModel(**parts)


def test_fingerprint_is_the_models_and_its_copies(artifact: Path, copy: Path) -> None:
    one, other = TrainedModel.load(artifact), TrainedModel.load(copy)
    assert one.fingerprint == other.fingerprint == ModelIdentity.of(one).fingerprint
    renamed = replace(one, titles=None, provenance={"run_id": "monday"})
    assert renamed.identity == ModelIdentity("mult-vae", one.fingerprint, "monday")


def test_fingerprint_changes_with_all_that_changes_a_list(artifact: Path) -> None:
    model = TrainedModel.load(artifact)
    seen = {model.fingerprint}

    def is_new(change: dict[str, Any]) -> bool:
        found = replace(model, **change).fingerprint
        is_new = found not in seen
        seen.add(found)
        return is_new

    popularity = model.popularity.copy()
    popularity[0] += 1
    ids = [int(one) + 1 for one in model.items.values.to_pylist()]
    assert is_new({"popularity": popularity})
    assert is_new({"items": IdMap.of(ids)})
    assert is_new({"items": IdMap.of(list(map(str, ids)))})
    with torch.no_grad():
        next(model.network.parameters()).view(-1)[0] += 1e-3
    assert is_new({})


def test_fingerprint_changes_with_a_number_that_is_in_no_tensor() -> None:
    values = {"name": "linear-path-vae", "hidden_dims": [8], "latent_dim": 4, "pia": 0.0}
    one, other = (
        train(
            DATA, RunConfig.of({"model": {**values, "path_weight": w}, "training": {"epochs": 1}})
        )
        for w in (1.0, 1.0)
    )
    assert one.fingerprint == other.fingerprint
    model = one.config.model.model_copy(update={"path_weight": 2.0})
    other = replace(one, config=one.config.model_copy(update={"model": model}))
    assert other.fingerprint != one.fingerprint


def test_recommendations_of_another_path_weight_are_refused(tmp_path: Path) -> None:
    values = {"name": "linear-path-vae", "hidden_dims": [8], "latent_dim": 4}
    config = RunConfig.of({"model": values, "training": {"epochs": 1}})
    model = train(DATA, config)
    recommend_to_folder(model, {1: [2]}, tmp_path / "out", k=3)
    heavier = config.model.model_copy(update={"path_weight": 100.0})
    other = replace(model, config=config.model_copy(update={"model": heavier}))
    with pytest.raises(ConflictError, match="was begun with model"):
        recommend_to_folder(other, {1: [2]}, tmp_path / "out", k=3)
