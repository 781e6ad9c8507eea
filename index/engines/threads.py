"""The thread pool of searches.

OpenMP is limited to one thread in each of its threads, since OpenMP's own threads spin while they
wait and slow down concurrent searches. The setting of the calling thread is restored.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_inside = threading.local()


def usable_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


@contextmanager
def faiss_threads(threads: int | None) -> Iterator[None]:
    """Limit Faiss to some threads (None: one per usable core); the setting is restored."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads or usable_cores())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def for_each(work: Callable[[T], R], items: Sequence[T], threads: int | None = None) -> Sequence[R]:
    """Call `work` for each item, on up to `threads` threads (None: one per usable core).

    Args:
        work: called once per item; Faiss in it is limited to one thread.
        items: its arguments.
        threads: the most threads at once, the caller's included.

    Returns:
        the results, in the order of the items.
    """
    threads = min(threads or usable_cores(), len(items))
    if threads <= 1 or getattr(_inside, "working", False):
        with faiss_threads(1):
            return [work(item) for item in items]
    results: list[Any] = [None] * len(items)
    waiting = iter(enumerate(items))
    lock = threading.Lock()

    def work_on_items() -> None:
        while True:
            with lock:
                number, item = next(waiting, (-1, None))
            if number < 0:
                return
            results[number] = work(item)  # type: ignore[arg-type]

    def run() -> None:
        # Set each time: other libraries set the number of threads when they are first used.
        with faiss_threads(1):
            work_on_items()

    others = [_pool().submit(run) for _ in range(threads - 1)]
    try:
        run()
    finally:
        for other in others:
            # One that has not started has no work left.
            if not other.cancel():
                other.result()
    return results


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        max(1, usable_cores() - 1), thread_name_prefix="bittern-search", initializer=_begin
    )


def _begin() -> None:
    _inside.working = True
