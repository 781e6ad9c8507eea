"""Opening an archive: the check of its files, and its newest state.

The sizes of the store's files, and the contents of its newest manifest and deletion files, are
compared with the recorded checksums; in small archives the contents of all files are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import pyarrow as pa

from bittern.errors import ArchiveDamagedError
from bittern.index.checksums import (
    TABLE_PREFIX,
    file_problem,
    read_checksums,
    stored_files,
    version_of,
)
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.store import Store
from bittern.index.table_versions import TableVersion

CONTENTS_UP_TO_BYTES = 64 << 20
"""Up to this size of the store, all contents are compared at opening: hundredths of a second."""
_SHOWN = 5
_READS = 100
_TRIES = 3
P = ParamSpec("P")
T = TypeVar("T")


def newest_state(folder: ArchiveFolder, store: Store, *, follow: bool = True) -> tuple[Header, int]:
    """The header and the newest version at one point in time; moves `store` to that version.

    A model's column is committed before the header names it, and removed after the header drops
    it. So a header that does not change while the version is read matches it.

    Args:
        folder: the archive's folder.
        store: its table.
        follow: False for the writer's handle, which is always at the newest version: nobody else
            commits.

    Raises:
        ArchiveDamagedError: the header or the store cannot be read, or the header changes at every
            attempt.
    """
    for _ in range(_READS):
        header = folder.read_header()
        if follow:
            store.follow()
        version = store.version
        if folder.read_header() is header:
            return header.at(version), version
    raise ArchiveDamagedError(
        f"{folder.header_file} changed during each of {_READS} attempts to read it; stop the "
        "program that writes it and try again"
    )


def check_at_open(folder: ArchiveFolder) -> None:
    """Check the files that the newest version of an archive's store needs.

    Raises:
        ArchiveDamagedError: a file is missing or damaged.
        ArchiveVersionError: a newer version of the store's library wrote it.
    """
    try:
        # First the log, then the folder: another process may commit in between.
        log = read_checksums(folder.path)
        stored = stored_files(folder.store)
    except OSError as error:
        raise _damaged(folder, str(error)) from error
    newest = stored.newest
    if log.newest > newest:
        raise _damaged(
            folder, f"version {log.newest} is missing; the newest that exists is {newest or 'none'}"
        )
    recorded = {key: known for key, known in log.files.items() if key.startswith(TABLE_PREFIX)}
    is_small = sum(known.size for known in recorded.values()) <= CONTENTS_UP_TO_BYTES
    problems = {}
    for key, known in recorded.items():
        contents = is_small or "/_deletions/" in key or version_of(key) == newest
        if problem := file_problem(folder.path / key, known, contents):
            problems[key] = problem
    needed = problems.keys() & {stored.manifests.get(newest, "")}
    if problems and not needed:
        needed = TableVersion.open(folder.store, newest).needed(problems)
    if needed:
        shown = [
            f"{key.removeprefix(TABLE_PREFIX)} {problems[key]}" for key in sorted(needed)[:_SHOWN]
        ]
        more = f", and {len(needed) - _SHOWN} more" if len(needed) > _SHOWN else ""
        raise _damaged(folder, "; ".join(shown) + more)


def _damaged(folder: ArchiveFolder, problems: str) -> ArchiveDamagedError:
    return ArchiveDamagedError(
        f"the archive's store at {folder.store} cannot be read: {problems}; run bittern verify "
        f"{folder.path} for details, add --repair to save what is sound, "
        "or restore the archive from a backup"
    )


def check_model_columns(folder: ArchiveFolder, header: Header, store: Store) -> None:
    """Check that the store has the codes of the header's models.

    Raises:
        ArchiveDamagedError: it has no such codes.
    """
    for record in header.models:
        if store.field_type(record.code_column) != pa.binary(record.bits // 8):
            raise ArchiveDamagedError(
                f"the archive at {folder.path} names model {record.name} "
                f"({record.digest[:16]}, {record.bits} bits), but the store has no such codes; "
                "archive.json and store do not match: restore both from one backup"
            )


class HasState(Protocol):
    """An object whose `state` changes with every commit."""

    @property
    def state(self) -> object:
        """The newest state."""


A = TypeVar("A", bound=HasState)


def repeat_on_newest(method: Callable[Concatenate[A, P], T]) -> Callable[Concatenate[A, P], T]:
    """Call a method again, on the newest version, if its version was cleaned up meanwhile.

    A call that takes longer than old versions are kept, for example on a machine that was
    suspended, finds files missing though nothing is damaged.
    """

    @functools.wraps(method)
    def trying(archive: A, /, *args: P.args, **options: P.kwargs) -> T:
        for _ in range(_TRIES - 1):
            began = None
            try:
                began = archive.state
                return method(archive, *args, **options)
            except ArchiveDamagedError:
                if archive.state == began:
                    raise
        return method(archive, *args, **options)

    return trying
