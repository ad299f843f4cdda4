"""Every error Coterie raises on purpose, drawn as one tree.

    CoterieError
    ├── ConfigError              2  an option or field that cannot be honoured
    │   ├── MissingPackageError  2  … because an optional package is not installed
    │   └── ConflictError        7  … because something else is there, or at work there
    ├── DataError                3  a log, data set or history that breaks its rules
    │   └── SourceError          3  … at a known file and, where there is one, line
    │       └── EmptySourceError 3  … that is there, and holds nothing
    ├── ArtifactError            4  a saved model, checkpoint or data set that is damaged
    ├── NumericalError           5  a value that stopped being finite
    ├── NotFoundError            6  what was named (a file, a run, a user, an item) does not exist
    ├── UnavailableError         8  a service or a device that cannot be reached now
    ├── CannotWriteError         9  a place that cannot be written: no rights, no room
    └── Interrupted          128+n  a stop that was asked for; what was done so far is on disk

A message says what must hold, what was found and what to do. Each class carries the exit code of
the command line, so that a script can tell a bad option from bad data, and a scheduler what is
worth another try.
"""

from pathlib import Path


class CoterieError(Exception):
    """Root of the tree: catch it to catch everything raised on purpose.

    Example:
        >>> try:
        ...     raise NotFoundError("no such run; look for it with coterie show.")
        ... except CoterieError as error:
        ...     print(error, error.exit_code)
        no such run; look for it with coterie show. 6
    """

    exit_code = 1


class ConfigError(CoterieError):
    """An option or configuration field has a value that cannot be honoured.

    Example:
        >>> from coterie.models.ease import EaseConfig
        >>> EaseConfig(l2=-1)
        Traceback (most recent call last):
        ...
        coterie.errors.ConfigError: ...
    """

    exit_code = 2


class MissingPackageError(ConfigError):
    """A feature needs a package that is not installed.

    Example:
        >>> issubclass(MissingPackageError, ConfigError), MissingPackageError.exit_code
        (True, 2)
    """


class ConflictError(ConfigError):
    """Something else is where this should go, or another process is at work there.

    Example:
        >>> ConflictError.exit_code  # another try, later or elsewhere, may help
        7
    """

    exit_code = 7


class DataError(CoterieError):
    """A log, a data set or a history breaks a rule.

    Example:
        >>> DataError.exit_code  # mend the log; the same again fails again
        3
    """

    exit_code = 3


class SourceError(DataError):
    """A source file cannot be read as its format demands.

    Args:
        problem: What must hold, what was found, what to do.
        path: The file at fault.
        line: 1-based line of the first fault, where the format has lines.

    Example:
        >>> error = SourceError("a rating must be a number, found 'x'.", "plays.csv", line=7)
        >>> print(error)
        plays.csv:7: a rating must be a number, found 'x'.
    """

    def __init__(self, problem: str, path: str | Path, line: int | None = None) -> None:
        self.problem = problem
        self.path = str(path)
        self.line = line
        place = self.path if line is None else f"{self.path}:{line}"
        super().__init__(f"{place}: {problem}")


class EmptySourceError(SourceError):
    """A source is there and holds no row, or no file."""


class ArtifactError(CoterieError):
    """A saved model, checkpoint or data set is damaged, incomplete or of an unknown schema.

    Example:
        >>> ArtifactError.exit_code  # restore it, or make it anew
        4
    """

    exit_code = 4


class NumericalError(CoterieError):
    """A loss, a weight or a score stopped being finite.

    Example:
        >>> NumericalError.exit_code  # a smaller learning rate
        5
    """

    exit_code = 5


class NotFoundError(CoterieError):
    """What was named does not exist: a file, a folder, a run, a model, a user, an item.

    Example:
        >>> from coterie.ranking.histories import Histories
        >>> Histories.of({"ann": [1, 2]}).of_users(["bob"])
        Traceback (most recent call last):
        ...
        coterie.errors.NotFoundError: ...
    """

    exit_code = 6


class UnavailableError(CoterieError):
    """A service, a store or a device cannot be reached now; the same may work later.

    Example:
        >>> UnavailableError.exit_code  # the same may work later
        8
    """

    exit_code = 8


class CannotWriteError(CoterieError):
    """A result cannot be written where it should go: no rights, no room, no such disk.

    Example:
        >>> CannotWriteError.exit_code  # make room, or write elsewhere
        9
    """

    exit_code = 9


class GateError(CoterieError):
    """A model did not pass a gate and was not made live."""

    exit_code = 10


class WarningsError(CoterieError):
    """Something works and is not as it should be: for monitors."""

    exit_code = 11


class Interrupted(CoterieError):
    """Work stopped because it was asked to; what is on disk resumes it.

    Args:
        message: Where the work stands and how to go on.
        signal_number: The signal that asked for the stop (2 = SIGINT, 15 = SIGTERM).

    Example:
        >>> Interrupted("stopped after epoch 3; --resume goes on.", 15).exit_code
        143
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
