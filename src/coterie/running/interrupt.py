"""Stopping when asked, the same way for all long work: SIGINT and SIGTERM become `Interrupted`.

Work that must end between two steps, as a checkpoint is written there, takes a `StopRequest` and
checks it. All other work is ended where it is by `stoppable`, so that what it had open is closed.
Signals can only be caught in the main thread; elsewhere both change nothing.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from coterie.errors import CoterieError, Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, notes the first SIGINT or SIGTERM; a second one has its usual effect.

    Args:
        active: Whether to note anything.

    Example:
        >>> with StopRequest() as stop:
        ...     stop.check(lambda: "stopped in the middle.")
    """

    def __init__(self, *, active: bool = True) -> None:
        self.signal_number: int | None = None
        self._active = active and _is_main_thread()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if self._active:
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()

    def check(self, where: Callable[[], str]) -> None:
        """Ends the work here if that was asked for.

        Args:
            where: Says where the work stands and how to go on.

        Raises:
            Interrupted: if a signal has come.
        """
        if self.signal_number is not None:
            raise Interrupted(where(), self.signal_number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextmanager
def stoppable(where: Callable[[], str] | None = None) -> Iterator[None]:
    """SIGINT and SIGTERM end what is under way, at once; a `StopRequest` inside has precedence.

    Args:
        where: Says where the work stands and how to go on; without it, what stopped inside does.

    Raises:
        Interrupted: if a signal has come.

    Example:
        >>> with stoppable(lambda: "stopped."):
        ...     print("work")
        work
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {n: signal.signal(n, stop) for n in _SIGNALS} if _is_main_thread() else {}
    try:
        yield
    except Interrupted as error:
        if where is None:
            raise
        raise Interrupted(where(), error.signal_number) from error
    except BaseException as error:
        # Other libraries make errors of their own of it: DuckDB a RuntimeError.
        if isinstance(error, CoterieError) or not (
            received or isinstance(error, KeyboardInterrupt)
        ):
            raise
        message = "stopped." if where is None else where()
        raise Interrupted(message, received[-1] if received else signal.SIGINT) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
