"""The API's answers, over real stores and a real registry, by a server in a process of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import coterie
from coterie.store import open_store
from serving_parts import KEY, Server, register, running_server, trained
from store_contract import catalogue, lists

TEXTS = lists(
    [
        {"items": [3, 2], "scores": [2.0, 1.0], "source": "popularity"},
        {"row": "movies", "items": [4], "scores": [1.0], "source": "popularity"},
        {"user_id": "ann", "items": [0, 1, 2, 3, 4], "scores": [5.0, 4.0, 3.0, 2.0, 1.0]},
        {"user_id": "ann", "row": "movies", "items": [2], "scores": [0.5]},
        {"user_id": "a/b ü", "items": [1], "scores": [1.0]},
        {"user_id": "ann", "row": "series", "items": [1], "scores": [1.0]},
        {"user_id": "cold", "items": [3], "scores": [2.0], "source": "popularity"},
    ]
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    url = f"sqlite:///{place}/store"
    with open_store(url) as store:
        store.publish("2027-01-15", catalogue(7), [TEXTS], {"version": "v1"})
    register(place / "registry", 1)
    with running_server(url, place / "registry", api_key=KEY) as started:
        started.wait_for_model()
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


def ids(answer: Any) -> list[Any]:
    return [one["item_id"] for one in answer["items"]]


def test_look_up_gives_the_published_list(client: httpx.Client) -> None:
    answer = client.get("/recommendations/ann?k=2")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "row": "main",
        "edition": "2027-01-15",
        "model": "v1",
        "experiment": None,
        "arm": None,
        "source": "model",
        "listed": 5,
        "items": [
            {"item_id": 7000, "title": "7-0", "score": 5.0},
            {"item_id": 7001, "title": "7-1", "score": 4.0},
        ],
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [7000, 7001, 7002, 7003, 7004]),
        ("k=1", [7000]),
        ("row=movies", [7002]),
        ("deny=7000&deny=7003&k=2", [7001, 7002]),
        ("allow=7003&allow=7001&allow=9", [7001, 7003]),
        ("allow=7003&allow=7001&deny=7001", [7003]),
        ("allow=", []),
    ],
)
def test_look_up_filters_the_published_list(
    client: httpx.Client, query: str, expected: list[int]
) -> None:
    assert ids(client.get(f"/recommendations/ann?{query}").json()) == expected


def test_any_text_is_a_user(client: httpx.Client) -> None:
    found = client.get("/recommendations/a%2Fb%20%C3%BC").json()
    assert (found["source"], ids(found)) == ("model", [7001])


def test_known_user_without_history_keeps_the_source_of_their_list(client: httpx.Client) -> None:
    assert client.get("/recommendations/cold").json()["source"] == "popularity"


@pytest.mark.parametrize(("row", "expected"), [("main", [7003, 7002]), ("movies", [7004])])
def test_unknown_user_gets_the_fall_back_marked(
    client: httpx.Client, row: str, expected: list[int]
) -> None:
    found = client.get(f"/recommendations/bob?row={row}").json()
    assert (found["source"], ids(found)) == ("fallback", expected)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/recommendations/ann?row=nope", 404, "row must be one of main, movies, series"),
        ("/recommendations/bob?row=series", 404, "a list for this user or a fall-back"),
        ("/recommendations/ann?k=1001", 422, "k: Input should be less than or equal to 1000"),
        ("/recommendations/ann?dney=7", 422, "dney: Extra inputs are not permitted"),
        ("/recommendations/", 422, "user_id"),
        ("/similar/4444", 404, "must be one of the model's"),
        ("/similar/3?k=none", 422, "k: Input should be a valid integer"),
        ("/nowhere", 404, "Not Found"),
    ],
)
def test_what_cannot_be_had_is_refused(
    client: httpx.Client, path: str, status: int, said: str
) -> None:
    answer = client.get(path)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text


@pytest.mark.parametrize(
    "wish",
    [
        {"history": [1, 2, 3], "k": 5},
        {"history": [1, "2", 3.0], "k": 30},
        {"history": [1, 2], "k": 5, "exclude_seen": False},
        {"history": [1, 2], "allow": [4, 5, 6, 2]},
        {"history": [1, 2], "deny": [19, 26], "k": 7},
        {"history": []},
    ],
)
def test_fold_in_is_what_the_model_ranks(client: httpx.Client, wish: dict[str, Any]) -> None:
    options = {name: value for name, value in wish.items() if name != "history"} or {"k": 20}
    expected = trained(1).recommend({"": wish["history"]}, **{"k": 20, **options}).for_user("")
    found = client.post("/recommendations", json=wish).json()
    assert found["model"] == "v1"
    assert found["source"] == ("model" if wish["history"] else "popularity")
    assert ids(found) == [one.item_id for one in expected]
    assert [one["title"] for one in found["items"]] == [one.title for one in expected]
    assert [one["score"] for one in found["items"]] == pytest.approx(
        [one.score for one in expected], rel=1e-6
    )


def test_list_is_empty_if_no_allowed_item_is_known(client: httpx.Client) -> None:
    wish = {"history": [1, "none"], "allow": ["nor this"]}
    empty = {"model": "v1", "source": "model", "unknown_items": ["none"], "items": []}
    assert client.post("/recommendations", json=wish).json() == empty


def test_batch_is_answered_in_order(client: httpx.Client) -> None:
    histories: list[list[int | str]] = [[1, 2], [], ["unknown", 5, "none"], [9]]
    many = client.post("/recommendations", json={"histories": histories, "k": 4}).json()
    one_by_one = [
        client.post("/recommendations", json={"history": had, "k": 4}).json() for had in histories
    ]
    assert many["model"] == "v1"
    for listed, alone in zip(many["lists"], one_by_one, strict=True):
        assert (listed["source"], ids(listed)) == (alone["source"], ids(alone))
    assert many["lists"][2]["unknown_items"] == ["unknown", "none"]
    assert client.post("/recommendations", json={"histories": []}).json()["lists"] == []


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({}, "history: Field required"),
        ({"history": [1], "histories": [[1]]}, "history: Extra inputs are not permitted"),
        ({"history": "1,2"}, "history: Input should be a valid array"),
        ({"history": [True]}, "history.0: Input should be a valid integer or"),
        ({"history": [2**63]}, "history.0: Input should be less than"),
        ({"history": ["x" * 1001]}, "at most 1000 characters"),
        ({"history": [1] * 10_001}, "at most 10000 items"),
        ({"histories": [[1]] * 101}, "at most 100 items"),
        ({"history": [1], "k": 0}, "k: Input should be greater than or equal to 1"),
        ({"history": [1], "k": "20"}, "k: Input should be a valid integer"),
        ({"history": [1], "allow": []}, "allow: List should have at least 1 item"),
        ({"history": [1.5]}, "a number must be whole"),
        ([1, 2], "the body: Input should be an object"),
    ],
)
def test_fold_in_says_what_is_wrong(client: httpx.Client, wish: Any, said: str) -> None:
    answer = client.post("/recommendations", json=wish)
    assert (answer.status_code, said in answer.json()["detail"]) == (422, True), answer.text


def test_similar_items_are_the_models(client: httpx.Client) -> None:
    expected = trained(1).similar_items(3, 4)
    found = client.get("/similar/3?k=4").json()
    assert found["model"] == "v1"
    assert ids(found) == [one.item_id for one in expected]
    assert found["items"][0]["cosine"] == pytest.approx(expected[0].cosine, abs=1e-6)


def test_state_is_told(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "alive"}
    rows = ["main", "movies", "series"]
    assert client.get("/ready").json() == {"edition": "2027-01-15", "rows": rows, "model": "v1"}
    versions = {"edition": "2027-01-15", "edition_model": "v1", "model": "v1"}
    assert client.get("/version").json() == {"coterie": coterie.__version__, **versions}


def test_meters_count_by_route_and_status(client: httpx.Client) -> None:
    client.get("/recommendations/secret-user?row=nope")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    labels = 'method="GET",route="/recommendations/{user_id}",status="404"'
    assert f"coterie_requests_total{{{labels}}}" in answer.text
    assert 'coterie_request_seconds_bucket{le="0.05",route="/recommendations"}' in answer.text
    assert 'coterie_edition_age_seconds{edition="2027-01-15"}' in answer.text
    assert 'coterie_model_age_seconds{version="v1"}' in answer.text
    assert "coterie_store_up 1.0" in answer.text
    assert "secret-user" not in answer.text


def test_log_holds_no_person(client: httpx.Client, server: Server) -> None:
    client.get("/recommendations/secret-user?deny=secret-item")
    client.post("/recommendations", json={"history": ["secret-item"], "k": "secret-k"})
    client.post("/recommendations", json={"history": ["secret-item"]})
    requests = [one for one in server.records() if one["message"] == "request"]
    assert {"route", "method", "status", "seconds"} < set(requests[-1])
    assert "secret" not in server.log.read_text(encoding="utf-8")


def test_server_without_lists_and_models_says_what_it_waits_for(tmp_path: Path) -> None:
    url, registry = f"sqlite:///{tmp_path}/store", tmp_path / "registry"
    with running_server(url, registry) as server, server.client() as client:
        for path in ("/ready", "/recommendations/ann"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "an edition must be live" in answer.json()["detail"]
        assert client.post("/recommendations", json={"history": [1]}).status_code == 503
        assert client.get("/version").json()["edition"] is None
        assert "coterie_store_up 0.0" in client.get("/metrics").text
        with open_store(url) as store:
            store.publish("e1", catalogue(7), [TEXTS], {})
        assert client.get("/ready").json()["edition"] == "e1"
        register(registry, 1, "popularity")
        server.wait_for_model()
        answer = client.get("/similar/3")
        assert (answer.status_code, "item" in answer.json()["detail"]) == (404, True), answer.text
