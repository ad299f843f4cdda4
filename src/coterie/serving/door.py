"""The application and the server, checked before they start. FastAPI is loaded here, if it is there
at all.
"""

import ipaddress
import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coterie.errors import ConfigError, ConflictError
from coterie.extras import require
from coterie.serving.limits import Limits
from coterie.store import open_store

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

_SHORTEST_KEY = 16


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
    return build(Parts(lists, model, workers, meters, given), _checked_keys(api_key))


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
    _check_host(host, _checked_keys(api_key))
    app = create_app(store_url, registry_folder, api_key=api_key, limits=given)
    require("uvicorn", "serve", "the HTTP API")
    # It imports uvicorn, which may be missing.
    from coterie.serving.server import run  # noqa: PLC0415

    with _listening(host, port) as listener:
        address, number = listener.getsockname()[:2]
        log.info("serving on %s port %d", address, number, extra={"port": number})
        run(app, listener, given)
        log.info("stopped")


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ConflictError(
            f"{host} port {port} must be free to listen on, found: {error}; choose another."
        ) from error


def _check_host(host: str, keys: Sequence[str]) -> None:
    if not keys and not _is_loopback(host):
        raise ConfigError(
            f"beyond this machine a key must be asked for, found none for {host!r:.60}; set the"
            " variable of the key, or listen on 127.0.0.1."
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_keys(given: str | Sequence[str] | None) -> list[str]:
    keys = [given] if isinstance(given, str) else list(given or ())
    shortest = min(map(len, keys), default=_SHORTEST_KEY)
    if shortest >= _SHORTEST_KEY:
        return keys
    # Not the key itself.
    raise ConfigError(
        f"a key must have at least {_SHORTEST_KEY} signs, found {shortest}; choose a longer one, as"
        " from openssl rand -hex 32."
    )
