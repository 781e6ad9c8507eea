"""Work that runs to its end, whatever comes meanwhile."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator

import pytest

from bittern.index.lance_library import uninterrupted


@pytest.fixture
def ctrl_c_interrupts() -> Iterator[None]:
    """Python leaves Ctrl-C ignored where its parent did, as shells do for background jobs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_work_is_done_before_the_interrupt_is_raised() -> None:
    done = []

    def work() -> None:
        _thread.interrupt_main()
        threading.Event().wait(0.05)
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        uninterrupted(work)
    assert done == [True]


def test_a_failure_of_the_work_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        uninterrupted(lambda: print(1 // 0))


def test_work_without_trouble_is_simply_done() -> None:
    done: list[int] = []
    uninterrupted(lambda: done.append(1))
    assert done == [1]
