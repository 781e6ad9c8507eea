"""Writes exported files chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bittern.files import check_output_file, writing_file
from bittern.service.export.rows import Rows
from bittern.service.export.writers import Writer

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


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export.

    Attributes:
        path: the file or folder.
        format: its kind.
        observations: their number.
        left_out: observations that the format cannot contain.
        missing: media that could not be copied; for folders only.
        copied_from: the folders that media were copied from; for folders only.
    """

    path: Path
    format: str
    observations: int
    left_out: int = 0
    missing: int = 0
    copied_from: tuple[str, ...] = ()


def file_chunks(writer: Writer, rows: Rows) -> Iterator[FileChunk]:
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
