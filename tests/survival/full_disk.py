"""Changes an archive on a disk that is full at another moment each time.

    python -m tests.survival.full_disk FOLDER [mounted]

With ``mounted``, FOLDER is a small disk of its own, which is filled up but for a few blocks.
Without, no file of this process may grow beyond as many bytes. Each operation is done, or it
raises one of Bittern's errors and is done as a whole or not at all; with room it works again.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bittern.errors import BitternError
from bittern.index.archive import Archive
from tests.survival.comparing import check_answers, is_held
from tests.survival.content import Content, Operation, next_operation
from tests.survival.worker import Worker

STEPS = 49
BLOCK = 4096
MOST_BLOCKS = 20
_TRIES = 200
KINDS = ("add", "delete", "register", "compact", "keep", "lookups", "reopen")


class Disk:
    """The disk, and how it is filled up."""

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self._folder = folder
        self._mounted = mounted
        self._ballast = folder / "ballast"

    @contextmanager
    def only(self, free: int) -> Iterator[None]:
        """Leave so many bytes free, or let no file grow beyond so many."""
        if not self._mounted:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (free, resource.RLIM_INFINITY))
            try:
                yield
            finally:
                resource.setrlimit(
                    resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                )
            return
        self._ballast.touch()
        room = os.statvfs(self._folder)
        with self._ballast.open("wb") as ballast:
            if (size := room.f_bavail * room.f_bsize - free) > 0:
                os.posix_fallocate(ballast.fileno(), 0, size)
        try:
            yield
        finally:
            self._ballast.unlink()


def operation_of(kind: str, content: Content, chance: random.Random) -> Operation:
    """The next operation of a kind, or one like it where there is nothing for that."""
    for _ in range(_TRIES):
        if (found := next_operation(content, chance))["do"] == kind:
            return found
    return next_operation(content, chance)


def run(folder: Path, *, mounted: bool) -> Counter[str]:
    disk, chance, outcomes = Disk(folder, mounted=mounted), random.Random(5), Counter[str]()
    path = folder / "marsh"
    with disk.only(0):
        try:
            Archive.create(path)
        except BitternError as error:
            outcomes[f"create {error.reason}"] += 1
    Archive.create(path).close()
    worker = Worker(path, Content(), chance)
    for number in range(STEPS):
        if number % 3 == 0 or not worker.content.models:
            operation = next_operation(worker.content, chance)
            worker.do(operation)
            worker.content, _ = worker.content.after(operation)
        kind = KINDS[number % len(KINDS)]
        operation = operation_of(kind, worker.content, chance)
        after, wanted = worker.content.after(operation)
        try:
            with disk.only(BLOCK * chance.randrange(MOST_BLOCKS)):
                assert worker.do(operation) == wanted, operation
            worker.content = after
        except BitternError as error:
            outcomes[f"{kind} {error.reason}"] += 1
            if worker.archive._follower.closed:
                worker.archive = Archive.open(path, write=True)
            if is_held(worker.archive, worker.content):
                worker.content = after
                outcomes[f"{kind} came through"] += 1
        wrong = is_held(worker.archive, worker.content)
        assert not wrong, f"{operation}: {wrong[:9]}"
    with disk.only(0), Archive.open(path) as reader:
        check_answers(reader, worker.content)
    check_answers(worker.archive, worker.content)
    worker.archive.close()
    with Archive.open(path, write=True) as archive:
        assert archive.verify() == []
        check_answers(archive, worker.content)
    return outcomes


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for what, times in sorted(run(Path(sys.argv[1]), mounted="mounted" in sys.argv).items()):
        print(times, what)
