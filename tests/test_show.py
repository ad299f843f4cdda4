"""What is in a folder or a file: recognised, with its facts, without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coterie.cli import main
from coterie.errors import ArtifactError, NotFoundError
from coterie.models.linear_path_vae import LinearPathVAEConfig
from coterie.show.contents import Contents, shown, size
from coterie.show.show import show
from coterie.simulation.service import SimulatedService, simulate_dataset
from coterie.training.checkpoint import Position, save_checkpoint
from coterie.training.trainer import train


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything that the command line writes."""
    folder = tmp_path_factory.mktemp("shelf")
    SimulatedService(n_users=300, n_items=60, seed=3).write_ratings_csv(folder / "log")
    (folder / "h.csv").write_text("user_id,item_id\nann,3\nbob,\n")
    small = "--epochs 2 --set model.hidden_dims=[8] --set model.latent_dim=4 --seed 5"
    for command in (
        "prepare log --held-out-users 40 --out data",
        f"train data {small} --pia 0.5 --out run",
        "train data --model ease --out ease",
        "evaluate run --json eval.json --per-user users.parquet",
        "compare run ease --resamples 200 --json compare.json",
        "recommend run --histories h.csv --k 4 --out recs.parquet",
        "recommend run --histories h.csv --k 4 --out recs.csv",
        "recommend run --histories h.csv --k 4 --out recs.jsonl",
        "recommend run --histories data --k 4 --out recs",
        "index run --lists 4 --probed 2 --out index",
        "export run --out exported",
        "tune data --model ease --trials 3 --out study",
        "config ease --out ease.toml",
        "analyze run --users 20 --map-users 40 --neighbours 5 --out analysis",
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["coterie", *command.split()])
            with pytest.raises(SystemExit, match=r"^0$"):
                main()
    return folder


FACTS: dict[str, tuple[str, dict[str, Any]]] = {
    "data": ("data set", {"users": 300, "items": 60, "test_cases": 40, "format": "movielens"}),
    "run": ("run", {"state": "finished", "model": "mult-vae", "epochs_done": 2, "users": 300}),
    "run/model": ("model", {"model": "mult-vae", "items": 60, "titles": True}),
    "ease": ("run", {"state": "finished", "model": "ease", "training": None}),
    "recs": ("recommendations", {"state": "finished", "users": 300, "rows": 1200, "k": 4}),
    "recs.parquet": ("recommendations", {"users": 2, "rows": 8, "k": 4}),
    "recs.csv": ("recommendations", {"users": 2, "rows": 8, "k": 4}),
    "recs.jsonl": ("recommendations", {"users": 2, "rows": 8, "k": 4}),
    "users.parquet": ("table", {"rows": 40}),
    "index": ("index", {"lists_read_a_user": 2}),
    "exported": ("exported model", {"model": "mult-vae", "items": 60}),
    "study": ("study", {"model": "ease", "trials": 3, "metric": "ndcg@100"}),
    "study/best.toml": ("configuration", {}),
    "ease.toml": ("configuration", {}),
    "analysis": ("analysis", {"models": ["run"], "users": 20}),
    "analysis/numbers.json": ("numbers of an analysis", {"users": 20}),
    "eval.json": ("evaluation", {"run": "run", "split": "test", "users": 40}),
    "compare.json": ("comparison", {"candidate": "run", "reference": "ease"}),
    "run/model/weights.safetensors": ("weights", {}),
    "run/anchors.safetensors": ("weights", {"tensors": {"anchors": "60×4"}}),
}


@pytest.mark.parametrize("name", FACTS)
def test_show_recognises_what_coterie_writes(name: str, shelf: Path) -> None:
    kind, facts = FACTS[name]
    contents = show(shelf / name)
    assert contents.kind == kind
    assert {key: contents.facts[key] for key in facts} == facts
    assert contents.facts["bytes"] > 0
    json.dumps(contents.to_json(), allow_nan=False)
    assert str(contents).startswith(f"{kind}  {shelf / name}\n")


def test_show_agrees_with_what_was_written(shelf: Path) -> None:
    manifest = json.loads((shelf / "data" / "manifest.json").read_text())
    data, run, study = (show(shelf / name).facts for name in ("data", "run", "study"))
    assert data["fingerprint"] == run["data_set"] == study["data_set"] == manifest["fingerprint"]
    assert data["interactions"] == manifest["counts"]["interactions"]
    assert run["best_validation"] == show(shelf / "run" / "model").facts["best_validation"]
    assert run["training"]["seed"] == 5
    report = json.loads((shelf / "eval.json").read_text())["metrics"]
    assert show(shelf / "eval.json").facts["metrics"] == {
        name: one["mean"] for name, one in report.items()
    }
    lines = (shelf / "study" / "trials.csv").read_text().splitlines()[1:]
    assert study["best_value"] == max(float(line.split(",")[2]) for line in lines)


