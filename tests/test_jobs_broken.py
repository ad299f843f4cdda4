"""Three weeks that are broken on purpose: a gate stops each, and the live model stays."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coterie.jobs.config import Service
from coterie.registry import Registry
from coterie.simulation.broken import Broken
from small_service import LAST, LIVING, TINY, configure, copy_of

Run = Callable[..., int]

NEXT = LAST + timedelta(weeks=1)
LAST_DAY = NEXT - timedelta(days=1)


def half_the_log(service: Service) -> None:
    Broken(LIVING, "half", LAST).write(service.folder, LAST, LAST_DAY)


def shuffled_ids(service: Service) -> None:
    Broken(LIVING, "shuffled", LAST).write(service.folder, LAST, LAST_DAY)


def collapse(service: Service) -> None:
    """The posterior is the prior: a model that tells nobody apart."""
    LIVING.write(service.folder, LAST, LAST_DAY)
    model = {
        "name": "mult-vae",
        "hidden_dims": [],
        "latent_dim": 2,
        "beta": 1000.0,
        "anneal_steps": 0,
    }
    configure(
        service.folder, TINY, model=model, training={**TINY["training"], "learning_rate": 0.05}
    )


@pytest.mark.parametrize(
    ("spoil", "gate"),
    [
        (half_the_log, "volume"),
        (shuffled_ids, "live on new days"),
        (collapse, "distinct"),
    ],
)
def test_a_broken_week_does_not_become_live_but_by_force(
    spoil: Callable[[Service], None],
    gate: str,
    eight_weeks: Path,
    tmp_path: Path,
    run_coterie: Run,
    capfd: pytest.CaptureFixture[str],
) -> None:
    service = copy_of(Service.load(eight_weeks), tmp_path / "service")
    spoil(service)
    registry, out = Registry(service.registry), tmp_path / "weekly.json"
    live, moves = registry.live, registry.moves
    command = ("weekly", service.folder, "--date", NEXT, "--device", "cpu", "--json", out)
    assert run_coterie(*command) == 10
    assert f"{gate}: " in " ".join(capfd.readouterr().err.split())
    told = json.loads(out.read_text())
    assert gate in failed(told)
    assert (told["passed"], told["live"]) == (False, live and live.name)
    bad = registry.version(told["version"])
    assert (bad.passed, bad.card["failed"]) == (False, failed(told))
    assert run_coterie(*command) == 10
    assert (registry.live, registry.moves) == (live, moves)
    only_by_force(run_coterie, service, bad.name)
    if spoil is shuffled_ids:
        mended(run_coterie, service)


def mended(run_coterie: Run, service: Service) -> None:
    """A log with as many rows as before is trained on anew, as the rows are others."""
    LIVING.write(service.folder, LAST, LAST_DAY)
    assert run_coterie("weekly", service.folder, "--date", NEXT, "--device", "cpu") == 0
    live = Registry(service.registry).live
    assert live is not None
    assert live.card["week"] == str(LAST)


def failed(told: dict[str, Any]) -> list[str]:
    return [one["name"] for one in told["gates"] if not one["passed"]]


def only_by_force(run_coterie: Run, service: Service, bad: str) -> None:
    registry = Registry(service.registry)
    before = registry.live
    assert run_coterie("promote", service.folder, bad) == 2
    assert run_coterie("promote", service.folder, bad, "--force") == 2
    assert run_coterie("promote", service.folder, bad, "--because", "I like it") == 2
    assert registry.live == before
    assert run_coterie("promote", service.folder, bad, "--force", "--because", "known") == 0
    assert (registry.moves[-1].forced, registry.moves[-1].because) == (True, "known")
    assert run_coterie("rollback", service.folder, "--because", "it was worse") == 0
    assert registry.live == before
    assert registry.moves[-1].because == "it was worse"
