"""The verbs that answer over HTTP: the API, and the dashboard."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.console import say
from coterie.cli.places import existing
from coterie.cli.service import Day, day_of

if TYPE_CHECKING:
    from coterie.jobs.config import ServeConfig

verbs = typer.Typer()


@verbs.command()
def serve(
    service: Annotated[
        Path, typer.Argument(callback=existing, help="A service's folder, or its coterie.toml.")
    ],
    host: Annotated[
        str | None,
        typer.Option(help="Address in place of the file's; beyond loopback a key is needed."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port in place of the file's; 0 = free.")
    ] = None,
) -> None:
    """Answer over HTTP with published lists and the live model, until SIGTERM."""
    from coterie.jobs.config import Service  # noqa: PLC0415
    from coterie.serving import serve as serve_forever  # noqa: PLC0415

    found = Service.load(service)
    told = found.config.serve
    serve_forever(
        found.place(found.config.store.url),
        found.registry,
        host=told.host if host is None else host,
        port=told.port if port is None else port,
        api_key=_keys(told),
        limits=told.limits,
    )


@verbs.command()
def dashboard(
    folder: Annotated[
        Path,
        typer.Argument(callback=existing, help="A service's folder, or one that holds runs."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback a key is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = a free one.")] = 8081,
    day: Day = None,
) -> None:
    """Show a service, or runs, in a browser, until SIGTERM; it reads and changes nothing."""
    from coterie.dashboard import show_dashboard  # noqa: PLC0415
    from coterie.dashboard.sources import Sources  # noqa: PLC0415
    from coterie.jobs.config import ServeConfig  # noqa: PLC0415

    service = Sources.of(folder).service
    show_dashboard(
        folder,
        host=host,
        port=port,
        api_key=_keys(ServeConfig() if service is None else service.config.serve),
        today=None if day is None else day_of(day),
        ready=lambda address: say(f"open {address} in a browser; Ctrl-C ends it"),
    )


def _keys(told: "ServeConfig") -> list[str]:
    """Several, while clients move from one to the next."""
    return os.environ.get(told.key_variable, "").replace(",", " ").split()
