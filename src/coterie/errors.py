"""Every error Coterie raises on purpose, drawn as one tree.

    CoterieError
    ├── ConfigError        an option or configuration field that cannot be honoured
    ├── DataError          a log, data set or history that breaks its rules
    │   └── SourceError    … at a known file and, where there is one, line
    ├── ArtifactError      a saved model, checkpoint or data set that is damaged or from another
    schema ├── NumericalError     a value that stopped being finite
    └── Interrupted        a stop that was asked for; what was done so far is on disk

A message says what must hold, what was found and what to do. Each class carries the exit code of
the command line, so that a script can tell a bad option from bad data.
"""

from pathlib import Path


class CoterieError(Exception):
    """Root of the tree: catch it to catch everything raised on purpose."""

    exit_code = 1


class ConfigError(CoterieError):
    """An option or configuration field has a value that cannot be honoured."""

    exit_code = 2


class DataError(CoterieError):
    """A log, a data set or a history breaks a rule."""

    exit_code = 3


class SourceError(DataError):
    """A source file cannot be read as its format demands.

    Args:
        problem: What must hold, what was found, what to do.
        path: The file at fault.
        line: 1-based line of the first fault, where the format has lines.
    """

    def __init__(self, problem: str, path: str | Path, line: int | None = None) -> None:
        self.path = str(path)
        self.line = line
        place = self.path if line is None else f"{self.path}:{line}"
        super().__init__(f"{place}: {problem}")


class ArtifactError(CoterieError):
    """A saved model, checkpoint or data set is damaged, incomplete or of an unknown schema."""

    exit_code = 4


class NumericalError(CoterieError):
    """A loss, a weight or a score stopped being finite."""

    exit_code = 5


class Interrupted(CoterieError):
    """Work stopped because it was asked to; what is on disk resumes it.

    Args:
        message: Where the work stands and how to go on.
        signal_number: The signal that asked for the stop (2 = SIGINT, 15 = SIGTERM).
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
