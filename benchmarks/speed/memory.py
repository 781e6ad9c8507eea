"""The most memory that a piece of work holds at a time."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_CLEAR_PEAK = "5"


@dataclass
class Peak:
    """Resident memory of this process, in bytes; mapped pages of files are part of it.

    Attributes:
        before: when the work began.
        most: the most there was at a time until it ended.
    """

    before: int = 0
    most: int = 0

    @property
    def growth(self) -> int:
        """Bytes by which the process grew at most. What it had freed before, but kept, counts as
        memory that it had: compare with a process that has done little.
        """
        return max(0, self.most - self.before)


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watch the work inside the block; its peak is there when the block has ended.

    Where a process cannot forget its earlier peak (other systems than Linux), that peak counts
    as the memory before the work, and only what goes beyond it is seen.
    """
    peak = Peak()
    try:
        _CLEAR.write_text(_CLEAR_PEAK)
        peak.before = _status("VmRSS")
    except OSError:
        peak.before = _largest_ever()
    try:
        yield peak
    finally:
        peak.most = _status("VmHWM") if _STATUS.exists() else _largest_ever()


def own_memory() -> int:
    """Bytes that are resident and no cache of files; 0 where the system does not tell (Linux
    does).
    """
    return _status("RssAnon") if _STATUS.exists() else 0


def resident_memory() -> int:
    """Bytes that are resident, mapped pages of files included; 0 where the system does not tell
    (Linux does).
    """
    return _status("VmRSS") if _STATUS.exists() else 0


def _status(name: str) -> int:
    """A size in /proc/self/status, in bytes."""
    for line in _STATUS.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise OSError(f"{_STATUS} does not tell {name}")


def _largest_ever() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
