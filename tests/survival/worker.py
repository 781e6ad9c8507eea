"""A process that is made to be killed: it changes an archive and writes down what it does.

    python -m tests.survival.worker          (orders on its standard input, one JSON a line)

For each order it forks, so that what takes a second to load is loaded once. LanceDB is
loaded here and first used in the fork: its own threads are started anew there. The fork
writes a line to the journal before and after each call, and a dot to standard output for
each line; what a killed process has written to a file stays written.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bittern.index import generation_files, versions, writer
from bittern.index.archive import Archive
from bittern.index.store import Store
from tests.index.samples import build_index
from tests.survival.content import Content, Operation, next_operation, observations, record_of
from tests.survival.journal import Journal, content_from_json

FILES = {"card.json": b"{}", "heads/shared.bin": b"\x00\x01"}


class Worker:
    """Does one operation after another."""

    def __init__(self, path: Path, content: Content, chance: random.Random) -> None:
        self.path = path
        self.content = content
        self.chance = chance
        self.archive = Archive.open(path, write=True)

    def run(self, journal: Journal, operations: int) -> None:
        for _ in range(operations):
            operation = next_operation(self.content, self.chance)
            journal.write({"begin": operation})
            answer = self.do(operation)
            journal.write({"done": answer})
            self.content, _ = self.content.after(operation)
        self.archive.close()

    def do(self, operation: Operation) -> Any:
        return getattr(self, operation["do"])(operation)

    def add(self, operation: Operation) -> list[str]:
        items = [observations(operation, item) for item in operation["items"]]
        digest = record_of(operation["model"]).digest
        results = self.archive.add(items, model=digest, on_duplicate=operation["policy"])
        return [str(result.status) for result in results]

    def delete(self, operation: Operation) -> list[str]:
        return self.archive.delete(operation["ids"])

    def register(self, operation: Operation) -> None:
        self.archive.register_model(record_of(operation["model"]), FILES)

    def compact(self, operation: Operation) -> None:
        self.archive._store.compact()

    def clean(self, operation: Operation) -> None:
        kept = versions.KEPT_S, versions.KEPT_AT_LEAST_S
        versions.KEPT_S = versions.KEPT_AT_LEAST_S = 0.0
        try:
            self.archive._store.compact()
        finally:
            versions.KEPT_S, versions.KEPT_AT_LEAST_S = kept

    def lookups(self, operation: Operation) -> None:
        writer.make_lookups(self.archive._store)

    def index(self, operation: Operation) -> None:
        build_index(self.archive, record_of(operation["model"]).digest)

    def reopen(self, operation: Operation) -> None:
        self.archive.close()
        self.archive = Archive.open(self.path, write=True)

    def keep(self, operation: Operation) -> None:
        self.archive._store.pin(operation["name"], self.archive._store.version)

    def let_go(self, operation: Operation) -> None:
        self.archive._store.unpin(operation["name"])


class Steps:
    """Ends the process at one of the steps between which it might be killed.

    A step is about to be taken, or has just been taken: a commit of the store, the renaming
    of a file or a folder, the removal of one, a file brought to the disk.
    """

    def __init__(self, last: int) -> None:
        self._left = last
        for owner, name in (
            (Store, "_commit"),
            (Path, "replace"),
            (Path, "rename"),
            (shutil, "rmtree"),
            (os, "fsync"),
        ):
            setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self._one()
            done = step(*args, **options)
            self._one()
            return done

        return counted

    def _one(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def work(order: dict[str, Any]) -> None:
    """Carry out one order, in a process of its own."""
    writer.LOOKUPS_FROM = 60
    generation_files.STORED_FROM = 20
    writer._COMPACT_AFTER_COMMITS = 9
    journal = Journal(Path(order["journal"]), to=sys.stdout.fileno())
    worker = Worker(
        Path(order["archive"]), content_from_json(order["content"]), random.Random(order["seed"])
    )
    if order["steps"]:
        Steps(order["steps"])
    journal.write({"pid": os.getpid()})
    worker.run(journal, order["operations"])


def main() -> None:
    warnings.simplefilter("ignore")
    os.environ.setdefault("LANCEDB_LOG", "error")
    import lancedb  # noqa: F401 - loaded, not used: see above

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                work(json.loads(line))
                status = 0
            finally:
                if status:
                    sys.excepthook(*sys.exc_info())
                    sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        os.write(sys.stdout.fileno(), f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
