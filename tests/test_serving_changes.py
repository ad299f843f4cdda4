"""What changes under a running server: editions, models, the database, its own end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from conftest import running
from coterie.registry import Registry
from coterie.store import open_store
from serving_parts import Server, register, running_server
from store_contract import publish_marked


@contextmanager
def asking(server: Server, ask: Callable[[httpx.Client], Any]) -> Iterator[Counter[Any]]:
    """Four clients ask as fast as they can; what they got is counted."""
    stop, found = threading.Event(), Counter[Any]()

    def work() -> None:
        with server.client() as client:
            while not stop.is_set():
                found[ask(client)] += 1

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work) for _ in range(4)]
        try:
            yield found
        finally:
            stop.set()
        for worker in workers:
            worker.result()


def look_up(client: httpx.Client) -> str:
    """The edition, after a check that the list is all of it."""
    answer = client.get("/recommendations/4")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    mark = int(told["edition"][1:])
    expected = [
        {"item_id": 1000 * mark + item, "title": f"{mark}-{item}", "score": float(mark)}
        for item in range(5)
    ]
    assert (told["source"], told["items"]) == ("model", expected)
    return str(told["edition"])


def fold_in(client: httpx.Client) -> str:
    """The version, after a check that the titles are its own."""
    answer = client.post("/recommendations", json={"history": [1, 2, 3], "k": 5})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    marks = {one["title"].partition("-")[0] for one in told["items"]}
    assert marks == {told["model"][1:]}
    return str(told["model"])


def test_publishing_and_rolling_back_are_invisible_to_who_reads(
    store_url: str, tmp_path: Path
) -> None:
    with open_store(store_url) as store:
        publish_marked(store, 1)
        with running_server(store_url, tmp_path / "registry") as server:
            with asking(server, look_up) as found:
                for mark in range(2, 8):
                    publish_marked(store, mark)
                    time.sleep(0.1)
                store.point("e0003")
                time.sleep(0.3)
                publish_marked(store, 3)
                store.prune(2)
                store.point("e0007")
                time.sleep(0.3)
            with server.client() as client:
                assert look_up(client) == "e0007"
    assert {"e0003", "e0007"} <= set(found)


def test_promoting_is_invisible_to_who_folds_in(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    register(registry, 1)
    with running_server(f"sqlite:///{tmp_path}/store", registry) as server:
        server.wait_for_model("v1")
        with asking(server, fold_in) as found:
            register(registry, 2)
            server.wait_for_model("v2")
            Registry(registry).rollback(by="a test")
            server.wait_for_model("v1")
            Registry(registry).promote("v2", by="a test")
            server.wait_for_model("v2")
            time.sleep(0.2)
    assert set(found) == {"v1", "v2"}


def test_damaged_model_leaves_the_one_before_at_work(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    register(registry, 1)
    with running_server(f"sqlite:///{tmp_path}/store", registry) as server:
        server.wait_for_model("v1")
        register(registry, 2, live=False)
        version = Registry(registry).version("v2")
        (version.model / "weights.safetensors").write_bytes(b"{}")
        point(registry, "v2")
        assert "version v2 cannot be read" in wait_for_error(server)
        with server.client() as client:
            assert fold_in(client) == "v1"


def point(registry: Path, name: str) -> None:
    """Moves the pointer past the check that a promotion makes, as a disk fails after it."""
    told = json.loads((registry / "live.json").read_text(encoding="utf-8"))
    told["moves"].append({**told["moves"][-1], "to": name})
    (registry / "live.json").write_text(json.dumps(told), encoding="utf-8")


def wait_for_error(server: Server) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for one in server.records():
            if one["level"] == "error":
                return str(one["message"])
        time.sleep(0.05)
    raise AssertionError(server.log.read_text(encoding="utf-8"))


def test_database_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    with TemporaryDirectory(prefix="coterie-postgres-") as folder:
        place = Path(folder)
        with running(place) as url, open_store(url) as store:
            publish_marked(store, 1)
            given = running_server(url, tmp_path / "registry")
            server = given.__enter__()
            with server.client() as client:
                assert look_up(client) == "e0001"
        try:
            with server.client() as client:
                began = time.monotonic()
                for _ in range(20):
                    answer = client.get("/recommendations/4")
                    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                    assert folder not in answer.text
                assert time.monotonic() - began < 20
                assert client.get("/ready").status_code == 503
                assert client.get("/health").status_code == 200
                assert "coterie_store_up 0.0" in client.get("/metrics").text
                with running(place):
                    answered = client.get("/recommendations/4")
                    while answered.status_code == 503:
                        time.sleep(0.2)
                        answered = client.get("/recommendations/4")
                    assert look_up(client) == "e0001"
                    assert client.get("/ready").status_code == 200
            messages = [str(one["message"]) for one in server.records()]
            assert sum("the store is away" in one for one in messages) == 1
            assert messages.count("the store answers again") == 1
        finally:
            given.__exit__(None, None, None)


SLOW = """
import time
import coterie.serving.fold_in as fold_in