def test_show_tells_what_a_run_left_open_and_chose(tmp_path: Path) -> None:
    data = simulate_dataset(n_users=120, n_items=30, held_out_users=20, seed=1)
    train(data, LinearPathVAEConfig(hidden_dims=(6,), latent_dim=3), epochs=1, out=tmp_path)
    chosen = show(tmp_path).facts["configuration"]
    assert chosen["path"]["name"] in ("ease", "gf-cf", "bspm")
    assert chosen["path_weight"] is not None
    assert chosen["path_activity"] is not None
    shutil.rmtree(tmp_path / "model")
    assert show(tmp_path).facts["configuration"]["path"] is None


def test_show_knows_a_run_that_is_not_finished(shelf: Path, tmp_path: Path) -> None:
    for file in ("config.json", "history.jsonl", "environment.json"):
        (tmp_path / file).write_bytes((shelf / "run" / file).read_bytes())
    assert "there is no checkpoint" in show(tmp_path).facts["state"]
    (tmp_path / "checkpoint.safetensors").touch()
    assert "goes on from its checkpoint" in show(tmp_path).facts["state"]


def test_show_knows_recommendations_that_are_not_finished(shelf: Path, tmp_path: Path) -> None:
    for file in ("_request.json", "part-00000.parquet"):
        (tmp_path / file).write_bytes((shelf / "recs" / file).read_bytes())
    facts = show(tmp_path).facts
    assert (facts["state"].partition(";")[0], facts["shards"], facts["k"]) == ("not finished", 1, 4)


def test_show_reads_a_checkpoint(tmp_path: Path) -> None:
    position = Position(epoch=3, batch=1, n_steps=40, best_epoch=2, best_value=0.25)
    save_checkpoint(tmp_path / "checkpoint.safetensors", position, {}, {})
    contents = show(tmp_path / "checkpoint.safetensors")
    assert contents.kind == "checkpoint"
    assert (contents.facts["epoch"], contents.facts["best_value"]) == (3, 0.25)


def test_show_lists_what_a_folder_contains(shelf: Path) -> None:
    contents = show(shelf)
    assert contents.kind == "folder"
    assert contents.facts["contains"]["run"] == "run, mult-vae, finished"
    assert "log" not in contents.facts["contains"]
    assert "  study     study, ease" in str(contents)


def test_show_of_nothing_and_of_what_is_not_ours(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing was found"):
        show(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="an empty folder"):
        show(tmp_path)
    with pytest.raises(ArtifactError, match=r"a folder with movies\.csv, ratings\.csv"):
        show(shelf / "log")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ArtifactError, match="a file of another kind"):
        show(tmp_path / "notes.txt")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ArtifactError, match="a file of another kind"):
        show(tmp_path / "other.json")


OF_FOLDERS = ("manifest.json", "config.json", "study.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", b"{"),
        ("config.json", b"[]"),
        ("study.json", b"\xff"),
        ("a.json", b"{"),
        ("a.toml", b"model = "),
        ("a.parquet", b"PAR1"),
        ("a.safetensors", b"\xff" * 20),
        ("a.safetensors", b""),
    ],
)
def test_show_of_damaged_files_says_so(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=name):
        show(
            tmp_path if name in ("manifest.json", "config.json", "study.json") else tmp_path / name
        )


def test_show_needs_no_torch(shelf: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from coterie.show.show import show;"
        " import coterie.cli; [print(show(name)) for name in sys.argv[1:]]"
    )
    command = [sys.executable, "-c", code, *FACTS]
    found = subprocess.run(command, cwd=shelf, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr


def test_facts_are_shown_as_people_read_them() -> None:
    facts = {
        "users": 12345,
        "seed": 98765,
        "last_timestamp": 1_700_000_000,
        "first_timestamp": 10**17,
        "titles": False,
        "rules": {"min_rating": 4.0, "dims": [1, 2]},
        "unknown": None,
        "bytes": 5_000_000,
    }
    assert shown(facts) == {
        "users": "12,345",
        "seed": "98765",
        "last interaction": "2023-11-14T22:13:20Z",
        "first interaction": "100,000,000,000,000,000 seconds since 1970",
        "titles": "no",
        "rules": "min_rating=4, dims=[1, 2]",
        "size": "4.8 MiB",
    }
    assert size(1023) == "1023 B"
    lines = str(Contents("run", Path("x"), {"configuration": {f"field_{i}": i for i in range(40)}}))
    assert max(map(len, lines.splitlines())) <= 100
