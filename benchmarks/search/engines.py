"""Bittern's engines as contestants, warmed up: what they lay out on first use is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.codes import METRICS, Collection
from benchmarks.search.contestants import Ask, Contestant, Tuned
from index.engines.blocks import CodeBlocks
from index.engines.engine import SearchEngine
from index.engines.flat import FlatEngine
from index.engines.queries import Queries

E = TypeVar("E", bound=SearchEngine)
_WARMING = 8
"""Queries of each metric, again and again, after which nothing is laid out any more."""
_WARMINGS = 4


def flat_engine(collection: Collection, threads: int | None = None) -> FlatEngine:
    """The exact engine over a collection."""
    return warmed(FlatEngine(blocks_of(collection), threads), collection)


def blocks_of(collection: Collection) -> CodeBlocks:
    """The codes as an archive holds them."""
    return CodeBlocks.of(collection.rows, collection.codes)


def warmed(engine: E, collection: Collection) -> E:
    """The engine, once it has answered a few queries."""
    for metric in METRICS:
        queries = collection.queries(metric, _WARMING)
        for _ in range(_WARMINGS):
            engine.search(queries, 1)
    return engine


def ask(engine: SearchEngine) -> Ask:
    """An engine's search as a contestant's."""

    def search(queries: Queries, k: int) -> Sequence[NDArray[np.int64]]:
        return [nearest.rows for nearest in engine.search(queries, k)]

    return search


def flat(collection: Collection, threads: int, folder: Path) -> Tuned:
    """The exact engine as a contestant."""
    del folder
    engine = flat_engine(collection, threads)
    return lambda setting: ask(engine)


EXACT = (
    Contestant("Bittern exact, asymmetric", flat, exact=True, metric="asymmetric"),
    Contestant("Bittern exact, hamming", flat, exact=True),
)
APPROXIMATE: tuple[Contestant, ...] = ()
ENGINES: dict[str, Callable[[Collection], SearchEngine]] = {"flat": flat_engine}
"""What makes an engine over a collection, by kind."""
