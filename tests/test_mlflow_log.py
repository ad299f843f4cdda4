"""Versions in MLflow: a copy that is complete, made once, and never in the way."""

import logging
from pathlib import Path
from typing import Any

import pytest

from coterie.errors import ConfigError
from coterie.extras import require
from coterie.jobs.mlflow_log import log_version, logged
from coterie.models.popularity import PopularityConfig
from coterie.registry import Registry, Version
from coterie.simulation.service import simulate_dataset
from coterie.training.trainer import train

pytestmark = pytest.mark.filterwarnings("default")

GATES = [
    {"name": "live", "value": -0.2, "bound": "at least -0.03", "passed": False, "about": "x"},
    {"name": "turnover", "value": None, "bound": "0.1 to 1", "passed": True, "about": "y"},
]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = tmp_path_factory.mktemp("registry")
    model = train(simulate_dataset(n_users=300, n_items=60, held_out_users=40), PopularityConfig())
    model.save(folder / "model")
    card: dict[str, Any] = {
        "fingerprint": model.fingerprint,
        "config": model.config.as_json(),
        "week": "2026-09-21",
        "gates": GATES,
        "test": {"users": 90, "ndcg@20": 0.25},
        "against": {"live": {"difference": -0.05}},
    }
    return Registry(folder / "here").register("2026-W39-0", folder / "model", card, passed=False)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a store in SQLite."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    return require("mlflow", "mlflow", "this test").MlflowClient()


def test_a_version_is_logged_whole_and_once(version: Version, client: Any) -> None:
    run_id = log_version(version, "films")
    assert log_version(version, "films") == run_id
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("2026-W39-0", "FAILED")
    assert run.data.metrics["test/ndcg_at_20"] == 0.25
    assert run.data.metrics["against/live/difference"] == -0.05
    assert run.data.metrics["gate/live"] == -0.2
    assert run.data.params["model.name"] == "popularity"
    assert run.data.tags["gate.live"] == "failed: -0.2, must be at least -0.03"
    assert run.data.tags["coterie.fingerprint"] == version.card["fingerprint"]


def test_a_place_that_is_out_of_reach_is_a_warning(
    version: Version,
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING, "coterie"):
        assert logged(version, "films") is None
    assert "2026-W39-0: not logged to MLflow: " in caplog.text


def test_no_place_is_said(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI must say where MLflow is"):
        log_version(version, "films")
    assert logged(version, "films") is None
