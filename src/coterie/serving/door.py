"""The application and the server, checked before they start. FastAPI is loaded here, if it is there
at all.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coterie.extras import require
from coterie.serving.access import check_host, checked_keys, listening
from coterie.serving.limits import Limits
from coterie.store import open_store

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)


def create_app(
    store_url: str,
    registry_folder: str | Path | None,
    *,
    api_key: str | Sequence[str] | None = None,
    limits: Limits | None = None,
) -> "FastAPI":
    """The API as an ASGI application.

    Nothing is read before it runs. A store or a registry that is not there yet is asked again until
    it is.

    Args:
        store_url: As `coterie.store.open_store` takes it.
        registry_folder: Of the models that fold in; None if there is to be no folding in.
        api_key: That every request must bring, but for ``/health`` and ``/ready``. Of several any
            one does, so that clients can move from an old key to a new one. None: no key.
        limits: What one client may ask.

    Raises:
        ConfigError: if the URL means no store, or the key is too short.
        MissingPackageError: if the extra ``serve`` is not installed.

    Example:
        >>> app = create_app("sqlite:///store", "registry")
        >>> sorted(app.openapi()["paths"])[:3]
        ['/health', '/metrics', '/ready']
    """
    for module in ("fastapi", "orjson", "prometheus_client"):
        require(module, "serve", "the HTTP API")
    # They import FastAPI, which may be missing.
    from coterie.serving.app import Parts, build  # noqa: PLC0415
    from coterie.serving.lists import Lists  # noqa: PLC0415
    from coterie.serving.live_model import LiveModel  # noqa: PLC0415
    from coterie.serving.meters import Meters  # noqa: PLC0415
    from coterie.serving.workers import Workers  # noqa: PLC0415

    given, meters = limits or Limits(), Meters()
    threads = 0 if store_url.startswith("sqlite:") else given.store_threads
    lists = Lists(open_store(store_url), threads, meters.store_errors.inc)
    folder = None if registry_folder is None else Path(registry_folder)
    model = LiveModel(folder, given.poll_seconds)
    workers = Workers(given.model_threads, given.model_waiting)
    return build(Parts(lists, model, workers, meters, given), checked_keys(api_key))


def serve(
    store_url: str,
    registry_folder: str | Path | None,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key: str | Sequence[str] | None = None,
    limits: Limits | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM, then finishes what it has begun to answer.

    Args:
        store_url: As in `create_app`.
        registry_folder: As in `create_app`.
        host: Address to listen on; beyond loopback a key is needed.
        port: 0 takes a free one, which the log tells.
        api_key: As in `create_app`.
        limits: As in `create_app`.

    Raises:
        ConfigError: as `create_app`, and if others could reach it without a key.
        ConflictError: if the port is taken.
    """
    given = limits or Limits()
    check_host(host, checked_keys(api_key))
    app = create_app(store_url, registry_folder, api_key=api_key, limits=given)
    require("uvicorn", "serve", "the HTTP API")
    # It imports uvicorn, which may be missing.
    from coterie.serving.server import run  # noqa: PLC0415

    with listening(host, port) as listener:
        address, number = listener.getsockname()[:2]
        log.info("serving on %s port %d", address, number, extra={"port": number})
        run(app, listener, given)
        log.info("stopped")
