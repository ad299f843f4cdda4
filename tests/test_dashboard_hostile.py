"""Ids, titles and parameters that no friend gives: on each page, and in the API, text stays text.

Pages are those of the menu and all others, whichever there are; `NAMES` has the parameters that
they know.
"""

import json
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from browser import PHONE, Visit, needs_browser, shown
from coterie.dashboard.pages import FILES, PAGES
from coterie.jobs.config import Service
from coterie.serving import create_app
from dashboard_parts import visitor
from hostile_service import HOSTILE, IMAGE, SCRIPT, TODAY, live_hostile

NAMES = (
    "id", "item", "q", "name", "pick", "why", "search", "show", "of", "version", "a", "b", "row",
    "arm", "edition", "day", "model",
)  # fmt: skip
"""Parameters of pages; those that a page does not know it must pass over."""

KEY = "a key of sufficient length"
PLACES = [*PAGES, *FILES]
_LOOKED_AT = (SCRIPT, IMAGE, "x" * 10_000, "\u202eevil\u2066\u2067txt.exe", "a/b?c#d&e=f")
"""By a browser, which takes a second each; the parser looks at all."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """The service."""
    return live_hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def client(hostile: Service) -> Iterator[TestClient]:
    """Of its dashboard; a fault that is no page is raised."""
    with visitor(hostile.folder, today=TODAY) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(hostile: Service) -> Iterator[str]:
    """Of its dashboard, for a browser."""
    with shown(hostile.folder, TODAY) as found:
        yield found


class Elements(HTMLParser):
    """What a page consists of, and what in it could run.

    Args:
        text: HTML.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.could_run = list[str]()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.could_run += [f"{tag} {name}" for name in told if name.startswith("on")]
        for name in {"href", "src", "action", "formaction", "srcdoc"} & set(told):
            value = (told[name] or "").strip()
            # Nothing at all is the page itself, asked for again.
            if value and (not value.startswith(("/", "#")) or value.startswith("//")):
                self.could_run.append(f"{tag} {name}={value[:80]}")
        if tag in ("object", "embed", "base") or (tag == "script" and "src" not in told):
            self.could_run.append(tag)


def all_as(value: str) -> dict[str, str]:
    """A value as every parameter; a long one as some, as an address has its longest."""
    return dict.fromkeys(NAMES if len(value) < 1000 else NAMES[:4], value)


@pytest.mark.parametrize("path", PAGES)
def test_ids_and_titles_are_text_on_each_page(path: str, client: TestClient) -> None:
    for query in ({}, *map(all_as, HOSTILE), *({"id": one} for one in HOSTILE)):
        answer = client.get(path, params=query)
        assert answer.status_code < 500, (path, query)
        assert Elements(answer.text).could_run == [], (path, query)
        assert "49}" not in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_json_is_json_whatever_the_ids(path: str, client: TestClient) -> None:
    place = "/today.json" if path == "/" else f"{path}.json"
    for value in HOSTILE:
        answer = client.get(place, params=all_as(value))
        assert answer.status_code < 500, (path, value)
        assert answer.headers["content-type"] == "application/json"
        assert isinstance(answer.json(), dict)


@needs_browser
@pytest.mark.parametrize("path", PAGES)
def test_a_browser_runs_nothing_of_an_id_and_keeps_the_width(
    path: str, address: str, browser: Browser
) -> None:
    visit = Visit(browser, address, PHONE)
    for query in ({}, *map(all_as, _LOOKED_AT), *({"id": one} for one in _LOOKED_AT)):
        page = visit.open(f"{path}?{urlencode(query)}")
        assert page.evaluate("window.ran") is None
        assert page.evaluate(_FOREIGN) == [], (path, query)
        assert visit.overflow() <= 0, (path, query)
        # The status of a page of an error is told, too.
        assert [one for one in visit.faults if "status of 4" not in one] == [], (path, query)
    visit.close()


_FOREIGN = """[...document.querySelectorAll("script, img, iframe, object, embed, base, meta, link")]
    .filter(one => { const at = one.src ?? one.href ?? one.data;
                     return at ? !at.startsWith(location.origin) : one.tagName == "SCRIPT"; })
    .map(one => one.outerHTML)"""


@pytest.mark.parametrize("place", PLACES)
@given(values=st.dictionaries(st.sampled_from(NAMES), st.text(max_size=40), max_size=3))
@settings(deadline=None, max_examples=40)
def test_any_text_is_answered(place: str, client: TestClient, values: dict[str, str]) -> None:
    for path in (place, f"{place}.json") if place in PAGES and place != "/" else (place,):
        answer = client.get(path, params=values)
        assert answer.status_code < 500, (path, values)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "query", ["id=%FF%FE", "id=%ED%A0%80", "id=%00", "id", "&&=&", "id=1&id=2"]
)
def test_queries_that_are_no_text_are_answered(place: str, query: str, client: TestClient) -> None:
    assert client.get(f"{place}?{query}").status_code < 500


def _guarded(headers: object) -> None:
    assert "frame-ancestors 'self'" in headers["content-security-policy"]  # type: ignore[index]
    assert "'unsafe-eval'" not in headers["content-security-policy"]  # type: ignore[index]
    assert headers["x-content-type-options"] == "nosniff"  # type: ignore[index]


def test_each_answer_says_what_a_browser_may_do_with_it(
    client: TestClient, hostile: Service
) -> None:
    known = [f"{path}.json" for path in PAGES if path != "/"]
    for path in (*PLACES, *known, "/today.json", "/nothing", "/static/app.js", "/static/none"):
        _guarded(client.get(path).headers)
    _guarded(client.post("/").headers)
    _guarded(client.get("/", headers={"host": "evil.example"}).headers)
    with visitor(hostile.folder, api_key=KEY, today=TODAY) as locked:
        for path in ("/login", "/today.json"):
            _guarded(locked.get(path).headers)
        _guarded(locked.get("/", follow_redirects=False).headers)
        _guarded(locked.post("/login", data={"key": SCRIPT}).headers)


def test_scripts_in_pages_are_only_our_own(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "script-src" not in policy


@pytest.fixture(scope="module")
def api(hostile: Service) -> Iterator[TestClient]:
    """`coterie serve` of the service."""
    app = create_app(hostile.place(hostile.config.store.url), hostile.registry)
    with TestClient(app, base_url="http://127.0.0.1") as opened:
        deadline = time.monotonic() + 60
        while opened.get("/version").json()["model"] is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield opened


@pytest.mark.parametrize("verb", ["recommendations", "similar"])
def test_the_api_gives_ids_and_titles_as_they_are(verb: str, api: TestClient) -> None:
    for value in HOSTILE:
        answer = api.get(f"/{verb}/{quote(value, safe='').replace('.', '%2E')}")
        assert answer.status_code < 500, value
        assert answer.headers["content-type"] == "application/json"
        json.loads(answer.text)
    told = api.get(f"/recommendations/{quote('user 1')}").json()
    named = {one["item_id"]: one["title"] for one in told["items"]}
    strange = set(named) & set(HOSTILE)
    assert strange
    assert all(named[one] == f"{one} " for one in strange)
