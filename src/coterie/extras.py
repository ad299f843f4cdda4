"""Optional packages: imported where they are needed, asked for by name where they are missing."""

import importlib
import warnings
from typing import Any

from coterie.errors import MissingPackageError


def require(module: str, extra: str, purpose: str) -> Any:
    """Imports an optional module.

    Args:
        module: As in ``import``: ``"faiss"``, ``"implicit.cpu.als"``.
        extra: Of Coterie, that installs it.
        purpose: What needs it, for the message: ``"approximate search"``.

    Raises:
        MissingPackageError: if it is not installed, saying how to install it.

    Example:
        >>> require("no_such_module", "ann", "approximate search")
        Traceback (most recent call last):
        ...
        coterie.errors.MissingPackageError: approximate search needs the package no_such_module; ...
    """
    try:
        with warnings.catch_warnings():
            # Deprecations inside a package are of no concern to whoever uses it through Coterie.
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingPackageError(
            f"{purpose} needs the package {package}; pip install 'coterie[{extra}]'."
        ) from error
