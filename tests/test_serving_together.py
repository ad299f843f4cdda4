"""Look-ups that go to the database together, and what keeps them from queueing for one away."""

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from coterie.errors import NotFoundError, UnavailableError
from coterie.serving import breaker
from coterie.serving.breaker import Breaker
from coterie.serving.together import Together
from coterie.store import Store
from serving_parts import running_server
from store_contract import catalogue, lists


class Slow:
    """Answers after some turns of the loop, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, numbers: list[int]) -> list[str]:
        self.asked.append(numbers)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        for _ in range(3):
            await asyncio.sleep(0)
        self.at_once -= 1
        if -1 in numbers:
            raise UnavailableError("away")
        return [str(number) for number in numbers]


async def ask_in_turns(together: Together[int, str], numbers: list[list[int]]) -> list[Any]:
    """What each question comes to; those of a list are asked in one turn of the loop."""
    asked: list[asyncio.Task[str]] = []
    for several in numbers:
        asked += [asyncio.create_task(together.ask(one)) for one in several]
        await asyncio.sleep(0)
    return await asyncio.gather(*asked, return_exceptions=True)


def test_questions_wait_for_the_next_round_and_share_it() -> None:
    slow = Slow()
    found = asyncio.run(ask_in_turns(Together(slow, 1), [[1, 2], [3], [4], [3]]))
    assert found == ["1", "2", "3", "4", "3"]
    assert slow.asked == [[1, 2], [3, 4, 3]]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_no_more_rounds_are_under_way_than_may_be(rounds: int) -> None:
    slow, numbers = Slow(), [[number] for number in range(50)]
    found = asyncio.run(ask_in_turns(Together(slow, rounds), numbers))
    assert found == [str(number) for number in range(50)]
    assert slow.most_at_once == rounds


def test_a_round_has_an_end() -> None:
    slow = Slow()
    found = asyncio.run(ask_in_turns(Together(slow, 1), [list(range(200))]))
    assert found == [str(number) for number in range(200)]
    assert [len(one) for one in slow.asked] == [64, 64, 64, 8]


def test_a_round_that_fails_fails_its_own_questions_alone() -> None:
    found = asyncio.run(ask_in_turns(Together(Slow(), 1), [[1, -1], [2]]))
    assert [type(one) for one in found] == [UnavailableError, UnavailableError, str]


async def _with_one_gone(together: Together[int, str]) -> list[str]:
    gone = asyncio.create_task(together.ask(1))
    others = [asyncio.create_task(together.ask(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    gone.cancel()
    return [*await asyncio.gather(*others), await together.ask(4)]


def test_who_no_longer_waits_holds_nobody_up() -> None:
    assert asyncio.run(_with_one_gone(Together(Slow(), 1))) == ["2", "3", "4"]


def away() -> None:
    raise UnavailableError("no answer.")


def test_while_one_question_tries_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes: also longer than the time between two tries."""
    monkeypatch.setattr(breaker, "RETRY_SECONDS", 0.05)
    failures: list[int] = []
    tried = Breaker(lambda: failures.append(1))

    def slowly() -> str:
        time.sleep(0.1)
        with pytest.raises(UnavailableError):
            tried.check()
        return "there"

    with pytest.raises(UnavailableError):
        tried.ask(away)
    with pytest.raises(UnavailableError):
        tried.check()
    time.sleep(0.06)
    assert tried.ask(slowly) == "there"
    tried.check()
    assert len(failures) == 1


def test_a_database_that_says_no_is_not_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> None:
        raise NotFoundError("none.")

    monkeypatch.setattr(breaker, "RETRY_SECONDS", 0.0)
    tried = Breaker(lambda: None)
    with pytest.raises(UnavailableError):
        tried.ask(away)
    with pytest.raises(NotFoundError):
        tried.ask(nothing)
    monkeypatch.setattr(breaker, "RETRY_SECONDS", 60.0)
    tried.check()


TABLE = lists(
    [
        {"items": [9], "scores": [1.0], "source": "popularity"},
        {"row": "movies", "items": [8], "scores": [1.0]},
        *({"user_id": n, "items": [n], "scores": [0.5]} for n in range(20)),
        *({"user_id": n, "row": "series", "items": [n + 20], "scores": [0.5]} for n in range(9)),
    ]
)


async def asked_at_once(url: str, paths: list[str]) -> list[httpx.Response]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        return await asyncio.gather(*map(client.get, paths))


def test_everybody_gets_what_they_asked_for(store: Store, store_url: str, tmp_path: Path) -> None:
    """Lists, fall-backs and refusals, asked for all at once, are as the store has them."""
    store.publish("1", catalogue(), [TABLE], {})
    users, rows = [*range(25), "x"], ["main", "movies", "series", "none"]
    paths = [f"/recommendations/{user}?row={row}" for user in users for row in rows]
    with running_server(store_url, tmp_path / "registry") as server:
        for _ in range(3):
            told = [
                (answer.status_code, answer.json())
                for answer in asyncio.run(asked_at_once(server.url, paths))
            ]
            for (status, answer), path in zip(told, paths, strict=True):
                assert (status, what(answer)) == expected(store, path), path


def what(answer: Any) -> Any:
    """Source and items, or why there are none."""
    if "detail" in answer:
        return answer["detail"].partition(", found")[0]
    return answer["source"], [one["item_id"] for one in answer["items"]]


def expected(store: Store, path: str) -> tuple[int, Any]:
    user, _, row = path.removeprefix("/recommendations/").partition("?row=")
    found, fallback = store.find(user, row), store.fallback(row)
    if found is not None:
        return 200, (found.source, found.item_ids)
    if fallback is not None:
        return 200, ("fallback", fallback.item_ids)
    if row in store.rows():
        return 404, "the card row must have a list for this user or a fall-back"
    return 404, "row must be one of main, movies, series"


def test_a_database_that_swallows_everything_holds_nobody_up(tmp_path: Path) -> None:
    """It takes connections and never answers: whoever comes while one tries it is told at once."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as hole:
        url = f"postgresql://ann@127.0.0.1:{hole.getsockname()[1]}/lists"
        with (
            running_server(url, tmp_path / "registry") as server,
            server.client() as client,
            ThreadPoolExecutor(1) as pool,
        ):
            assert client.get("/recommendations/1").status_code == 503
            time.sleep(1.1)
            trying = pool.submit(httpx.get, f"{server.url}/recommendations/1")
            time.sleep(0.3)
            while not trying.done():
                answer = client.get("/recommendations/2")
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert answer.elapsed.total_seconds() < 1
                time.sleep(0.1)
            assert trying.result().status_code == 503
