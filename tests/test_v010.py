"""What version 0.1.0 wrote still loads, and what it wrote of options that are gone says how."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.errors import ArtifactError, ConfigError
from coterie.models.kinds import RETIRED
from coterie.ranking.written import read_recommendations
from coterie.training.run_folder import read_anchors
from coterie.training.run_record import read_history
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train

OLD = Path(__file__).parent / "data" / "v0.1.0"
SCORES: dict[str, list[float]] = json.loads((OLD / "scores.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Dataset.load(OLD / "data")


@pytest.mark.parametrize("name", list(SCORES))
def test_a_model_gives_its_scores(name: str, data: Dataset) -> None:
    model = TrainedModel.load(OLD / "models" / name)
    assert model.config.model.name == name
    assert model.provenance["dataset"] == data.fingerprint
    found = model.score(data.train[:1])[0, :8].numpy()
    np.testing.assert_allclose(found, SCORES[name], rtol=1e-5, atol=1e-6)


def test_a_run_has_its_history_and_resumes_to_its_model(data: Dataset, tmp_path: Path) -> None:
    run = shutil.copytree(OLD / "run", tmp_path / "run")
    assert [entry["epoch"] for entry in read_history(run)] == [1, 2]
    anchors = read_anchors(run)
    assert anchors is not None
    assert anchors.shape == (data.n_items, 3)
    asked = json.loads((run / "config.json").read_text(encoding="utf-8"))["config"]
    model = train(data, RunConfig.of(asked), out=run, resume=True, device="cpu")
    found = model.score(data.train[:1])[0, :8].numpy()
    np.testing.assert_allclose(found, SCORES["mult-vae"], rtol=1e-5, atol=1e-6)


def test_a_run_is_trained_again_to_the_same_weights(data: Dataset) -> None:
    asked = json.loads((OLD / "run" / "config.json").read_text(encoding="utf-8"))["config"]
    found = train(data, RunConfig.of(asked), device="cpu").score(data.train[:1])[0, :8].numpy()
    np.testing.assert_allclose(found, SCORES["mult-vae"], rtol=1e-4, atol=1e-5)


def test_recommendations_can_be_read() -> None:
    table = pq.read_table(OLD / "recommendations" / "part-00000.parquet")
    assert {"user_id", "item_id", "rank"} <= set(table.column_names)
    lists = read_recommendations(OLD / "recommendations")
    assert lists.table.num_rows == table.num_rows
    assert lists.model is not None
    assert lists.model.fingerprint


# Options that are gone.

USED: dict[str, Any] = {
    "pia_parts": ["alignment"],
    "pia_schedule": "rise",
    "pia_steps": 9,
    "pia_rarity": 0.5,
    "pia_half_life": 30.0,
    "pia_counts": 1.0,
    "pia_temperature": 1.0,
    "pia_anchors": "encoder",
}


@pytest.mark.parametrize("name", ["mult-vae", "recvae", "linear-path-vae", "linear-path-recvae"])
def test_options_that_are_gone_may_stand_where_they_changed_nothing(name: str) -> None:
    plain = {"name": name, "pia": 0.3}
    written = json.loads(json.dumps({**plain, **RETIRED}))
    assert RunConfig.of({"model": written}) == RunConfig.of({"model": plain})


@pytest.mark.parametrize("field", list(RETIRED))
def test_an_option_that_is_gone_and_was_used_is_explained(field: str) -> None:
    values = {**RETIRED, field: USED[field]}
    with pytest.raises(ConfigError, match=rf"{field} must be absent.*Remove {field}: weights"):
        RunConfig.of({"model": {"name": "mult-vae", "pia": 0.3, **values}})


def test_a_model_of_an_option_that_is_gone_loads_without_it(data: Dataset, tmp_path: Path) -> None:
    folder = shutil.copytree(OLD / "models" / "mult-vae", tmp_path / "model")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["config"]["model"]["pia_rarity"] = 0.5
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"Remove pia_rarity: weights .* load without it"):
        TrainedModel.load(folder)
    del manifest["config"]["model"]["pia_rarity"]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = TrainedModel.load(folder).score(data.train[:1])[0, :8].numpy()
    np.testing.assert_allclose(found, SCORES["mult-vae"], rtol=1e-5, atol=1e-6)
