"""The verb that serves."""

import os
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli.places import existing

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
        # Several, while clients move from one to the next.
        api_key=os.environ.get(told.key_variable, "").replace(",", " ").split(),
        limits=told.limits,
    )
