"""`bittern demo`: the whole job on the sample archive, over gRPC."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bittern.cli.output import command, err, hits_table, licence_notice, out

if TYPE_CHECKING:
    from bittern.api import ArchiveAPI

SAMPLE = Path(__file__).parents[1] / "sample"
"""85 photographs and 26 recordings with names, licences and credits in `manifest.csv`."""


@dataclass(frozen=True)
class DemoQuery:
    """One query to the sample archive: words, or the file of a recording."""

    words: str | None
    audio: str | None
    target: str

    def title(self) -> str:
        """The query in a few words."""
        query = f'"{self.words}"' if self.words else f"the sound of {Path(self.audio or '').name}"
        kind = "photographs" if self.target == "image" else "recordings"
        return f"{query} → {kind}"


QUERIES = (
    DemoQuery("an insect on a flower", None, "image"),
    DemoQuery("an owl calling at night", None, "audio"),
    DemoQuery(None, "audio/rooster-1.ogg", "image"),
)


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(demo)


def demo(
    archive: Annotated[
        Path, typer.Option(help="Folder of the sample archive; used again if it exists.")
    ] = Path("bittern-demo"),
) -> None:
    """Build the sample archive, search it three times over gRPC, print the hits.

    Example: bittern demo
    """
    from bittern.cli.job_screen import INTERRUPTED, print_report, run_with_bar
    from bittern.errors import DigestMismatchError
    from bittern.service.jobs.description import JobSpec

    licence_notice("field")
    spec = JobSpec(kind="index", target=str(archive), source=str(SAMPLE / "manifest.csv"))
    try:
        report = run_with_bar(spec, what="indexing")
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
    from bittern.client import connect
    from bittern.service.grpc.server import serve
    from bittern.service.limits import ServiceConfig
    from bittern.service.local.archive import LocalArchive

    engine = LocalArchive.open(archive)
    try:
        server = serve({engine.name: engine}, listen="127.0.0.1:0", config=ServiceConfig())
        try:
            err.print(f"serving {archive} on 127.0.0.1:{server.port} (gRPC)", markup=False)
            with connect(f"127.0.0.1:{server.port}", timeout_s=300.0) as client:
                for query in QUERIES:
                    _search(client, query)
        finally:
            server.stop(grace=5.0)
    finally:
        engine.close()


def _search(client: ArchiveAPI, query: DemoQuery) -> None:
    audio = SAMPLE / query.audio if query.audio else None
    result = client.search(query.words, audio=audio, target=query.target, k=5)
    out.print()
    out.print(hits_table(result, query.title()))


def _print_next_steps(archive: Path) -> None:
    bittern = command()
    folder = shlex.quote(str(archive))
    call = shlex.quote(os.path.relpath(SAMPLE / "audio" / "goose-1.ogg"))
    out.print()
    out.print(
        f"Licences and credits of all sample files: {SAMPLE / 'manifest.csv'}",
        markup=False,
        soft_wrap=True,
        style="dim",
    )
    out.print()
    out.print("Go on with", style="bold")
    for line in (
        f'{bittern} search {folder} "a colourful reef fish"',
        f"{bittern} search {folder} --audio {call} --target image",
        f"{bittern} serve {folder}",
        f'{bittern} search localhost:50051 "a hooting owl" --target audio',
        f"{bittern} index my-archive FOLDER-OR-MANIFEST.csv",
    ):
        out.print(f"  {line}", markup=False, soft_wrap=True)
