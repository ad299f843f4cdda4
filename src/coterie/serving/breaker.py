"""What keeps requests from queueing for a database that is away."""

import logging
import math
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

    def check(self) -> None:
        """Spares a question the way to a database that was away a moment ago.

        Raises:
            UnavailableError: if it was, or if another question is trying it now.
        """
        if self._away and time.monotonic() < self._next_try:
            raise _unavailable()

    def ask(self, question: Callable[[], T]) -> T:
        """The answer.

        Raises:
            UnavailableError: if there was none, or none a moment ago.
        """
        self.check()
        # However long this one takes, no other tries meanwhile.
        self._next_try = math.inf
        failed: UnavailableError | None = None
        try:
            return question()
        except UnavailableError as error:
            failed = error
            raise _unavailable() from error
        finally:
            if self._away or failed is not None:
                self._learn(failed)

    def _learn(self, failed: UnavailableError | None) -> None:
        was_away, self._away = self._away, failed is not None
        self._next_try = time.monotonic() + RETRY_SECONDS
        if failed is not None:
            self._on_error()
        if failed is not None and not was_away:
            log.warning("the store is away: %s", failed)
        if failed is None and was_away:
            log.info("the store answers again")


def _unavailable() -> UnavailableError:
    return UnavailableError("the store must answer, it does not now; try again in a moment.")
