"""Small networks on a CPU: one thread per item, as many items at once as there are cores.

A picture or a short text is too little work to share out between threads: on two busy cores,
PyTorch's threads spend ten times the work's own time waiting for each other. One item per
thread needs no waiting, and gives an item the same bits whatever else is in the batch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each_in_one_thread(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`work` done on every item by single-threaded workers; results in order."""
    return list(_workers().map(work, items))


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


@cache
def _workers() -> ThreadPoolExecutor:
    import torch

    count = cores()
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)  # of this worker
        started.wait()

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix="tower", initializer=start)
    for _ in range(count):
        pool.submit(lambda: None)
    started.wait()
    # Threads that are yet to start take the number that was set last.
    torch.set_num_threads(before)
    return pool
