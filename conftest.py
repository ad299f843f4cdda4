"""What tests and documentation examples share: one thread for small tensors, and a log on disk for
the README.
"""

import csv
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coterie.cli import main
from coterie.simulation.service import SimulatedService

# Small tensors gain nothing from threads and lose much where tests run side by side. Subprocesses
# inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


collect_ignore_glob = ["docs/tutorials/*.md", "docs/how-to/*.md"]
"""tests/test_walkthroughs.py reads them, commands and examples in one order."""


@pytest.fixture
def run_coterie(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs ``coterie …`` in this process and gives its exit code."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["coterie", *map(str, arguments)])
        try:
            main()
        except SystemExit as left:
            return left.code if isinstance(left.code, int) else 0
        return 0

    return call


@pytest.fixture(autouse=True)
def _logger_as_it_was() -> Iterator[None]:
    """A command line that a test ran here says no more where the next test's logs go."""
    logger = logging.getLogger("coterie")
    before = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture(autouse=True)
def _readme_log(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples of README and docs read ``plays.csv`` in the current folder."""
    if request.node.name.endswith(".md"):
        monkeypatch.chdir(tmp_path)
        with Path("plays.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["user", "title"])
            service = SimulatedService(n_users=300, n_items=60, seed=1)
            for block in service.blocks():
                names = [service.catalogue.titles[item - 1] for item in block.item_id.tolist()]
                lines.writerows(zip(block.user_id.tolist(), names, strict=True))
