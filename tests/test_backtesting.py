"""Backtests: every window against the same done by hand, stops, and what is refused."""

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from coterie.backtesting.plan import BacktestPlan
from coterie.backtesting.plot import draw
from coterie.backtesting.result import Average, Backtest
from coterie.backtesting.run import backtest
from coterie.cli import app
from coterie.cli.backtesting import days
from coterie.config import RunConfig
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import LeaveLastOut, PrepareRules, TimeSplit
from coterie.data.split import Part
from coterie.errors import ConfigError, ConflictError, Interrupted
from coterie.evaluation.evaluate import evaluate
from coterie.locks import try_lock
from coterie.running.progress import Update
from coterie.training.trainer import train

DAY = 86_400
FIRST = date(2020, 1, 1)
METRICS = ("ndcg@5", "recall@5", "coverage@5")


def service(n_users: int = 60, n_days: int = 60, seed: int = 0) -> pd.DataFrame:
    """A log in which new items come every week and users take up items of their own half."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        for day in np.sort(rng.choice(n_days, 14, replace=False)):
            newest = 12 + day // 4
            item = int(rng.integers(0, newest)) // 2 * 2 + user % 2
            rows.append((user, f"i{item:02}", 5, (18262 + int(day)) * DAY + int(rng.integers(DAY))))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"])


LOG = service()
COLUMNS: dict[str, Any] = {"rating_column": "rating", "timestamp_column": "timestamp"}
MODELS = {
    "popularity": RunConfig.of({"model": {"name": "popularity"}}),
    "vae": RunConfig.of(
        {
            "model": {"name": "mult-vae", "hidden_dims": [12], "latent_dim": 4},
            "training": {"epochs": 4, "batch_size": 20, "metric": "ndcg@5"},
        }
    ),
}
PLAN = BacktestPlan(MODELS, PrepareRules(min_user_items=3), 7, 3, metrics=METRICS)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Backtest:
    return backtest(LOG, PLAN, tmp_path_factory.mktemp("backtest") / "out", **COLUMNS)


def last_day() -> date:
    return FIRST + timedelta(days=int(LOG["timestamp"].max() // DAY) - 18262)


def same(one: Backtest, other: Backtest) -> bool:
    """Whether every user's values are the same."""
    return all(
        a.reports[name].users == b.reports[name].users
        and all(
            np.array_equal(values, b.reports[name].metrics[metric], equal_nan=True)
            for metric, values in a.reports[name].metrics.items()
        )
        and a.reports[name].of_all_lists == b.reports[name].of_all_lists
        for a, b in zip(one.windows, other.windows, strict=True)
        for name in a.reports
    )


def test_windows_follow_each_other_to_the_last_day(found: Backtest) -> None:
    begins = [window.begin for window in found.windows]
    assert begins == [last_day() + timedelta(days=1 - 7 * n) for n in (3, 2, 1)]


@pytest.fixture(scope="module")
def with_repeats(tmp_path_factory: pytest.TempPathFactory) -> Backtest:
    out = tmp_path_factory.mktemp("repeats") / "out"
    return backtest(LOG, keeping_repeats(PLAN), out, **COLUMNS)


def keeping_repeats(plan: BacktestPlan) -> BacktestPlan:
    split = TimeSplit(validation_days=0, repeats="keep")
    return replace(plan, rules=replace(plan.rules, split=split))


