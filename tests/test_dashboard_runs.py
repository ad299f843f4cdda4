"""The pages on runs, studies and reports: what they say is what the folders say."""

import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from browser import Visit, look, needs_browser, shown
from coterie.config import RunConfig
from coterie.data.ids import IdMap
from coterie.evaluation.compare import compare
from coterie.evaluation.report import EvaluationReport
from coterie.models.fields import SearchRange
from coterie.simulation.service import simulate_dataset
from coterie.training.run_record import read_history
from coterie.training.trainer import train
from coterie.tuning.study import read_study
from coterie.tuning.tune import tune
from dashboard_parts import visitor

TODAY = date(2026, 11, 28)
HOSTILE = '<img src=x onerror=alert("a")> & \u202eשלום 🙂'
EPOCHS = 4


def of_dae(**training: Any) -> RunConfig:
    told = {"epochs": EPOCHS, "batch_size": 40, **training}
    return RunConfig.of({"model": {"name": "mult-dae", "latent_dim": 3}, "training": told})


def save_report(path: Path, users: range, seed: int) -> EvaluationReport:
    random = np.random.default_rng(seed)
    n = np.array([5 + 7 * (user % 20) for user in users])
    metrics = {name: random.random(len(users)) for name in ("ndcg@100", "recall@20")}
    report = EvaluationReport(IdMap.of(users), n, metrics)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(report.per_user_table(), path)
    return report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, a study and reports, one of each kind that goes wrong among them."""
    folder = tmp_path_factory.mktemp("dashboard-runs") / "runs"
    data = simulate_dataset(n_users=150, n_items=30, held_out_users=30, seed=1)
    data.save(folder / "data")
    train(data, of_dae(), out=folder / "plain")
    train(data, of_dae(seed=7, learning_rate=0.01), out=folder / HOSTILE)
    ease = RunConfig.of({"model": {"name": "ease"}})
    train(data, ease, out=folder / "deeper" / "ease")
    tune(data, ease, out=folder / "study", search={"model.l2": SearchRange(1, 9)}, n_trials=3)
    for name, users, seed in (("plain-test", 60, 1), ("other", 60, 2), ("elsewhere", 40, 3)):
        save_report(folder / "reports" / f"{name}.parquet", range(users), seed)
    shutil.copytree(folder / "plain", folder / "unfinished")
    shutil.rmtree(folder / "unfinished" / "model")
    shutil.copytree(folder / "plain", folder / "broken")
    (folder / "broken" / "history.jsonl").write_text("{\n{}\n")
    (folder / "reports" / "half.parquet").write_bytes(b"PAR1")
    (folder / "notes.txt").write_text("nothing of ours")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with visitor(folder, today=TODAY) as client:
        yield client


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with shown(folder, TODAY) as address:
        yield address


def told(client: TestClient, path: str, **query: Any) -> Any:
    answer = client.get(f"{path}.json", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@needs_browser
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/runs?name=plain",
        "/runs?name=study",
        "/runs?name=reports%2Fother.parquet",
        "/runs/compare?name=plain&name=deeper%2Fease",
        "/runs/reports?a=reports%2Fother.parquet&b=reports%2Fplain-test.parquet",
    ],
)
def test_runs_are_looked_at(browser: Browser, address: str, path: str) -> None:
    look(browser, address, path)


@needs_browser
def test_ticked_runs_are_compared(browser: Browser, address: str) -> None:
    visit = Visit(browser, address)
    page = visit.open("/runs")
    page.get_by_label("compare plain").check()
    page.get_by_label("compare <img").check()
    page.get_by_role("button", name="Compare those ticked").click()
    page.wait_for_load_state("networkidle")
    assert page.locator("h1").inner_text() == "2 runs side by side"
    assert page.locator("img").count() == 0
    assert not visit.faults
    visit.close()


def test_the_list_has_all_and_says_what_is_wrong(client: TestClient, folder: Path) -> None:
    page = told(client, "/runs")
    rows = {row["run"]: row for row in page["runs"]["rows"]}
    assert set(rows) == {"plain", HOSTILE, "deeper/ease", "unfinished"}
    history = read_history(folder / "plain")
    best = max(history, key=lambda line: line["validation"]["ndcg@100"])
    assert rows["plain"]["validation"] == best["validation"]["ndcg@100"]
    assert rows["plain"]["best epoch"] == best["epoch"]
    assert rows["plain"]["took"] == pytest.approx(sum(line["seconds"] for line in history))
    assert rows["plain"]["state"] == "finished"
    assert rows["unfinished"]["state"] == "not finished"
    assert rows["deeper/ease"]["validation"] is None
    assert [row["study"] for row in page["studies"]["rows"]] == ["study"]
    others = {row["name"]: row for row in page["others"]["rows"]}
    assert others["data"]["what it is"] == "data set"
    assert {name for name, row in others.items() if row["what it is"] == "damaged"} == {
        "broken",
        "reports/half.parquet",
    }
    assert "history.jsonl" in others["broken"]["what is wrong"]


def test_the_best_of_a_data_set_comes_first(client: TestClient) -> None:
    values = [row["validation"] for row in told(client, "/runs")["runs"]["rows"]]
    there = [value for value in values if value is not None]
    assert there == sorted(there, reverse=True)
    assert values[-1] is None


def test_reports_of_the_same_users_are_told_apart(client: TestClient) -> None:
    who = {row["report"]: row["who"] for row in told(client, "/runs")["reports"]["rows"]}
    assert who["reports/other.parquet"] == who["reports/plain-test.parquet"]
    assert who["reports/other.parquet"] != who["reports/elsewhere.parquet"]


def test_a_curve_is_the_history(client: TestClient, folder: Path) -> None:
    page = told(client, "/runs", name="plain")
    history = read_history(folder / "plain")
    validation, loss = page["curves"]
    assert [row["plain"] for row in validation["rows"]] == [
        line["validation"]["ndcg@100"] for line in history
    ]
    assert [row["plain"] for row in loss["rows"]] == [line["loss"] for line in history]
    assert page["reports"] == ["reports/plain-test.parquet"]
    fields = {row["field"]: row["value"] for row in page["configuration"]["rows"]}
    assert fields["model.latent_dim"] == "3"
    environment = {row["field"] for row in page["environment"]["rows"]}
    assert {"torch", "device", "threads"} <= environment


def test_a_closed_form_has_no_curve_and_says_so(client: TestClient) -> None:
    assert told(client, "/runs", name="deeper/ease")["curves"][0]["rows"] == []
    text = client.get("/runs", params={"name": "deeper/ease"}).text
    assert "closed form" in text


def test_runs_side_by_side_show_only_what_differs(client: TestClient) -> None:
    page = told(client, "/runs/compare", name=["plain", HOSTILE])
    rows = {row["field"]: row for row in page["differences"]["rows"]}
    assert set(rows) == {"training.learning_rate", "training.seed"}
    assert (rows["training.seed"]["plain"], rows["training.seed"][HOSTILE]) == ("0", "7")
    assert page["same_data"]
    assert len(page["curves"][0]["rows"]) == EPOCHS
    assert set(page["curves"][0]["rows"][0]) == {"epoch", "plain", HOSTILE}


def test_two_reports_are_compared_as_the_library_does(client: TestClient, folder: Path) -> None:
    names = [f"reports/{name}.parquet" for name in ("plain-test", "other")]
    page = told(client, "/runs/reports", a=names[0], b=names[1])
    a, b = (EvaluationReport.from_table(pq.read_table(folder / name)) for name in names)
    expected = compare(a, b, seed=0, n_resamples=2_000)
    for figure, one in zip(page["overall"], expected.overall.values(), strict=True):
        (row,) = figure["rows"]
        assert (row["gain"], row["from"], row["to"]) == (one.difference, one.low, one.high)
        assert row["p"] == one.p_value
    cohorts = {row["who"]: row["gain"] for row in page["cohorts"][0]["rows"]}
    assert cohorts == {name: of["ndcg@100"].difference for name, of in expected.cohorts.items()}


def test_a_study_shows_trials_and_the_best_so_far(client: TestClient, folder: Path) -> None:
    study = read_study(folder / "study")
    page = told(client, "/runs", name="study")
    values = [trial.value for trial in study.trials]
    assert [row["ndcg@100"] for row in page["trials"]["rows"]] == values
    so_far = [row["best so far"] for row in page["course"]["rows"]]
    assert so_far == [max(filter(None, values[: n + 1])) for n in range(len(values))]
    assert study.best is not None
    assert page["best"] == {"number": study.best.number, "value": study.best.value}


def test_a_long_history_is_thinned_and_keeps_its_end(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "plain", tmp_path / "long")
    line = json.loads((folder / "plain" / "history.jsonl").read_text().splitlines()[0])
    lines = [json.dumps({**line, "epoch": epoch}) for epoch in range(1, 1002)]
    (tmp_path / "long" / "history.jsonl").write_text("\n".join(lines) + "\n")
    with visitor(tmp_path) as client:
        epochs = [row["epoch"] for row in told(client, "/runs", name="long")["curves"][0]["rows"]]
    assert len(epochs) <= 301
    assert (epochs[0], epochs[-1]) == ("1", "1001")


def test_a_run_that_goes_on_is_read_anew(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "unfinished", tmp_path / "run")
    path = tmp_path / "run" / "history.jsonl"
    with visitor(tmp_path) as client:
        assert told(client, "/runs")["runs"]["rows"][0]["epochs"] == EPOCHS
        line = {**json.loads(path.read_text().splitlines()[-1]), "epoch": EPOCHS + 1}
        path.write_text(path.read_text() + json.dumps(line) + "\n" + '{"epoch": 6')
        assert len(told(client, "/runs", name="run")["curves"][0]["rows"]) == EPOCHS + 1


def test_a_run_folder_itself_is_shown(folder: Path) -> None:
    with visitor(folder / "plain") as client:
        (row,) = told(client, "/runs")["runs"]["rows"]
        assert len(told(client, "/runs", name=row["run"])["curves"][0]["rows"]) == EPOCHS


def test_an_empty_folder_teaches(tmp_path: Path) -> None:
    with visitor(tmp_path) as client:
        text = client.get("/").text
    for verb in ("train", "tune", "evaluate"):
        assert f"coterie {verb}" in text


@pytest.mark.parametrize(
    ("path", "query", "status", "word"),
    [
        ("/runs", {"name": "../data"}, 404, "must be a run of that name"),
        ("/runs", {"name": "/etc"}, 404, "must be a run of that name"),
        ("/runs", {"name": "notes.txt"}, 404, "must be a run of that name"),
        ("/runs/compare", {"name": "plain"}, 422, "two to 6 runs"),
        ("/runs/compare", {"name": ["plain", "study"]}, 404, "must be a run of that name"),
        ("/runs/reports", {"a": "reports/other.parquet"}, 422, "two different reports"),
        (
            "/runs/reports",
            {"a": "reports/other.parquet", "b": "reports/elsewhere.parquet"},
            422,
            "both reports must be on the same users",
        ),
        ("/models", {}, 404, "needs a service"),
    ],
)
def test_what_cannot_be_shown_is_a_page(
    client: TestClient, path: str, query: Any, status: int, word: str
) -> None:
    answer = client.get(path, params=query)
    assert answer.status_code == status
    assert word in " ".join(answer.text.split())


def test_what_is_damaged_says_how(client: TestClient) -> None:
    assert "cannot be read" in client.get("/runs", params={"name": "broken"}).text


def test_hostile_names_stay_text(client: TestClient) -> None:
    for path, query in (("/runs", {}), ("/runs", {"name": HOSTILE})):
        text = client.get(path, params=query).text
        assert "<img" not in text
        assert "&lt;img" in text
