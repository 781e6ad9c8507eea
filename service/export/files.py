"""Writes exported files chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bittern.errors import QueryError
from bittern.files import check_output_file, writing_file
from bittern.service.export.rows import ExportRows
from bittern.service.export.writers import FOLDER, Writer, format_of
from bittern.types import Exported, ExportOptions

MAX_CHUNK_BYTES = 1 << 20
"""Most bytes of one chunk."""
OnProgress = Callable[[int, int], None]
"""Called with the number of observations so far, and in all."""


class FileChunk(NamedTuple):
    """The next bytes of a file, and the progress so far.

    Attributes:
        data: at most 1 MiB; may be empty.
        done: observations so far.
        total: observations in all.
        left_out: observations so far that this format cannot contain.
    """

    data: bytes
    done: int
    total: int
    left_out: int


def check_export(to: str | Path, options: ExportOptions) -> str:
    """The format of an export, before anything is read or written for it.

    Raises:
        QueryError: an unknown format, or folders of media for a file.
        InvalidInputError: no file can be written at `to`.
    """
    chosen = format_of(to, options.format)
    if chosen == FOLDER:
        return chosen
    if options.media:
        raise QueryError(
            "media belong to a folder: export to FOLDER/, or in the format folder",
            field="media",
        )
    check_output_file(Path(to))
    return chosen


def file_chunks(writer: Writer, rows: ExportRows) -> Iterator[FileChunk]:
    """A file in chunks; the last is empty and has the final counts."""
    for chunk in writer.chunks(rows):
        for start in range(0, len(chunk), MAX_CHUNK_BYTES):
            data = chunk[start : start + MAX_CHUNK_BYTES]
            yield FileChunk(data, rows.done, rows.total, rows.left_out)
    yield FileChunk(b"", rows.done, rows.total, rows.left_out)


def write_file(
    stream: Iterable[FileChunk],
    to: Path,
    format_: str,
    on_progress: OnProgress = lambda done, total: None,
) -> Exported:
    """Write a file atomically.

    Raises:
        InvalidInputError: its folder does not exist, or `to` is a folder.
    """
    check_output_file(to)
    last = FileChunk(b"", 0, 0, 0)
    try:
        with writing_file(to) as file:
            for last in stream:
                file.write(last.data)
                on_progress(last.done, last.total)
    finally:
        if isinstance(stream, Generator):
            stream.close()  # cancels the call to a server
    return Exported(to, format_, last.done - last.left_out, last.left_out)
