"""Who may look: on this machine everybody who asks for this machine, beyond it who has the key."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from coterie.dashboard.html import Html
from coterie.dashboard.page import Page
from coterie.serving.access import App, Receive, Scope, Send, given_keys, is_loopback

_COOKIE = "coterie_dashboard"
_OPEN = ("/login", "/static/")
_LONGEST = 10_000


class Gate:
    """The key, as a header or as a cookie that a form gives.

    Without a key only requests for a loopback name are answered: a page of elsewhere, whose name
    is made to point here, is none.

    Args:
        keys: Of which one must be given; none: everybody on this machine may look.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._keys = [key.encode() for key in keys]
        # Another one with every start: what a browser has kept opens nothing afterwards.
        self._secret = secrets.token_bytes(32)

    def middleware(self, app: App) -> App:
        """The application behind the gate."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            refused = self._refusal(scope) if scope["type"] == "http" else None
            await (refused or app)(scope, receive, send)

        return guarded

    def routes(self, html: Html) -> list[Route]:
        """The form that asks for the key."""

        async def ask(request: Request) -> Response:
            return _form(html, wrong=False)

        async def enter(request: Request) -> Response:
            key = await _posted_key(request)
            if not self._opens([key]):
                return _form(html, wrong=True)
            answer = RedirectResponse(_own(request.query_params.get("to", "/")), 303)
            secure = request.url.scheme == "https"
            answer.set_cookie(
                _COOKIE, self._token(), httponly=True, samesite="strict", secure=secure
            )
            return answer

        if not self._keys:
            return []
        return [Route("/login", ask), Route("/login", enter, methods=["POST"])]

    def _refusal(self, scope: Scope) -> App | None:
        request = Request(scope)
        if not self._keys:
            return None if _is_local(request.headers.get("host", "")) else _not_here
        if scope["path"].startswith(_OPEN) or self._may(request):
            return None
        if scope["path"].endswith(".json") or scope["method"] != "GET":
            return Response("the key must be given as X-API-Key; none was right.", 401)
        asked = scope["path"] + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(str(request.url_for("ask").include_query_params(to=asked)), 303)

    def _may(self, request: Request) -> bool:
        token = request.cookies.get(_COOKIE, "").encode()
        return hmac.compare_digest(token, self._token().encode()) or self._opens(
            given_keys(request.scope["headers"])
        )

    def _opens(self, given: Sequence[bytes]) -> bool:
        return sum(hmac.compare_digest(one, key) for one in given for key in self._keys) > 0

    def _token(self) -> str:
        return hmac.new(self._secret, b"\n".join(self._keys), hashlib.sha256).hexdigest()


def _form(html: Html, *, wrong: bool) -> Response:
    page = Page("The key, please", "login.html.j2", {"wrong": wrong}, 401 if wrong else 200)
    return Response(html.render(page, "/login", ""), page.status, media_type="text/html")


async def _posted_key(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST:
            return b""
    return parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0].strip().encode()


def _own(address: str) -> str:
    """An address of ours; any other is the first page."""
    return address if address.startswith("/") and address[1:2] not in ("/", "\\") else "/"


def _is_local(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


_not_here: App = Response(
    "without a key only this machine's own name is answered (127.0.0.1 or localhost).", 421
)
