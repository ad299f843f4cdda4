"""Threads that compute, and how many requests may wait for them."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class TooMany(Exception):
    """As many requests as may be are waiting."""


class Workers:
    """A few threads and a bounded line before them.

    Args:
        threads: That compute.
        places: For requests that are computed or wait.
    """

    def __init__(self, threads: int, places: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "coterie-model")
        self._places = threading.BoundedSemaphore(places)

    async def run(self, work: Callable[[], T]) -> T:
        """What the work comes to; cancelled before its turn it is never begun.

        Raises:
            TooMany: if there is no place.
        """
        if not self._places.acquire(blocking=False):
            raise TooMany
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Waits for what is under way."""
        self._pool.shutdown(cancel_futures=True)
