"""Requests that no friend sends: each gets a clean refusal, and the server goes on."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from coterie.errors import ConfigError, ConflictError
from coterie.jobs.config import Service
from coterie.serving import Limits, create_app, serve
from coterie.store import open_store
from serving_parts import KEY, Server, register, running_server
from store_contract import publish_marked

STATUSES = {200, 400, 401, 404, 405, 413, 422, 429, 503}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with a key, a model, and little patience."""
    place = tmp_path_factory.mktemp("hostile")
    url = f"sqlite:///{place}/store"
    with open_store(url) as store:
        publish_marked(store, 1)
    register(place / "registry", 1)
    limits = {"head_seconds": 1.0, "body_seconds": 1.0}
    with running_server(url, place / "registry", api_key=KEY, limits=limits) as started:
        started.wait_for_model()
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """It asks, and in the end the server must still answer."""
    with server.client() as opened:
        yield opened
        assert opened.get("/recommendations/4").json()["source"] == "model"


@pytest.mark.parametrize(
    "user_id",
    [
        "..%2F..%2F..%2Fetc%2Fpasswd",
        "%2E%2E/%2E%2E/store/control.sqlite",
        "4'; DROP TABLE lists; --",
        "4 OR 1=1",
        "%00",
        "4%00",
        "%FF%FE",
        "%ED%A0%80",
        "٤",
        "４",
        "%F0%9F%92%A9" * 50,
        "99999999999999999999999",
        "-1",
        "04",
        "x" * 1000,
    ],
)
def test_strange_ids_are_unknown_users(client: httpx.Client, user_id: str) -> None:
    answer = client.get(f"/recommendations/{user_id}")
    assert (answer.status_code, answer.json()["source"]) == (200, "fallback")
    assert client.get(f"/similar/{user_id}").status_code == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("row=../store", 404),
        ("row=main'--", 404),
        ("row=%00", 404),
        ("row=" + "x" * 1001, 422),
        ("k=1e3", 422),
        ("k=9999999999999999999999", 422),
        ("k=-1", 422),
        ("k=NaN", 422),
        ("&".join(["deny=1"] * 1000 + [f"deny={n}" for n in range(1001)]), 422),
        ("%ZZ=%ZZ", 422),
    ],
)
def test_strange_queries_are_refused(client: httpx.Client, query: str, status: int) -> None:
    assert client.get(f"/recommendations/4?{query}").status_code == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe\x00", 400),
        (b'{"history": ["\\ud800"]}', 400),
        (b"[" * 100_000, 400),
        (b'{"history":' + b"[" * 500_000, 400),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
        (b'{"history": [NaN]}', 422),
        (b'{"history": [1e999]}', 422),
        (b'{"history": [' + b"9" * 5000 + b"]}", 400),
        (b'{"history": [{"$ne": 1}]}', 422),
        (b'{"history": null}', 422),
        (b'{"history": ["\\u0000", "\'; DROP"]}', 200),
        (b'{"history": [' + b"1," * 600_000 + b"1]}", 413),
    ],
)
def test_strange_bodies_are_refused(client: httpx.Client, body: bytes, status: int) -> None:
    answer = client.post("/recommendations", content=body)
    assert answer.status_code == status, answer.text
    assert len(answer.content) < 10_000


def test_endless_body_is_cut_off(client: httpx.Client) -> None:
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1 << 16
            yield b" " * (1 << 16)

    # Or the connection is closed while we are still writing.
    with suppress(httpx.WriteError):
        assert client.post("/recommendations", content=parts()).status_code == 413
    assert sent < 1 << 25


