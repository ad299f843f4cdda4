"""A service of two weeks whose models were looked into, small enough for tests."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from coterie.jobs.config import Service
from coterie.jobs.weekly import weekly
from coterie.lab.collaboration.analysis import AnalysisOptions
from coterie.lab.collaboration.of_service import analyze_version, chosen
from coterie.registry import Registry
from small_service import FIRST, LIVING, MONDAY, TINY, configure

TODAY = FIRST + timedelta(weeks=1)
MODEL: dict[str, Any] = {"name": "mult-vae", "hidden_dims": [], "latent_dim": 16, "pia": 0.3}
FEW = AnalysisOptions(
    users=40, draws=2, map_users=120, neighbours=8, asked=30, by_adam=4, learning_rates=(1e-5,)
)


def live_two_weeks(folder: Path) -> Service:
    """Each week a model is trained and looked into; nothing is published."""
    service, begun = configure(folder, TINY, model=MODEL), MONDAY
    for today in (FIRST, TODAY):
        LIVING.write(folder, begun, today - timedelta(days=1))
        version = weekly(service, today, device="cpu").version
        # A model this small does not hold against the baselines.
        Registry(service.registry).promote(version, by="ann", force=True, because="to look into")
        for one in chosen(service):
            analyze_version(service, one, FEW)
        begun = today
    (folder / "done").touch()
    return service
