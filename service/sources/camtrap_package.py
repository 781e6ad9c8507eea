"""The files of a Camtrap DP package: ``datapackage.json`` and the tables that it names.

The tables are streamed, from a folder or out of a zip; tables may be gzipped. What the package
itself says is small and held in memory.
"""

from __future__ import annotations

import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from bittern.errors import ManifestError
from bittern.service.sources.delimited import ENCODINGS, Dialect, rows
from bittern.service.sources.packed import ArchiveFiles

DESCRIPTOR = "datapackage.json"
MAX_DESCRIPTOR_BYTES = 64 << 20
REQUIRED = {
    "deployments": ("deploymentID", "latitude", "longitude"),
    "media": ("mediaID", "deploymentID", "timestamp", "filePath", "fileMediatype"),
    "observations": ("observationID", "deploymentID", "observationLevel", "observationType"),
}
"""Columns without which a table is of no use, by table."""
_VERSION = re.compile(r"camtrap-dp/v?([0-9]+\.[0-9]+[0-9A-Za-z.-]*)")
_MISSING = frozenset({"", "NaN", "nan"})


class TableRow(NamedTuple):
    """A row of a table.

    Attributes:
        place: ``media.csv, line 12``.
        cells: column to value, without those that are empty.
        wrong: what is wrong with the row; empty if nothing is.
    """

    place: str
    cells: dict[str, str]
    wrong: str = ""


@dataclass(frozen=True)
class _Table:
    names: tuple[str, ...]
    dialect: Dialect
    gzipped: bool


