"""Questions that are asked together, by whoever came while others were under way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

# So that nobody waits long for what others asked.
_MOST = 64


class Together(Generic[Q, A]):
    """Gathers the questions of an event loop into rounds.

    A question begins a round, unless as many as may be are under way: then it waits for the next,
    with all that came meanwhile.

    Args:
        answer: Answers several questions, in their order.
        rounds: Under way at a time, at most.

    Example:
        >>> async def squares(numbers):
        ...     print("asked", numbers)
        ...     return [number * number for number in numbers]
        >>> async def three():
        ...     together = Together(squares, 1)
        ...     return await asyncio.gather(*map(together.ask, (3, 4, 5)))
        >>> asyncio.run(three())
        asked [3, 4, 5]
        [9, 16, 25]
    """

    def __init__(self, answer: Callable[[list[Q]], Awaitable[list[A]]], rounds: int) -> None:
        self._answer, self._rounds = answer, rounds
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._working: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """The answer. If a round fails, so does every question in it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, answer))
        if len(self._working) < self._rounds:
            # It begins when all that is ready now has run, and asked what it has to ask.
            self._working.add(loop.create_task(self._work()))
        return await answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                asked, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._round(asked)
        finally:
            self._working.discard(asyncio.current_task())

    async def _round(self, asked: list[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            found = await self._answer([question for question, _ in asked])
        except Exception as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for (_, answer), one in zip(asked, found, strict=True):
                # Whoever asked may have gone.
                if not answer.done():
                    answer.set_result(one)
