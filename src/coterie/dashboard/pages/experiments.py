"""Experiments: which run, which are planned, what those came to that are over; one of them whole;
and its report as a page inside the page.
"""

from coterie.dashboard.page import Asked, File, Page
from coterie.dashboard.pages.experiment import Seen, see, see_whole
from coterie.dashboard.sources import Sources
from coterie.errors import CoterieError, NotFoundError
from coterie.experiment.report import PAGE

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action"
    " 'none'; frame-ancestors 'self'; sandbox"
)


def experiments(sources: Sources, asked: Asked) -> Page:
    """All of them, or the one that is named."""
    name = asked.text("name")
    if name:
        return see_whole(sources, _existing(sources, name))
    seen, faults = list[Seen](), list[str]()
    for one in names(sources):
        try:
            seen.append(see(sources, one))
        except CoterieError as error:
            faults.append(str(error))
    seen.sort(key=lambda one: one.began, reverse=True)
    states = ("running", "planned", "finished")
    by_state = {state: [one.short for one in seen if one.state == state] for state in states}
    folder = str(sources.of_service.experiments.folder)
    return Page("Experiments", "experiments.html.j2", {**by_state, "faults": faults, "at": folder})


def experiment_report(sources: Sources, asked: Asked) -> File:
    """The report of one, as it was written; nothing in it may run."""
    folder = sources.of_service.report(_existing(sources, asked.text("name")))
    try:
        return File((folder / PAGE).read_bytes(), "text/html; charset=utf-8", _POLICY)
    except OSError as error:
        raise NotFoundError(
            f"{folder / PAGE}: must be there, it is not; coterie experiment report writes it."
        ) from error


def names(sources: Sources) -> list[str]:
    """Of all that are defined or were started, sorted."""
    found = sources.of_service.experiments
    return sorted({*found.defined, *found.started})


def _existing(sources: Sources, name: str) -> str:
    """A name that is there; no path is ever made of another one."""
    there = names(sources)
    if name not in there:
        raise NotFoundError(
            f"{name[:80]!r}: an experiment must be defined, it is not; there are:"
            f" {', '.join(there) or 'none'}."
        )
    return name
