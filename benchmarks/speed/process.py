"""Memory of processes, the system's file cache, and work in a fresh process."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 2**20
_ROOT = Path(__file__).parents[2]
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_CLEAR_PEAK = "5"
_READ_BYTES = 8 << 20
_TIMEOUT_S = 1_800


@dataclass
class Peak:
    """Resident memory of this process in bytes, mapped files included.

    Attributes:
        before: at the start of the work.
        most: peak until its end.
    """

    before: int = 0
    most: int = 0

    @property
    def growth(self) -> int:
        """Largest growth in bytes. Freed memory that the process kept does not count as growth."""
        return max(0, self.most - self.before)


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the work inside the block; the peak is set at its end.

    On systems other than Linux the earlier peak cannot be reset: it counts as the memory before.
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


def own_memory(process: int | str = "self") -> int:
    """Resident bytes of a process without mapped files; 0 on systems other than Linux."""
    return _status("RssAnon", process) if _STATUS.exists() else 0


def resident_memory() -> int:
    """Resident bytes, mapped files included; 0 on systems other than Linux."""
    return _status("VmRSS") if _STATUS.exists() else 0


def fresh_command(module: str, *arguments: object) -> list[str]:
    """The command that calls a module's function ``main`` in a fresh process."""
    call = f"import sys; from {module} import main; main(*sys.argv[1:])"
    return [sys.executable, "-c", call, *map(str, arguments)]


def in_fresh_process(module: str, *arguments: object) -> dict[str, Any]:
    """Call a module's function ``main`` with texts; returns the JSON that it prints last.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(  # noqa: S603 - only modules of this package
        fresh_command(module, *arguments),
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr.strip()[-2000:]}")
    value: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return value


def files_of(path: Path) -> list[Path]:
    """All files in a folder, or the file itself."""
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def bytes_of(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in files_of(path))


def read_once(path: Path) -> None:
    """Read a file, or all files of a folder, from beginning to end."""
    buffer = bytearray(_READ_BYTES)
    for file in files_of(path):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def drop_cache(path: Path) -> None:
    """Drop a file or a folder from the system's cache, if the system can."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in files_of(path):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _status(name: str, process: int | str = "self") -> int:
    """A size in /proc/PROCESS/status, in bytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/{process}/status has no {name}")


def _largest_ever() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
