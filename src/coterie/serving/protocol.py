"""uvicorn's connection, with two bounds that it lacks: how long a request's head may be, and how
long it may take to come.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from coterie.serving.limits import Limits


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed if it sends a head that is too long, or none in time."""

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock."""
        super().connection_made(transport)
        self._clock: asyncio.TimerHandle | None = None
        # Bytes since the read in which the head began; None between two heads.
        self._head_bytes: int | None = None
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops it."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts, as long as the head is not whole."""
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                self.send_400_response("The request's line and headers are too long.")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Another request on the same connection has the same time."""
        super().on_message_begin()
        self._head_bytes = 0
        if self._clock is None:
            self._start_clock()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._head_bytes = None
        self._stop_clock()
        super().on_headers_complete()

    def _start_clock(self) -> None:
        self._clock = self.loop.call_later(self.limits.head_seconds, self._close)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _close(self) -> None:
        self._clock = None
        self.transport.close()


def bounded(limits: Limits) -> type[Any]:
    """The connections of a server with these limits."""
    return type("Bounded", (BoundedProtocol,), {"limits": limits})
