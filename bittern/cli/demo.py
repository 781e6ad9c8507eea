"""`bittern demo`: the whole job on the sample archive, over gRPC."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from bittern.cli.job_screen import print_report, run_with_bar
from bittern.cli.output import (
    INTERRUPTED,
    command,
    copyable,
    licence_notice,
    note,
    show,
    show_hits,
)

SAMPLE = Path(__file__).parents[1] / "sample"
"""85 photographs and 26 recordings with names, licences and credits in `manifest.csv`."""


QUERIES: dict[str, dict[str, Any]] = {
    '"an insect on a flower" → photographs': {
        "text": "an insect on a flower",
        "target": "image",
    },
    '"an owl calling at night" → recordings': {
        "text": "an owl calling at night",
        "target": "audio",
    },
    "the sound of rooster-1.ogg → photographs": {
        "audio": SAMPLE / "audio" / "rooster-1.ogg",
        "target": "image",
    },
}
"""Title and arguments of each query to the sample archive."""


def demo(
    archive: Annotated[
        Path, typer.Option(help="Folder of the sample archive; used again if it exists.")
    ] = Path("bittern-demo"),
) -> None:
    """Build the sample archive, search it three times over gRPC, print the hits.

    Example: bittern demo
    """
    from bittern.errors import DigestMismatchError
    from bittern.service.jobs.description import JobSpec

    licence_notice("field")
    spec = JobSpec(kind="index", target=str(archive), source=str(SAMPLE / "manifest.csv"))
    try:
        report = run_with_bar(spec, "indexing")
    except DigestMismatchError as error:
        raise DigestMismatchError(
            f"the sample archive at {archive} was made by another version of Bittern, whose codes "
            "differ; remove that folder and run the demo again"
        ) from error
    print_report(archive, report)
    if report.state == "stopped":
        raise typer.Exit(INTERRUPTED)
    _search_over_grpc(archive)
    _print_next_steps(archive)


def _search_over_grpc(archive: Path) -> None:
    import bittern
    from bittern.service.grpc.server import serve

    with bittern.open(archive) as local, serve({local.name: local}, listen=":0") as server:
        note(f"serving {archive} on {server.address} (gRPC)")
        with bittern.connect(server.address, timeout_s=300.0) as client:
            for title, query in QUERIES.items():
                show()
                show_hits(client.search(**query, k=5), title)


def _print_next_steps(archive: Path) -> None:
    bittern = command()
    folder = shlex.quote(str(archive))
    call = shlex.quote(os.path.relpath(SAMPLE / "audio" / "goose-1.ogg"))
    show()
    show(f"Licences and credits of all sample files: {SAMPLE / 'manifest.csv'}", style="dim")
    show()
    show("Go on with", style="bold")
    for line in (
        f'{bittern} search {folder} "a colourful reef fish"',
        f"{bittern} search {folder} --audio {call} --target image",
        f"{bittern} serve {folder}",
        f'{bittern} search localhost:50051 "a hooting owl" --target audio',
        f"{bittern} index my-archive FOLDER-OR-MANIFEST.csv",
    ):
        show(copyable(f"  {line}"))
