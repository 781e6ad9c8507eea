"""The folder of an archive: its layout, its header file, and the lock of its one writer.

    ARCHIVE/archive.json         format version, name, time of creation, models, next row
    ARCHIVE/archive.copy.json    its copy, in case it is damaged
    ARCHIVE/store/               LanceDB: one table, the source of truth about observations
    ARCHIVE/models/<digest>/     the files of each registered model
    ARCHIVE/snapshots/           a description of each snapshot
    ARCHIVE/sums                 checksums of the files of store and models
    ARCHIVE/lost-found/          damaged files that bittern verify --repair has moved away
    ARCHIVE/derived/             derived from the store; may be deleted any time
    ARCHIVE/jobs/                records of jobs that a server runs
    ARCHIVE/reports/             the report of the last job of each kind
    ARCHIVE/backup.json          in a backup: the versions that it holds
    ARCHIVE/lock                 held by the one process that writes
    ARCHIVE/snapshots.lock       held while a snapshot is taken or dropped

`archive.json` is replaced as a whole (temporary file, fsync, rename), never edited.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock, Timeout

from bittern.errors import (
    ArchiveDamagedError,
    ArchiveLockedError,
    ArchiveNotFoundError,
    ArchiveVersionError,
    BitternError,
    PreconditionError,
)
from bittern.files import (
    check_inside,
    check_outside_archives,
    link_problem,
    replace_file,
)
from bittern.index.models import ModelRecord

FORMAT_VERSION = 2
"""The newest version that can be read. It is written only while an archive has what version 1
cannot express: a pending model, or a running change of models."""
PLAIN_VERSION = 1
"""The version that all other archives are written as."""
_HEADER_REMEDY = (
    "run bittern verify --repair, which restores it from its copy; if that is lost too, "
    "restore the file from a backup"
)
_HEADER_LIMIT_BYTES = 16 << 20
_log = logging.getLogger(__name__)
_TEMPORARY = (".archive-", ".sums-")
"""Beginnings of the names of temporary files in an archive's folder."""
_OWN_NAMES = frozenset(
    {
        "archive.json",
        "store",
        "models",
        "derived",
        "lock",
        "snapshots",
        "snapshots.lock",
        "sums",
        "backup.json",
        "archive.copy.json",
        "lost-found",
        "jobs",
        "reports",
    }
)


