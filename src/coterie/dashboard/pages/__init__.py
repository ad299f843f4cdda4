"""The pages: a module each. A new one is a module, a template, and a line here."""

from collections.abc import Callable
from dataclasses import dataclass

from coterie.dashboard.page import Asked, File, Page
from coterie.dashboard.pages.collaboration import collaboration, report
from coterie.dashboard.pages.map import latent_map, names, points
from coterie.dashboard.pages.today import today
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
    "/": Entry(today, "Today", needs_service=False),
    "/map": Entry(latent_map, "Latent map", needs_service=False),
    "/collaboration": Entry(collaboration, "Collaboration", needs_service=False),
}

FILES: dict[str, Callable[[Sources, Asked], File]] = {
    "/map/points": points,
    "/map/names": names,
    "/collaboration/report": report,
}
