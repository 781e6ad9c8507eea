"""Versions of the store: their manifests, how long old ones are kept, and pins that keep them.

A reader finishes a request with the version that it began with, so recent versions are needed.
Older ones take disk space, and time at each clean-up, which reads their manifests. So versions are
kept for half an hour, or for less if there are many. Snapshots, backups and exports pin theirs.

Bittern never parses a manifest. It uses its file name, which Lance documents, and its checksum.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import xxhash

KEPT_S = 30 * 60.0
"""How long readers can use a version that is not the newest, in seconds."""
MOST_VERSIONS = 512
"""If there are more versions, the oldest are kept for a shorter time."""
KEPT_AT_LEAST_S = 20.0
"""The least time that a version is kept, in seconds."""
_PIN_ABANDONED_S = 2 * 86_400.0
"""An older pin that no snapshot names was left by a killed process."""
_MARGIN_S = 1.0
"""The system's clock and the time stamps of files differ in resolution."""
_LAST = 2**64 - 1
_NAME = re.compile(r"(?:.*/)?([0-9]{1,20})\.manifest")


def manifest(folder: Path, version: int) -> Path:
    """The manifest of a version as LanceDB names it: counted down, so the newest sorts first."""
    return folder / f"{_LAST - version:020}.manifest"


def manifest_version(name: str) -> int:
    """The version of a manifest, from its name or path; 0 if it is no manifest."""
    if not (found := _NAME.fullmatch(name)):
        return 0
    number = int(found[1])
    # Older releases counted up.
    return max(0, _LAST - number) if len(found[1]) == 20 else number


def identity(folder: Path, version: int) -> str | None:
    """The checksum of a version's manifest, which identifies it among all tables.

    A version number does not: a store that was restored from a backup and written to again has the
    same numbers, with other manifests.

    Args:
        folder: the table's folder of manifests.
        version: its number.

    Returns:
        None if the version is gone or cannot be read.
    """
    for path in (manifest(folder, version), folder / f"{version}.manifest"):
        try:
            return xxhash.xxh3_128_hexdigest(path.read_bytes())
        except OSError:
            continue
    return None


class OldVersions:
    """How old a version must be before its files may be removed.

    LanceDB compares the system's clock, which can be set to any time, with the times in the
    manifests. Commits of the last seconds are also recorded here by a monotonic clock, so that a
    clock change does not make versions in use look old.

    Args:
        folder: the table's folder of manifests.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._recent: deque[tuple[float, int]] = deque()

    def replaced(self, version: int) -> None:
        """Record that a version is no longer the newest."""
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
        """Age in seconds of each version, by the system's clock; negative in the future."""
        now = time.time()
        ages: dict[int, float] = {}
        for path in self._folder.glob("*.manifest"):
            try:
                ages[manifest_version(path.name)] = now - path.stat().st_mtime
            except OSError:
                continue
        return ages


# Pins


def pin_name(*, while_running: bool = False) -> str:
    """A new name of a pin, which holds the time and perhaps the process.

    Args:
        while_running: the pin is needed only as long as this process runs.
    """
    process = f"-{_machine()}-{os.getpid()}" if while_running else ""
    return f"{int(time.time()):x}-{secrets.token_hex(4)}{process}"


def is_abandoned(pin: str) -> bool:
    """Whether the process of a pin has ended, or the pin is two days old and no snapshot's."""
    made, *more = pin.split("-")
    try:
        age = time.time() - int(made, 16)
    except ValueError:  # not made by `pin_name`
        return False
    return age > _PIN_ABANDONED_S or (len(more) == 3 and _has_ended(*more[1:]))


@cache
def _machine() -> str:
    """Identifies this machine since its start, and its process numbers."""
    about = [platform.node()]
    with suppress(OSError):
        about.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        about.append(str(Path("/proc/self/ns/pid").readlink()))
    return xxhash.xxh3_64_hexdigest("\n".join(about).encode())


def _has_ended(machine: str, process: str) -> bool:
    """Whether a process is known to have ended."""
    if machine != _machine() or os.name != "posix":
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError, ValueError):
        return False
    return False
