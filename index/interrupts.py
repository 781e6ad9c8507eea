"""Work that an interrupt (Ctrl-C) does not cut short."""

from __future__ import annotations

import threading
from collections.abc import Callable

_HEARING_S = 0.2
_START_S = 5.0
"""How long a thread whose start was interrupted may take to show that it runs, in seconds."""


def uninterrupted(work: Callable[[], None]) -> None:
    """Do something in another thread, to its end; raise an interrupt only then.

    Interrupts reach the main thread only. A commit that is cut short there would go on
    behind its back, and what became of it could not be told.

    Raises:
        KeyboardInterrupt: it came while the work was done.
        BaseException: whatever the work raised.
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
            done.wait(_HEARING_S)  # a wait without an end hears no signal that another thread got
        except KeyboardInterrupt as error:
            interrupt = error
    if failures:
        raise failures[0]
    if interrupt is not None:
        raise interrupt
