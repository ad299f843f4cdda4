"""Where errors become one line and an exit code, and where output survives any console.

Apart from the verbs because each of them relies on it: a verb may let any error pass.
"""

import codecs
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from rich.text import Text

from coterie.cli.console import err
from coterie.errors import (
    CannotWriteError,
    ConfigError,
    CoterieError,
    DataError,
    Interrupted,
    MissingPackageError,
    NotFoundError,
    UnavailableError,
)

DEBUG = "COTERIE_DEBUG"

_MEMORY = "free some memory, or ask for less at once"
_KINDS: dict[str, tuple[type[CoterieError], str]] = {
    "builtins.MemoryError": (UnavailableError, _MEMORY),
    "torch.OutOfMemoryError": (UnavailableError, _MEMORY),
    "duckdb.OutOfMemoryException": (UnavailableError, "raise --memory-limit, or free some memory"),
    "torch.AcceleratorError": (UnavailableError, "check the device, or use --device cpu"),
    "builtins.ConnectionError": (UnavailableError, "check the network and try again"),
    "builtins.TimeoutError": (UnavailableError, "check the network and try again"),
    "builtins.FileNotFoundError": (NotFoundError, "check the path"),
    "duckdb.IOException": (CannotWriteError, "check the disk, its rights and its room"),
    "builtins.OSError": (CannotWriteError, "check the path, its rights and the room on its disk"),
    "builtins.ModuleNotFoundError": (MissingPackageError, "install it"),
    "builtins.UnicodeError": (DataError, "text must be UTF-8; convert it"),
    "pyarrow.ArrowException": (DataError, "check the file"),
    "duckdb.Error": (DataError, "check the file and its columns"),
    "pydantic_core.ValidationError": (ConfigError, "see coterie config"),
}
"""Errors of the libraries beneath, by name: naming them must not load the libraries."""


def run(command: Callable[[], object]) -> int:
    """Runs ``command`` and returns its exit code; an error becomes a line on standard error.

    With the environment variable ``COTERIE_DEBUG`` its traceback is shown as well.
    """
    try:
        try:
            command()
        finally:
            sys.stdout.flush()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BrokenPipeError:
        _drop_output()  # whoever read it has left, and wants no message
        return 1
    except (Exception, KeyboardInterrupt) as error:
        return _report(error)
    return 0


def known(error: BaseException) -> CoterieError | None:
    """The error of Coterie's tree that stands for ``error``; None for one that nobody foresaw.

    Example:
        >>> known(FileNotFoundError(2, "No such file or directory", "a.csv"))
        NotFoundError("[Errno 2] No such file or directory: 'a.csv'; check the path.")
        >>> known(ZeroDivisionError())
    """
    if isinstance(error, CoterieError):
        return error
    text = str(error).strip()
    if isinstance(error, KeyboardInterrupt) or text == "Query interrupted":
        return Interrupted("stopped; nothing half-written was left behind.", signal.SIGINT)
    if isinstance(error, RuntimeError) and "allocate memory" in text:
        return UnavailableError(f"{text.splitlines()[0]}; {_MEMORY}.")
    for kind in type(error).__mro__:
        # The package alone: versions differ in which module of theirs defines a class.
        package = kind.__module__.partition(".")[0].lstrip("_")
        found = _KINDS.get(f"{package}.{kind.__name__}")
        if found is not None:
            return found[0](f"{' '.join(text.split()) or kind.__name__}; {found[1]}.")
    return None


def _report(error: BaseException) -> int:
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO):
        _drop_output()
    expected = known(error)
    message = str(expected) if expected else _unforeseen(error)
    # One write: processes that share a terminal, as torchrun's do, must not mix their lines.
    line = Text.assemble(("error:", "bold red"), " ", message)
    err.print(line, highlight=False, soft_wrap=True)
    return expected.exit_code if expected else CoterieError.exit_code


def _unforeseen(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (
        f"unexpected {type(error).__name__}{': ' if text else ''}{text}; this is a fault of"
        f" Coterie's. {DEBUG}=1 (or coterie --debug …) shows the traceback, to be reported."
    )


def _drop_output() -> None:
    """What standard output still holds goes nowhere: at exit Python would try once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_PLAIN = {
    "λ": "lambda",
    "β": "beta",
    "÷": "/",
    "×": "x",
    "±": "+-",
    "≥": ">=",
    "·": "*",
    "…": "...",
    "–": "-",
    "—": "-",
    "→": "->",
    "²": "^2",
    "•": "*",
}


def plain(error: UnicodeError) -> tuple[str, int]:
    r"""A codec's error handler: signs that a console lacks in plain words, others escaped.

    Example:
        >>> codecs.register_error("coterie.plain", plain)
        >>> "λ_A ≥ 0, 東".encode("ascii", "coterie.plain")
        b'lambda_A >= 0, \\u6771'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    written = (
        _PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs
    )
    return "".join(written), error.end


def survive_any_console() -> None:
    """Lets output pass through consoles and pipes that are not UTF-8."""
    codecs.register_error("coterie.plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="coterie.plain")
