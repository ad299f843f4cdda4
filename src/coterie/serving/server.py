"""uvicorn, set up: one process, one event loop, bounded connections, its faults in our log."""

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from coterie.serving.limits import Limits
from coterie.serving.protocol import bounded

if TYPE_CHECKING:
    from starlette.applications import Starlette

log = logging.getLogger(__name__)


class _Ours(logging.Handler):
    """Hands uvicorn's records on to our log, whose format they then have."""

    def emit(self, record: logging.LogRecord) -> None:
        log.handle(record)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends well upon SIGINT and SIGTERM; uvicorn's own way raises them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(app: "Starlette", listener: socket.socket, limits: Limits) -> None:
    """Serves on a socket until it is told to stop."""
    theirs = logging.getLogger("uvicorn.error")
    theirs.handlers, theirs.propagate = [_Ours()], False
    theirs.setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=bounded(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=round(limits.stop_seconds),
    )
    _Server(config).run(sockets=[listener])
