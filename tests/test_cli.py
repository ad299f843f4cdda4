"""The command line: the issue's own commands on small logs, files for machines, exit codes,
help.
"""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import coterie
from coterie.cli import app
from coterie.data.dataset import Dataset
from coterie.simulation.service import SimulatedService

Run = Callable[..., int]

SMALL = [
    "--set",
    "model.hidden_dims=[16]",
    "--set",
    "model.latent_dim=8",
    "--set",
    "training.batch_size=50",
]


@pytest.fixture
def run(run_coterie: Run) -> Run:
    """Runs ``coterie …``."""
    return run_coterie


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    SimulatedService(n_users=400, n_items=80, seed=3).write_ratings_csv(folder)
    return folder


@pytest.fixture
def data(log: Path, tmp_path: Path, run: Run) -> Path:
    folder = tmp_path / "data"
    assert run("prepare", log, "--held-out-users", "50", "--seed", "1", "--out", folder) == 0
    return folder


def test_main_job_from_log_to_recommendations(
    data: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    pia, plain = tmp_path / "pia", tmp_path / "plain"
    assert (
        run(
            "train",
            data,
            "--model",
            "mult-vae",
            "--pia",
            "0.3",
            "--seed",
            "1",
            "--epochs",
            "3",
            *SMALL,
            "--out",
            pia,
        )
        == 0
    )
    assert run("train", data, "--seed", "1", "--epochs", "3", *SMALL, "--out", plain) == 0
    assert (
        run(
            "evaluate",
            pia,
            "--split",
            "test",
            "--json",
            tmp_path / "pia.json",
            "--per-user",
            tmp_path / "users.parquet",
        )
        == 0
    )
    report = json.loads((tmp_path / "pia.json").read_text())
    assert set(report["metrics"]) == {"recall@20", "recall@50", "ndcg@100"}
    assert 0 < report["metrics"]["ndcg@100"]["mean"] < 1
    assert report["metrics"]["ndcg@100"]["standard_error"] > 0
    assert sum(cohort["users"] for cohort in report["cohorts"].values()) == report["users"] == 50
    assert pq.read_table(tmp_path / "users.parquet").num_rows == 50
    assert (
        run(
            "compare",
            pia,
            plain,
            "--split",
            "test",
            "--resamples",
            "200",
            "--json",
            tmp_path / "diff.json",
        )
        == 0
    )
    difference = json.loads((tmp_path / "diff.json").read_text())["metrics"]["ndcg@100"]
    assert difference["candidate_mean"] == pytest.approx(report["metrics"]["ndcg@100"]["mean"])
    assert difference["low"] <= difference["difference"] <= difference["high"]
    assert "÷ min(20, n)" in capsys.readouterr().out
    (tmp_path / "histories.csv").write_text("user_id,item_id\nann,1\nann,7\nbob,\ncat,no-such\n")
    assert (
        run(
            "recommend",
            pia,
            "--histories",
            tmp_path / "histories.csv",
            "--k",
            "4",
            "--out",
            tmp_path / "recs.parquet",
        )
        == 0
    )
    table = pq.read_table(tmp_path / "recs.parquet").to_pydict()
    assert table["user_id"] == ["ann"] * 4 + ["bob"] * 4 + ["cat"] * 4
    assert table["rank"] == [1, 2, 3, 4] * 3
    assert table["source"] == ["model"] * 4 + ["popularity"] * 8
    assert not {1, 7} & set(table["item_id"][:4])


def test_compare_pools_runs_joined_by_commas(data: Path, tmp_path: Path, run: Run) -> None:
    for name, options in (
        ("ease", ["--model", "ease", "--set", "model.l2=50.0"]),
        ("popular", ["--model", "popularity"]),
    ):
        assert run("train", data, *options, "--out", tmp_path / name) == 0
    sides = [f"{tmp_path / name},{tmp_path / name}" for name in ("ease", "popular")]
    assert run("compare", *sides, "--resamples", "200", "--json", tmp_path / "diff.json") == 0
    found = json.loads((tmp_path / "diff.json").read_text())["metrics"]["ndcg@100"]
    assert found["users"] == 50
    assert found["low"] > 0


def test_export_writes_a_graph_that_is_whole(data: Path, tmp_path: Path, run: Run) -> None:
    assert run("train", data, "--model", "ease", "--out", tmp_path / "run") == 0
    assert (
        run(
            "export",
            tmp_path / "run",
            "--out",
            tmp_path / "graph",
            "--json",
            tmp_path / "graph.json",
        )
        == 0
    )
    assert json.loads((tmp_path / "graph.json").read_text())["schema"] == "coterie.onnx/1"
    assert (tmp_path / "graph" / "model.onnx").is_file()
    assert run("export", tmp_path / "none", "--out", tmp_path / "graph") == 6
    (tmp_path / "none").mkdir()
    assert run("export", tmp_path / "none", "--out", tmp_path / "graph") == 4


def test_index_serves_recommend(data: Path, tmp_path: Path, run: Run) -> None:
    small = ["--epochs", 1, "--set", "model.hidden_dims=[8]", "--set", "model.latent_dim=4"]
    assert run("train", data, *small, "--out", tmp_path / "run") == 0
    assert (
        run("index", tmp_path / "run", "--lists", 4, "--probed", 4, "--out", tmp_path / "index")
        == 0
    )
    recommend = ["recommend", tmp_path / "run", "--histories", data, "--k", 3]
    assert run(*recommend, "--out", tmp_path / "exact") == 0
    assert run(*recommend, "--index", tmp_path / "index", "--out", tmp_path / "near") == 0
    exact, near = (
        pq.read_table(tmp_path / name / "part-00000.parquet") for name in ("exact", "near")
    )
    assert near["item_id"].to_pylist() == exact["item_id"].to_pylist()
    assert json.loads((tmp_path / "near" / "_request.json").read_text())["index"].endswith("/4/4")
    assert run(*recommend, "--out", tmp_path / "near") == 7
    assert run("train", data, *small, "--seed", 2, "--out", tmp_path / "other") == 0
    assert (
        run(
            "recommend",
            tmp_path / "other",
            *recommend[2:],
            "--index",
            tmp_path / "index",
            "--out",
            tmp_path / "no",
        )
        == 4
    )


@pytest.mark.parametrize(
    ("verb", "options", "expected"),
    [
        ("training-step", ["--rounds", 1, "--batch", 20], {"ratio_to_products", "ratio_to_dense"}),
        (
            "scoring",
            ["--rounds", 1, "--users", 20, "--k", 5, "--ease"],
            {"ratio_to_product", "users_per_second"},
        ),
        ("serving", ["--requests", 8, "--k", 5], {"ratio_to_product"}),
    ],
)
def test_bench_writes_its_figures(
    verb: str, options: list[Any], expected: set[str], tmp_path: Path, run: Run
) -> None:
    size = ["--items", 50, "--hidden", 8, "--latent", 4, "--items-per-user", 5]
    assert run("bench", verb, *size, *options, "--json", tmp_path / "bench.json") == 0
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert expected <= figures.keys()
    if verb == "serving":
        kinds = ["one user", "32 users", "one user from 8 threads", "32 users from 8 threads"]
        assert set(figures["p50_ms"]) == set(figures["p99_ms"]) == {"product", *kinds}
        assert all(figures["p50_ms"][kind] <= figures["p99_ms"][kind] for kind in kinds)
    assert all(figures[name] > 0 for name in expected)


def test_recommend_honours_allow_deny_and_seen(data: Path, tmp_path: Path, run: Run) -> None:
    assert run("train", data, "--model", "ease", "--out", tmp_path / "ease") == 0
    (tmp_path / "h.jsonl").write_text('{"user_id": 1, "item_ids": [3, 4]}\n')
    (tmp_path / "allow.txt").write_text("3\n5\n6\n7\n")
    (tmp_path / "deny.txt").write_text("6\n")
    options = [
        "--histories",
        tmp_path / "h.jsonl",
        "--allow",
        tmp_path / "allow.txt",
        "--deny",
        tmp_path / "deny.txt",
    ]
    assert run("recommend", tmp_path / "ease", *options, "--out", tmp_path / "a.parquet") == 0
    assert set(pq.read_table(tmp_path / "a.parquet")["item_id"].to_pylist()) == {5, 7}
    for only_for_folders in (["--engine", "ray"], ["--threads", "1"]):
        assert (
            run(
                "recommend",
                tmp_path / "ease",
                *options,
                *only_for_folders,
                "--out",
                tmp_path / "c.parquet",
            )
            == 2
        )
    assert (
        run("recommend", tmp_path / "ease", *options, "--include-seen", "--out", tmp_path / "b.csv")
        == 0
    )
    assert set((tmp_path / "b.csv").read_text().split()[1:]) != set()
    assert (tmp_path / "b.csv").read_text().count("\n") == 4


@pytest.fixture
def asked_of(data: Path, tmp_path: Path, run: Run) -> list[object]:
    """The command that recommends one item to users of five histories."""
    assert run("train", data, "--model", "ease", "--out", tmp_path / "ease") == 0
    histories = tmp_path / "h.csv"
    histories.write_text("user_id,item_id\n" + "".join(f"{user},{user}\n" for user in range(1, 6)))
    return ["recommend", tmp_path / "ease", "--histories", histories, "--k", "1"]


def test_recommend_answers_the_users_named_in_their_order(
    asked_of: list[object], tmp_path: Path, run: Run
) -> None:
    (tmp_path / "users.txt").write_text("1\n5\n")
    from_file = ["--users-file", tmp_path / "users.txt"]
    named: list[tuple[list[object], list[int]]] = [
        (["--users", "4, 2", "--users", "5,4"], [4, 2, 5]),
        (from_file, [1, 5]),
        ([*from_file, "--users", "5,3"], [5, 3, 1]),
        ([], [1, 2, 3, 4, 5]),
    ]
    for number, (options, expected) in enumerate(named):
        file, folder = tmp_path / f"{number}.parquet", tmp_path / f"{number}"
        for out in (file, folder):
            assert run(*asked_of, *options, "--out", out) == 0
            assert pq.read_table(out)["user_id"].to_pylist() == expected
    # Each list is the one that everybody's has.
    everybody = pq.read_table(tmp_path / "3.parquet").to_pylist()
    for row in pq.read_table(tmp_path / "0.parquet").to_pylist():
        row["score"] = pytest.approx(row["score"])
        assert row in everybody


def test_recommend_knows_the_users_of_one_file_only(
    asked_of: list[object], data: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.csv"
    assert run(*asked_of, "--users", "4,77,8", "--out", out) == 6
    assert "2 of 3 are not: '77', '8'" in capsys.readouterr().err.replace("\n", " ")
    assert run(*asked_of, "--users", "4,,8", "--out", out) == 2
    for place in (data, "s3://bucket/h.parquet"):
        command = ["recommend", tmp_path / "ease", "--histories", place, "--users", "4"]
        assert run(*command, "--out", tmp_path / "r") == 2
        assert "one local file of histories" in capsys.readouterr().err.replace("\n", " ")
    assert not out.exists()
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["prepare", "no-such.csv", "--out", "x"], 6, "no-such.csv"),
        (["train", "no-such", "--out", "x"], 6, "no-such"),
        (["train", ".", "--out", "x"], 4, "manifest.json"),
        (["evaluate", "no-such"], 6, "no-such"),
        (["evaluate", "."], 4, "manifest.json"),
        (["train"], 2, "Missing argument"),
        (["no-such-verb"], 2, "No such command"),
    ],
)
def test_exit_codes_tell_options_from_data_from_artifacts(
    arguments: list[str],
    code: int,
    words: str,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == code
    assert words in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ["--pia", "-1"],
        ["--set", "model.colour=red"],
        ["--set", "nonsense"],
        ["--model", "mult-dae", "--pia", "0.3"],
        ["--device", "cuda:99"],
    ],
)
def test_train_refuses_options_it_cannot_honour(
    options: list[str], data: Path, tmp_path: Path, run: Run
) -> None:
    assert run("train", data, *options, "--out", tmp_path / "run") == 2
    assert not (tmp_path / "run").exists()


