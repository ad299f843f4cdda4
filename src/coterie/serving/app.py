"""The application: its routes, what they answer, and what errors become."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError

import coterie
from coterie.errors import ArtifactError, ConfigError, NotFoundError, UnavailableError
from coterie.serving.description import ANSWERS, ASKED, describe
from coterie.serving.guard import Guard, problem, too_large
from coterie.serving.limits import Limits
from coterie.serving.lists import Lists, model_of
from coterie.serving.live_model import LiveModel
from coterie.serving.meters import Meters
from coterie.serving.schemas import FOLD_IN, LikeItem, LookUp, ManyHistories, OneHistory
from coterie.serving.workers import TooMany, Workers
from coterie.store import Edition, Store


@dataclass(frozen=True)
class Parts:
    """What routes answer with.

    Args:
        lists: Of the store.
        model: The live one.
        workers: That compute with it.
        meters: Of the server.
        limits: What may be asked.
    """

    lists: Lists
    model: LiveModel
    workers: Workers
    meters: Meters
    limits: Limits


def build(parts: Parts, keys: Sequence[str]) -> FastAPI:
    """The application over its parts, for whoever has one of the keys, if there are any."""
    app = FastAPI(
        title="Coterie",
        version=coterie.__version__,
        lifespan=partial(_lifespan, parts),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _Routes(parts).add_to(app)
    for kind, answer in _REFUSALS.items():
        app.add_exception_handler(kind, answer)
    app.add_middleware(Guard, keys=keys, limits=parts.limits, meters=parts.meters)
    describe(app, has_key=bool(keys))
    return app


@asynccontextmanager
async def _lifespan(parts: Parts, app: FastAPI) -> AsyncIterator[None]:
    parts.model.start()
    try:
        yield
    finally:
        await asyncio.to_thread(_close, parts)


def _close(parts: Parts) -> None:
    parts.model.stop()
    parts.workers.close()
    parts.lists.close()


class _Routes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def add_to(self, app: FastAPI) -> None:
        """Every route, with all statuses that it answers with."""
        # A text id may hold anything, a slash too.
        for method, path, answer in (
            ("GET", "/recommendations/{user_id:path}", self.recommendations),
            ("POST", "/recommendations", self.fold_in),
            ("GET", "/similar/{item_id:path}", self.similar),
            ("GET", "/health", self.health),
            ("GET", "/ready", self.ready),
            ("GET", "/version", self.version),
            ("GET", "/metrics", self.metrics),
        ):
            name = answer.__name__
            app.add_api_route(
                path,
                answer,
                methods=[method],
                response_model=None,
                responses=ANSWERS[name],
                operation_id=name,
                openapi_extra=ASKED.get(name),
            )

    async def recommendations(self, request: Request) -> Response:
        """A user's published list, or the card row's fall-back, marked as such.

        Filters choose among the published list's items: what is left may be shorter than k.
        """
        wish = LookUp.model_validate(_asked(request))
        return _json(await self._parts.lists.look_up(wish))

    async def fold_in(self, request: Request) -> Response:
        """Lists for people who are in no database, by the live model."""
        body = await _body(request, self._parts.limits)
        if body is None:
            return too_large(self._parts.limits)
        wish: OneHistory | ManyHistories = FOLD_IN.validate_json(body)
        model = self._parts.model.current()
        return await self._parts.workers.run(lambda: _json(model.recommend(wish)))

    async def similar(self, request: Request) -> Response:
        """The items most like one item, by what the live model learned."""
        wish, model = LikeItem.model_validate(_asked(request)), self._parts.model.current()
        return await self._parts.workers.run(lambda: _json(model.similar(wish.item_id, wish.k)))

    async def health(self) -> Response:
        """Whether the process answers."""
        return _json({"status": "alive"})

    async def ready(self) -> Response:
        """Whether lists can be had: the store answers and an edition is live."""
        edition = await self._parts.lists.ask(Store.live)
        if edition is None:
            raise UnavailableError("an edition must be live, found none; publish one.")
        rows = await self._parts.lists.ask(Store.rows)
        loaded = self._parts.model.loaded
        model = self._parts.model.why if loaded is None else loaded.version
        return _json({"edition": edition.name, "rows": rows, "model": model})

    async def version(self) -> Response:
        """What is running and what is live."""
        edition, loaded = await self._live(), self._parts.model.loaded
        return _json(
            {
                "coterie": coterie.__version__,
                "edition": None if edition is None else edition.name,
                "edition_model": None if edition is None else model_of(edition.facts),
                "model": None if loaded is None else loaded.version,
            }
        )

    async def metrics(self) -> Response:
        """Meters in Prometheus' text format."""
        edition, loaded = await self._live(), self._parts.model.loaded
        text = self._parts.meters.text(
            None if edition is None else (edition.name, edition.published),
            None if loaded is None else (loaded.version, loaded.created),
        )
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    async def _live(self) -> Edition | None:
        try:
            return await self._parts.lists.ask(Store.live)
        except (UnavailableError, ArtifactError):
            return None


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


_LISTS = ("allow", "deny")


def _asked(request: Request) -> dict[str, Any]:
    """What path and query say. FastAPI's own way takes as long as all the rest of a look-up."""
    query = request.query_params
    said = {name: query.getlist(name) if name in _LISTS else query[name] for name in query}
    return {**said, **request.path_params}


async def _body(request: Request, limits: Limits) -> bytes | None:
    """The body, or None if it is too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:
                    return None
    except TimeoutError as error:
        raise _TooSlow from error
    return bytes(body)


class _TooSlow(Exception):
    """A body did not come in time."""


_Handler = Callable[[Request, Any], Awaitable[Response]]


def _refusal(status: int, **headers: str) -> _Handler:
    async def answer(request: Request, error: Exception) -> Response:
        return problem(status, str(error), **headers)

    return answer


def _always(status: int, detail: str, **headers: str) -> _Handler:
    async def answer(request: Request, error: Exception) -> Response:
        return problem(status, detail, **headers)

    return answer


async def _invalid(request: Request, error: Any) -> Response:
    """What a request's fields must be: what was found is not repeated."""
    faults = error.errors()
    if faults[0]["type"] == "json_invalid":
        return problem(400, f"the body must be JSON: {faults[0]['ctx']['error']}; correct it.")
    return problem(422, _told(faults))


def _told(faults: list[Any]) -> str:
    told: dict[str, list[str]] = {}
    for one in faults:
        told.setdefault(_place(one["loc"]), []).append(one["msg"])
    shown = [f"{place}: {' or '.join(says)}" for place, says in list(told.items())[:5]]
    return "; ".join(shown) + ("; …" if len(told) > 5 else "")


def _place(where: tuple[Any, ...]) -> str:
    # What the schema's alternatives are called is of no concern to whoever asks.
    named = (str(one) for one in where if isinstance(one, int) or one.isidentifier())
    return ".".join(one for one in named if one not in ("one", "many")) or "the body"


_BUSY = "the model must have a place in its line, it is full; try again in a moment."
_REFUSALS: dict[type[Exception], _Handler] = {
    UnavailableError: _refusal(503, Retry_After="1"),
    ArtifactError: _always(503, "the edition cannot be read; see the log.", Retry_After="10"),
    NotFoundError: _refusal(404),
    ConfigError: _refusal(404),
    TooMany: _always(429, _BUSY, Retry_After="1"),
    _TooSlow: _always(408, "the body must come in time, it did not.", Connection="close"),
    ValidationError: _invalid,
}
"""What errors become. A model that learns nothing of items is the one ConfigError."""
