"""The kinds of file that there are, and which one a name means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bittern.errors import PreconditionError, QueryError
from bittern.service.export.base import Writer
from bittern.service.export.inaturalist_ids import InaturalistIdsWriter
from bittern.service.export.json_texts import GeoJsonWriter, JsonLinesWriter
from bittern.service.export.raven import RavenWriter
from bittern.service.export.tables import CsvWriter, ParquetWriter

FOLDER = "folder"
"""Media with a manifest: the one kind that is not a file."""
WRITERS: Mapping[str, Writer] = {
    writer.name: writer
    for writer in (
        CsvWriter(),
        ParquetWriter(),
        JsonLinesWriter(),
        GeoJsonWriter(),
        RavenWriter(),
        InaturalistIdsWriter(),
    )
}
"""By name."""
FORMATS = (*WRITERS, FOLDER)


def format_of(to: str | Path, format_: str | None = None) -> str:
    """The kind that is meant: what was said, else what the name's ending says.

    Raises:
        QueryError: no such kind, or an ending that says nothing.
    """
    if format_ is not None:
        if format_ not in FORMATS:
            raise QueryError(
                f"there is no format {format_!r}; formats: {', '.join(FORMATS)}", field="format"
            )
        return format_
    if str(to).endswith(("/", "\\")):
        return FOLDER
    suffix = Path(to).suffix.lower()
    of_suffix = [name for name, writer in WRITERS.items() if writer.suffix == suffix]
    if len(of_suffix) == 1:
        return of_suffix[0]
    name = Path(to).name
    if of_suffix:
        raise QueryError(
            f"'{name}' may be one of several formats; say which: {', '.join(of_suffix)}",
            field="format",
        )
    endings = list(dict.fromkeys(writer.suffix for writer in WRITERS.values()))
    raise QueryError(
        f"'{name}' should end in one of {', '.join(endings)}, or in / for a folder with the media: "
        "that decides the format, unless it is named",
        field="to",
    )


def writer_of(format_: str) -> Writer:
    """The writer of a kind of file.

    Raises:
        PreconditionError: media with a manifest, which are no file.
        QueryError: no such kind.
    """
    if format_ == FOLDER:
        raise PreconditionError(
            "a folder with the media cannot be sent: export it on the machine that has the archive "
            "and the media, with bittern export ARCHIVE --to FOLDER/",
            field="format",
        )
    return WRITERS[format_of("", format_)]
