"""The versions of an archive's store: which are there, and how one is kept from clean-up.

A version is pinned under a name that tells when, and for what only lasts as long as a process,
which process (see `Store.keep`), so that what a killed process has left pinned is told from what
is in use, and let go: by the next writer, or when a snapshot is taken or dropped.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import xxhash

from bittern.errors import NotFoundError, PreconditionError
from bittern.index.store import Store

_ABANDONED_S = 2 * 86_400.0
"""Age from which a pin that nobody names is what a killed process has left."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version that is still there.

    Attributes:
        version: its number.
        time: when it was committed, ISO 8601 in UTC.
        rows: observations.
        bytes: of its data files.
    """

    version: int
    time: str
    rows: int
    bytes: int


def versions(store: Store) -> list[StoredVersion]:
    """The versions that can be opened, oldest first."""
    with store._reading():
        return [_version(value) for value in store._table.list_versions()]


def store_at(store: Store, version: int) -> Store:
    """The store as it was at a version.

    Raises:
        NotFoundError: that version is gone, or has not been yet.
    """
    there = [known.version for known in versions(store)]
    if version not in there and version not in store.kept().values():
        shown = ", ".join(map(str, there[-5:]))
        raise NotFoundError(
            f"version {version} of the archive is not there any more; versions without a snapshot "
            f"are cleaned up after half an hour. The newest are {shown}; "
            "bittern snapshots ARCHIVE --all lists all",
            field="snapshot",
            details={"version": str(version)},
        )
    return Store(store.path, version, store._session)


def pin(store: Store, version: int, *, while_running: bool = False) -> str:
    """Keep a version from clean-up.

    Args:
        store: the table; not a handle that others move.
        version: one that is there.
        while_running: only as long as this process runs.

    Returns:
        what `unpin` takes.

    Raises:
        PreconditionError: the version is gone, or the folder cannot be written to.
    """
    process = f"-{_machine()}-{os.getpid()}" if while_running else ""
    name = f"{int(time.time()):x}-{secrets.token_hex(4)}{process}"
    store.keep(name, version)
    return name


def unpin(store: Store, name: str) -> None:
    """Let a version go: the next compaction may clean it up. Nothing happens if it was let go."""
    if name in store.kept():
        # Another process may have been quicker.
        with suppress(PreconditionError):
            store.let_go(name)


def unpin_abandoned(store: Store, used: Sequence[str]) -> None:
    """Let go of what killed processes have pinned, and is not among the pins in use.

    Those of a process of this machine that runs no more, and all that are two days old.
    """
    for name in store.kept().keys() - set(used):
        made, *more = name.split("-")
        with suppress(ValueError):  # a name that is not one of `pin`
            age = time.time() - int(made, 16)
            if age > _ABANDONED_S or (len(more) == 3 and _has_ended(*more[1:])):
                unpin(store, name)


@cache
def _machine() -> str:
    """What tells this machine, since it was started, and its numbers of processes from others."""
    about = [platform.node()]
    with suppress(OSError):
        about.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        about.append(str(Path("/proc/self/ns/pid").readlink()))
    return xxhash.xxh3_64_hexdigest("\n".join(about).encode())


def _has_ended(machine: str, process: str) -> bool:
    """Whether a process is known to be no more."""
    if machine != _machine() or os.name != "posix":
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def drop_columns(store: Store, names: Sequence[str]) -> None:
    """Remove columns and all that is in them: one commit; none if there are no names."""
    if names:
        store._commit(lambda: store._table.drop_columns(list(names)))


def replace_rows(store: Store, rows: Any, gone: str | None) -> None:
    """Add or replace rows by `id`, and remove others: one commit.

    Args:
        store: the table, at its newest version.
        rows: a table, or a reader of batches, in the table's schema.
        gone: the condition that those others meet; None for none.
    """
    merge = store._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
    if gone is not None:
        merge = merge.when_not_matched_by_source_delete(gone)
    store._commit(lambda: merge.execute(rows))


def _version(value: dict[str, Any]) -> StoredVersion:
    told = value["metadata"]
    # LanceDB tells local time without saying so.
    when: datetime = value["timestamp"]
    when = when.astimezone(UTC)
    return StoredVersion(
        version=int(value["version"]),
        time=when.isoformat(timespec="seconds"),
        rows=int(told.get("total_rows", 0)),
        bytes=int(told.get("total_files_size", 0)),
    )
