"""Downloaded tables: plain, with gzip, or in a zip.

Members are read as streams and never unpacked to disk. A member with an implausible compression
ratio is refused.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Self, cast

from bittern.errors import BitternError, ManifestError, SourceNotFoundError

MAX_RATIO = 200
"""Highest ratio of unpacked to packed size; tables have 5 to 20."""
MAX_UNJUDGED_BYTES = 64 << 20
"""Members up to this unpacked size may have any ratio."""
_HEAD_BYTES = 64 << 10
# The last two: encryption, or an unknown method of compression.
_UNREADABLE = (
    OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError
)  # fmt: skip


class PackedFiles:
    """A description and the files that it names, in a folder or a zip. To be closed.

    Args:
        path: the folder or zip.
        description: name of the file that describes the others, ``meta.xml``. In a zip, they may
            all lie in one folder.

    Raises:
        ManifestError: the zip cannot be read.
    """

    def __init__(self, path: Path, description: str) -> None:
        self.path, self._described_by = path, description
        self._zip: zipfile.ZipFile | None = None
        self._below = ""
        if path.is_dir():
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except _UNREADABLE as error:
            raise ManifestError(
                f"{path} cannot be read as a zip: {error}", field="source"
            ) from error
        names = self._zip.namelist()
        inner = [n for n in names if n.count("/") == 1 and n.endswith(f"/{description}")]
        if description not in names and inner and not inner[0].startswith("/"):
            self._below = inner[0].removesuffix(description)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._zip is not None:
            self._zip.close()

    def description(self, limit: int) -> bytes:
        """The content of the description.

        Raises:
            SourceNotFoundError: no such file.
            ManifestError: it cannot be read, or has more than `limit` bytes.
        """
        name = self._described_by
        try:
            with self.open(name) as file:
                content = file.read(limit + 1)
        except OSError as error:
            raise ManifestError(f"{name} cannot be read: {error}", field="source") from error
        if len(content) > limit:
            raise ManifestError(
                f"{name} has more than {limit >> 20} MiB, the limit", field="source"
            )
        return content

    def names(self) -> list[str]:
        """Names of the files in the folder or zip."""
        if self._zip is None:
            return sorted(each.name for each in self.path.iterdir())
        return self._zip.namelist()

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file as a stream.

        Raises:
            SourceNotFoundError: no such file.
            ManifestError: it cannot be unpacked, or has an implausible compression ratio.
        """
        if self._zip is None:
            with self._in_folder(name).open("rb") as file:
                yield file
            return
        info = self._in_zip(self._zip, name)
        try:
            with self._zip.open(info) as member:
                yield member
        except RecursionError:
            raise
        except _UNREADABLE as error:
            raise ManifestError(
                f"{name} in {self.path} cannot be unpacked: {error}. Download it again",
                field="source",
            ) from error

    def _in_folder(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise self._missing(name)
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise ManifestError(
                f"{path} is a link that leaves {self.path}; put the file itself there",
                field="source",
            )
        return path

    def _in_zip(self, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
        try:
            info = archive.getinfo(self._below + name)
        except KeyError:
            raise self._missing(name) from None
        big = info.file_size > MAX_UNJUDGED_BYTES
        if big and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise ManifestError(
                f"{name} in {self.path} would grow from {info.compress_size:,} to "
                f"{info.file_size:,} bytes, more than {MAX_RATIO} times; if that is "
                "right, unpack it and give the folder",
                field="source",
            )
        return info

    def _missing(self, name: str) -> SourceNotFoundError:
        names = ", ".join(self.names()[:20]) or "nothing"
        return SourceNotFoundError(
            f"{self.path} has no file '{name[:200]}', which its description names; its files are "
            f"{names}. Download it again",
            field="source",
        )


def check_inside(name: object, description: str) -> str:
    """Check that a description names a file beside or below it.

    Raises:
        ManifestError: an address, an absolute path, or one that leads out.
    """
    path = PurePosixPath(name.replace("\\", "/")) if isinstance(name, str) else PurePosixPath()
    hostile = not isinstance(name, str) or "://" in name or not name.isprintable()
    if hostile or not path.parts or path.is_absolute() or ".." in path.parts:
        raise ManifestError(
            f"{description} names the file {str(name)[:200]!r}, which is not inside the package: "
            "copy the file there, and correct the path",
            field="source",
        )
    return str(path)


def describes(path: Path, description: str, words: bytes = b"", limit: int = 0) -> bool:
    """Whether a folder or a zip has a file of this name, with these words in its first bytes."""
    if not (path.is_dir() or path.suffix.lower() == ".zip"):
        return False
    try:
        with PackedFiles(path, description) as files, files.open(description) as file:
            return words in file.read(limit)
    except (BitternError, OSError):
        return False


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The unpacked bytes of a table: plain, with gzip, or alone in a zip.

    Raises:
        ManifestError: it cannot be unpacked, or a zip does not hold exactly one table.
    """
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as file:
                yield cast(IO[bytes], file)
        elif path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(_only_table(archive)) as member:
                yield member
        else:
            with path.open("rb") as plain:
                yield plain
    except _UNREADABLE as error:
        raise ManifestError(
            f"{path} cannot be read: {error}. Download it again", field="source"
        ) from error


def head_of(path: Path) -> bytes:
    """The first 64 KiB of such a table; empty if it cannot be read."""
    try:
        with unpacked(path) as file:
            return file.read(_HEAD_BYTES)
    except ManifestError:
        return b""


def _only_table(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    tables = [each for each in archive.infolist() if each.filename.lower().endswith(".csv")]
    if len(tables) != 1:
        raise zipfile.BadZipFile(f"it contains {len(tables)} tables (.csv), not one")
    return tables[0]
