"""A process that dies by SIGKILL between two of its own calls on files.

By the clock a kill mostly hits what takes long. What matters takes microseconds: a rename, a
transaction. So a process can be told to die at its n-th call on a file, whichever that is.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import coterie

_ON_FILES = {
    "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir",
    "os.link", "os.symlink", "os.truncate", "os.chmod", "shutil.rmtree", "shutil.copyfile",
    "sqlite3.connect",
}  # fmt: skip


def _is_on_files(event: str, arguments: tuple[object, ...]) -> bool:
    """Python's own files do not count: what is imported when is chance."""
    return event in _ON_FILES and not str(arguments[0]).startswith(_PYTHON)


_PYTHON = (sys.prefix, sys.base_prefix, str(Path(coterie.__file__).parent))


def forked(
    work: Callable[[], object], *, die_at: int | None = None, die_after: float | None = None
) -> bool:
    """Runs work in a forked process, which may die.

    Args:
        work: What to do; nothing of it comes back.
        die_at: At its n-th call on a file, counted from 0.
        die_after: After so many seconds.

    Returns:
        Whether the process came to the end of its work.
    """
    child = os.fork()
    if not child:
        _run(work, die_at)
    if die_after is not None:
        time.sleep(die_after)
        os.kill(child, signal.SIGKILL)
    _, state = os.waitpid(child, 0)
    if os.WIFSIGNALED(state):
        assert os.WTERMSIG(state) == signal.SIGKILL
    return state == 0


def _run(work: Callable[[], object], die_at: int | None) -> None:
    """Never returns: what is the parent's, such as its tests, does not go on here."""
    code = 1
    try:
        if die_at is not None:
            die_at_call(die_at)
        work()
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def count_calls(work: Callable[[], object]) -> int:
    """Does work in a forked process; how many calls on files it took."""
    read, write = os.pipe()

    def counted() -> None:
        calls = 0

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal calls
            calls += _is_on_files(event, arguments)

        sys.addaudithook(count)
        work()
        os.write(write, str(calls).encode())

    assert forked(counted)
    os.close(write)
    with os.fdopen(read) as told:
        return int(told.read())


def die_at_call(number: int) -> None:
    """From here on, this process dies at that call on a file, counted from 0."""
    left = number

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if _is_on_files(event, arguments):
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(count)
