"""What stands before every request: the key, the clock, the meters, the log.

Plain ASGI, as it is on the way of every look-up. Of a request the log and the meters get the route,
the method, the status and the time: no path, no query, no body, no address.
"""

import asyncio
import hmac
import logging
import time
import traceback
from collections.abc import MutableMapping, Sequence
from itertools import product, starmap
from typing import Any

import orjson
from starlette.responses import Response

from coterie.serving.access import App, Receive, Scope, Send, given_keys
from coterie.serving.limits import Limits
from coterie.serving.meters import Meters

log = logging.getLogger(__name__)

OPEN = frozenset({"/health", "/ready"})
"""Paths that need no key: who balances load has none."""

_METHODS = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"})


def problem(status: int, detail: str, **headers: str) -> Response:
    """A refusal."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(orjson.dumps({"detail": detail}), status, named, "application/json")


class Guard:
    """Wraps the application.

    Args:
        app: What answers.
        keys: Of which every request must bring one; none if there are none.
        limits: Their time-out and the longest body.
        meters: Where they are counted.
    """

    def __init__(self, app: App, keys: Sequence[str], limits: Limits, meters: Meters) -> None:
        self._app, self._limits, self._meters = app, limits, meters
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            failed = await self._answer(scope, receive, noting)
            if failed is not None and not status:
                await failed(scope, receive, noting)
            elif failed is not None:
                # Half an answer went out: the connection is closed under it.
                raise ConnectionAbortedError("an answer that had begun could not be ended")
        finally:
            self._note(scope, status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Lets the application answer; what is to be said where it could not."""
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                await (self._refusal(scope) or self._app)(scope, receive, send)
            return None
        except TimeoutError:
            return problem(503, "the answer took too long; try again.", Retry_After="1")
        except Exception as error:
            # A message could name a person; where it was raised cannot.
            frames = traceback.extract_tb(error.__traceback__)
            at = [f"{one.filename}:{one.lineno} {one.name}" for one in frames]
            log.error("a fault of the server's", extra={"error": type(error).__name__, "at": at})
            return problem(500, "the server has a fault, which is in its log.")

    def _refusal(self, scope: Scope) -> App | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if self._keys and scope["path"] not in OPEN and not self._has_key(headers):
            detail = "the key must be given as X-API-Key or Authorization: Bearer, none was right."
            return problem(401, detail, WWW_Authenticate="Bearer")
        for name, value in headers:
            if name == b"content-length" and _number(value) > self._limits.body_bytes:
                return too_large(self._limits)
        return None

    def _has_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        # All of them, so that the time does not tell which one is nearly right.
        return sum(starmap(hmac.compare_digest, product(given_keys(headers), self._keys))) > 0

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._meters.note(route, method, status, seconds)
        if log.isEnabledFor(logging.DEBUG):
            facts = {"route": route, "method": method, "status": status}
            log.debug("request", extra={**facts, "seconds": round(seconds, 6)})


def too_large(limits: Limits) -> Response:
    """The refusal of a body; the rest of it is not read."""
    detail = f"a body must have at most {limits.body_bytes:,} bytes; ask for less at once."
    return problem(413, detail, Connection="close")


def _number(value: bytes) -> int:
    """Of a header; the connection's parser has refused what is none."""
    return int(value[:19]) if value.isdigit() else 0
