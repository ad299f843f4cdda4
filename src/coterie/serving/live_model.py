"""Follows a registry's pointer: a new live model is loaded aside, then takes the old one's place.

The torch door of the room: the module that computes is imported by a thread, a moment after the
server has started, if there is a live model at all.
"""

import importlib
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coterie.errors import CoterieError, UnavailableError

if TYPE_CHECKING:
    from coterie.registry import Version
    from coterie.serving.fold_in import LoadedModel

log = logging.getLogger(__name__)

# A version that could not be loaded is tried again after this.
_AGAIN_SECONDS = 30.0


class LiveModel:
    """The live version of a registry, in memory.

    Args:
        registry: Its folder; None if there is to be no model.
        poll_seconds: Between two looks at the pointer, and before the first.
    """

    def __init__(self, registry: Path | None, poll_seconds: float) -> None:
        self._registry, self._poll_seconds = registry, poll_seconds
        self._loaded: LoadedModel | None = None
        self._why = "the model must be loaded, it is not yet; try again in a moment."
        if registry is None:
            self._why = "a registry of models must be named to the server, none is."
        self._failed: tuple[str, float] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="coterie-model", daemon=True)

    def start(self) -> None:
        """Begins to follow."""
        if self._registry is not None:
            self._thread.start()

    def stop(self) -> None:
        """Ends, after what is being loaded."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def loaded(self) -> "LoadedModel | None":
        """The model; a request that holds it keeps it, whatever is promoted meanwhile."""
        return self._loaded

    @property
    def why(self) -> str:
        """Why there is none."""
        return self._why

    def current(self) -> "LoadedModel":
        """The model.

        Raises:
            UnavailableError: if there is none.
        """
        if self._loaded is None:
            raise UnavailableError(self._why)
        return self._loaded

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self._look()
            except Exception as error:
                # Whatever it is, the server goes on with the model that it has.
                self._fail(error, "the registry")

    def _look(self) -> None:
        version = importlib.import_module("coterie.registry").Registry(self._registry).live
        if version is None:
            self._why = "a model must be live, none is; promote one."
        elif not (self._is_loaded(version.name) or self._failed_lately(version.name)):
            self._load(version)

    def _load(self, version: "Version") -> None:
        try:
            fold_in = importlib.import_module("coterie.serving.fold_in")
            self._loaded = fold_in.LoadedModel.load(version)
            log.info("the live model is loaded", extra={"version": version.name})
        except Exception as error:
            self._failed = version.name, time.monotonic()
            self._fail(error, f"version {version.name}")

    def _is_loaded(self, name: str) -> bool:
        return self._loaded is not None and self._loaded.version == name

    def _failed_lately(self, name: str) -> bool:
        if self._failed is None or self._failed[0] != name:
            return False
        return time.monotonic() - self._failed[1] < _AGAIN_SECONDS

    def _fail(self, error: Exception, what: str) -> None:
        why = f"{what} must be readable, it is not ({type(error).__name__}); see the server's log."
        if self._why != why:
            told = str(error) if isinstance(error, CoterieError | ImportError) else repr(error)
            log.error("%s cannot be read: %s", what, told)
        self._why = why
