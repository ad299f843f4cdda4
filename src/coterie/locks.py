"""Locks between processes: whoever holds one and dies, however, has let go of it.

The package filelock holds them through the kernel's ``flock`` where there is one. A lock's file
stays: removing it would let a third process lock a file of the same name beside the second.
"""

from pathlib import Path

from filelock import FileLock, Timeout

from coterie.files import writing_to


def file_lock(path: Path) -> FileLock:
    """A lock that one process at a time holds, on machines that see the same file.

    Args:
        path: An empty file that stands for the lock; made when it is first taken.
    """
    # Not a lock a thread: one thread may begin what another ends.
    return FileLock(path, thread_local=False)


def try_lock(path: Path) -> FileLock | None:
    """The lock of `file_lock`, held, or None at once if another has it; its folder is made.

    Raises:
        CannotWriteError: if its file cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     held = try_lock(Path(folder) / "run.lock")
        ...     print(try_lock(Path(folder) / "run.lock"))
        ...     held.release()
        None
    """
    lock = file_lock(path)
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
    return lock