@pytest.mark.parametrize("repeats", ["drop", "keep"])
def test_popularity_is_what_a_loop_over_the_rows_gives(
    repeats: str, request: pytest.FixtureRequest
) -> None:
    keep = repeats == "keep"
    for window in request.getfixturevalue("with_repeats" if keep else "found").windows:
        start = (window.begin - date(1970, 1, 1)).days * DAY
        before = LOG[LOG.timestamp < start]
        after = LOG[(LOG.timestamp >= start) & (LOG.timestamp < start + 7 * DAY)]
        had = before.groupby("user_id")["item_id"].agg(set)
        trained = before[before.user_id.isin(had[had.map(len) >= 3].index)]
        counts = trained.drop_duplicates(["user_id", "item_id"])["item_id"].value_counts()
        order = sorted(counts.index, key=lambda item: (-counts[item], item))
        recalls = {}
        for user, items in after.groupby("user_id")["item_id"]:
            left_out = set() if keep else had.get(user, set())
            to_find = (set(items) & set(order)) - left_out
            if to_find and user in had.index and had[user] & set(order):
                shown = [item for item in order if item not in left_out][:5]
                recalls[user] = len(to_find & set(shown)) / min(5, len(to_find))
        report = window.reports["popularity"]
        ids = report.users.ids_of(range(len(report)))
        assert dict(zip(ids, report.metrics["recall@5"], strict=True)) == recalls


def test_a_network_is_trained_on_all_before_the_cut_for_the_epochs_that_were_best(
    found: Backtest,
) -> None:
    window, config = found.windows[1], MODELS["vae"]
    split = TimeSplit(test_from=window.begin, test_days=7, validation_days=7)
    rules = PrepareRules(min_user_items=3, split=split)
    with read_log(LOG, **COLUMNS) as log:
        validated = train(prepare(log, rules), config)
        measured = prepare(log, replace(rules, split=replace(split, validation_days=0)))
    best = validated.provenance["best_epoch"]
    model = train(measured, config, epochs=best)
    report = evaluate(model, measured, Part.TEST, metrics=["ndcg@5"])
    assert window.facts["vae"]["best_epoch"] == best
    assert np.array_equal(report.metrics["ndcg@5"], window.reports["vae"].metrics["ndcg@5"])


def test_what_comes_later_changes_nothing(found: Backtest, tmp_path: Path) -> None:
    """The first windows of a longer log are the windows of the log cut off after them."""
    end = (found.windows[2].begin - date(1970, 1, 1)).days * DAY
    shorter = LOG[LOG.timestamp < end]
    # The last day must have a row, for the windows to end with it.
    assert shorter.timestamp.max() >= end - DAY
    earlier = backtest(shorter, replace(PLAN, n_windows=2), tmp_path, **COLUMNS)
    assert same(earlier, Backtest(PLAN, found.windows[:2]))


@pytest.mark.parametrize("after", [1, 9, 23, 40])
def test_a_backtest_that_was_stopped_goes_on_to_the_same(
    found: Backtest, tmp_path: Path, after: int
) -> None:
    seen = 0

    def stop(update: Update) -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="of 6 models are measured, the same command goes on"):
        backtest(LOG, PLAN, tmp_path, progress=stop, **COLUMNS)
    again = backtest(LOG, PLAN, tmp_path, **COLUMNS)
    assert same(again, found)
    assert not list((tmp_path / "work").iterdir())
    # Finished: nothing is trained any more.
    updates: list[Update] = []
    backtest(LOG, PLAN, tmp_path, progress=updates.append, **COLUMNS)
    assert updates == []


def test_a_folder_holds_one_backtest(found: Backtest, tmp_path: Path) -> None:
    plan = BacktestPlan({"popularity": MODELS["popularity"]}, PLAN.rules, 7, 1, metrics=METRICS)
    backtest(LOG, plan, tmp_path, **COLUMNS)
    with pytest.raises(ConfigError, match="a backtest with other every_days"):
        backtest(LOG, replace(plan, every_days=14), tmp_path, **COLUMNS)
    with pytest.raises(ConfigError, match="another configuration of popularity"):
        backtest(LOG, replace(plan, models={"popularity": MODELS["vae"]}), tmp_path, **COLUMNS)
    more = backtest(LOG, replace(plan, models=MODELS), tmp_path, **COLUMNS)
    assert same(more, Backtest(plan, found.windows[2:]))
    held = try_lock(tmp_path / "backtest.lock")
    assert held is not None
    with pytest.raises(ConflictError, match="another process"):
        backtest(LOG, plan, tmp_path, **COLUMNS)
    held.release()


