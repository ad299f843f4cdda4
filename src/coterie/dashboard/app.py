"""The application: addresses, what they answer as HTML and as JSON, and what errors become."""

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coterie.dashboard.gate import Gate
from coterie.dashboard.html import Html
from coterie.dashboard.page import Asked, File, Page
from coterie.dashboard.pages import FILES, PAGES
from coterie.dashboard.sources import Sources
from coterie.errors import (
    ConfigError,
    CoterieError,
    DataError,
    MissingPackageError,
    NotFoundError,
    UnavailableError,
)

log = logging.getLogger(__name__)

STATUS: dict[type[CoterieError], int] = {
    NotFoundError: 404,
    UnavailableError: 503,
    MissingPackageError: 501,
    ConfigError: 422,
    DataError: 422,
}
"""Of HTTP, by the error; others are 500."""

_STATIC = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri"
        " 'none'; form-action 'self'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


def build(sources: Sources, gate: Gate) -> Starlette:
    """The application over what it reads from.

    Args:
        sources: Of every page.
        gate: Who may look.
    """
    html = Html(sources)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(sources.close)

    routes = [
        Route("/static/{name}", _static),
        *(_page_route(html, path) for path in PAGES),
        *(Route(f"{path}.json" if path != "/" else "/today.json", _json_of(html, path))
          for path in PAGES),
        *(Route(path, _file_of(html, make)) for path, make in FILES.items()),
        *gate.routes(html),
    ]  # fmt: skip
    handlers = {HTTPException: _stranger(html)}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)  # type: ignore[arg-type]
    app.add_middleware(gate.middleware)
    return app


def _page_route(html: Html, path: str) -> Route:
    async def answer(request: Request) -> Response:
        page = await _made(html, path, request)
        text = await asyncio.to_thread(html.render, page, path, request.url.query)
        return Response(text, page.status, _HEADERS, "text/html")

    return Route(path, answer)


def _json_of(html: Html, path: str) -> Callable[..., object]:
    async def answer(request: Request) -> Response:
        page = await _made(html, path, request)
        text = json.dumps(page.to_json(), ensure_ascii=False, default=str)
        return Response(text, page.status, _HEADERS, "application/json")

    return answer


def _file_of(html: Html, make: Callable[[Sources, Asked], File]) -> Callable[..., object]:
    async def answer(request: Request) -> Response:
        try:
            file = await asyncio.to_thread(make, html.sources, _asked(request))
        except CoterieError as error:
            body = json.dumps({"title": "Not there", "message": str(error)})
            return Response(body, _status(error), _HEADERS, "application/json")
        policy = {"content-security-policy": file.policy} if file.policy else {}
        return Response(file.content, 200, {**_HEADERS, **policy}, file.media_type)

    return answer


async def _made(html: Html, path: str, request: Request) -> Page:
    """A page, or what its error becomes."""
    try:
        return await asyncio.to_thread(PAGES[path].view, html.sources, _asked(request))
    except CoterieError as error:
        return error_page(str(error), _status(error))
    except Exception as error:
        # Where it was raised, not what it says: a message could name a person.
        frames = traceback.extract_tb(error.__traceback__)
        at = [f"{one.filename}:{one.lineno} {one.name}" for one in frames]
        log.error("a fault of the dashboard's", extra={"error": type(error).__name__, "at": at})
        return error_page("This page has a fault, which is in the dashboard's log.", 500)


def error_page(message: str, status: int) -> Page:
    """An error as a page.

    Args:
        message: What must hold, what was found and what to do.
        status: Of HTTP.
    """
    titles = {404: "Not there", 422: "That cannot be asked", 503: "Out of reach"}
    title = titles.get(status, "That did not work")
    return Page(title, "error.html.j2", {"message": message}, status)


def _status(error: CoterieError) -> int:
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def _stranger(html: Html) -> Callable[..., object]:
    async def answer(request: Request, error: HTTPException) -> Response:
        wrong = error.status_code != 404
        told = "This address takes no such request." if wrong else "There is no such page."
        page = error_page(f"{told} The menu has all of them.", error.status_code)
        text = await asyncio.to_thread(html.render, page, "", "")
        return Response(text, error.status_code, _HEADERS, "text/html")

    return answer


def _asked(request: Request) -> Asked:
    query = request.query_params
    return Asked({name: query.getlist(name) for name in query})


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    kind = _STATIC.get(name.rpartition(".")[2])
    file = resources.files("coterie.dashboard").joinpath("static", name)
    if kind is None or not file.is_file():
        raise HTTPException(404)
    # Its address has the version in it.
    headers = {**_HEADERS, "cache-control": "max-age=86400"}
    return Response(file.read_bytes(), 200, headers, kind)
