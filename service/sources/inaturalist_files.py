"""Tables of iNaturalist as they are downloaded: plain, with gzip, or alone in a zip."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from bittern.errors import ManifestError
from bittern.service.sources.delimited import Dialect, rows

HEADER_BYTES = 64 << 10
_BROKEN = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile)
MAX_HEADINGS = 10_000


class Row(NamedTuple):
    """One row: its line, its values by heading, and what is wrong with it, if anything."""

    line: int
    values: dict[str, str]
    wrong: str


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a table, unpacked as they are read.

    Raises:
        ManifestError: it cannot be unpacked, or a zip holds other than one table.
    """
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as file:
                yield file  # type: ignore[misc]  # reads bytes
        elif path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(_only_table(archive)) as member:
                yield member
        else:
            with path.open("rb") as plain:
                yield plain
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or a strange method
        raise _unreadable(path, error) from error


def header(path: Path, dialect: Dialect) -> list[str]:
    """Headings of a table; none if it cannot be read."""
    try:
        with opened(path) as file:
            line = file.read(HEADER_BYTES).partition(b"\n")[0]
    except ManifestError:
        return []
    try:
        headings = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return []
    return [each.strip().strip('"') for each in headings.split(dialect.separator)]


def table(path: Path, dialect: Dialect) -> Iterator[Row]:
    """The rows of a table below its header, lazily; wrong ones say so.

    Raises:
        ManifestError: the table as a whole cannot be read.
    """
    headings: list[str] = []
    with opened(path) as file:
        for line, cells in rows(file, dialect):
            if not headings:
                if isinstance(cells, str) or len(cells) > MAX_HEADINGS:
                    raise ManifestError(
                        f"{path} has no header that can be read; download it again", field="source"
                    )
                headings = [cell.strip() for cell in cells]
            elif isinstance(cells, str):
                yield Row(line, {}, cells)
            elif len(cells) != len(headings):
                wrong = f"the row has {len(cells)} cells, the header {len(headings)}"
                yield Row(line, {}, wrong)
            else:
                yield Row(line, dict(zip(headings, map(str.strip, cells), strict=True)), "")


def _only_table(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    tables = [each for each in archive.infolist() if each.filename.lower().endswith(".csv")]
    if len(tables) != 1:
        raise zipfile.BadZipFile(f"it holds {len(tables)} tables (.csv), not one")
    return tables[0]


def _unreadable(path: Path, error: Exception) -> ManifestError:
    return ManifestError(f"{path} cannot be read: {error}. Download it again", field="source")
