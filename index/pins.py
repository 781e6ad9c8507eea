"""Pins protect a version of an archive's store from clean-up.

The name of a pin holds its time and, for a pin that lasts as long as a process, that process. So
pins that a killed process has left can be recognised. They are removed when an archive is opened
for writing, and when a snapshot is taken or dropped.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import xxhash

from bittern.errors import PreconditionError
from bittern.index.store import Store

_ABANDONED_S = 2 * 86_400.0
"""An older pin that no snapshot names was left by a killed process."""


def pin(store: Store, version: int, *, while_running: bool = False) -> str:
    """Protect a version from clean-up.

    Args:
        store: the table; a handle that nobody else uses.
        version: one that exists.
        while_running: only as long as this process runs.

    Returns:
        the pin's name, for `unpin`.

    Raises:
        PreconditionError: the version is gone, or the folder cannot be written to.
    """
    process = f"-{_machine()}-{os.getpid()}" if while_running else ""
    name = f"{int(time.time()):x}-{secrets.token_hex(4)}{process}"
    store.pin(name, version)
    return name


def unpin(store: Store, name: str) -> None:
    """Remove a pin, if it still exists."""
    if name in store.pins():
        # Another process may have removed it.
        with suppress(PreconditionError):
            store.unpin(name)


def unpin_abandoned(store: Store, used: Sequence[str]) -> None:
    """Remove pins of ended processes of this machine, and pins that are two days old.

    Args:
        store: the table.
        used: pins of snapshots, which stay.
    """
    for name in store.pins().keys() - set(used):
        made, *more = name.split("-")
        with suppress(ValueError):  # a name that `pin` did not make
            age = time.time() - int(made, 16)
            if age > _ABANDONED_S or (len(more) == 3 and _has_ended(*more[1:])):
                unpin(store, name)


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
    except (OSError, OverflowError):
        return False
    return False
