"""`bittern serve`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from bittern.cli.options import flag
from bittern.cli.output import licence_notice, note

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(?:([KMGT])(i?))?B?", re.IGNORECASE)


def serve(
    archives: Annotated[list[Path], typer.Argument(help="Archive folders.")],
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to listen on; port 0 chooses a free port.")
    ] = "127.0.0.1:50051",
    read_only: Annotated[
        bool, flag("--read-only", "Answer searches only; take no write lock.")
    ] = False,
    warm: Annotated[
        bool,
        flag("--warm/--no-warm", "Check the weights and load the text networks before starting."),
    ] = True,
    quiet: Annotated[bool, flag("--quiet", "Do not log every call.")] = False,
    engine: Annotated[
        str,
        typer.Option(help="Search engine: auto, flat, ivf or gpu; see `bittern stats`."),
    ] = "auto",
    recall: Annotated[
        float,
        typer.Option(
            help="Recall of searches that do not set one, above 0 to 1 (exact); less than 1 may be "
            "faster."
        ),
    ] = 1.0,
    search_threads: Annotated[
        int | None, typer.Option(help="Cores that one search may use; all of them by default.")
    ] = None,
    jobs_from: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FOLDER",
            help="Let clients submit jobs on media below this folder. Repeatable.",
        ),
    ] = None,
    gpu_memory: Annotated[
        int | None,
        typer.Option(
            parser=byte_count, metavar="SIZE", help="GPU memory for codes, e.g. 4GiB or 500MB."
        ),
    ] = None,
) -> None:
    """Serve archives over gRPC until stopped (Ctrl-C or SIGTERM).

    Example: bittern serve my-archive --listen 127.0.0.1:50051

    Example: bittern serve my-archive --engine flat --search-threads 1

    Example: bittern serve my-archive --jobs-from /data/camera-traps
    """
    import logging

    from bittern.errors import InvalidInputError, QueryError
    from bittern.query import SearchOptions
    from bittern.service.grpc.server import parse_listen
    from bittern.service.grpc.server import serve as start
    from bittern.service.jobs.serving import AllowedFolders, Jobs
    from bittern.service.limits import ServiceConfig
    from bittern.service.local.archive import LocalArchive

    logging.getLogger("bittern.service").setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        search = SearchOptions(
            engine=engine,  # type: ignore[arg-type]  # checked by SearchOptions
            recall=recall,
            threads=search_threads,
            gpu_memory=gpu_memory,
        )
    except QueryError as error:
        option = {"threads": "--search-threads"}.get(error.field, f"--{error.field}")
        said = error.message.removeprefix(error.field)
        raise QueryError(f"{option.replace('_', '-')}{said}", field=error.field) from None
    parse_listen(listen)
    if len({path.resolve() for path in archives}) < len(archives):
        raise InvalidInputError("an archive is given twice; name each once")
    allowed = AllowedFolders.parse(jobs_from or [])
    if read_only and jobs_from:
        raise InvalidInputError("--read-only and --jobs-from exclude each other: jobs write")
    engines: dict[str, LocalArchive] = {}
    try:
        for path in archives:
            opened = LocalArchive.open(path, write=not read_only, search=search)
            if opened.name in engines:
                opened.close()
                raise InvalidInputError(f"two of the archives are named '{opened.name}'")
            engines[opened.name] = opened
        for opened in engines.values():
            licence_notice(*opened.registry.encoders())
            if warm:
                opened.warm()
        if search.engine == "gpu":
            warn_without_gpu()
        jobs = None if read_only else Jobs.of(engines, allowed)
        server = start(engines, listen=listen, config=ServiceConfig(), jobs=jobs)
        line = f"serving {', '.join(sorted(engines))} on {server.address}"
        server.wait(lambda: note(line))
    finally:
        for opened in engines.values():
            opened.close()


def warn_without_gpu() -> None:
    """Warn in the log that no graphics card can be used."""
    import logging

    from bittern.index.engines.device_memory import available_device

    if available_device() is None:
        logging.getLogger("bittern.service").warning(
            "--engine gpu: no graphics card can be used; the CPU searches, with the same hits"
        )


def byte_count(text: str) -> int:
    """Bytes that a size such as ``4GiB``, ``500MB`` or ``1073741824`` means."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is not a size; write it like 4GiB, 500MB or 1073741824")
    number, prefix, binary = found.groups()
    power = " KMGT".index(prefix.upper()) if prefix else 0
    return int(float(number) * (1024 if binary else 1000) ** power)
