"""LanceDB and Lance: loading them, their errors, and calls that must not be interrupted."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bittern.errors import ArchiveDamagedError, ArchiveVersionError, BitternError

_QUIET = "warn,lance::dataset::write::insert=error"
"""LanceDB prints its warnings to stderr, except the one about a new table."""
_RUST_SOURCE = re.compile(r",?\s*\(?\S+\.rs:\d+(?::\d+)?\)?")
_PANICS = ("PanicException", "RustPanic")
"""Errors of panics in LanceDB; the first is no `Exception`."""
_NEWER = re.compile(r"cannot be (?:read|written) by this version of Lance")
_POLL_S = 0.2
_START_S = 5.0
"""How long to wait for a thread whose start was interrupted, in seconds."""


def lancedb() -> Any:
    """LanceDB, which reads its log level when it is imported."""
    os.environ.setdefault("LANCEDB_LOG", _QUIET)
    import lancedb

    return lancedb


def lance() -> Any:
    """Lance, which lists the files of a version; imported only when needed."""
    os.environ.setdefault("LANCE_LOG", "error")
    import lance

    return lance


def is_failure(error: BaseException) -> bool:
    """Whether an error is a failure of the store, not an interrupt."""
    return isinstance(error, Exception) or type(error).__name__ in _PANICS


def first_line(error: BaseException) -> str:
    """The first line of an error message, without positions in Rust source code."""
    text = str(error).strip().splitlines()
    line = _RUST_SOURCE.sub("", text[0]) if text else ""
    return f"{type(error).__name__}: {line[:300]}"


@contextmanager
def reading(store: Path) -> Iterator[None]:
    """Turn failures of the libraries into typed errors.

    Raises:
        ArchiveDamagedError: files are missing or damaged.
        ArchiveVersionError: a newer library wrote them.
    """
    try:
        yield
    except BitternError:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        if _NEWER.search(str(error)):
            raise ArchiveVersionError(
                f"a newer LanceDB wrote the archive's store at {store} ({first_line(error)}): "
                "update with pip install -U bittern-search"
            ) from error
        raise ArchiveDamagedError(
            f"the archive's store at {store} cannot be read ({first_line(error)}); run bittern "
            "verify, restore the archive from a backup, or index the media again into a new folder"
        ) from error


def uninterrupted(work: Callable[[], None]) -> None:
    """Finish `work` in another thread; raise an interrupt (Ctrl-C) only afterwards.

    Interrupts reach the main thread only. The library would continue a commit that is
    interrupted there, and its outcome would be unknown.

    Raises:
        KeyboardInterrupt: it came meanwhile.
        BaseException: raised by `work`.
    """
    started, done = threading.Event(), threading.Event()
    failures: list[BaseException] = []
    interrupt: KeyboardInterrupt | None = None

    def run() -> None:
        started.set()
        try:
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="bittern-commit")
    try:
        thread.start()
    except KeyboardInterrupt as error:
        interrupt = error
        if not started.wait(_START_S):
            raise
    while not done.is_set():
        try:
            done.wait(_POLL_S)  # with a timeout: else signals that another thread got are missed
        except KeyboardInterrupt as error:
            interrupt = error
    if failures:
        raise failures[0]
    if interrupt is not None:
        raise interrupt
