"""The results book: definitions that hold together, small official files run to their tables, and
interruptions that lose nothing.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.errors import ConfigError
from coterie.evaluation.evaluate import evaluate
from coterie.lab.reproduce.definition import (
    CONFIGS,
    Curve,
    Definition,
    Row,
    read_definition,
    table_names,
)
from coterie.lab.reproduce.pages import marks
from coterie.simulation.service import SimulatedService
from coterie.training.trained_model import TrainedModel

Run = Callable[..., int]
SERVICE = SimulatedService(n_users=300, n_items=60, seed=1)
SMALL = ["--held-out-users", "40", "--epochs", "2", "--seeds", "1"]


@pytest.fixture
def run(run_coterie: Run) -> Run:
    """Runs ``coterie reproduce …``."""
    return partial(run_coterie, "reproduce")


@pytest.fixture(scope="module")
def ml_20m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ml-20m")
    SERVICE.write_ratings_csv(folder)
    return folder


def columns(service: SimulatedService) -> list[tuple[int, int, float]]:
    return [
        row
        for block in service.blocks()
        for row in zip(
            block.user_id.tolist(), block.item_id.tolist(), block.rating.tolist(), strict=True
        )
    ]


def write_netflix(folder: Path) -> None:
    """``combined_data_1.txt``: whole stars, a movie after the other."""
    rows = columns(SERVICE)
    lines = []
    for movie in sorted({item for _, item, _ in rows}):
        lines += [
            f"{movie}:",
            *(
                f"{user},{int(rating + 0.5)},2005-09-06"
                for user, item, rating in rows
                if item == movie
            ),
        ]
    (folder / "combined_data_1.txt").write_text("\n".join(lines) + "\n")


def write_taste_profile(folder: Path) -> None:
    """``train_triplets.txt``, of many users with many songs each, as the protocol wants."""
    rows = columns(SimulatedService(n_users=900, n_items=60, seed=2, mean_items=27, min_items=24))
    (folder / "train_triplets.txt").write_text(
        "".join(f"{user:040x}\tSO{item:05}\t{int(2 * rating)}\n" for user, item, rating in rows)
    )


def write_ml_1m(folder: Path) -> None:
    """``ratings.dat`` with whole stars."""
    (folder / "ratings.dat").write_text(
        "".join(f"{u}::{i}::{int(r + 0.5)}::978300760\n" for u, i, r in columns(SERVICE))
    )


def write_gowalla(folder: Path) -> None:
    """``train.txt`` and ``test.txt``: of every user the last fifth of the items is the test
    part.
    """
    of_user: dict[int, list[int]] = {}
    for user, item, _ in columns(SERVICE):
        of_user.setdefault(user, []).append(item)
    parts = {"train.txt": slice(None, -2), "test.txt": slice(-2, None)}
    for name, part in parts.items():
        (folder / name).write_text(
            "".join(
                f"{user} {' '.join(map(str, items[part]))}\n" for user, items in of_user.items()
            )
        )


def figures(out: Path, table: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{table}.json").read_text())
    return found


@pytest.mark.parametrize("name", table_names())
def test_definitions_name_configurations_that_parse(name: str) -> None:
    definition = read_definition(name)
    for row in definition.all_rows:
        config = row.configuration(seed=7, epochs=3)
        assert config.network_free() or (config.training.seed, config.training.epochs) == (7, 3)
    assert {pair.reference for pair in definition.pairs} <= {
        row.name for row in definition.all_rows
    }


def test_every_configuration_parses_and_is_used() -> None:
    used = {row.config for name in table_names() for row in read_definition(name).all_rows}
    there = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.toml")}
    assert used <= there
    for path in sorted(there):
        RunConfig.load(CONFIGS / path)


def test_a_wrong_definition_says_what_is_wrong() -> None:
    values = read_definition("ml-20m").model_dump(exclude_defaults=True)
    (pair,) = values["primary"]
    for change, message in (
        ({"comparisons": [{"candidate": "pia", "reference": "nobody"}]}, "found nobody"),
        ({"compare_by": "ndcg@7"}, "found ndcg@7"),
        ({"rows": [values["rows"][0]] * 2}, "names of their own"),
        ({"rows": [{**values["rows"][0], "name": "data"}]}, "none of them data"),
        ({"primary": [{**pair, "candidate": "clean"}]}, "found clean over masked by ndcg@100"),
        ({"primary": [{**pair, "metric": "ndcg@7"}]}, "by ndcg@7"),
        (
            {"rows": [{**row, "exploratory": "why"} for row in values["rows"]]},
            "leave the exploratory row out",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            Definition.model_validate({**values, **change})
    with pytest.raises(ConfigError, match="must be one of its values"):
        Curve(
            name="pia",
            label="λ_A",
            config="ml-1m/masked.toml",
            field="model.pia",
            values=(0.1, 1),
            reference=0,
        )
    shallow = Curve(
        name="pia",
        label="λ_A",
        config="ml-1m/masked.toml",
        set={"model.hidden_dims": [], "model.pia": 9},
        field="model.pia",
        values=(0, 1),
        reference=0,
    )
    # What is varied is laid over what is set.
    assert shallow.rows[1].set == {"model.hidden_dims": [], "model.pia": 1}
    with pytest.raises(ConfigError, match=r"SECTION\.FIELD"):
        Row(name="pia", label="", config="ml-1m/masked.toml", set={"pia": 1}).configuration()


@pytest.mark.parametrize(
    ("table", "write"),
    [
        ("ml-20m", SERVICE.write_ratings_csv),
        ("netflix", write_netflix),
        ("taste-profile", write_taste_profile),
    ],
)
def test_small_official_files_run_to_the_published_table(
    table: str,
    write: Callable[[Path], None],
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path)
    options: list[str | Path] = [
        "--data",
        tmp_path,
        "--out",
        tmp_path / "out",
        *SMALL,
        "--rows",
        "popularity,ease,masked,pia",
    ]
    assert run(table, *options, "--json", tmp_path / "again.json") == 0
    printed = capsys.readouterr().out
    found = figures(tmp_path / "out", table)
    assert found == json.loads((tmp_path / "again.json").read_text())
    (here,) = [
        one
        for one in found["published"]
        if one["label"] == "Mult-VAE masked" and one["metric"] == "ndcg@100"
    ]
    pooled = found["rows"]["masked"]["pooled"]["test"]["metrics"]["ndcg@100"]
    assert (
        here["difference"] == here["here"] - here["published"] == pooled["mean"] - here["published"]
    )
    assert f"({here['difference']:+.4f})" in printed
    assert "not to be held against published values: 40 held-out users in place of" in printed
    (trained,) = found["rows"]["masked"]["runs"]
    assert trained["data"] == found["data"]["1"]["fingerprint"]
    assert (trained["seed"], trained["epochs"], trained["config"]["training"]["seed"]) == (1, 2, 1)
    assert trained["best_validation"] == pytest.approx(
        trained["validation"]["ndcg@100"]["mean"], abs=1e-12
    )
    assert trained["seconds"] > 0
    assert found["data"]["1"]["counts"]["test_users"] == 40
    gain = found["comparisons"]["pia over masked"]["metrics"]["ndcg@100"]
    assert gain["low"] <= gain["difference"] <= gain["high"]
    page = (tmp_path / "out" / f"{table}.md").read_text()
    assert page.startswith(marks(table)[0])
    assert page.rstrip().endswith(marks(table)[1])
    assert f"| {pooled['mean']:.4f} ± {pooled['standard_error']:.4f} |" in page
    assert "--held-out-users 40 --epochs 2 --rows popularity,ease,masked,pia" in page
    assert "| 95 % interval, one split: users only |" in page
    assert "gain by split" not in page


def test_given_split_runs_to_its_table(run: Run, tmp_path: Path) -> None:
    write_gowalla(tmp_path)
    assert (
        run(
            "gowalla",
            "--data",
            tmp_path,
            "--out",
            tmp_path / "out",
            "--epochs",
            "1",
            "--rows",
            "popularity,pia",
        )
        == 0
    )
    found = figures(tmp_path / "out", "gowalla")
    assert list(found["rows"]["pia"]["pooled"]["test"]["metrics"]) == [
        "ndcg@20",
        "recall@20",
        "recall_of_held_out@20",
    ]
    assert all(run["seconds"] > 0 for row in found["rows"].values() for run in row["runs"])
    assert (
        run("gowalla", "--data", tmp_path, "--out", tmp_path / "out", "--held-out-users", "5") == 2
    )


def test_a_page_tells_what_is_primary_what_is_corrected_and_what_is_exploratory(
    run: Run, tmp_path: Path
) -> None:
    write_ml_1m(tmp_path)
    asked = ["--held-out-users", "40", "--epochs", "1", "--seeds", "1,2"]
    rows = ["--rows", "ease,masked,pia,linear-path"]
    assert run("ml-1m", "--data", tmp_path, "--out", tmp_path / "out", *asked, *rows) == 0
    page = (tmp_path / "out" / "ml-1m.md").read_text()
    found = figures(tmp_path / "out", "ml-1m")
    gain = found["comparisons"]["pia over masked"]["metrics"]["ndcg@100"]
    by_split = " ".join(f"{one:+.4f}" for one in gain["by_run"])
    assert f"| {gain['p_value']:.4f} | {by_split} |" in page
    assert len(gain["by_run"]) == 2
    shown = [line for line in page.splitlines() if line.startswith("| — ")]
    few = [line for line in shown if int(line.split(" users")[0].split()[-1]) < 50]
    assert few
    assert not any("%" in line.split("|")[3] for line in few)
    corrected = {(one["comparison"], one["part"]): one["p_value"] for one in found["corrected"]}
    assert f"| p (Holm, {len(corrected)}) |" in page
    assert ("pia over masked", "all") not in corrected
    assert ("pia over masked", "without the users chosen on") not in corrected
    assert len(corrected) == len(shown) + len(
        [one for one in found["comparisons"] if "linear" in one]
    )
    assert "| Mult-VAE with a linear path (`linear-path`)† |" in page
    assert "**linear-path† over ease**" in page
    assert "† Exploratory, chosen with knowledge of test users, so no headline:" in page


def test_what_is_tested_of_a_given_split_was_trained_on_validation_items_too(
    run: Run, tmp_path: Path
) -> None:
    write_gowalla(tmp_path)
    out = tmp_path / "out"
    assert run("gowalla", "--data", tmp_path, "--out", out, "--epochs", "4", "--rows", "pia") == 0
    dataset, chosen, last = (
        Dataset.load(out / "data-1"),
        TrainedModel.load(out / "pia-1"),
        TrainedModel.load(out / "pia-1-refit"),
    )
    assert last.provenance["dataset"] == dataset.without_validation().fingerprint
    assert last.config.training.epochs == chosen.provenance["best_epoch"]
    by_hand = {
        "validation": evaluate(chosen, dataset.cases(Part.VALIDATION), metrics=("ndcg@20",)),
        "test": evaluate(last, dataset.cases(Part.TEST), metrics=("ndcg@20",)),
    }
    pooled = figures(out, "gowalla")["rows"]["pia"]["pooled"]
    for part, report in by_hand.items():
        assert pooled[part]["metrics"]["ndcg@20"]["mean"] == pytest.approx(
            report.mean("ndcg@20"), abs=1e-6
        )
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert run("gowalla", "--data", tmp_path, "--out", out, "--epochs", "4", "--rows", "pia") == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}


def test_curves_are_numbers_and_a_figure_beside_the_page(run: Run, tmp_path: Path) -> None:
    write_ml_1m(tmp_path)
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    page.write_text("# Results\n\n" + "\n".join(marks("curves")) + "\n\nThe end.\n")
    options: list[str | Path] = [
        "--data",
        tmp_path,
        "--out",
        tmp_path / "out",
        "--held-out-users",
        "40",
        "--epochs",
        "2",
        "--seeds",
        "1,2",
    ]
    assert run("curves", *options, "--rows", "pia-0,pia-1", "--page", page) == 0
    written = page.read_text()
    assert "| λ_A | validation ndcg@100 | test ndcg@100 | gain over 0 |" in written
    assert "](curves.png)" in written
    assert written.startswith("# Results\n\n<!--")
    assert written.endswith("<!-- end curves -->\n\nThe end.\n")
    for figure in (page.with_name("curves.png"), tmp_path / "out" / "curves.png"):
        assert figure.read_bytes().startswith(b"\x89PNG")
    assert run("curves", *options, "--rows", "pia-0,pia-1", "--page", page) == 0
    assert page.read_text() == written
    users = figures(tmp_path / "out", "curves")["rows"]["pia-1"]["pooled"]["test"]["users"]
    assert 40 < users < 80


def test_a_page_without_its_marks_is_refused_before_anything_runs(
    ml_20m: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n<!-- table ml-20m -->\n")
    assert run("ml-20m", "--data", ml_20m, "--out", tmp_path / "out", *SMALL, "--page", page) == 2
    assert "<!-- end ml-20m -->" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_honoured_is_said(
    ml_20m: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(code: int, message: str, *arguments: str | Path) -> None:
        assert run(*arguments) == code
        assert message in capsys.readouterr().err.replace("\n", " ")

    out: list[str | Path] = ["--out", tmp_path / "out"]
    asked: list[str | Path] = [
        "ml-20m",
        "--data",
        ml_20m,
        *out,
        "--seeds",
        "1",
        "--rows",
        "popularity,mult-dae",
    ]
    refused(2, "the table must be one of", "ml-30m", *out)
    refused(2, "found pai", "ml-20m", *out, "--rows", "pai")
    refused(2, "seeds must be", "ml-20m", *out, "--seeds", "one")
    refused(2, "different numbers", "ml-20m", *out, "--seeds", "1,1")
    refused(2, "give it with --data", "ml-20m", *out)
    refused(3, "combined_data_*.txt", "netflix", "--data", ml_20m, *out)
    assert run(*asked, "--held-out-users", "40", "--epochs", "1") == 0
    refused(2, "held_out_users was 40, now 30", *asked, "--held-out-users", "30", "--epochs", "1")
    refused(2, "training.epochs was 1, now 2", *asked, "--held-out-users", "40", "--epochs", "2")


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "coterie.cli", "reproduce", *map(str, arguments)]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    # Not for the file alone: a history is there, empty, before training takes the signals over.
    until = time.monotonic() + 60
    while (
        not (path.exists() and path.stat().st_size)
        and time.monotonic() < until
        and process.poll() is None
    ):
        time.sleep(0.01)
    assert path.stat().st_size, process.communicate()[1] if process.poll() is not None else path


def test_killed_and_interrupted_it_goes_on_and_ends_as_if_nothing_had_happened(
    ml_20m: Path, run: Run, tmp_path: Path
) -> None:
    def asked(out: Path) -> list[str | Path]:
        rows = ["--rows", "popularity,masked,pia"]
        return [
            "ml-20m",
            "--data",
            ml_20m,
            "--out",
            out,
            "--held-out-users",
            "40",
            "--epochs",
            "60",
            "--seeds",
            "1",
            "--threads",
            "1",
            *rows,
        ]

    out = tmp_path / "out"
    killed = start(*asked(out))
    wait_for(out / "masked-1" / "history.jsonl", killed)
    killed.kill()
    killed.communicate()
    (out / ".data-1.left.part").mkdir()
    finished = [
        out / "data-1" / "manifest.json",
        out / "popularity-1" / "model" / "manifest.json",
        out / "reports" / "popularity-1-test.parquet",
    ]
    times = [path.stat().st_mtime_ns for path in finished]
    assert not (out / "masked-1" / "model").exists()

    stopped = start(*asked(out))
    wait_for(out / "pia-1" / "history.jsonl", stopped)
    stopped.send_signal(signal.SIGINT)
    _, told = stopped.communicate()
    assert stopped.returncode == 130, told
    assert "2 of 3 runs are finished, the same command goes on" in told.replace("\n", " ")
    assert (out / "pia-1" / "checkpoint.safetensors").exists()

    assert run(*asked(out)) == 0
    assert [path.stat().st_mtime_ns for path in finished] == times
    assert not list(out.glob(".*"))
    assert run(*asked(tmp_path / "whole")) == 0
    one, other = figures(out, "ml-20m"), figures(tmp_path / "whole", "ml-20m")
    assert one["comparisons"] == other["comparisons"]
    for name, row in one["rows"].items():
        assert row["pooled"] == other["rows"][name]["pooled"]


def test_estimate_tells_hours_and_memory_of_a_row(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(
            "ml-latest-small",
            "--estimate",
            "--rows",
            "masked",
            "--epochs",
            "3",
            "--json",
            tmp_path / "cost.json",
        )
        == 0
    )
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert cost["rows"]["masked"]["epochs"] == 3
    assert 0 < cost["rows"]["masked"]["hours"] < 1
    assert 0.1 < cost["rows"]["masked"]["gib"] < 10
    assert cost["users"] == read_definition("ml-latest-small").size.users
    assert np.isfinite(cost["bytes_a_user"])
    assert "GiB" in capsys.readouterr().out
