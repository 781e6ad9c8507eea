"""`bittern serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bittern.cli.screen import err, licence_notice


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(serve)


def serve(
    archives: Annotated[list[Path], typer.Argument(help="Archive folders.")],
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to listen on; port 0 takes a free one.")
    ] = "127.0.0.1:50051",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Answer searches only; take no write lock.")
    ] = False,
    warm: Annotated[
        bool, typer.Option(help="Check the weights and load the text networks before starting.")
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not log every call.")] = False,
) -> None:
    """Serve archives over gRPC until stopped (Ctrl-C or SIGTERM).

    Example: bittern serve my-archive --listen 127.0.0.1:50051
    """
    import logging

    from bittern.errors import InvalidInputError
    from service.config import ServiceConfig
    from service.engine import Engine
    from service.server import serve as start

    logging.getLogger("bittern.service").setLevel(logging.WARNING if quiet else logging.INFO)
    engines: dict[str, Engine] = {}
    try:
        for path in archives:
            engine = Engine.open(path, write=not read_only)
            if engine.name in engines:
                engine.close()
                raise InvalidInputError(f"two of the archives are named '{engine.name}'")
            engines[engine.name] = engine
        for engine in engines.values():
            for encoder in sorted(engine.encoders()):
                licence_notice(encoder)
            if warm:
                engine.warm()
        server = start(engines, listen=listen, config=ServiceConfig())
        err.print(f"serving {', '.join(engines)} on {server.address}", markup=False)
        server.wait()
    finally:
        for engine in engines.values():
            engine.close()
