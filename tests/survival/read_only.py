"""Reads an archive that cannot be written to, and tries to write all the same.

    python -m tests.survival.read_only FOLDER [mounted]

With ``mounted``, FOLDER is on a disk that is mounted for reading only. Without, permissions
are taken away, which root does not feel: then only what an archive open for reading refuses
is tried.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from bittern.errors import ArchiveLockedError, PreconditionError
from bittern.index.archive import Archive
from tests.index.samples import OWL, code, photo


def refused(change: Callable[[], object]) -> None:
    try:
        change()
    except ArchiveLockedError:
        raise AssertionError("nobody else writes") from None
    except PreconditionError as error:
        print("refused:", error)
    else:
        raise AssertionError("that should not be possible")


def run(folder: Path, *, mounted: bool) -> None:
    path = folder / "marsh"
    if not mounted:
        for one in (*path.rglob("*"), path):
            one.chmod(0o555 if one.is_dir() else 0o444)
    try:
        with Archive.open(path) as archive:
            assert len(archive.list(where="countryCode = 'FR'").observations) == 9
            query = code(1)
            hits = archive.search(query, model=OWL.digest, k=20, metric="hamming").hits
            assert len(hits) == 9
            assert archive.get("p3").row == 3
            assert archive.verify() == []
            refused(lambda: archive.add([photo("q")], model=OWL.digest))
            refused(lambda: archive.delete(["p3"]))
        if mounted or os.geteuid() != 0:
            refused(lambda: Archive.open(path, write=True))
            refused(lambda: Archive.create(folder / "new"))
    finally:
        if not mounted:
            for one in (path, *path.rglob("*")):
                one.chmod(0o755 if one.is_dir() else 0o644)


if __name__ == "__main__":
    run(Path(sys.argv[1]), mounted="mounted" in sys.argv)
