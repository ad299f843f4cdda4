"""The lock of a study's journal."""

import os
from pathlib import Path

from coterie.locks import file_lock


class JournalLock:
    """The lock of a journal of lines: whoever takes it first cuts off a last line that a kill left
    half-written.

    Optuna's own locks are files that a killed process leaves behind: everybody then waits thirty
    seconds or, where the journal's path is relative, for ever; and what is appended to half a line
    makes the journal unreadable. Optuna asks of a lock nothing but the two methods.

    Args:
        journal: The file of lines.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self._lock = file_lock(journal.with_name(journal.name + ".lock"))

    def acquire(self) -> bool:
        """Takes the lock, once it is free, and mends the journal."""
        self._lock.acquire()
        self._mend()
        return True

    def release(self) -> None:
        """Lets go of the lock."""
        self._lock.release()

    def _mend(self) -> None:
        with self.journal.open("rb+") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.truncate(self.journal.read_bytes().rfind(b"\n") + 1)
