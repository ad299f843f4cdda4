"""What a forked process may do: compute with one thread.

Apart because it is about processes, not about models; whoever computes with torch on behalf of
callers that may fork imports it. OpenMP, whose threads torch and faiss compute with, does not
survive a fork: a child that was copied from a process with running threads waits for ever for
threads that were not copied with it. With one thread OpenMP starts none and waits for none.
"""

import os

import torch

from coterie.errors import ConfigError

_forked = False


def check_threads(number: int) -> int:
    """Returns a number of threads for torch, if this process may have as many.

    Raises:
        ConfigError: if it is more than one and the process was forked.

    Example:
        >>> check_threads(2)
        2
    """
    if _forked and number > 1:
        raise ConfigError(
            f"a forked process must compute with 1 thread, found {number}; start the process by"
            ' multiprocessing\'s "spawn" for more.'
        )
    return number


def _go_on_with_one_thread() -> None:
    global _forked  # noqa: PLW0603
    _forked = True
    # faiss's threads, too: both libraries compute with the OpenMP that torch has loaded.
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_go_on_with_one_thread)