class CamtrapPackage:
    """One package.

    Args:
        path: a folder, its datapackage.json, or a .zip.

    Attributes:
        description: content of datapackage.json.
        folder: where relative paths of media begin.

    Raises:
        ManifestError: it cannot be read, is not of version 1.0, or lacks a table.
        SourceNotFoundError: a file is missing.
    """

    def __init__(self, path: Path) -> None:
        inside = path.parent if path.name == DESCRIPTOR else path
        self.folder = inside if inside.is_dir() else inside.parent
        self._files = ArchiveFiles(inside)
        try:
            self._below = "" if inside.is_dir() else _below(self._files.names()) or ""
            self.description = self._described()
            self._tables = {name: self._table(name) for name in REQUIRED}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close its files."""
        self._files.close()

    def rows(self, table: str) -> Iterator[TableRow]:
        """The rows of ``deployments``, ``media`` or ``observations``.

        Raises:
            ManifestError: the table cannot be read, or lacks a column that is `REQUIRED`.
        """
        described = self._tables[table]
        for name in described.names:
            try:
                with self._files.open(self._below + name) as raw:
                    stream = gzip.GzipFile(fileobj=raw) if described.gzipped else raw
                    yield from self._rows_of(name, cast(IO[bytes], stream), table)
            except (OSError, EOFError, zlib.error) as error:
                raise ManifestError(f"{name} cannot be read: {error}", field="source") from error

    def _rows_of(self, name: str, stream: IO[bytes], table: str) -> Iterator[TableRow]:
        columns: list[str] | None = None
        for line, cells in rows(stream, self._tables[table].dialect):
            place = f"{name}, line {line}"
            if columns is None:
                columns = _header(name, cells, REQUIRED[table])
            elif isinstance(cells, str):
                yield TableRow(place, {}, cells)
            elif len(cells) != len(columns):
                wrong = f"the row has {len(cells)} cells, the header {len(columns)}"
                yield TableRow(place, {}, wrong)
            else:
                values = ((c, v.strip()) for c, v in zip(columns, cells, strict=True))
                yield TableRow(place, {c: v for c, v in values if v not in _MISSING})
        if columns is None:
            raise ManifestError(f"{name} is empty; it needs a header", field="source")

    def _described(self) -> dict[str, Any]:
        try:
            with self._files.open(self._below + DESCRIPTOR) as file:
                content = file.read(MAX_DESCRIPTOR_BYTES + 1)
        except OSError as error:
            raise ManifestError(f"{DESCRIPTOR} cannot be read: {error}", field="source") from error
        if len(content) > MAX_DESCRIPTOR_BYTES:
            raise ManifestError(
                f"{DESCRIPTOR} is larger than {MAX_DESCRIPTOR_BYTES >> 20} MiB", field="source"
            )
        try:
            description = json.loads(content.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ManifestError(
                f"{DESCRIPTOR} is not readable JSON: {error}", field="source"
            ) from error
        version = _version(description)
        if version is None:
            raise ManifestError(
                f"{DESCRIPTOR} describes no Camtrap DP: its profile is none of theirs",
                field="source",
            )
        if not re.fullmatch(r"1\.0(\.[0-9]+)?", version):
            raise ManifestError(
                f"the package is of Camtrap DP {version[:20]}; versions 1.0, 1.0.1 and later ones "
                "of 1.0 can be read: export it again in one of these",
                field="source",
            )
        return dict(description)

    def _table(self, name: str) -> _Table:
        resources = self.description.get("resources")
        for resource in resources if isinstance(resources, list) else []:
            if isinstance(resource, dict) and resource.get("name") == name:
                return _described_table(name, resource)
        raise ManifestError(
            f"{DESCRIPTOR} has no resource '{name}'; a Camtrap DP has {', '.join(REQUIRED)}",
            field="source",
        )


def is_camtrap(path: Path) -> bool:
    """Whether a folder, a datapackage.json or a zip is a Camtrap DP of whatever version."""
    try:
        if path.is_dir() or path.name == DESCRIPTOR:
            descriptor = path / DESCRIPTOR if path.is_dir() else path
            if not descriptor.is_file():
                return False
            with descriptor.open("rb") as file:
                return _mentions(file)
        if path.suffix.lower() != ".zip":
            return False
        with zipfile.ZipFile(path) as archive:
            below = _below(archive.namelist())
            if below is None:
                return False
            with archive.open(below + DESCRIPTOR) as member:
                return _mentions(member)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError):
        return False


def _mentions(file: IO[bytes]) -> bool:
    # The profile may stand anywhere in the file; its name stands near the addresses of the tables.
    return b"camtrap-dp" in file.read(MAX_DESCRIPTOR_BYTES)


def _below(names: list[str]) -> str | None:
    """``""`` or ``folder/``: where in a zip the datapackage.json is; None if nowhere."""
    if DESCRIPTOR in names:
        return ""
    inner = [n for n in names if n.count("/") == 1 and n.endswith(f"/{DESCRIPTOR}")]
    return inner[0].removesuffix(DESCRIPTOR) if inner and not inner[0].startswith("/") else None


def _version(description: object) -> str | None:
    profile = description.get("profile") if isinstance(description, dict) else None
    found = _VERSION.search(profile) if isinstance(profile, str) else None
    return found[1] if found else None


def _described_table(name: str, resource: dict[str, Any]) -> _Table:
    told = resource.get("path")
    names: list[str] = []
    for each in told if isinstance(told, list) else [told]:
        if not isinstance(each, str) or not _stays(each):
            raise ManifestError(
                f"the table '{name}' lies at {str(each)[:80]!r}; it has to be a file of the "
                "package: download it, and name it there",
                field="source",
            )
        names.append(each)
    if not names:
        raise ManifestError(f"the table '{name}' has no path", field="source")
    encoding = str(resource.get("encoding", "utf-8")).lower().replace("utf8", "utf-8")
    if encoding not in ENCODINGS:
        raise ManifestError(
            f"the table '{name}' is in {encoding[:40]!r}; what can be read is "
            f"{', '.join(sorted(ENCODINGS))}",
            field="source",
        )
    dialect = resource.get("dialect")
    separator = dialect.get("delimiter", ",") if isinstance(dialect, dict) else ","
    if not isinstance(separator, str) or len(separator) != 1:
        raise ManifestError(f"the table '{name}' has no single delimiter", field="source")
    gzipped = resource.get("compression") == "gz" or any(n.endswith(".gz") for n in names)
    return _Table(tuple(names), Dialect(separator=separator, encoding=encoding), gzipped)


def _stays(name: str) -> bool:
    """Whether a name is a path that stays in the package."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or not name.isprintable():
        return False  # isprintable: neither zero bytes nor halves of surrogate pairs
    return "://" not in name


def _header(name: str, cells: list[str] | str, required: tuple[str, ...]) -> list[str]:
    if isinstance(cells, str):
        raise ManifestError(f"the header of {name} is of no use: {cells}", field="source")
    columns = [cell.strip() for cell in cells]
    missing = [column for column in required if column not in columns]
    if missing:
        raise ManifestError(
            f"{name} has no column {', '.join(missing)}, which Camtrap DP requires; its columns "
            f"are {', '.join(columns)[:300]}",
            field="source",
        )
    return columns
