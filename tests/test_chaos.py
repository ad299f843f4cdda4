"""SIGKILL at random moments of every job, in the short form of ``make chaos``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "chaos.py"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_nothing_is_lost_doubled_or_mixed_by_kills(tmp_path: Path) -> None:
    """Four of promote, publish and daily, one of weekly: more take minutes."""
    out = tmp_path / "chaos.json"
    command = [sys.executable, str(SCRIPT), "--kills", "4", "--weekly", "1", "--json", str(out)]
    subprocess.run(command, check=True, timeout=600)
    rows = {row["job"]: row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {"promote", "publish, SQLite", "daily, SQLite", "weekly"}
    for row in rows.values():
        assert row["by clock"] + row["by call"] + row["in time"] == row["kills"]
        assert row["calls"] > 5
