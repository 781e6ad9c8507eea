"""Versions of the store: their manifests, what tells them apart, and how long old ones stay.

LanceDB keeps every version until it is told how old a version may be. A reader finishes a
request with the version that it began with, so the last versions are needed. Older ones only
take room on the disk, and time at each clean-up, which reads their manifests. So versions are
kept for half an hour, or until there are many.

Bittern never reads what a manifest says. It knows the name of its file, which Lance documents,
and takes its checksum.
"""

from __future__ import annotations

import functools
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

import xxhash

from bittern.errors import ArchiveDamagedError

if TYPE_CHECKING:
    from bittern.index.store import Store

KEPT_S = 30 * 60.0
"""How long readers may go on with a version that is not the newest, in seconds."""
MOST_VERSIONS = 512
"""When there are more versions than this, the oldest of them are kept for less."""
KEPT_AT_LEAST_S = 20.0
"""How long a version is kept in any case, in seconds."""
_MARGIN_S = 1.0
"""The system's clock and the time stamps of files go by different ticks."""
_LAST = 2**64 - 1
_NAME = re.compile(r"(?:.*/)?([0-9]{1,20})\.manifest")
_TRIES = 3
P = ParamSpec("P")
T = TypeVar("T")


def manifest(folder: Path, version: int) -> Path:
    """The manifest of a version as LanceDB names it: counted down, so the newest sorts first."""
    return folder / f"{_LAST - version:020}.manifest"


def manifest_version(name: str) -> int:
    """The version that a manifest is of, from its name or path; 0 where it is no manifest."""
    if not (found := _NAME.fullmatch(name)):
        return 0
    number = int(found[1])
    return _LAST - number if len(found[1]) == 20 else number  # older releases counted up


def identity(folder: Path, version: int) -> str | None:
    """What tells a version from every other, of this table or another.

    It is the checksum of the version's manifest. A store that was restored from a backup and
    written to again counts the same versions, with other manifests.

    Args:
        folder: the table's folder of manifests.
        version: its number.

    Returns:
        None where the version is gone or cannot be read.
    """
    for path in (manifest(folder, version), folder / f"{version}.manifest"):
        try:
            return xxhash.xxh3_128_hexdigest(path.read_bytes())
        except OSError:
            continue
    return None


class StoreIdentity:
    """Notices when another store takes the place of the one that is read.

    Args:
        store: the reader's table; nothing read from it was handed out before.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stamp = self._now()
        self._identity = store.identity(store.version)

    @property
    def identity(self) -> str | None:
        """What tells the version that the store is at from every other."""
        return self._identity

    def is_lost(self) -> bool:
        """Whether the version that the store is at is no longer the one that was read.

        It costs one look at a folder as long as nothing changes. A version that was cleaned
        up proves nothing, so it counts as lost as well.
        """
        stamp = self._now()
        if stamp == self._stamp:
            return False
        found = self._store.identity(self._store.version)
        if found is None or found != self._identity:
            return True
        self._stamp = stamp
        return False

    def follow(self) -> int:
        """Move the store to the newest version and return its number."""
        before = self._store.version
        version = self._store.follow()
        if version != before:
            self._identity = self._store.identity(version)
        return version

    def _now(self) -> tuple[int, ...]:
        try:
            return self._store.folder_stamp()
        except OSError as error:
            raise ArchiveDamagedError(
                f"the archive's store at {self._store.path} is missing ({error}); restore the "
                "archive from a backup"
            ) from error


class Renewable(Protocol):
    """Something with states that follow each other."""

    @property
    def state(self) -> object:
        """The newest state; no other one equals it."""


A = TypeVar("A", bound=Renewable)


def retried(method: Callable[Concatenate[A, P], T]) -> Callable[Concatenate[A, P], T]:
    """Call a method again where the version that it began with was cleaned up meanwhile.

    A call that takes longer than old versions are kept, or whose machine was asleep, finds
    files missing though nothing is damaged: then it is answered from the newest version.
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


class OldVersions:
    """How old a version must be before its files may be removed.

    The clock of the system can be set to any time; LanceDB compares it with the times that
    it noted in the manifests. What this process has committed in the last seconds is known
    by a clock that is never set, so that no jump makes versions that are in use look old.

    Args:
        folder: the table's folder of manifests.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._recent: deque[tuple[float, int]] = deque()

    def replaced(self, version: int) -> None:
        """Note that a version has just been replaced as the newest."""
        now = time.monotonic()
        self._recent.append((now, version))
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] > KEPT_AT_LEAST_S:
            self._recent.popleft()

    def keep_s(self, needed: Iterable[int] = ()) -> float:
        """The age in seconds, by the system's clock, from which versions may be removed.

        Args:
            needed: versions that must stay.
        """
        ages = self._ages()
        by_age = sorted(ages.values())
        keep = KEPT_S
        if len(by_age) > MOST_VERSIONS:
            keep = min(keep, max(by_age[MOST_VERSIONS], KEPT_AT_LEAST_S))
        self._forget(time.monotonic())
        recent = (version for _, version in self._recent)
        in_use = [ages[version] for version in (*recent, *needed) if version in ages]
        return max([keep, *(age + _MARGIN_S for age in in_use)])

    def _ages(self) -> Mapping[int, float]:
        """Age in seconds, by the system's clock, of each version; below 0 in the future."""
        now = time.time()
        ages: dict[int, float] = {}
        for path in self._folder.glob("*.manifest"):
            try:
                ages[manifest_version(path.name)] = now - path.stat().st_mtime
            except OSError:
                continue
        return ages