def test_plans_that_cannot_be_honoured() -> None:
    impossible: list[dict[str, Any]] = [
        {"every_days": 0}, {"n_windows": 0}, {"models": {}}, {"metrics": ("auc@5",)},
    ]  # fmt: skip
    for bad in impossible:
        with pytest.raises(ConfigError):
            replace(PLAN, **bad)
    with pytest.raises(ConfigError, match="splits by time"):
        replace(PLAN, rules=PrepareRules(split=LeaveLastOut()))


def test_logs_that_cannot_be_backtested(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a log with times"):
        backtest(LOG[["user_id", "item_id"]], PLAN, tmp_path / "a")
    # Whoever comes in the window was never seen before.
    newcomers = LOG.assign(user_id=LOG.user_id + 1000 * (LOG.timestamp // DAY >= 18262 + 40))
    with pytest.raises(ConfigError, match="must have users to measure on, found none in that of"):
        backtest(newcomers, replace(PLAN, every_days=20, n_windows=1), tmp_path / "b", **COLUMNS)


def test_the_average_has_students_interval() -> None:
    values = np.array([0.1, 0.3, 0.25, 0.2])
    oracle = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    average = Average.of(values)
    assert (average.mean, average.low, average.high) == pytest.approx((0.2125, *oracle))
    alone = Average.of(values[:1])
    assert alone.mean == 0.1
    assert np.isnan(alone.low)
    assert alone.to_json() == {"mean": 0.1, "low": None, "high": None}


def test_tables_fit_a_terminal_and_say_what_was_found(found: Backtest) -> None:
    text = str(found)
    assert max(map(len, text.splitlines())) <= 100
    value = found.values("vae", "ndcg@5")[0]
    half = 1.96 * found.windows[0].reports["vae"].standard_error("ndcg@5")
    assert f"{value:.4f} ± {half:.4f}" in text
    gain = found.gain("vae", "popularity", "ndcg@5")
    assert f"{gain.mean:+.4f}" in text
    told = found.to_json()
    json.dumps(told, allow_nan=False)
    assert told["average"]["ndcg@5"]["vae"]["mean"] == found.values("vae", "ndcg@5").mean()
    assert np.isnan(found.half_widths("vae", "coverage@5")).all()


def test_the_picture_is_drawn(found: Backtest, tmp_path: Path) -> None:
    draw(found, tmp_path / "a.png")
    draw(found, tmp_path / "b.svg", "coverage@5")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "popularity" in (tmp_path / "b.svg").read_text(encoding="utf-8")


def metrics_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {name: model["metrics"] for name, model in window["models"].items()}
        for window in told["windows"]
    ]


@pytest.mark.parametrize("repeats", ["drop", "keep"])
def test_the_command_line_does_the_same(
    repeats: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found = request.getfixturevalue("with_repeats" if repeats == "keep" else "found")
    LOG.to_csv(tmp_path / "log.csv", index=False)
    command = [
        "backtest", tmp_path / "log.csv", "--rating-column", "rating",
        "--timestamp-column", "timestamp", "--min-user-items", "3", "--every", "1w",
        "--windows", "3", "--models", "popularity,vae=mult-vae",
        "--set", "vae.model.hidden_dims=[12]", "--set", "vae.model.latent_dim=4",
        "--set", "training.epochs=4", "--set", "training.batch_size=20",
        "--set", "training.metric=ndcg@5", "--metric", ",".join(METRICS),
        "--out", tmp_path / "out", "--json", tmp_path / "found.json", "--repeats", repeats,
    ]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, command)), catch_exceptions=False)
    assert result.exit_code == 0
    told = json.loads((tmp_path / "found.json").read_text())
    assert metrics_of(told) == metrics_of(found.to_json())
    assert (tmp_path / "out" / "backtest.png").exists()
    assert str(found.windows[0].begin) in result.stdout


def test_lengths_are_days_or_weeks() -> None:
    assert [days(text) for text in ("7d", "2w", "10")] == [7, 14, 10]
    for bad in ("", "d", "0d", "-7d", "7m", "1.5w"):
        with pytest.raises(ConfigError, match="days or weeks"):
            days(bad)
