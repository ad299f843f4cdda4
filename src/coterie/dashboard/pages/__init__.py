"""The pages: a module each. A new one is a module, a template, and a line here."""

from collections.abc import Callable
from dataclasses import dataclass

from coterie.dashboard.page import Asked, File, Page
from coterie.dashboard.pages.collaboration import collaboration, report
from coterie.dashboard.pages.experiments import experiment_report, experiments
from coterie.dashboard.pages.map import latent_map, names, points
from coterie.dashboard.pages.models import models
from coterie.dashboard.pages.runs import runs
from coterie.dashboard.pages.runs_compared import compare_reports, compare_runs
from coterie.dashboard.pages.titles import title
from coterie.dashboard.pages.today import today
from coterie.dashboard.pages.trying import try_it
from coterie.dashboard.pages.users import user
from coterie.dashboard.pages.versions import compare_versions
from coterie.dashboard.sources import Sources


@dataclass(frozen=True)
class Entry:
    """A page's place.

    Args:
        view: Makes it. It may raise errors of ours, which become pages.
        label: In the menu; empty: it is not there.
        needs_service: Whether a folder of runs has it, too.
    """

    view: Callable[[Sources, Asked], Page]
    label: str = ""
    needs_service: bool = True


PAGES: dict[str, Entry] = {
    "/": Entry(today, "Today"),
    "/models": Entry(models, "Models"),
    "/models/compare": Entry(compare_versions),
    "/users": Entry(user, "A user"),
    "/try": Entry(try_it, "Try it"),
    "/titles": Entry(title, "A title"),
    "/map": Entry(latent_map, "Latent map", needs_service=False),
    "/collaboration": Entry(collaboration, "Collaboration", needs_service=False),
    "/experiments": Entry(experiments, "Experiments"),
    "/runs": Entry(runs, "Runs", needs_service=False),
    "/runs/compare": Entry(compare_runs, needs_service=False),
    "/runs/reports": Entry(compare_reports, needs_service=False),
}

FILES: dict[str, Callable[[Sources, Asked], File]] = {
    "/collaboration/report": report,
    "/experiments/report": experiment_report,
    "/map/names": names,
    "/map/points": points,
}
