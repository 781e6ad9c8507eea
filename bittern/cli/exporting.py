"""`bittern export`, and what `bittern search --output` shares with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bittern.cli.output import err, plain, progress
from bittern.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bittern.api import ArchiveAPI
    from bittern.types import Exported, SearchResult

FORMAT_HELP = (
    "csv, parquet, jsonl, geojson, raven (selection table), ids (iNaturalist numbers) or folder "
    "(media with a manifest). By default the ending of the name decides."
)


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(export)


def export(
    archive: Annotated[str, typer.Argument(help="Archive folder, or HOST:PORT of a server.")],
    output: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="File to write: .csv, .parquet, .jsonl, .geojson or .txt; or a new folder, with "
            "a / at the end.",
        ),
    ],
    where: Annotated[str | None, typer.Option(help="SQL condition over metadata columns.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help=FORMAT_HELP)] = None,
    name: Annotated[
        str, typer.Option("--archive", help="Name of the archive, if a server has several.")
    ] = "",
    snapshot: Annotated[str | None, typer.Option(help="Name of a snapshot to export.")] = None,
    media: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="For a folder: copy only media below FOLDER. Repeatable.",
        ),
    ] = None,
) -> None:
    """Write the observations of an archive, with their metadata, to a file.

    Parquet holds the codes as well. A selection table of Raven holds windows of recordings only.
    A folder holds copies of the media and a manifest, which `bittern index` reads again.

    An archive says where its media are. If you did not make it yourself, limit with --media the
    folders that may be copied from.

    Example: bittern export my-archive --output observations.csv --where "license = 'CC0-1.0'"

    Example: bittern export my-archive --output owls/ --where "taxon('Strigidae')"

    Example: bittern export localhost:50051 --output calls.txt --format raven
    """
    with _opened(archive, name, snapshot) as opened:
        written(opened, output, format_, where=where, media=media or ())


def written(
    opened: ArchiveAPI,
    to: str,
    format_: str | None,
    *,
    where: str | None = None,
    hits: SearchResult | None = None,
    media: Sequence[Path] = (),
) -> None:
    """Export with a progress bar, and print a summary."""
    bar, task = progress("exporting", 0)
    with bar:
        done = opened.export(
            to,
            format=format_,
            where=where,
            hits=hits,
            media=media,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total or None),
        )
    err.print(plain(summary(done, to)), soft_wrap=not err.is_terminal)


def summary(done: Exported, to: str) -> str:
    """``owls.txt: 12 observations; 3 skipped (not iNaturalist records)``."""
    folder = done.format == "folder"
    what = counted(done.observations, "file") if folder else counted(done.observations, _SEEN)
    line = f"{to}: {what}"
    if done.left_out:
        line += f"; {done.left_out} skipped{_WHY.get(done.format, '')}"
    if done.missing:
        line += f"; {done.missing} missing, listed in {Path(to) / 'missing.csv'}"
    if done.copied_from:
        shown = ", ".join(done.copied_from[:_ROOTS_SHOWN])
        more = len(done.copied_from) - _ROOTS_SHOWN
        line += f"; copied from {shown}{f' and {more} other folders' if more > 0 else ''}"
    return line


_ROOTS_SHOWN = 5
_SEEN = "observation"
_WHY = {"raven": " (no windows of recordings)", "ids": " (not iNaturalist records)"}


def _opened(archive: str, name: str, snapshot: str | None) -> ArchiveAPI:
    """The archive; a local one without loading what only searches need."""
    import bittern
    from bittern.cli.options import reach

    if Path(archive).exists():
        return bittern.open(archive, snapshot=snapshot)
    return reach(archive, name, snapshot=snapshot)
