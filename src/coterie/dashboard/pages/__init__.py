"""The pages: a module each. A new one is a module, a template, and a line here."""

from collections.abc import Callable
from dataclasses import dataclass

from coterie.dashboard.page import Asked, Page
from coterie.dashboard.pages.titles import title
from coterie.dashboard.pages.today import today
from coterie.dashboard.pages.trying import try_it
from coterie.dashboard.pages.users import user
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


@dataclass(frozen=True)
class File:
    """What is no page: a report inside a page, the points of the map.

    Args:
        content: Its bytes.
        media_type: What they are.
        policy: Its own content security policy, if the pages' does not do.
    """

    content: bytes
    media_type: str
    policy: str = ""


PAGES: dict[str, Entry] = {
    "/": Entry(today, "Today", needs_service=False),
    "/users": Entry(user, "A user"),
    "/try": Entry(try_it, "Try it"),
    "/titles": Entry(title, "A title"),
}

FILES: dict[str, Callable[[Sources, Asked], File]] = {}
