"""What takes long to read is read beside the pages, which say so meanwhile."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

_Value = TypeVar("_Value")


class Aside:
    """Values by name and mark, each read once in a thread of its own.

    Any number of threads may ask. What could not be read is read again when it is asked for again.

    Args:
        most: How many are kept; those that were asked for longest ago go.
        patience_seconds: How long who asks waits: what is read fast is there at once.

    Example:
        >>> aside = Aside(2, patience_seconds=10)
        >>> aside.get("a", 1, lambda: "read"), aside.get("a", 1, lambda: "again")
        ('read', 'read')
        >>> never = threading.Event()
        >>> print(Aside(2, patience_seconds=0).get("a", 1, never.wait))
        None
        >>> never.set()
    """

    def __init__(self, most: int, patience_seconds: float = 0.25) -> None:
        self._most, self._patience_seconds = most, patience_seconds
        self._values: dict[Hashable, tuple[Any, Future[Any]]] = {}
        self._lock = threading.Lock()

    def get(self, name: Hashable, mark: Any, read: Callable[[], _Value]) -> _Value | None:
        """The value; None while it is being read.

        Raises:
            Exception: that reading raised.
        """
        future = self._future(name, mark, read)
        try:
            return future.result(self._patience_seconds)  # type: ignore[no-any-return]
        except TimeoutError:
            return None
        except Exception:
            with self._lock:
                if self._values.get(name) == (mark, future):
                    del self._values[name]
            raise

    def _future(self, name: Hashable, mark: Any, read: Callable[[], _Value]) -> Future[Any]:
        with self._lock:
            there = self._values.pop(name, None)
            if there is None or there[0] != mark:
                there = mark, _begun(read)
            self._values[name] = there
            for old in list(self._values)[: -self._most]:
                del self._values[old]
        return there[1]


def _begun(read: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(read())
        except BaseException as error:
            future.set_exception(error)

    # A dashboard that is closed does not wait for it.
    threading.Thread(target=work, name="coterie-aside", daemon=True).start()
    return future
