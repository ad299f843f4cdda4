"""The demonstration of production: it runs, small, and tells what happened."""

import json
import shlex
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coterie.cli import app
from dashboard_parts import visitor


def assert_is_seen(said: str, day: str) -> None:
    """A demo's last line is a command that shows what it made, as of its last day."""
    told, command = said.split(": ", 1)
    program, verb, folder, option, found = shlex.split(command)
    assert (told, program, verb, option, found) == ("see it", "coterie", "dashboard", "--date", day)
    with visitor(folder, today=date.fromisoformat(day)) as client:
        status = client.get("/today.json").json()["status"]
    assert status["edition"] == day
    assert status["model"] is not None


def test_two_weeks_are_lived_through_drawn_and_told(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    options = ["--users", "300", "--items", "100", "--weeks", "2", "--out", str(folder)]
    done = CliRunner().invoke(app, ["demo-production", *options])
    assert done.exit_code == 0, done.output
    assert f"coterie serve {folder}" in done.output.replace("\n", "")
    assert_is_seen(done.output.splitlines()[-1], "2026-03-02")
    weeks = json.loads((folder / "weeks.json").read_text(encoding="utf-8"))
    assert [week["week"] for week in weeks] == ["2026-02-16", "2026-02-23"]
    for week in weeks:
        assert 0 < week["quality"] <= 1
        assert 0 < week["popular"] <= 1
    assert weeks[0]["kept"] is None
    assert 0 < weeks[1]["kept"] <= 1
    assert (folder / "production.png").stat().st_size > 10_000


def test_a_service_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "coterie.toml").write_text("", encoding="utf-8")
    done = CliRunner().invoke(app, ["demo-production", "--out", str(tmp_path)])
    assert done.exit_code
    assert "already" in str(done.exception)
    with pytest.raises(FileNotFoundError):
        (tmp_path / "events").stat()
