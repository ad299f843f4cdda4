"""Connections that threads share, one thread at a time."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from coterie.errors import UnavailableError


class _Connection(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Connection)


class Pool(Generic[C]):
    """Connections made when they are needed and kept for the next who asks.

    Args:
        connect: Makes one, which any thread may use.
        size: Of which one is lent at a time, at most.
        wait_seconds: How long one waits for a connection when all are lent.
    """

    def __init__(self, connect: Callable[[], C], size: int, wait_seconds: float) -> None:
        self._connect = connect
        self._idle: deque[C] = deque()
        self._free = threading.BoundedSemaphore(size)
        self._wait_seconds = wait_seconds
        # Connections of an earlier round are not taken back.
        self._round = 0

    @contextmanager
    def lend(self) -> Iterator[C]:
        """A connection for the block; one in which the block failed is closed.

        Raises:
            UnavailableError: if all are lent for too long.
        """
        if not self._free.acquire(timeout=self._wait_seconds):
            raise UnavailableError(
                f"a connection must come free within {self._wait_seconds:g} s, found all lent; ask"
                " with fewer threads, or find out what slows the database down."
            )
        try:
            began, connection = self._round, self._take()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._give_back(connection, began)
        finally:
            self._free.release()

    def clear(self) -> None:
        """Closes the idle connections, and those lent as they come back."""
        self._round += 1
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> C:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _give_back(self, connection: C, began: int) -> None:
        self._idle.append(connection)
        if began != self._round:
            self.clear()
