"""The benchmark scripts run from end to end; what they measure is not judged."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.evaluation.evaluate import evaluate
from coterie.simulation.service import simulate_dataset

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(script: str, folder: Path, *options: str) -> dict[str, Any]:
    out = folder / "figures.json"
    subprocess.run(
        [sys.executable, BENCHMARKS / script, "--json", out, *options],
        check=True,
        timeout=300,
    )
    figures: dict[str, Any] = json.loads(out.read_text())
    return figures


def test_growth_measures_every_ladder_and_draws_it(tmp_path: Path) -> None:
    plot = tmp_path / "growth.png"
    curves = run("growth.py", tmp_path, "--quick", "--plot", str(plot))["curves"]
    assert set(curves) == {"users", "items", "items_per_user", "hidden", "k"}
    assert {name for name, kinds in curves.items() if "training" in kinds} == set(curves) - {"k"}
    for kinds in curves.values():
        assert all(
            len(one["sizes"]) == len(one["median_seconds"]) == 5 and "upper" in one["exponent"]
            for one in kinds.values()
        )
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_training_memory_predicts_a_catalogue_and_trains_it(tmp_path: Path) -> None:
    figures = run("training_memory.py", tmp_path, "--quick")
    (mode,) = figures["modes"]
    assert (
        mode["runs"][0]["peak_bytes"] < mode["runs"][1]["peak_bytes"] < mode["tried"]["peak_bytes"]
    )
    assert mode["tried"]["items"] == int(0.97 * mode["largest_items"])
    assert figures["steps"]["dense"]["imported_bytes"] < figures["steps"]["dense"]["peak_bytes"]


def test_explaining_measures_each_length_of_a_history(tmp_path: Path) -> None:
    options = ("--items", "60", "--histories", "3", "9", "--asked", "4", "--rounds", "2")
    figures = run("explaining.py", tmp_path, *options)["figures"]
    assert [one["history"] for one in figures] == [3, 9]
    assert all(0 < one["median_seconds"] <= one["p95_seconds"] for one in figures)


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_publishing_measures_a_store_while_it_is_read(tmp_path: Path, store: str) -> None:
    options = ("--users", "3000", "--items", "50", "--k", "5", "--store", store)
    figures = run("publishing.py", tmp_path, *options)
    assert set(figures["reads_by_edition"]) == {"1", "2"}
    assert figures["reads"] > 50
    assert figures["median_read_ms"] < figures["slowest_read_ms"]


def test_experiment_size_sums_what_it_wrote(tmp_path: Path) -> None:
    size = ("--users", "500", "--exposures", "9000", "--before-days", "1")
    figures = run("experiment_size.py", tmp_path, "--folder", str(tmp_path / "days"), *size)
    assert sum(figures["users"].values()) == 500
    assert figures["counts"]["exposures"]["kept"] == pytest.approx(29 * (9000 // 28), rel=0.01)
    assert figures["counts"]["exposures"]["repeated"] > 0
    assert figures["peak_mib"] > 0
    assert set(figures["seconds"]) == {"reading", "looks", "checks", "all"}


def test_daily_measures_the_whole_beside_scoring_alone(tmp_path: Path) -> None:
    figures = run("daily.py", tmp_path, "--users", "300", "--items", "60", "--k", "5")
    assert figures["users"] == figures["alone"]["users"] == 300
    assert {"collecting", "recommending"} < set(figures["whole"]["steps"])
    assert figures["ratio"] > 0


def test_import_times_measures_every_door(tmp_path: Path) -> None:
    doors = run("import_times.py", tmp_path, "--quick")["doors"]
    assert doors["nothing"]["ratio"] == 1
    assert all(door["median_seconds"] > 0 for door in doors.values())
    assert doors["model"]["torch"]
    assert not any(doors[name]["torch"] for name in ("coterie", "data set", "recommendations"))


@pytest.fixture(scope="module")
def simulated() -> Dataset:
    return simulate_dataset(n_users=400, n_items=150, held_out_users=60, seed=1)


@pytest.mark.parametrize(("k", "digits"), [(1, 9), (10, 9), (100, 9), (200, 1)])
def test_ndcg_of_rivals_is_that_of_evaluate(simulated: Dataset, k: int, digits: int) -> None:
    # Many ties only where the list is the whole catalogue: at its end either choice is right.
    cases = simulated.cases(Part.VALIDATION)
    scores = np.random.default_rng(k).random(cases.fold_in.shape).round(digits)
    scorer = SimpleNamespace(n_items=simulated.n_items, score=lambda _: torch.from_numpy(scores))
    ndcg = runpy.run_path(str(BENCHMARKS / "rivals" / "ndcg.py"))["ndcg"]
    expected = evaluate(scorer, cases, metrics=[f"ndcg@{k}"], block_size=1000)
    found = ndcg(scores, cases.fold_in.toarray() > 0, cases.held_out.toarray() > 0, k)
    np.testing.assert_allclose(found, expected.metrics[f"ndcg@{k}"], rtol=1e-12)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are bound by sched_setaffinity")
def test_time_to_quality_says_who_reached_what_when(tmp_path: Path, simulated: Dataset) -> None:
    simulated.save(tmp_path / "data")
    plot = tmp_path / "quality.png"
    where = ["--data", str(tmp_path / "data"), "--plot", str(plot), "--only", "dense"]
    few = ["--limit", "3", "--patience", "2", "--threads", "1"]
    ours = ["--set", "model.hidden_dims=[20]", "--set", "model.latent_dim=8"]
    found = run("time_to_quality.py", tmp_path, *where, *few, *ours)
    assert found["fingerprint"] == simulated.fingerprint
    assert found["config"]["model"]["hidden_dims"] == [20]
    dense = found["rivals"]["dense"]
    for one in (found["coterie"], dense):
        seconds, values = zip(*one["curve"], strict=True)
        assert list(seconds) == sorted(seconds)
        assert one["best"] == max(values)
        assert one["stopped"] in {"patience", "limit"}
    assert dense["target"] == pytest.approx(0.99 * dense["best"])
    assert dense["seconds"] == next(s for s, value in dense["curve"] if value >= dense["target"])
    reached = [s for s, value in found["coterie"]["curve"] if value >= dense["target"]]
    ratio = dense["seconds"] / reached[0] if reached else None
    assert found["times_as_fast"] == dense["ratio"] == ratio
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("what", [["--users", "500"], ["--fold-in", "--rounds", "1"]])
def test_serving_load_has_figures_without_a_failure(tmp_path: Path, what: list[str]) -> None:
    figures = run("serving_load.py", tmp_path, "--items", "200", "--seconds", "0.3", *what)
    assert [one["clients"] for one in figures["load"]] == [1, 16, 64]
    assert not any(one["failures"] for one in figures["load"])


def test_experiment_calibration_measures_every_promise(tmp_path: Path) -> None:
    figures = run("experiment_calibration.py", tmp_path, "--experiments", "6", "--users", "500")
    assert set(figures["by_metric"]) == set(figures["ks_p"])
    assert len(figures["ks_p"]) == 2 * len(figures["cuped_variance_ratio"]) == 6
    for name in ("fixed", "planned_looks", "daily_sequence", "naive_daily", "iid"):
        assert 0 <= figures[f"false_positives_{name}"] <= 1
    assert figures["power_planned"] == pytest.approx(0.8)
    assert figures["srm_p"] == pytest.approx(7.7e-6, rel=0.01)
