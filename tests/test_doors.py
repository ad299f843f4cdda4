"""The command line's doors: errors that become a line, paths that are checked first, output that
survives any console, lists, seeds and dates.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args, get_type_hints

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

import coterie
from coterie.cli.boundary import known
from coterie.cli.options import listed, read_ids, whole_numbers
from coterie.config import AnyModelConfig, RunConfig, TrainingConfig
from coterie.errors import (
    CannotWriteError,
    ConfigError,
    CoterieError,
    DataError,
    Interrupted,
    MissingPackageError,
    NotFoundError,
    UnavailableError,
)
from coterie.show.show import show
from coterie.simulation.service import SimulatedService
from coterie.training.run_config import TrainingFields, run_config

Run = Callable[..., int]

EASE = RunConfig.of({"model": {"name": "ease"}})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, a data set and a trained run."""
    folder = tmp_path_factory.mktemp("home")
    service = SimulatedService(n_users=300, n_items=60, seed=3)
    service.write_ratings_csv(folder / "log")
    service.dataset(40).save(folder / "data")
    coterie.train(coterie.Dataset.load(folder / "data"), EASE, out=folder / "ease")
    (folder / "h.csv").write_text("user_id,item_id\nann,3\n")
    (folder / "afile").touch()
    return folder


def shell(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "coterie.cli", *arguments]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, check=False
    )


def raised(cause: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever a library raises
        cause()
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("x"), ConfigError),
        (MemoryError(), UnavailableError),
        (KeyboardInterrupt(), Interrupted),
        (FileNotFoundError(errno.ENOENT, "no such file", "a.csv"), NotFoundError),
        (PermissionError(errno.EACCES, "denied", "a.csv"), CannotWriteError),
        (OSError(errno.ENOSPC, "no space left"), CannotWriteError),
        (ConnectionResetError(), UnavailableError),
        (TimeoutError(), UnavailableError),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), DataError),
        (ModuleNotFoundError("no module named x"), MissingPackageError),
        (torch.OutOfMemoryError("CUDA out of memory"), UnavailableError),
        (duckdb.OutOfMemoryException("too much"), UnavailableError),
        (duckdb.IOException("disk"), CannotWriteError),
        (raised(lambda: duckdb.sql("SELECT * FROM nowhere")), DataError),
        (raised(lambda: pa.array([1, "x"])), DataError),
        (raised(lambda: TypeAdapter(int).validate_python("x")), ConfigError),
        (raised(lambda: torch.empty(1 << 60)), UnavailableError),
    ],
)
def test_known_finds_the_error_of_the_tree(error: BaseException, kind: type[CoterieError]) -> None:
    assert type(known(error)) is kind


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("x"), RuntimeError("shape")])
def test_known_passes_over_what_nobody_foresaw(error: Exception) -> None:
    assert known(error) is None


