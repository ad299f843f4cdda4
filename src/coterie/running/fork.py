"""What a forked process may do.

Apart because it is about processes, not about models. OpenMP, whose threads torch and faiss compute
with, does not survive a fork: a child that was copied from a process with running threads waits
for ever for threads that were not copied with it. With one thread OpenMP starts none and waits for
none, so a forked child goes on with one.
"""

import os
from collections.abc import Callable

import torch

from coterie.errors import ConfigError

_forked = False


def one_thread_in_children(set_threads: Callable[[int], None]) -> None:
    """From now on a child forked from this process calls ``set_threads(1)`` before anything else.

    Args:
        set_threads: Of a library whose threads do not survive a fork.

    Example:
        >>> one_thread_in_children(torch.set_num_threads)
    """
    os.register_at_fork(after_in_child=lambda: set_threads(1))


def check_threads(number: int) -> int:
    """Returns a number of threads for torch, if this process may have as many.

    Raises:
        ConfigError: if it is more than one and the process was forked.
    """
    if _forked and number > 1:
        raise ConfigError(
            f"a forked process must compute with 1 thread, found {number}; start the process by"
            ' multiprocessing\'s "spawn" for more.'
        )
    return number


def _note_the_fork() -> None:
    global _forked  # noqa: PLW0603
    _forked = True


os.register_at_fork(after_in_child=_note_the_fork)
one_thread_in_children(torch.set_num_threads)