@dataclass(frozen=True, slots=True)
class Switch:
    """A change of models that takes effect with a certain commit to the store.

    Written before the commit and removed after it. After a crash, the next writer completes it;
    readers decide by the version that they see.

    Attributes:
        at: the store version of that commit.
        models: the models from that version on.
    """

    at: int
    models: tuple[ModelRecord, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """The content of `archive.json`.

    Attributes:
        name: the archive's name.
        created: ISO 8601 time in UTC.
        models: the models that coded it, in order of registration.
        next_row: new rows get this number or a greater one. Only written before rows are removed:
            otherwise the greatest stored row number determines the next one.
        switch: a running change of models, if there is one.
    """

    name: str
    created: str
    models: tuple[ModelRecord, ...] = field(default=())
    next_row: int = 0
    switch: Switch | None = None

    @property
    def format_version(self) -> int:
        """The oldest format version that can express this header."""
        pending = any(record.state == "pending" for record in self.models)
        return FORMAT_VERSION if pending or self.switch else PLAIN_VERSION

    def at(self, version: int) -> Header:
        """The header at a version of the store, with the switch applied or not."""
        if self.switch is None:
            return self
        switched = version >= self.switch.at
        return replace(self, models=self.switch.models if switched else self.models, switch=None)


class ArchiveFolder:
    """The paths of one archive, its header file and its lock.

    Args:
        path: the archive's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last_header: tuple[tuple[int, ...], Header] | None = None

    @property
    def header_file(self) -> Path:
        """`archive.json`."""
        return self.path / "archive.json"

    @property
    def header_copy(self) -> Path:
        """The copy of `archive.json`."""
        return self.path / "archive.copy.json"

    @property
    def store(self) -> Path:
        """Folder of the LanceDB database."""
        return self.path / "store"

    @property
    def models(self) -> Path:
        """Folder of the models' folders."""
        return self.path / "models"

    @property
    def derived(self) -> Path:
        """Folder of derived files."""
        return self.path / "derived"

    def check_present(self) -> None:
        """Check that the folder holds an archive.

        Raises:
            ArchiveNotFoundError: no folder, an empty folder, or no archive.
            ArchiveDamagedError: `archive.json` or the store is missing, or there is a link.
        """
        how = f"make one with: bittern index {self.path} SOURCE"
        if not self.path.exists():
            raise ArchiveNotFoundError(
                f"there is no archive at {self.path}: no such folder; {how}", field="archive"
            )
        if not self.path.is_dir():
            raise ArchiveNotFoundError(
                f"there is no archive at {self.path}: it is a file, an archive is a folder",
                field="archive",
            )
        self.check_links()
        if not self.header_file.is_file():
            if self.store.exists():
                raise ArchiveDamagedError(
                    f"the archive at {self.path} has lost its archive.json; {_HEADER_REMEDY}"
                )
            kind = "is empty" if not any(self.path.iterdir()) else "holds no archive.json"
            raise ArchiveNotFoundError(
                f"there is no archive at {self.path}: the folder {kind}; {how}", field="archive"
            )
        if not self.store.is_dir():
            raise ArchiveDamagedError(
                f"the archive at {self.path} has lost its store folder ({self.store}); "
                "restore it from a backup, or index the media again into a new folder"
            )

    def check_free(self) -> None:
        """Check that a new archive can be created in the folder.

        Raises:
            InvalidInputError: it is in another archive.
            PreconditionError: it is a file, or holds other files.
            ArchiveDamagedError: there is a link in the place of an archive's file.
        """
        check_outside_archives(self.path, "archive")
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise PreconditionError(f"cannot create an archive at {self.path}: it is a file")
        others = sorted(entry.name for entry in self.path.iterdir() if not _is_own(entry.name))
        if others:
            raise PreconditionError(
                f"cannot create an archive at {self.path}: the folder holds other files "
                f"({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}); "
                "choose a new or empty folder"
            )
        self.check_links()

    def links(self) -> Iterator[Path]:
        """Symbolic links, pipes and devices among the files of the archive; none is followed.

        Other files that a user keeps in the folder are not read, so these may be links.

        Raises:
            OSError: a folder cannot be listed.
        """
        return _links_below(self.path, _is_own)

    def check_links(self) -> None:
        """Check that the archive consists of files and folders, before anything of it is used.

        Raises:
            ArchiveDamagedError: there is a symbolic link, a pipe or a device, or a folder cannot be
                listed.
        """
        try:
            for path in self.links():
                raise ArchiveDamagedError(
                    f"the archive at {self.path} cannot be used: {path} {link_problem(path)}. "
                    f"bittern verify {self.path} lists all links"
                )
        except OSError as error:
            raise ArchiveDamagedError(
                f"the archive at {self.path} cannot be listed ({error}); check its permissions"
            ) from error

    def check_folders(self) -> None:
        """Check, before a change, that no folder has become a link since the archive was opened.

        Raises:
            PreconditionError: one is a symbolic link.
        """
        table = self.store.glob("*/*")
        for path in (self.path / "sums", self.path / "snapshots", self.models, *table):
            check_inside(self.path, path)

    def read_header(self) -> Header:
        """The content of `archive.json`; the same object until the file is replaced.

        Raises:
            ArchiveDamagedError: it is missing, cannot be read or is invalid.
            ArchiveVersionError: a newer version of Bittern wrote it.
        """
        try:
            stat = self.header_file.stat()
        except OSError as error:
            raise ArchiveDamagedError(
                f"the archive at {self.path} has lost its archive.json; {_HEADER_REMEDY}"
            ) from error
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        last = self._last_header
        if last is None or last[0] != stamp:
            last = self._last_header = stamp, self._parsed(self.header_file)
        return last[1]

    def read_header_copy(self) -> Header:
        """The copy of `archive.json`; raises as `read_header` does."""
        return self._parsed(self.header_copy)

    def _parsed(self, file: Path) -> Header:
        try:
            if file.stat().st_size > _HEADER_LIMIT_BYTES:
                raise ValueError(f"larger than {_HEADER_LIMIT_BYTES} bytes")
            value = json.loads(file.read_text("utf-8"))
            version = value["format_version"]
            if not isinstance(version, int):
                raise ValueError(f"format_version {version!r} is no whole number")
            if version > FORMAT_VERSION:
                raise ArchiveVersionError(
                    f"the archive at {self.path} has format version {version}, this Bittern reads "
                    f"up to {FORMAT_VERSION}: update with pip install -U bittern-search",
                    details={"found": str(version), "supported": str(FORMAT_VERSION)},
                )
            if value.get("xxh3", digest := _digest(value)) != digest:
                raise ValueError(
                    "its checksum differs; if it was edited on purpose, delete the line with xxh3"
                )
            return Header(
                name=str(value["name"]),
                created=str(value["created"]),
                models=tuple(ModelRecord.from_json(entry) for entry in value["models"]),
                next_row=int(value["next_row"]),
                switch=_switch(value.get("switch")),
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArchiveDamagedError(
                f"{file} cannot be used ({type(error).__name__}: {error}); {_HEADER_REMEDY}"
            ) from error

    def write_header(self, header: Header) -> Header:
        """Replace `archive.json` durably and atomically, its copy first."""
        self.write_header_copy(header)
        write_json(self.header_file, _as_json(header))
        return header

    def write_header_copy(self, header: Header) -> None:
        """Replace the copy of `archive.json`."""
        write_json(self.header_copy, _as_json(header))

    def renew_header_copy(self, header: Header) -> None:
        """Update the copy of `archive.json` if it differs.

        It can differ after an older Bittern has written the archive, or one file was restored from
        a backup. A failure is logged.
        """
        try:
            if same_header(self.read_header_copy(), header):
                return
        except BitternError as error:
            _log.info("%s is updated: %s", self.header_copy, error)
        try:
            self.write_header_copy(header)
        except OSError as error:
            _log.warning("%s could not be updated: %s", self.header_copy, error)

    def complete_switch(self, version: int) -> Header:
        """Complete a change of models that a crash has interrupted, before or after its commit.

        Args:
            version: the store's newest; this process holds the lock.
        """
        header = self.read_header()
        return self.write_header(header.at(version)) if header.switch else header

    def new_header(self, name: str | None) -> Header:
        """The header of a new archive."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return Header(name=name or self.path.resolve().name, created=created)

    def lock(self) -> FileLock:
        """Become the one writer.

        Raises:
            ArchiveLockedError: another process, or another `Archive` of this one, writes.
            PreconditionError: the folder cannot be written to.
        """
        return acquire_lock(
            self.path / "lock",
            f"another process is writing to the archive at {self.path}; wait until it is done, or "
            "stop it (reading and searching work meanwhile)",
        )


def acquire_lock(file: Path, busy: str, *, wait_s: float = 0.0) -> FileLock:
    """Acquire a lock between processes.

    Args:
        file: of the lock.
        busy: the message if another process holds it.
        wait_s: how long to wait for it, in seconds.

    Raises:
        ArchiveLockedError: another process holds it.
        PreconditionError: it is a symbolic link, or its folder cannot be written to.
    """
    check_inside(file.parent, file)
    lock = FileLock(file, timeout=wait_s, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise ArchiveLockedError(busy) from None
    except OSError as error:
        raise PreconditionError(
            f"the folder {file.parent} cannot be written to ({error}); "
            "open the archive for reading, or change the folder's permissions"
        ) from error
    return lock


def _is_own(name: str) -> bool:
    """Whether an archive has a file or folder of this name."""
    return name in _OWN_NAMES or name.startswith(_TEMPORARY)


def _links_below(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Path]:
    """What is neither a file nor a folder in a folder and its subfolders, by wanted names."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:  # a writer may remove it
        for entry in entries:
            if not wanted(entry.name) or entry.is_file(follow_symlinks=False):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _links_below(Path(entry))
            elif link_problem(Path(entry)):
                yield Path(entry)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file durably and atomically."""
    replace_file(path, json.dumps(value, indent=2).encode(), prefix=".archive-")


def _as_json(header: Header) -> dict[str, Any]:
    value: dict[str, Any] = {
        "format": "bittern-archive",
        "format_version": header.format_version,
        "name": header.name,
        "created": header.created,
        "next_row": header.next_row,
        "models": [record.to_json() for record in header.models],
    }
    if header.switch is not None:
        models = [record.to_json() for record in header.switch.models]
        value["switch"] = {"at": header.switch.at, "models": models}
    return {**value, "xxh3": _digest(value)}


def same_header(one: Header, other: Header) -> bool:
    """Whether two headers are equal, including the states of their models."""
    return _as_json(one) == _as_json(other)


def _digest(value: Mapping[str, Any]) -> str:
    """The checksum of `archive.json`, without the checksum itself."""
    content = {name: item for name, item in value.items() if name != "xxh3"}
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


def _switch(value: Any) -> Switch | None:
    if value is None:
        return None
    return Switch(int(value["at"]), tuple(ModelRecord.from_json(one) for one in value["models"]))
