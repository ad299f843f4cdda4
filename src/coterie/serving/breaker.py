"""What keeps requests from queueing for a database that is away."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from coterie.errors import UnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 1.0


class Breaker:
    """While a database is away one call a second tries it; all others learn so at once.

    Any thread may use it. What failed, with the database's address, is for the log alone.

    Args:
        on_error: Called at each failure of the database itself.

    Example:
        >>> def away():
        ...     raise UnavailableError("no answer.")
        >>> breaker = Breaker(lambda: print("noted"))
        >>> for question in (away, lambda: 7):
        ...     try:
        ...         breaker.ask(question)
        ...     except UnavailableError as error:
        ...         print(error)
        noted
        the store must answer, it does not now; try again in a moment.
        the store must answer, it does not now; try again in a moment.
    """

    def __init__(self, on_error: Callable[[], None]) -> None:
        self._on_error = on_error
        self._away = False
        self._next_try = 0.0

    def ask(self, question: Callable[[], T]) -> T:
        """The answer.

        Raises:
            UnavailableError: if there was none, or none a moment ago.
        """
        if self._away:
            if time.monotonic() < self._next_try:
                raise _unavailable()
            self._next_try = time.monotonic() + RETRY_SECONDS
        try:
            answer = question()
        except UnavailableError as error:
            self._fail(error)
            raise _unavailable() from error
        if self._away:
            self._away = False
            log.info("the store answers again")
        return answer

    def _fail(self, error: UnavailableError) -> None:
        if not self._away:
            log.warning("the store is away: %s", error)
        self._away, self._next_try = True, time.monotonic() + RETRY_SECONDS
        self._on_error()


def _unavailable() -> UnavailableError:
    return UnavailableError("the store must answer, it does not now; try again in a moment.")
