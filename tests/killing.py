"""A process that dies by SIGKILL between two of its own calls on files.

By the clock a kill mostly hits what takes long. What matters takes microseconds: a rename, a
transaction. So a process can be told to die at its n-th call on a file, whichever that is.
"""

import os
import signal
import sys
from collections.abc import Callable

_ON_FILES = {
    "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir",
    "os.link", "os.symlink", "os.truncate", "os.chmod", "shutil.rmtree", "shutil.copyfile",
    "sqlite3.connect",
}  # fmt: skip


def forked(work: Callable[[], object], die_at: int | None = None) -> bool:
    """Runs work in a forked process, which dies at its n-th call on a file.

    Args:
        work: What to do; nothing of it comes back.
        die_at: Counted from 0; None to live.

    Returns:
        Whether the process came to its end.
    """
    child = os.fork()
    if not child:
        _run(work, die_at)
    _, state = os.waitpid(child, 0)
    if os.WIFSIGNALED(state):
        assert os.WTERMSIG(state) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(state) == 0
    return True


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


def die_at_call(number: int) -> None:
    """From here on, this process dies at that call on a file, counted from 0."""
    left = number

    def count(event: str, _arguments: object) -> None:
        nonlocal left
        if event in _ON_FILES:
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(count)
