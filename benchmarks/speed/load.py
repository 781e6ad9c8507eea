"""Answers per second under several callers at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import perf_counter

Ask = Callable[[], object]


def answers_per_second(callers: list[Ask], seconds: float) -> float:
    """Let every caller ask again and again, each in a thread of its own.

    Args:
        callers: one call each asks once and waits for the answer.
        seconds: after so long no caller asks again; what is under way is counted, and timed.
    """
    start = Barrier(len(callers))

    def keep_asking(ask: Ask) -> tuple[int, float, float]:
        start.wait()
        begun = perf_counter()
        asked = 0
        while perf_counter() - begun < seconds:
            ask()
            asked += 1
        return asked, begun, perf_counter()

    with ThreadPoolExecutor(len(callers)) as pool:
        done = list(pool.map(keep_asking, callers))
    began = min(begun for _, begun, _ in done)
    ended = max(end for _, _, end in done)
    return sum(asked for asked, _, _ in done) / (ended - began)
