"""A lock that outlives nobody: whoever holds it and dies, however, has let go of it."""

import fcntl
import os
from pathlib import Path


class FileLock:
    """Held by one process at a time, on machines that see the same file; the kernel lets go of it
    when the process ends.

    Args:
        path: An empty file that stands for the lock; made if missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self, *, wait: bool = True) -> bool:
        """Takes the lock; False if somebody has it and ``wait`` is false."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Lets go of the lock, if it is held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> "FileLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class JournalLock(FileLock):
    """The lock of a journal of lines: whoever takes it first cuts off a last line that a kill left
    half-written.

    Optuna's own locks are files that a killed process leaves behind: everybody then waits thirty
    seconds or, where the journal's path is relative, for ever; and what is appended to half a line
    makes the journal unreadable.

    Args:
        journal: The file of lines.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(journal.with_name(journal.name + ".lock"))
        self.journal = journal

    def acquire(self, *, wait: bool = True) -> bool:
        """Takes the lock and mends the journal."""
        held = super().acquire(wait=wait)
        if held:
            self._mend()
        return held

    def _mend(self) -> None:
        with self.journal.open("rb+") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.truncate(self.journal.read_bytes().rfind(b"\n") + 1)
