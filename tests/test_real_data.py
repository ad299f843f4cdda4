"""The main job on real data, where it is there: official files in, recommendations out, through the
command line.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from coterie.lab.demo.own_log import OwnLog, prepare_own

ROOT = Path(os.environ.get("COTERIE_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))

# One validation: ranking Gowalla's 29,858 users takes longer than two epochs on them.
SETTINGS = ["training.validate_every=2", "model.hidden_dims=[]", "model.latent_dim=16"]
FEW = [
    "--epochs",
    "2",
    "--seed",
    "1",
    *(word for setting in SETTINGS for word in ("--set", setting)),
]


def coterie(*arguments: str | Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "coterie.cli", *map(str, arguments)], check=True, capture_output=True
    )


def data(name: str) -> Path:
    if not (ROOT / name).exists():
        pytest.skip(
            f"{ROOT / name} is not on this machine; set COTERIE_DATA to the folder that holds it"
        )
    return ROOT / name


def first_user(folder: Path) -> list[str]:
    if folder.name == "gowalla":
        return (folder / "train.txt").read_text().splitlines()[0].split()[1:]
    with (folder / "ratings.csv").open(newline="") as file:
        return [row["movieId"] for row in csv.DictReader(file) if row["userId"] == "1"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ml-latest-small", ["--min-rating", "4", "--held-out-users", "60", "--seed", "1"]),
        ("gowalla", ["--seed", "1"]),
    ],
)
def test_main_job_on_official_files(name: str, options: list[str], tmp_path: Path) -> None:
    source = data(name)
    coterie("prepare", source, *options, "--out", tmp_path / "data")
    coterie("train", tmp_path / "data", *FEW, "--out", tmp_path / "run")
    metrics = ["--metric", "recall_of_held_out@20", "--metric", "recall@20", "--metric", "ndcg@20"]
    coterie("evaluate", tmp_path / "run", *metrics, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (
        0
        < report["metrics"]["recall_of_held_out@20"]["mean"]
        <= report["metrics"]["recall@20"]["mean"]
        < 1
    )
    watched = first_user(source)
    (tmp_path / "histories.csv").write_text(
        "user_id,item_id\n" + "".join(f"me,{item}\n" for item in watched)
    )
    coterie(
        "recommend",
        tmp_path / "run",
        "--histories",
        tmp_path / "histories.csv",
        "--k",
        "20",
        "--out",
        tmp_path / "recs.parquet",
    )
    found = pq.read_table(tmp_path / "recs.parquet").to_pydict()
    assert found["source"] == ["model"] * 20
    assert not set(map(int, watched)) & set(found["item_id"])


def test_ml_1m_counts_are_those_known(tmp_path: Path) -> None:
    source = data("ml-1m")
    columns = ["--user-column", "user_id", "--item-column", "item_id", "--rating-column", "liked"]
    rules = ["--min-rating", "1", "--min-user-items", "5", "--held-out-users", "600", "--seed", "1"]
    titles: list[str | Path] = ["--titles", source / "movies.dat"]
    coterie(
        "prepare",
        source / "pairs.csv.gz",
        "--format",
        "table",
        *columns,
        *rules,
        *titles,
        "--out",
        tmp_path,
        "--json",
        tmp_path / "p.json",
    )
    counts = json.loads((tmp_path / "p.json").read_text())["counts"]
    assert counts["rows_read"] == 1_000_209
    assert counts["rows_read"] - counts["rows_below_min_rating"] == 575_281
    assert counts["train_users"] + 1200 == counts["users"] == 6034


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "movietweetings/ratings.dat",
            "user = user, item = item, rating = rating ≥ 7 (of 0–10), time = time",
        ),
        (
            "ml-latest-small/ratings.csv",
            "user = userId, item = movieId, rating = rating ≥ 4 (of 0.5–5), time = timestamp",
        ),
        (
            "ml-1m/pairs.csv.gz",
            "user = user_id, item = item_id, rating = liked > 0 (of 0–1), time = none",
        ),
    ],
)
def test_the_demo_guesses_columns_and_finds_titles(name: str, told: str) -> None:
    found, words = prepare_own(OwnLog(data(name)), seed=1)
    assert told in words
    assert found.titles is not None
    assert len(found.items) <= 5000
