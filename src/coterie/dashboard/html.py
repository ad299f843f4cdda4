"""Pages as HTML: templates that escape whatever they show, and how values are shown."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import cached_property
from importlib import resources
from typing import Any
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup

import coterie
from coterie.dashboard.page import Page
from coterie.dashboard.pages import PAGES
from coterie.dashboard.sources import Sources

_LONGEST = 200
"""Signs of a text that are shown; the rest is in its JSON."""


class Html:
    """Renders pages.

    Args:
        sources: What the dashboard is of.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources

    def render(self, page: Page, path: str, query: str) -> str:
        """A page as HTML.

        Args:
            page: What to show.
            path: Its address, for the menu.
            query: Of its address, for the link to its JSON.
        """
        template = self._environment.get_template(page.template)
        link = "/today.json" if path == "/" else f"{path}.json"
        has_service = self.sources.service is not None
        menu = [
            (one.label, address)
            for address, one in PAGES.items()
            if one.label and (has_service or not one.needs_service)
        ]
        return template.render(
            page.values,
            page=page,
            path=path,
            json_link=f"{link}?{query}" if query else link,
            menu=menu,
            place=self.sources.name,
            version=coterie.__version__,
        )

    @cached_property
    def _environment(self) -> jinja2.Environment:
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("coterie.dashboard"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals.update(link=link, static=_static)
        environment.filters.update(shown=shown, svg=Markup, short=cut)
        return environment


def link(path: str, **query: Any) -> str:
    """An address with its parameters, whatever they hold.

    Example:
        >>> link("/users", id="a&b/..", row=None)
        '/users?id=a%26b%2F..'
    """
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def shown(value: Any, kind: str = "number") -> str:
    """A value for people.

    Example:
        >>> [shown(0.25, "percent"), shown(1234567, "count"), shown(75.0, "seconds")]
        ['25 %', '1,234,567', '1 min 15 s']
        >>> shown(None), shown(True), shown(0.123456)
        ('–', 'yes', '0.1235')
    """
    if value is None or value != value:  # noqa: PLR0124 – NaN
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and kind in _NUMBERS:
        return _NUMBERS[kind](float(value))
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return str(value) if isinstance(value, date) else cut(str(value))


def cut(text: str, longest: int = _LONGEST) -> str:
    """A text that is not too long to be shown."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1e4 else f"{value:.4g}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.3g} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


_NUMBERS: Mapping[str, Callable[[float], str]] = {
    "number": _number,
    "count": lambda value: f"{value:,.0f}",
    "percent": _percent,
    "lift": lambda value: f"{100 * value:+.3g} %".replace("-", "−"),
    "seconds": _seconds,
}


def _static(name: str) -> str:
    """A file's address, another one when the file is."""
    content = resources.files("coterie.dashboard").joinpath("static", name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
