"""Snapshots: named states of an archive that are kept until they are dropped.

    ARCHIVE/snapshots/<name>.json    one snapshot: store version, models, counts
    ARCHIVE/store/...                the version, pinned (see `bittern.index.pins`)

A snapshot shares files with the archive, so it only takes the disk space of what changes later.
The version is pinned before the JSON file is written, and unpinned after it is removed: a crash can
leave an unused pin, never a name without its version. Taking a snapshot needs no lock of the
archive; others can write meanwhile.
"""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from bittern.errors import (
    ArchiveDamagedError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
)
from bittern.files import sync_folder
from bittern.index.folder import ArchiveFolder, Header, acquire_lock, write_json
from bittern.index.models import CODE_PREFIX, ModelRecord
from bittern.index.opening import newest_state
from bittern.index.store import Store, StoredVersion
from bittern.index.versions import pin_name

_NAME = re.compile(r"(?![0-9]+$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOTE_CHARS = 1_000
_LOCK_WAIT_S = 10.0
_MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot, or one version that has no name.

    Attributes:
        name: its name; empty for a version without one.
        version: the store's version.
        time: when it was taken, or committed; ISO 8601 in UTC.
        rows: observations by modality; empty for a version without a name.
        observations: of all modalities.
        models: the archive's models at that time.
        bytes: of the version's data files, which other versions may share.
        note: written by the user.
        automatic: whether Bittern took it, before a restore.
        pin: protects the version from clean-up.
    """

    name: str
    version: int
    time: str
    rows: Mapping[str, int]
    observations: int
    models: tuple[ModelRecord, ...]
    bytes: int
    note: str = ""
    automatic: bool = False
    pin: str = ""

    def to_json(self) -> dict[str, Any]:
        """The snapshot as JSON values."""
        value = {name: getattr(self, name) for name in self.__slots__}
        return {
            **value,
            "rows": dict(self.rows),
            "models": [record.to_json() for record in self.models],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SnapshotInfo:
        """The snapshot from the output of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: the value is malformed.
        """
        return cls(
            name=str(value["name"]),
            version=int(value["version"]),
            time=str(value["time"]),
            rows={str(name): int(count) for name, count in value["rows"].items()},
            observations=int(value["observations"]),
            models=tuple(ModelRecord.from_json(one) for one in value["models"]),
            bytes=int(value["bytes"]),
            note=str(value["note"]),
            automatic=bool(value["automatic"]),
            pin=str(value["pin"]),
        )


class Snapshots:
    """Finds, takes and drops the snapshots of one archive.

    Args:
        folder: the archive's folder.
        store: its table; a handle that nobody else uses.
    """

    def __init__(self, folder: ArchiveFolder, store: Store) -> None:
        self._archive = folder
        self._folder = folder.path / "snapshots"
        self._store = store

    def list(self, *, unnamed: bool = False) -> builtins.list[SnapshotInfo]:
        """The snapshots, oldest first.

        Args:
            unnamed: also versions that can be opened and have no snapshot.

        Raises:
            ArchiveDamagedError: one of the files cannot be used.
        """
        found = read_snapshots(self._archive)
        if unnamed:
            named = {info.version for info in found}
            found += [
                SnapshotInfo("", known.version, known.time, {}, known.rows, (), known.bytes)
                for known in self._store.versions()
                if known.version not in named
            ]
        return sorted(found, key=lambda info: (info.version, info.time, info.name))

    def find(self, name: str | int) -> SnapshotInfo:
        """A snapshot by its name, or a version by its number.

        Raises:
            NotFoundError: there is none; names those that exist.
            InvalidInputError: the name is unusable.
        """
        if isinstance(name, int) or name.isdecimal():
            return self._of_version(int(name))
        path = self._file(name)
        if not path.exists():
            known = ", ".join(info.name for info in self.list()) or "none"
            raise NotFoundError(
                f"the archive at {self._archive.path} has no snapshot {name!r}; its snapshots: "
                f"{known}. bittern snapshots ARCHIVE lists them",
                field="snapshot",
            )
        return _read(path)

    def check_complete(self, info: SnapshotInfo) -> None:
        """Check that the models of a state can be restored with its rows.

        A snapshot keeps the files of its models; a version without a name does not.

        Raises:
            PreconditionError: some of its codes are of a model whose files are deleted.
        """
        then = self._store.at(info.version)
        kept = {record.code_column for record in info.models}
        names = {record.code_column: record.name for record in self._known_models()}
        for column in then.columns:
            if not column.startswith(CODE_PREFIX) or column in kept:
                continue
            if codes := then.count(f"`{column}` IS NOT NULL"):
                digest = column.removeprefix(CODE_PREFIX)
                called = f"{names[column]} ({digest})" if column in names else digest
                raise PreconditionError(
                    f"version {info.version} has {codes} codes of model {called}, which was "
                    "dropped later, with its files: nothing was restored. Register the model again "
                    f"first (bittern index {self._archive.path} SOURCE --model with its folder), "
                    "or restore a snapshot: snapshots keep their models",
                    field="snapshot",
                    details={"model": digest},
                )

    def take(self, name: str, *, note: str = "", automatic: bool = False) -> SnapshotInfo:
        """Keep the newest state under a name; durable when the call returns.

        Args:
            name: letters, digits, ``.``, ``_``, ``-``; not digits alone.
            note: up to 1,000 characters.
            automatic: taken by Bittern itself.

        Raises:
            InvalidInputError: an unusable name or note.
            PreconditionError: the name exists already, or the folder cannot be written to.
        """
        path = self._file(name)
        if len(note) > _NOTE_CHARS:
            raise InvalidInputError(
                f"a note has at most {_NOTE_CHARS} characters, not {len(note)}", field="note"
            )
        with self._locked():
            if path.exists():
                raise PreconditionError(
                    f"a snapshot {name!r} exists already; choose another name, or drop it with "
                    f"bittern snapshots {self._archive.path} --drop {name}",
                    field="name",
                )
            header, version = newest_state(self._archive, self._store)
            pin = pin_name()
            self._store.pin(pin, version)
            try:
                rows = _rows(self._store.at(version))
                info = SnapshotInfo(
                    name=name,
                    version=version,
                    time=datetime.now(UTC).isoformat(timespec="seconds"),
                    rows=rows,
                    observations=sum(rows.values()),
                    models=header.models,
                    bytes=self._stored(version).bytes,
                    note=note,
                    automatic=automatic,
                    pin=pin,
                )
                is_new = not self._folder.exists()
                self._folder.mkdir(exist_ok=True)
                write_json(path, info.to_json())
                if is_new:
                    sync_folder(self._archive.path)
            except BaseException:
                if not path.exists():
                    self._store.unpin(pin)
                raise
            self._unpin_abandoned()
        return info

    def drop(self, name: str) -> SnapshotInfo:
        """Remove a snapshot; a later compaction removes the files that only it needs.

        Raises:
            NotFoundError: there is none of this name.
        """
        with self._locked():
            info = self.find(name)
            if not info.name:
                raise InvalidInputError(
                    f"{name} is a version without a name; such versions are removed automatically",
                    field="name",
                )
            self._file(info.name).unlink()
            sync_folder(self._folder)
            self._store.unpin(info.pin)
            self._unpin_abandoned()
        return info

    def free_name(self, beginning: str) -> str:
        """An unused name: the beginning and a number."""
        names = {info.name for info in self.list()}
        return next(name for n in count(1) if (name := f"{beginning}{n}") not in names)

    # Helpers

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._archive.check_folders()
        path = self._archive.path
        busy = f"another process changes the snapshots of {path}; try again"
        lock = acquire_lock(path / "snapshots.lock", busy, wait_s=_LOCK_WAIT_S)
        try:
            yield
        except OSError as error:
            raise PreconditionError(
                f"{self._folder} cannot be written to ({error}); check that it is a folder, free "
                "space and permissions"
            ) from error
        finally:
            lock.release()

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidInputError(
                f"a snapshot cannot be called {name[:80]!r}: a name is a letter or digit and then "
                "up to 63 letters, digits, dots, hyphens and underscores, and not a number",
                field="name",
            )
        return self._folder / f"{name}.json"

    def _of_version(self, version: int) -> SnapshotInfo:
        for info in self.list():
            if info.version == version:
                return info
        self._store.follow()
        then = self._store.at(version)
        models = tuple(
            record
            for record in self._known_models()
            if record.code_column in then.columns
            and (self._archive.models / record.digest).is_dir()
        )
        about = self._stored(version)
        return SnapshotInfo("", version, about.time, _rows(then), about.rows, models, about.bytes)

    def _stored(self, version: int) -> StoredVersion:
        return next(one for one in self._store.versions() if one.version == version)

    def _known_models(self) -> builtins.list[ModelRecord]:
        """The models that snapshots and the archive name; of two records, the archive's counts."""
        header = self._archive.read_header().at(self._store.version)
        models = {record.digest: record for info in self.list() for record in info.models}
        return [*{**models, **{record.digest: record for record in header.models}}.values()]

    def _unpin_abandoned(self) -> None:
        self._store.unpin_abandoned([info.pin for info in self.list()])


def read_snapshots(folder: ArchiveFolder) -> list[SnapshotInfo]:
    """The snapshots of an archive, by name.

    Raises:
        ArchiveDamagedError: one of the files cannot be used.
    """
    return [_read(path) for path in sorted((folder.path / "snapshots").glob("*.json"))]


def models_in_use(folder: ArchiveFolder, header: Header) -> list[str]:
    """Digests of the models whose files an archive needs: its own, and those of its snapshots.

    Raises:
        ArchiveDamagedError: a snapshot cannot be read.
    """
    records = [*header.models, *(header.switch.models if header.switch else ())]
    for info in read_snapshots(folder):
        records += info.models
    return list(dict.fromkeys(record.digest for record in records))


def _read(path: Path) -> SnapshotInfo:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"larger than {_MOST_BYTES} bytes")
        info = SnapshotInfo.from_json(json.loads(path.read_text("utf-8")))
        if f"{info.name}.json" != path.name:
            raise ValueError(f"it describes snapshot {info.name!r}")
        return info
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArchiveDamagedError(
            f"{path} cannot be used ({type(error).__name__}: {error}); restore that file from "
            "a backup, or delete it to drop that snapshot"
        ) from error


def _rows(store: Store) -> dict[str, int]:
    return {kind: store.count(f"modality = '{kind}'") for kind in ("image", "audio")}
