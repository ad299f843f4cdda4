"""The application and its server, checked before they start. Starlette and Jinja2 are loaded here,
if they are there at all.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from coterie.dashboard.sources import Sources
from coterie.extras import require
from coterie.serving.access import check_host, checked_keys, listening
from coterie.serving.limits import Limits

if TYPE_CHECKING:
    from starlette.applications import Starlette

log = logging.getLogger(__name__)


def create_dashboard(
    folder: str | Path, *, api_key: str | Sequence[str] | None = None, today: date | None = None
) -> "Starlette":
    """The dashboard as an ASGI application.

    Args:
        folder: A service's, or one that holds runs.
        api_key: That a visitor must give; of several any one does. None: whoever is on this
            machine may look.
        today: As if it were this day (UTC).

    Raises:
        NotFoundError: if the folder is not there.
        ConfigError: if the service's file is wrong, or the key too short.
        MissingPackageError: if the extra ``dashboard`` is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     app = create_dashboard(folder)
        >>> sorted(route.path for route in app.routes)[0]
        '/'
    """
    for module in ("starlette", "jinja2"):
        require(module, "dashboard", "the dashboard")
    # They import Starlette and Jinja2, which may be missing.
    from coterie.dashboard.app import build  # noqa: PLC0415
    from coterie.dashboard.gate import Gate  # noqa: PLC0415

    return build(Sources.of(folder, today), Gate(checked_keys(api_key)))


def show_dashboard(
    folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8081,
    api_key: str | Sequence[str] | None = None,
    today: date | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Shows it until SIGINT or SIGTERM.

    Args:
        folder: As in `create_dashboard`.
        host: Address to listen on; beyond loopback a key is needed.
        port: 0 takes a free one.
        api_key: As in `create_dashboard`.
        today: As in `create_dashboard`.
        ready: Called with the address once it can be opened.

    Raises:
        ConfigError: as `create_dashboard`, and if others could reach it without a key.
        ConflictError: if the port is taken.
    """
    check_host(host, checked_keys(api_key))
    app = create_dashboard(folder, api_key=api_key, today=today)
    require("uvicorn", "dashboard", "the dashboard")
    # It imports uvicorn, which may be missing.
    from coterie.serving.server import run  # noqa: PLC0415

    with listening(host, port) as listener:
        address, number = listener.getsockname()[:2]
        named = f"[{address}]" if ":" in address else address
        log.info("showing on %s port %d", address, number, extra={"port": number})
        ready(f"http://{named}:{number}")
        run(app, listener, Limits())
