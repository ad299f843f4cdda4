"""The benchmark scripts run from end to end; what they measure is not judged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(script: str, folder: Path, *options: str) -> dict[str, Any]:
    out = folder / "figures.json"
    subprocess.run(
        [sys.executable, BENCHMARKS / script, "--quick", "--json", out, *options],
        check=True,
        timeout=300,
    )
    figures: dict[str, Any] = json.loads(out.read_text())
    return figures


def test_growth_measures_every_ladder_and_draws_it(tmp_path: Path) -> None:
    plot = tmp_path / "growth.png"
    curves = run("growth.py", tmp_path, "--plot", str(plot))["curves"]
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
    figures = run("training_memory.py", tmp_path)
    (mode,) = figures["modes"]
    assert (
        mode["runs"][0]["peak_bytes"] < mode["runs"][1]["peak_bytes"] < mode["tried"]["peak_bytes"]
    )
    assert mode["tried"]["items"] == int(0.97 * mode["largest_items"])
    assert figures["steps"]["dense"]["imported_bytes"] < figures["steps"]["dense"]["peak_bytes"]


def test_import_times_measures_every_door(tmp_path: Path) -> None:
    doors = run("import_times.py", tmp_path)["doors"]
    assert doors["nothing"]["ratio"] == 1
    assert all(door["median_seconds"] > 0 for door in doors.values())
    assert doors["model"]["torch"]
    assert not any(doors[name]["torch"] for name in ("coterie", "data set", "recommendations"))
