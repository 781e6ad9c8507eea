"""The files of a Darwin Core Archive: members of a zip, or of a folder that it was unpacked to.

Nothing is unpacked to disk. Members are read as streams, so that a zip which turns into petabytes
costs no memory; one that turns into much more than tables do is refused.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bittern.errors import ManifestError, SourceNotFoundError
from bittern.service.sources.darwin_core_meta import MAX_META_BYTES, Table
from bittern.service.sources.delimited import rows

META = "meta.xml"
MAX_RATIO = 200
"""How many times its size a member may grow to; tables grow to five or twenty times."""
MAX_UNJUDGED_BYTES = 64 << 20
"""Members of up to this size may be compressed to whatever size."""


class ArchiveFiles:
    """The files of one archive.

    Args:
        path: a .zip, or a folder with a meta.xml.

    Raises:
        ManifestError: the zip cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._below = ""
        if path.is_dir():
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ManifestError(
                f"{path} cannot be read as a zip: {error}", field="source"
            ) from error
        self._below = _folder_of_meta(self._zip) or ""

    def close(self) -> None:
        """Close the zip."""
        if self._zip is not None:
            self._zip.close()

    def names(self) -> list[str]:
        """Names of the files beside meta.xml, or in the zip."""
        if self._zip is None:
            return sorted(each.name for each in self.path.iterdir())
        return self._zip.namelist()

    def meta(self) -> bytes:
        """Content of meta.xml, or a little more than it may have."""
        with self.open(META) as file:
            return file.read(MAX_META_BYTES + 1)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file of the archive as a stream.

        Raises:
            SourceNotFoundError: there is none of this name.
            ManifestError: it cannot be unpacked, or would grow to more than tables do.
        """
        if self._zip is None:
            yield from self._opened_file(name)
            return
        try:
            info = self._zip.getinfo(self._below + name)
        except KeyError:
            raise self._missing(name) from None
        big = info.file_size > MAX_UNJUDGED_BYTES
        if big and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise ManifestError(
                f"{name} in {self.path} would grow from {info.compress_size:,} to "
                f"{info.file_size:,} bytes, more than {MAX_RATIO} times; if that is as it should "
                "be, unpack it and give the folder",
                field="source",
            )
        try:
            with self._zip.open(info) as file:
                yield file
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise self._damaged(name, error) from error
        except (RuntimeError, NotImplementedError) as error:  # encrypted, or a strange method
            if isinstance(error, RecursionError):
                raise
            raise self._damaged(name, error) from error

    def _opened_file(self, name: str) -> Iterator[IO[bytes]]:
        path = self.path / name
        if not path.is_file():
            raise self._missing(name)
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise ManifestError(
                f"{path} is a link that leads out of the archive; put the file itself there",
                field="source",
            )
        with path.open("rb") as file:
            yield file

    def _missing(self, name: str) -> SourceNotFoundError:
        there = ", ".join(self.names()[:20]) or "nothing"
        return SourceNotFoundError(
            f"{self.path} has no file '{name[:200]}', which its description names; it has {there}. "
            "Download the archive again",
            field="source",
        )

    def _damaged(self, name: str, error: Exception) -> ManifestError:
        return ManifestError(
            f"{name} in {self.path} cannot be unpacked: {error}. Download the archive again",
            field="source",
        )


def has_meta(path: Path) -> bool:
    """Whether a path is a folder or a zip with a meta.xml."""
    if path.is_dir():
        return (path / META).is_file()
    if path.suffix.lower() != ".zip":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return _folder_of_meta(archive) is not None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def table_rows(files: ArchiveFiles, table: Table) -> Iterator[tuple[str, str, dict[str, str], str]]:
    """The rows of a table, lazily.

    Yields:
        Where the row stands, its key, its values by name without empty ones, and what is wrong
        with it (an empty text if nothing is).
    """
    for name in table.files:
        with files.open(name) as stream:
            width = 0
            for count, (line, cells) in enumerate(rows(stream, table.dialect), 1):
                place = f"{name}, line {line}"
                if count <= table.header_lines:
                    # The last header line tells how many cells rows have.
                    width = 0 if isinstance(cells, str) else len(cells)
                    continue
                wrong = cells if isinstance(cells, str) else ""
                if isinstance(cells, list) and len(cells) < table.width:
                    wrong = f"the row has {len(cells)} cells, meta.xml names {table.width}"
                elif isinstance(cells, list) and width and len(cells) != width:
                    wrong = f"the row has {len(cells)} cells, the header {width}"
                if wrong or isinstance(cells, str):
                    yield place, "", {}, wrong
                    continue
                key = "" if table.key is None else cells[table.key].strip()
                yield place, key, table.named(cells), ""


def _folder_of_meta(archive: zipfile.ZipFile) -> str | None:
    """``""`` or ``folder/``: where in the zip the meta.xml is; None if nowhere."""
    names = archive.namelist()
    if META in names:
        return ""
    inner = [n for n in names if n.count("/") == 1 and n.endswith(f"/{META}")]
    return inner[0].removesuffix(META) if inner and not inner[0].startswith("/") else None
