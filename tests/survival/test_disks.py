"""A full disk and a read-only disk: typed errors, and nothing lost or half stored.

The disks are mounted in a mount namespace of the process under test. Without permission for that, a
warning is given, and the process uses what every user can do: file size limits and permissions.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

from bittern.index.archive import Archive
from tests.index.samples import OWL, photo

_ROOT = Path(__file__).parents[2]


def on_small_disk(module: str, folder: Path, size: str) -> str:
    """Run a module with a small disk at `folder`; returns its output."""
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
            f"no disk can be mounted: {module} runs without one and tests less", stacklevel=3
        )
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_on_a_full_disk_every_change_is_made_as_a_whole_or_refused(tmp_path: Path) -> None:
    printed = on_small_disk("tests.survival.full_disk", tmp_path / "disk", "16m")
    for kind in ("add", "delete", "register"):
        assert f"{kind} PRECONDITION" in printed


def test_an_archive_that_cannot_be_written_to_is_read_and_searched(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "marsh") as archive:
        archive.register_model(OWL, {"card.json": b"{}"})
        archive.add([photo(f"p{i}", {"countryCode": "FR"}) for i in range(9)], model=OWL.digest)
    assert "refused" in on_read_only_disk("tests.survival.read_only", tmp_path)
    with Archive.open(tmp_path / "marsh", write=True) as archive:
        archive.delete(["p3"])
        assert archive.verify() == []