@pytest.mark.parametrize("path", ["/recommendations/4", "/similar/4", "/version", "/metrics"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "x"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer é".encode().decode("latin-1")},
    ],
)
def test_without_the_key_nothing_is_told(
    server: Server, path: str, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = httpx.get(f"{server.url}{path}", headers=raw)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert set(answer.json()) == {"detail"}


def test_key_opens_as_header_and_as_bearer(server: Server) -> None:
    for headers in ({"X-API-Key": KEY}, {"Authorization": f"bearer {KEY}"}):
        assert httpx.get(f"{server.url}/version", headers=headers).status_code == 200
    for path in ("/health", "/ready"):
        assert httpx.get(server.url + path).status_code == 200


def test_any_of_several_keys_opens(tmp_path: Path) -> None:
    url, keys = f"sqlite:///{tmp_path}/store", [KEY, "another, of its own", "ü" * 16]
    with running_server(url, None, api_key=keys) as server:
        for key in keys:
            headers = {b"X-API-Key": key.encode()}
            assert httpx.get(f"{server.url}/version", headers=headers).status_code == 200
        for key in ("", ",".join(keys[:2]), keys[0] + keys[1], keys[1][:-1]):
            headers = {b"X-API-Key": key.encode()}
            assert httpx.get(f"{server.url}/version", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"body_bytes": 10}, "body_bytes: Input should be greater than or equal to 1024, found 10"),
        ({"request_seconds": 0}, "request_seconds: Input should be greater than 0"),
        ({"store_threads": 17}, "store_threads: Input should be less than or equal to 16"),
        ({"poll_seconds": float("inf")}, "poll_seconds: Input should be a finite number"),
        ({"threads": 2}, "threads: Extra inputs are not permitted"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(
    limits: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        Limits(**limits)
    lines = [f"{name} = {value}" for name, value in limits.items()]
    file = tmp_path / "coterie.toml"
    file.write_text("\n".join(["[serve.limits]", *lines]), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"coterie.toml: serve.limits.{said}") as raised:
        Service.load(tmp_path)
    assert "the page on operations describes every field" in str(raised.value)


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


HEAD = f"POST /recommendations HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n".encode()


def test_slow_clients_block_nobody_and_are_cut_off(client: httpx.Client, server: Server) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(server)) for _ in range(100)]
        slow = [stack.enter_context(connected(server)) for _ in range(100)]
        for each in slow:
            each.sendall(HEAD[:20])
        began = time.monotonic()
        for _ in range(20):
            assert client.get("/recommendations/4").status_code == 200
        assert time.monotonic() - began < 5
        for each in silent + slow:
            assert each.recv(100) == b""


def test_body_that_does_not_come_gets_a_time_out(client: httpx.Client, server: Server) -> None:
    with connected(server) as slow:
        slow.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "part", [b"GET /" + b"x" * 400_000, b"GET / HTTP/1.1\r\nx: " + b"y" * 10**6]
)
def test_head_that_does_not_end_is_refused(
    client: httpx.Client, server: Server, part: bytes
) -> None:
    # Or it is closed before all is sent.
    with connected(server) as long, suppress(ConnectionError):
        long.sendall(part)
        assert long.recv(1000).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "raw", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_is_no_http_is_refused(client: httpx.Client, server: Server, raw: bytes) -> None:
    with connected(server) as strange:
        strange.sendall(raw)
        assert strange.recv(1000).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "HEAD", "PURGE"])
def test_other_methods_are_not_allowed(client: httpx.Client, method: str) -> None:
    assert client.request(method, "/recommendations/4").status_code == 405


@pytest.mark.parametrize(
    ("host", "key", "said"),
    [
        ("0.0.0.0", None, "a key must be asked for"),
        ("::", None, "a key must be asked for"),
        ("example.org", None, "a key must be asked for"),
        ("0.0.0.0", "short", "at least 16 signs"),
        ("127.0.0.1", "", "at least 16 signs"),
        ("127.0.0.1", [KEY, "short"], "at least 16 signs, found 5"),
        ("0.0.0.0", [], "a key must be asked for"),
    ],
)
def test_server_without_a_good_key_does_not_start(
    host: str, key: str | list[str] | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        serve("sqlite:///nowhere", None, host=host, port=0, api_key=key)
    assert "short'" not in str(raised.value)


def test_port_that_is_taken_is_named(server: Server) -> None:
    with pytest.raises(ConflictError, match=f"port {server.port} must be free"):
        serve("sqlite:///nowhere", None, port=server.port)


def test_schema_declares_every_status_and_the_key() -> None:
    schema = create_app("sqlite:///nowhere", None, api_key=KEY).openapi()
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert {"200", "400", "401", "413", "500", "503"} <= set(operation["responses"])
            assert bool(operation["security"]) == (path not in ("/health", "/ready"))
    assert "securitySchemes" not in create_app("sqlite:///x", None).openapi()["components"]


SCHEMA = schemathesis.openapi.from_dict(
    create_app("sqlite:///nowhere", None, api_key=KEY).openapi()
)
OPERATIONS = {
    one.label: one for one in (cast(Any, each).ok() for each in SCHEMA.get_all_operations())
}


@pytest.mark.parametrize("label", OPERATIONS)
def test_api_is_as_its_schema_says(server: Server, label: str) -> None:
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy())
    def ask(case: Any) -> None:
        case.call_and_validate(base_url=server.url, headers={"X-API-Key": KEY})

    ask()


def test_schema_is_json_that_others_can_read(client: httpx.Client) -> None:
    schema = json.loads(client.get("/openapi.json").text)
    assert set(schema["paths"]) == {
        "/recommendations/{user_id}", "/recommendations", "/similar/{item_id}", "/health", "/ready",
        "/version", "/metrics",
    }  # fmt: skip


def test_nothing_was_a_fault_of_the_servers(server: Server, tmp_path: Path) -> None:
    """Comes last: no request above was answered with 500, or with a status that nobody expects."""
    requests = [one for one in server.records() if one["message"] == "request"]
    assert len(requests) > 100
    assert {one["status"] for one in requests} <= STATUSES | {408}
    assert not [one for one in server.records() if one["level"] == "error"]
