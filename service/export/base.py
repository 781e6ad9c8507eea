"""What every kind of export has in common: rows, who writes them, and what became of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from bittern.files import check_output_file
from bittern.index.columns import Value, as_given

MAX_PIECE_BYTES = 1 << 20
"""Most bytes of one piece."""
OnProgress = Callable[[int, int], None]
"""Called with observations written so far, and how many there will be."""


@dataclass
class Rows:
    """Observations on their way into a file; can be gone through once.

    Attributes:
        schema: their columns: of `index.columns.IDENTITY`, ``rank`` and ``distance`` of hits,
            metadata, and ``code`` where codes were asked for.
        total: how many there are.
        stream: them, in order.
        done: how many the writer has taken.
        left_out: how many of these it had no place for.
    """

    schema: pa.Schema
    total: int
    stream: Iterable[pa.RecordBatch]
    done: int = 0
    left_out: int = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows; counts them."""
        for batch in self.stream:
            self.done += batch.num_rows
            yield batch

    def records(self) -> Iterator[list[dict[str, Value]]]:
        """The rows batch by batch, each by column name, without what is not known."""
        for batch in self.batches():
            yield [
                {name: as_given(value) for name, value in row.items() if value is not None}
                for row in batch.to_pylist()
            ]


class Writer(Protocol):
    """One kind of file.

    Attributes:
        name: what follows ``--format``.
        suffix: of its files; the first writer of a suffix is meant where nobody says which.
        title: for people.
        codes: whether it wants codes.
    """

    name: str
    suffix: str
    title: str
    codes: bool

    def chunks(self, rows: Rows) -> Iterator[bytes]:
        """The bytes of the file, in chunks of about a batch."""
        ...


class Piece(NamedTuple):
    """The next bytes of a file, and how far it is.

    Attributes:
        data: at most 1 MiB; may be empty.
        done: observations taken so far.
        total: observations in all.
        left_out: of those taken, how many this kind of file has no place for.
    """

    data: bytes
    done: int
    total: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of an export.

    Attributes:
        path: the file or folder.
        format: its kind.
        observations: how many it holds.
        left_out: how many it does not hold because its kind has no place for them.
        missing: media that were not there to be copied; of folders only.
        copied_from: the folders that media were copied from; of folders only.
    """

    path: Path
    format: str
    observations: int
    left_out: int = 0
    missing: int = 0
    copied_from: tuple[str, ...] = ()


def pieces(writer: Writer, rows: Rows) -> Iterator[Piece]:
    """A file in pieces; the last is empty and has the final counts."""
    for chunk in writer.chunks(rows):
        for start in range(0, len(chunk), MAX_PIECE_BYTES):
            data = chunk[start : start + MAX_PIECE_BYTES]
            yield Piece(data, rows.done, rows.total, rows.left_out)
    yield Piece(b"", rows.done, rows.total, rows.left_out)


def write_file(
    stream: Iterable[Piece],
    to: Path,
    format_: str,
    on_progress: OnProgress = lambda done, total: None,
) -> Exported:
    """Write a file that appears when it is complete, in place of one that was there.

    Raises:
        InvalidInputError: there is no folder to write it into, or `to` is a folder.
    """
    check_output_file(to)
    partial = to.with_name(to.name + ".partial")
    last = Piece(b"", 0, 0, 0)
    try:
        with partial.open("wb") as file:
            for last in stream:
                file.write(last.data)
                on_progress(last.done, last.total)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
        if isinstance(stream, Generator):
            stream.close()  # a server is told that nobody waits for the rest
    return Exported(to, format_, last.done - last.left_out, last.left_out)
