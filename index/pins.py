"""How a version of an archive's store is kept from clean-up.

A pin's name tells when it was made and, for one that lasts only as long as a process, which
process that is. So the pins that a killed process has left can be told from those in use. The
next writer removes them, and so does whoever takes or drops a snapshot.
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
"""Age from which a pin that no snapshot names was left by a killed process."""


def pin(store: Store, version: int, *, while_running: bool = False) -> str:
    """Keep a version from clean-up.

    Args:
        store: the table; not a handle that others move.
        version: one that exists.
        while_running: only as long as this process runs.

    Returns:
        the name that `unpin` takes.

    Raises:
        PreconditionError: the version is gone, or the folder cannot be written to.
    """
    process = f"-{_machine()}-{os.getpid()}" if while_running else ""
    name = f"{int(time.time()):x}-{secrets.token_hex(4)}{process}"
    store.keep(name, version)
    return name


def unpin(store: Store, name: str) -> None:
    """Let a version go: the next compaction may remove it. It may have been let go before."""
    if name in store.kept():
        # Another process may have been quicker.
        with suppress(PreconditionError):
            store.let_go(name)


def unpin_abandoned(store: Store, used: Sequence[str]) -> None:
    """Remove the pins that killed processes have left.

    Those are pins of a process of this machine that no longer runs, and pins that are two days
    old.

    Args:
        store: the table.
        used: pins that stay, those of snapshots.
    """
    for name in store.kept().keys() - set(used):
        made, *more = name.split("-")
        with suppress(ValueError):  # a name that `pin` did not make
            age = time.time() - int(made, 16)
            if age > _ABANDONED_S or (len(more) == 3 and _has_ended(*more[1:])):
                unpin(store, name)


@cache
def _machine() -> str:
    """What tells this machine, since it was started, and its process numbers from others."""
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