fast = fold_in.LoadedModel.recommend

def slow(self, request):
    time.sleep(0 if request.k == 1000 or request.k == 100 or request.k == 20 else 1.5)
    return fast(self, request)

fold_in.LoadedModel.recommend = slow
"""


@pytest.fixture
def slow_server(tmp_path: Path) -> Iterator[Server]:
    """One that takes 1.5 s for a list of 7 items, with one thread and two places in the line."""
    register(tmp_path / "registry", 1)
    limits = {"model_threads": 1, "model_waiting": 2, "request_seconds": 2.5}
    given = (f"sqlite:///{tmp_path}/store", tmp_path / "registry")
    with running_server(*given, before=SLOW, limits=limits) as server:
        server.wait_for_model()
        yield server


def ask_slowly(server: Server) -> int:
    with server.client() as client:
        return client.post("/recommendations", json={"history": [1], "k": 7}).status_code


def test_sigterm_lets_running_requests_finish(slow_server: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_slowly, slow_server)
        time.sleep(0.5)
        slow_server.process.send_signal(signal.SIGTERM)
        assert asked.result() == 200
    assert slow_server.process.wait(20) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(slow_server.url)


def test_line_before_the_model_is_bounded_and_so_is_the_wait(slow_server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        statuses = Counter(pool.map(ask_slowly, [slow_server] * 4))
    # One is answered, one waits longer than it may, for two there is no place.
    assert statuses == {200: 1, 503: 1, 429: 2}
    time.sleep(1.5)
    assert ask_slowly(slow_server) == 200


def test_look_ups_need_no_torch(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store"
    with open_store(url) as store:
        publish_marked(store, 1)
    register(tmp_path / "registry", 1)
    without = "sys.modules['torch'] = None"
    given = running_server(url, tmp_path / "registry", before=without)
    with given as server, server.client() as client:
        assert look_up(client) == "e0001"
        assert "version v1 cannot be read" in wait_for_error(server)
        answer = client.post("/recommendations", json={"history": [1]})
        assert answer.status_code == 503
        assert "version v1 must be readable" in answer.json()["detail"]
        assert client.get("/ready").status_code == 200


CONFIG = '[store]\nurl = "sqlite:///store"\n[serve]\nport = 0\n'


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """With an edition, and little patience for long bodies."""
    limits = "[serve.limits]\nbody_bytes = 2048\n"
    (tmp_path / "coterie.toml").write_text(CONFIG + limits, encoding="utf-8")
    with open_store(f"sqlite:///{tmp_path}/store") as store:
        publish_marked(store, 1)
    return tmp_path


@contextmanager
def served(service: Path, keys: str = "") -> Iterator[str]:
    """By the verb, which must end well."""
    command = [sys.executable, "-m", "coterie.cli", "--log-format", "json", "serve", str(service)]
    given = {**os.environ, "COTERIE_API_KEY": keys}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=given) as process:
        assert process.stderr is not None
        port = next(json.loads(line)["port"] for line in process.stderr if '"port"' in line)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_verb_serves_a_service_and_ends_well(service: Path) -> None:
    with served(service) as url, httpx.Client(base_url=url) as client:
        assert look_up(client) == "e0001"


def test_verb_takes_limits_from_the_file(service: Path) -> None:
    with served(service) as url:
        refused = httpx.post(f"{url}/recommendations", content=b" " * 2049)
    assert (refused.status_code, "at most 2,048 bytes" in refused.text) == (413, True)


OLD, NEW = "the-old-key-0123456789", "the-new-key-0123456789"


@pytest.mark.parametrize(
    ("keys", "accepted"),
    [(OLD, [OLD]), (f"{OLD},{NEW}", [OLD, NEW]), (f" {NEW}\n{OLD} , ", [OLD, NEW]), (NEW, [NEW])],
)
def test_keys_are_changed_in_three_steps(service: Path, keys: str, accepted: list[str]) -> None:
    with served(service, keys) as url:
        for key in (OLD, NEW, f"{OLD},{NEW}", ""):
            answer = httpx.get(f"{url}/recommendations/4", headers={"X-API-Key": key})
            assert answer.status_code == (200 if key in accepted else 401)


def test_verb_asks_for_a_key_beyond_loopback(tmp_path: Path) -> None:
    (tmp_path / "coterie.toml").write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "coterie.cli", "serve", str(tmp_path), "--host", "0.0.0.0"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "a key must be asked for" in " ".join(done.stderr.split())
