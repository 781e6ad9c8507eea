"""Disks that are full or cannot be written to, for a process that is run on one.

Root or not, what is mounted here is seen by that process alone (a mount namespace of its own)
and goes with it. Where that is not permitted, a warning says so, and the process makes do with
what every user can do: its files may not grow, or their permissions are taken away.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def on_small_disk(module: str, folder: Path, size: str) -> str:
    """Run a module with a small disk of its own in `folder`; returns what it printed."""
    folder.mkdir()
    return _run(module, folder, f'mount -t tmpfs -o size={size} tmpfs "$1"')


def on_read_only_disk(module: str, folder: Path) -> str:
    """Run a module that sees `folder` as a disk that cannot be written to."""
    return _run(module, folder, 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"')


def _run(module: str, folder: Path, mount: str) -> str:
    options = "-m" if os.geteuid() == 0 else "-rm"
    mounting = ["unshare", options, "sh", "-c", mount, "sh", str(folder)]
    command = [sys.executable, "-m", module, str(folder)]
    if _works(mounting):
        script = f'{mount} && shift && exec "$@"'
        command = ["unshare", options, "sh", "-c", script, "sh", str(folder), *command, "mounted"]
    else:
        warnings.warn(
            f"no disk can be mounted here: {module} goes on without, and shows less", stacklevel=3
        )
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