def test_train_without_validation_users_says_its_epoch_alone(
    data: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Dataset.load(data).without_validation().save(tmp_path / "all")
    out, table = tmp_path / "run", tmp_path / "run.json"
    options = ["--model", "mult-dae", "--epochs", "2", *SMALL, "--out", out, "--json", table]
    assert run("train", tmp_path / "all", *options) == 0
    assert capsys.readouterr().out.replace("\n", "").endswith("/run/model  best epoch 2")
    assert json.loads(table.read_text())["best_validation"] is None


def test_evaluate_refuses_another_data_set(
    data: Path, log: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", data, "--model", "popularity", "--out", tmp_path / "run") == 0
    assert (
        run("prepare", log, "--held-out-users", "50", "--seed", "2", "--out", tmp_path / "other")
        == 0
    )
    assert run("evaluate", tmp_path / "run", "--data", tmp_path / "other") == 2
    assert "another data set" in capsys.readouterr().err


def test_train_stops_on_sigterm_with_its_code_and_resumes(
    data: Path, tmp_path: Path, run: Run
) -> None:
    options = ["--epochs", "30", "--set", "training.patience=30", *SMALL]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run("train", data, *options, "--out", whole) == 0
    command = [sys.executable, "-m", "coterie.cli", "train", str(data), *options, "--out", str(cut)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not (cut / "history.jsonl").exists() or not (cut / "history.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate()
    assert process.returncode == 143
    assert b"--resume" in message
    assert (cut / "checkpoint.safetensors").exists()
    assert run("train", data, *options, "--out", cut) == 7
    assert run("train", data, *options, "--resume", "--out", cut) == 0
    weights, resumed = (
        load_file(folder / "model" / "weights.safetensors") for folder in (whole, cut)
    )
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_an_error_is_one_write_that_no_other_process_can_split(tmp_path: Path) -> None:
    # A datagram keeps each write apart.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        command = [sys.executable, "-m", "coterie.cli", "show", str(tmp_path / "nowhere")]
        assert subprocess.run(command, check=False, stderr=theirs.fileno()).returncode == 6
        ours.setblocking(False)
        writes = [ours.recv(65536)]
        with suppress(BlockingIOError):
            while True:
                writes.append(ours.recv(65536))
    assert len(writes) == 1, writes
    assert writes[0].startswith(b"error: ")
    assert writes[0].endswith(b"\n")


def test_simulate_writes_a_log_that_prepare_reads(tmp_path: Path, run: Run) -> None:
    assert run("simulate", "--users", "200", "--items", "60", "--out", tmp_path / "log") == 0
    assert (
        run("prepare", tmp_path / "log", "--out", tmp_path / "data", "--json", tmp_path / "p.json")
        == 0
    )
    assert json.loads((tmp_path / "p.json").read_text())["counts"]["users"] == 200


def test_simulate_weeks_writes_days_that_prepare_reads(tmp_path: Path, run: Run) -> None:
    verb = ("simulate", "--users", "200", "--items", "60", "--weeks", "3")
    assert run(*verb, "--first-day", "2026-03-02", "--out", tmp_path / "made") == 0
    days = sorted(path.name for path in (tmp_path / "made" / "events").iterdir())
    assert (days[0], days[-1], len(days)) == ("day=2026-03-02", "day=2026-03-22", 21)
    log = (tmp_path / "made" / "events", "--titles", tmp_path / "made" / "titles.parquet")
    table = ("--partitions", "--timestamp-column", "timestamp", "--split", "time")
    assert run("prepare", *log, *table, "--out", tmp_path / "data") == 0


def test_simulate_refuses_options_of_the_other_service(tmp_path: Path, run: Run) -> None:
    for options in (("--weeks", "3", "--mean-items", "5"), ("--first-day", "2026-03-02")):
        assert run("simulate", *options, "--out", tmp_path / "log") == 2
    assert not (tmp_path / "log").exists()


def verb_names() -> list[str]:
    groups = [group.typer_instance for group in app.registered_groups]
    commands = [command for group in groups if group for command in group.registered_commands]
    names = [command.callback.__name__ for command in commands if command.callback]
    return [name.replace("_", "-") for name in names]


def test_every_verb_has_help_for_itself_and_each_option(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs = verb_names()
    assert {"demo", "prepare", "train", "evaluate", "compare", "recommend"} <= set(verbs)
    for verb in verbs:
        assert run(verb, "--help") == 0
        shown = capsys.readouterr().out
        assert "Usage" in shown
        assert len(shown) > 400
        # Square brackets are markup to the help's printer: what stands in them vanishes.
        assert "( )" not in shown
        assert " ." not in shown.replace(" .csv", "").replace(" .parquet", "").replace(
            " .jsonl", ""
        )


def test_version_is_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == coterie.__version__
