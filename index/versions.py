"""The old versions of the store: how to tell one from another, and how long they are kept.

LanceDB keeps every version until it is told how old a version may be. Readers need the last
ones: whoever asks something goes on with the version at which the question began. Beyond
that an old version only costs room on the disk, and time whenever old versions are removed:
their manifests are read then. So they are kept for half an hour, or until there are many.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

import xxhash

KEPT_S = 30 * 60.0
"""How long readers may go on with a version that is not the newest, in seconds."""
MOST_VERSIONS = 512
"""From so many versions on, the oldest of them are kept for less."""
KEPT_AT_LEAST_S = 20.0
"""How long a version is kept in any case, in seconds."""
_MARGIN_S = 1.0
"""The system's clock and the time stamps of files go by different ticks."""
_LAST = 2**64 - 1


def manifest(folder: Path, version: int) -> Path:
    """The manifest of a version as LanceDB names it: counted down, so the newest sorts first."""
    return folder / f"{_LAST - version:020}.manifest"


def identity(folder: Path, version: int) -> str | None:
    """What tells a version from every other, of this table or another.

    The checksum of the version's manifest, which names the data files (by random names),
    the deletions and the time of the commit. A store that was restored from a backup and
    written to again counts the same versions, with other manifests.

    Args:
        folder: the table's folder of manifests.
        version: its number.

    Returns:
        None where the version is gone, or cannot be told.
    """
    # Older releases of LanceDB counted up.
    for path in (manifest(folder, version), folder / f"{version}.manifest"):
        try:
            return xxhash.xxh3_128_hexdigest(path.read_bytes())
        except OSError:
            continue
    return None


class OldVersions:
    """How old a version must be before its files may go.

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
        """Note that a version has just been the newest for the last time."""
        now = time.monotonic()
        self._recent.append((now, version))
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] > KEPT_AT_LEAST_S:
            self._recent.popleft()

    def keep_s(self, needed: Iterable[int] = ()) -> float:
        """The age in seconds, by the system's clock, from which versions may be removed.

        Args:
            needed: versions that must be younger than that.
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
                ages[_LAST - int(path.stem)] = now - path.stat().st_mtime
            except (OSError, ValueError):
                continue
        return ages
