"""The command line: a file a group of verbs; each verb parses, calls and prints.

Libraries are imported inside the verbs: ``--help`` should not wait two seconds for torch.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coterie.cli.start import app as app

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line; every error becomes a message and an exit code.

    Ctrl-C may come while the libraries of the command line itself are being loaded, a second of a
    busy machine.
    """
    try:
        from coterie.cli.start import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: stopped.\n")
        sys.exit(130)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from coterie.cli.start import app  # noqa: PLC0415

    return app
