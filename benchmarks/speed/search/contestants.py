"""What is compared: anything that is built over codes and then asked for the nearest."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.report import say
from bittern.benchmarks.speed.search.codes import Collection
from bittern.index.engines.queries import Queries
from bittern.types import Metric

INSTALL = "pip install 'bittern-search[bench]'"

Ask = Callable[[Queries, int], Sequence[NDArray[np.int64]]]
"""Of each query its k rows, int64 [k] or fewer."""
Tuned = Callable[[int], Ask]
"""The same search at one value of what trades time for recall."""


@dataclass(frozen=True)
class Contestant:
    """Something that searches codes.

    Attributes:
        name: as it is printed.
        build: makes it from codes, with a number of threads and a folder for its files.
        exact: whether it looks at every code; `settings` is then ``(0,)``.
        parameter: what trades time for recall.
        settings: its values.
        metric: what it is asked by.
        graph: whether building takes minutes per million codes.
        module: what must be importable; empty if it is always there.
    """

    name: str
    build: Callable[[Collection, int, Path], Tuned]
    exact: bool = False
    parameter: str = ""
    settings: tuple[int, ...] = (0,)
    metric: Metric = "hamming"
    graph: bool = False
    module: str = ""

    @property
    def missing(self) -> str:
        """Why it cannot take part; empty if it can."""
        if not self.module or importlib.util.find_spec(self.module):
            return ""
        return f"{self.name} is left out: {self.module} is not installed ({INSTALL})"


def built(
    contestant: Contestant, collection: Collection, threads: int, folder: Path
) -> tuple[Tuned | None, str]:
    """A contestant over a collection; or none, and why not.

    What goes wrong in a library of others ends its part, not the run.
    """
    if contestant.missing:
        say(contestant.missing)
        return None, contestant.missing
    begun = perf_counter()
    try:
        tuned = contestant.build(collection, threads, folder)
        tuned(contestant.settings[0])(collection.queries(contestant.metric, 1), 1)
    except Exception as error:
        why = f"{contestant.name} is left out: {type(error).__name__}: {str(error)[:200]}"
        say(why)
        return None, why
    say(f"{contestant.name} is built and asked, {perf_counter() - begun:.1f} s")
    return tuned, ""