@pytest.mark.parametrize("debug", ["", "1"])
def test_unforeseen_errors_become_a_line_and_a_traceback_on_request(
    debug: str,
    home: Path,
    run_coterie: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("in the middle")

    monkeypatch.setenv("COTERIE_DEBUG", debug)
    monkeypatch.setattr("coterie.show.show.show", fails)
    assert run_coterie("show", home) == 1
    shown = capsys.readouterr().err
    assert "error: unexpected ZeroDivisionError: in the middle; this is a fault" in shown
    assert "COTERIE_DEBUG=1" in shown
    assert ("Traceback" in shown) == bool(debug)


def test_debug_option_shows_the_traceback(home: Path) -> None:
    found = shell(home, "--debug", "show", "nowhere")
    assert found.returncode == NotFoundError.exit_code
    assert b"Traceback" in found.stderr
    assert b"Traceback" not in shell(home, "show", "nowhere").stderr


def test_a_full_disk_under_the_output_is_an_error(home: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "coterie.cli", "show", "ease"]
        found = subprocess.run(command, cwd=home, stdout=full, stderr=subprocess.PIPE, check=False)
    assert found.returncode == CannotWriteError.exit_code
    assert found.stderr.startswith(b"error:")
    assert found.stderr.count(b"\n") == 1


def test_a_reader_that_leaves_is_no_error(home: Path) -> None:
    command = f"{sys.executable} -m coterie.cli show ease | true"
    found = subprocess.run(command, cwd=home, shell=True, capture_output=True, check=False)
    assert found.stderr == b""


def test_ctrl_c_ends_with_130_and_no_traceback(home: Path) -> None:
    verb = ["simulate", "--users", "3000000", "--out", "big"]
    command = [sys.executable, "-m", "coterie.cli", *verb]
    process = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE)
    while not list(home.glob("big/.ratings*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert b"Traceback" not in process.communicate()[1]
    assert process.returncode == 130
    assert not [path for path in home.glob("big/*") if "ratings" in path.name]


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
@pytest.mark.parametrize(
    "verb", [["train", "--help"], ["bench", "training-step", "--help"], ["evaluate", "ease"]]
)
def test_output_survives_consoles_that_are_not_utf8(
    verb: list[str], environment: dict[str, str], home: Path
) -> None:
    found = shell(home, *verb, **({"PYTHONUTF8": "0"} | environment))
    assert found.returncode == 0, found.stderr
    assert b"\\u" not in found.stdout  # every sign we print has plain words
    assert b"?" not in found.stdout
    words = {"train": b"lambda_A", "bench": b"lambda_A", "evaluate": b"min(20, n)"}[verb[0]]
    if environment.get("PYTHONIOENCODING") != "cp1252":
        assert words in found.stdout


def test_help_without_a_terminal_has_no_colour_and_fits(home: Path) -> None:
    for verb in ("train", "recommend", "reproduce", "show"):
        lines = shell(home, verb, "--help", COLUMNS="80").stdout.decode().splitlines()
        assert max(map(len, lines)) <= 80
        assert not any("\x1b" in line for line in lines)


OUTPUTS = [
    ["prepare", "log", "--held-out-users", "40", "--out", "@"],
    ["simulate", "--users", "10", "--items", "50", "--out", "@"],
    ["train", "data", "--model", "ease", "--out", "@"],
    ["tune", "data", "--model", "ease", "--trials", "1", "--out", "@"],
    ["analyze", "ease", "--out", "@"],
    ["demo", "--out", "@"],
    ["reproduce", "ml-1m", "--out", "@"],
    ["recommend", "ease", "--histories", "h.csv", "--out", "@"],
    ["index", "ease", "--out", "@"],
    ["export", "ease", "--out", "@"],
    ["evaluate", "ease", "--per-user", "@"],
    ["reproduce", "ml-1m", "--page", "@"],
    ["config", "ease", "--out", "@"],
    *(
        [*verb, "--json", "@"]
        for verb in (
            ["evaluate", "ease"],
            ["compare", "ease", "ease"],
            ["show", "ease"],
            ["similar", "ease", "--item", "1"],
            ["explain", "ease", "--history", "3", "--item", "1"],
            ["bench", "scoring"],
        )
    ),
]


@pytest.mark.parametrize("verb", OUTPUTS, ids=" ".join)
def test_outputs_are_checked_before_anything_runs(
    verb: list[str],
    home: Path,
    run_coterie: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    before = sorted(home.iterdir())
    folder_wanted = verb[-2] == "--out" and verb[0] != "config"
    places = {
        "afile/x": (9, "found the file"),
        "afile/deeper/x": (9, "found the file"),
        "afile" if folder_wanted else "data": (7, "found a file" if folder_wanted else "a folder"),
    }
    if verb[0] != "recommend":
        places["s3://bucket/x"] = (2, "found a URL")
    for place, (code, words) in places.items():
        assert run_coterie(*(place if word == "@" else word for word in verb)) == code
        assert words in capsys.readouterr().err
    assert sorted(home.iterdir()) == before


@pytest.mark.parametrize(
    "verb",
    [
        ["train", "@", "--out", "x"],
        ["train", "data", "--config", "@", "--out", "x"],
        ["train", "data", "--refit-of", "@", "--out", "x"],
        ["tune", "@", "--out", "x"],
        ["evaluate", "@"],
        ["evaluate", "ease", "--data", "@"],
        ["compare", "ease,@", "ease,ease"],
        ["recommend", "@", "--histories", "h.csv", "--out", "x"],
        ["recommend", "ease", "--histories", "h.csv", "--deny", "@", "--out", "x.csv"],
        ["recommend", "ease", "--histories", "h.csv", "--users-file", "@", "--out", "x.csv"],
        ["index", "@", "--out", "x"],
        ["export", "@", "--out", "x"],
        ["similar", "@", "--item", "1"],
        ["explain", "@", "--history", "3", "--item", "1"],
        ["explain", "ease", "--history-file", "@", "--item", "1"],
        ["show", "@"],
        ["demo", "--data", "@"],
        ["demo", "--data", "data", "--titles", "@"],
        ["reproduce", "ml-1m", "--raw", "@"],
        ["reproduce", "ml-1m", "--data", "@"],
    ],
    ids=" ".join,
)
def test_inputs_are_checked_before_anything_runs(
    verb: list[str],
    home: Path,
    run_coterie: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    before = sorted(home.iterdir())
    assert run_coterie(*(word.replace("@", "nowhere") for word in verb)) == 6
    assert "nowhere: must be there" in capsys.readouterr().err
    assert sorted(home.iterdir()) == before


@pytest.mark.parametrize(
    "verb",
    [
        ["prepare", "@", "--out", "x"],
        ["prepare", "plays.csv", "@", "--out", "x"],
        ["prepare", "plays.csv", "--test", "@", "--out", "x"],
        ["prepare", "plays.csv", "--titles", "@", "--out", "x"],
        ["prepare", "plays.csv", "--titles", "@", "--titles-columns", "a,b", "--out", "x"],
        ["recommend", "ease", "--histories", "@", "--out", "x.csv"],
        ["recommend", "ease", "--histories", "@", "--out", "x"],
    ],
    ids=" ".join,
)
def test_a_source_that_is_not_there_is_not_found(
    verb: list[str],
    home: Path,
    run_coterie: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    Path("plays.csv").write_text("user_id,item_id\n1,2\n")
    assert run_coterie(*(word.replace("@", "nowhere.csv") for word in verb)) == 6
    assert "nowhere.csv: " in capsys.readouterr().err
    Path("plays.csv").unlink()


def test_prepare_tells_the_columns_that_it_does_not_read(
    home: Path, run_coterie: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "f.csv"
    rows = [f"{user},{item},5,{user + 10**9}\n" for user in range(20) for item in range(6)]
    log.write_text("user_id,item_id,rating,timestamp\n" + "".join(rows))
    assert run_coterie("prepare", log, "--out", tmp_path / "data") == 0
    told = "columns not used: rating, timestamp (to use them: --rating-column, --timestamp-column"
    assert told in capsys.readouterr().out
    by_hand = coterie.prepare(log)
    assert coterie.Dataset.load(tmp_path / "data").provenance == by_hand.provenance
    used = ["--rating-column", "rating", "--timestamp-column", "timestamp"]
    assert run_coterie("prepare", log, *used, "--out", tmp_path / "data") == 0
    assert "not used" not in capsys.readouterr().out


@pytest.mark.parametrize("out", ["lists.csv", "lists"])
def test_recommend_takes_the_file_that_prepare_took(
    out: str, home: Path, run_coterie: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "plays.dat"
    log.write_bytes('"Zo\xe9\t1\tx\n\t2\tx\nann\t3\tx\n'.encode("latin-1"))
    written = ["--columns", "who,what,x", "--encoding", "latin-1", "--quote", "none"]
    written += ["--delimiter", r"\t", "--user-column", "who", "--item-column", "what"]
    rules = ["--min-user-items", "0", "--held-out-users", "0"]
    assert run_coterie("prepare", log, *written, *rules, "--out", tmp_path / "data") == 0
    caplog.clear()
    asked = ["recommend", home / "ease", "--histories", log, *written, "--k", "2"]
    assert run_coterie(*asked, "--out", tmp_path / out) == 0
    assert run_coterie(*asked, "--users", "ann", "--out", tmp_path / "ann.csv") == 0
    if out == "lists.csv":
        users = [line.split(",")[0] for line in (tmp_path / out).read_text().splitlines()[1:]]
        assert users == ['"""Zo\xe9"'] * 2 + ['"ann"'] * 2
    refused = ["recommend", home / "ease", "--histories", home / "data", "--quote", "none"]
    assert run_coterie(*refused, "--out", tmp_path / "other") == 2


@pytest.mark.parametrize("name", ["recs.tsv", "recs.CSV", "recs.json", "recs.txt.gz", "-"])
def test_a_slip_in_an_ending_makes_no_folder(
    name: str, home: Path, run_coterie: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    assert run_coterie("recommend", "ease", "--histories", "h.csv", "--out", name) == 2
    assert not Path(name).exists()


@pytest.mark.parametrize("name", ["2026.11", "recs.v1", "recs.tsv/", ".hidden", "recs"])
def test_names_of_folders_may_hold_dots(
    name: str, home: Path, tmp_path: Path, run_coterie: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    histories = home / "h.csv"
    assert run_coterie("recommend", home / "ease", "--histories", histories, "--out", name) == 0
    assert Path(name, "_manifest.json").exists()


def test_an_id_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbf7\r\n\r\n8\r\n")
    assert read_ids(tmp_path / "ids.txt") == ["7", "8"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory-limit", "lots"], "memory_limit must be a size"),
        (["--memory-limit", "1"], "memory_limit must be a size"),
        (["--user-column", ""], "a column must have a name"),
    ],
)
def test_prepare_refuses_options_it_cannot_honour(
    options: list[str],
    words: str,
    home: Path,
    run_coterie: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_coterie("prepare", home / "log", *options, "--out", home / "no") == 2
    assert words in capsys.readouterr().err


def test_a_url_of_an_unknown_protocol_is_a_wrong_option(home: Path, run_coterie: Run) -> None:
    assert run_coterie("prepare", "nosuch://x/x.csv", "--out", home / "no") == 2


def test_a_url_that_cannot_be_reached_is_unavailable(
    home: Path, run_coterie: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "made-up")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    pytest.importorskip("s3fs")
    assert run_coterie("prepare", "s3://nobody/x.csv", "--out", home / "no") == 8


def test_a_section_that_is_no_section_is_a_wrong_option(home: Path, run_coterie: Run) -> None:
    (home / "c.toml").write_text("model = 3\n")
    assert run_coterie("train", home / "data", "--config", home / "c.toml", "--out", "no") == 2


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), min_size=1, max_size=4))
def test_lists_are_read_from_repeats_and_commas(groups: list[list[int]]) -> None:
    texts = [", ".join(map(str, group)) for group in groups]
    assert whole_numbers(texts) == [number for group in groups for number in group]


@pytest.mark.parametrize("texts", [[""], ["a,"], ["a,,b"], ["a", " "]])
def test_lists_have_an_entry_between_commas(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match="remove the extra comma"):
        listed(texts)
    assert listed(None) == []


def test_metrics_are_given_one_way_or_the_other(home: Path, run_coterie: Run) -> None:
    commas, repeats = home / "commas.json", home / "repeats.json"
    assert (
        run_coterie("evaluate", home / "ease", "--metric", "mrr@5,ndcg@10", "--json", commas) == 0
    )
    options = ["--metric", "mrr@5", "--metric", "ndcg@10"]
    assert run_coterie("evaluate", home / "ease", *options, "--json", repeats) == 0
    assert commas.read_text() == repeats.read_text()
    assert set(json.loads(commas.read_text())["metrics"]) == {"mrr@5", "ndcg@10"}


def test_metrics_of_lists_go_through_every_door(home: Path, run_coterie: Run) -> None:
    names = ["tail_recall@5", "map@5", "diversity@5", "popularity@5", "coverage@5", "gini@5"]
    told, per_user = home / "lists.json", home / "lists.parquet"
    options = ["--metric", ",".join(names), "--json", told]
    assert run_coterie("evaluate", home / "ease", *options, "--per-user", per_user) == 0
    told_of_run = json.loads(told.read_text())
    run = coterie.load_run(home / "ease", device="cpu")
    report = coterie.evaluate(run.model, run.dataset, "test", metrics=names)
    assert {key: told_of_run[key] for key in report.to_json()} == report.to_json()
    assert show(told).facts["metrics"]["gini@5"] == report.of_all_lists["gini@5"]
    again = coterie.EvaluationReport.from_table(pq.read_table(per_user))
    assert again.to_json() == report.to_json()
    assert run_coterie("compare", home / "ease", home / "ease", *options, "--resamples", 100) == 0
    compared = json.loads(told.read_text())["metrics"]
    assert set(compared) == {*names, "popularity_of_history"}
    assert all(one["difference"] == 0 for one in compared.values())
    assert compared["gini@5"]["low"] is None


def test_no_model_is_chosen_by_what_lists_look_like(
    home: Path, run_coterie: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = ["--metric", "coverage@5"]
    assert run_coterie("tune", home / "data", "--out", home / "study", *metric) == 2
    assert "a metric must be recall@k," in capsys.readouterr().err


MODELS = {kind.model_fields["name"].default: kind for kind in get_args(AnyModelConfig)}


@pytest.mark.parametrize("model", MODELS)
def test_seed_is_taken_by_every_model(model: str) -> None:
    config = RunConfig.of({"model": {"name": model}}).with_seed(7)
    seeds = {getattr(part, "seed", None) for part in (config.model, config.training)}
    assert 7 in seeds or (config.network_free() and "seed" not in MODELS[model].model_fields)


def test_seed_option_is_taken_by_a_model_without_chance(
    home: Path, tmp_path: Path, run_coterie: Run
) -> None:
    options = ["--model", "ease", "--seed", 3, "--out", tmp_path / "run"]
    assert run_coterie("train", home / "data", *options) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["config"] == json.loads((home / "ease" / "config.json").read_text())["config"]


def test_prepare_prints_dates_as_dates(
    home: Path, tmp_path: Path, run_coterie: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = tmp_path / "counts.json"
    options = ["--held-out-users", 40, "--out", tmp_path / "data", "--json", counts]
    assert run_coterie("prepare", home / "log", *options) == 0
    first = json.loads(counts.read_text())["counts"]["first_timestamp"]
    written = datetime.fromtimestamp(first, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert f"first interaction{' ' * 25}{written}" in capsys.readouterr().out


@pytest.mark.parametrize("model", MODELS)
def test_config_prints_toml_that_train_reads(
    model: str, tmp_path: Path, run_coterie: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_coterie("config", model) == 0
    text = capsys.readouterr().out
    assert RunConfig.of(tomllib.loads(text)) == RunConfig.of({"model": {"name": model}})
    fields = [*MODELS[model].model_fields.values()]
    for field in fields if model == "popularity" else [*fields, *_training_fields(model)]:
        assert field.description is None or f"# {field.description}" in text
    assert run_coterie("config", model, "--out", tmp_path / "c.toml") == 0
    assert (tmp_path / "c.toml").read_text(encoding="utf-8") == text


def _training_fields(model: str) -> list[FieldInfo]:
    free = RunConfig.of({"model": {"name": model}}).network_free()
    return [] if free else [*TrainingConfig.model_fields.values()]


def test_config_takes_settings_and_lists_models(
    run_coterie: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_coterie("config", "mult-vae", "--set", "model.latent_dim=7") == 0
    assert tomllib.loads(capsys.readouterr().out)["model"]["latent_dim"] == 7
    assert run_coterie("config") == 0
    listed_models = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert listed_models == list(MODELS)
    assert run_coterie("config", "no-such-model") == 2


def test_similar_finds_items_by_id_and_by_title(
    home: Path, tmp_path: Path, run_coterie: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    model = coterie.load(home / "ease")
    assert model.titles is not None
    item_id, title = model.items.ids_of([4])[0], str(model.titles[4])
    expected = [one._asdict() for one in model.similar_items(item_id, 3)]
    for option in (["--item", item_id], ["--title", title.upper()]):
        path = tmp_path / "s.json"
        assert run_coterie("similar", home / "ease", *option, "-k", 3, "--json", path) == 0
        found = json.loads(path.read_text())
        assert (found["item_id"], found["similar"]) == (item_id, expected)
    assert expected[0]["title"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--item", "no-such"], 6, "found 'no-such'"),
        (["--item=--5"], 6, "found '--5'"),
        (["--item", "9" * 30], 6, "found '999"),
        (["--title", "no such title"], 6, "no title contains"),
        (["--title", "the"], 2, "fits"),
        ([], 2, "one of --item and --title"),
        (["--item", "1", "--title", "x"], 2, "one of --item and --title"),
    ],
)
def test_similar_says_what_it_does_not_find(
    options: list[str],
    code: int,
    words: str,
    home: Path,
    run_coterie: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_coterie("similar", home / "ease", *options) == code
    assert words in capsys.readouterr().err


def test_explain_gives_the_librarys_reasons(
    home: Path, tmp_path: Path, run_coterie: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    model, ids, path = coterie.load(home / "ease"), tmp_path / "ids", tmp_path / "why.json"
    assert model.titles is not None
    asked = model.items.ids_of([4, 9])
    ids.write_text("8\nno-such\n")
    options = ["--item", asked[0], "--title", str(model.titles[9]).lower(), "-k", 3]
    given = ["--history", "3,7", "--history", 5, "--history-file", ids]
    assert run_coterie("explain", home / "ease", *given, *options, "--json", path) == 0
    expected = model.explain([3, 7, 5, 8, "no-such"], asked, 3)
    assert capsys.readouterr().out == f"{expected}\n"
    told = json.loads(path.read_text())
    assert told == {"run": str(home / "ease"), **expected.to_json()}
    assert told["unknown_items"] == ["no-such"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--history", "3"], 2, "--item or --title must be given"),
        (["--item", "1"], 2, "--history or --history-file must be given"),
        (["--history", "3", "--item", "no-such"], 6, "found 'no-such'"),
        (["--history", "3,,4", "--item", "1"], 2, "remove the extra comma"),
        (["--history", "3", "--title", "the"], 2, "fits"),
    ],
)
def test_explain_says_what_is_missing(
    options: list[str],
    code: int,
    words: str,
    home: Path,
    run_coterie: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_coterie("explain", home / "ease", *options) == code
    assert words in capsys.readouterr().err


def test_evaluate_takes_a_data_set_and_a_part(home: Path) -> None:
    model, data = coterie.load(home / "ease"), coterie.Dataset.load(home / "data")
    for part in ("validation", "test"):
        cases = data.cases(coterie.Part.of(part))
        expected = coterie.evaluate(model, cases, user_ids=data.users)
        found = coterie.evaluate(model, data, part)
        assert found.per_user_table().equals(expected.per_user_table())
    default = coterie.evaluate(model, data)
    assert default.per_user_table().equals(found.per_user_table())
    with pytest.raises(ConfigError, match="found 'tset'"):
        coterie.evaluate(model, data, "tset")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="part goes with a data set"):
        coterie.evaluate(model, cases, "test")


def test_run_config_takes_every_field_of_training() -> None:
    assert get_type_hints(TrainingFields).keys() == TrainingConfig.model_fields.keys()
    base = RunConfig.of({"model": {"name": "mult-vae"}, "training": {"epochs": 9, "patience": 4}})
    found = run_config(base, epochs=5, seed=2)
    assert (found.training.epochs, found.training.patience, found.training.seed) == (5, 4, 2)
    assert run_config() == RunConfig()
    assert run_config(coterie.MultVAEConfig(pia=0.3)).model == coterie.MultVAEConfig(pia=0.3)
    assert run_config(coterie.IalsConfig(), seed=5).model == coterie.IalsConfig(seed=5)
    with pytest.raises(ConfigError, match=r"training\.epochs"):
        run_config(base, epochs=0)
    with pytest.raises(ConfigError, match=r"epoch: Extra"):
        run_config(base, epoch=5)  # type: ignore[call-arg]
