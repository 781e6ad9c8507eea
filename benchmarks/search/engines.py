"""Bittern's engines, warmed up: what they lay out on first use is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.codes import METRICS, Collection
from benchmarks.search.contestants import Ask, Contestant, Tuned
from index.engines.approximate import Allowed, ApproximateEngine
from index.engines.blocks import CodeBlocks
from index.engines.engine import SearchEngine
from index.engines.flat import FlatEngine
from index.engines.ivf import InvertedLists
from index.engines.queries import Queries
from index.engines.scans import Candidates

E = TypeVar("E", bound=SearchEngine)
PROBES = (1, 2, 4, 8, 16, 32, 64, 128)
_WARMING = 8
"""Queries of each metric, again and again, after which nothing is laid out any more."""
_WARMINGS = 4


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


def flat_engine(collection: Collection, threads: int | None = None) -> FlatEngine:
    """The exact engine over a collection."""
    return warmed(FlatEngine(blocks_of(collection), threads), collection)


class Adjustable(Protocol):
    """A structure for approximate search, of which any effort can be asked."""

    kind: str
    base: CodeBlocks

    @property
    def nbytes(self) -> int:
        """Bytes that it takes besides the codes."""
        ...

    def scan(self, queries: Queries, count: int, allowed: Allowed, effort: int) -> list[Candidates]:
        """Candidates of so many lists, or of a beam so wide."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the codes."""
        ...


class AtEffort:
    """A structure at one effort, whatever recall it is asked for.

    Args:
        structure: that is built.
        effort: lists or width of the beam.
    """

    def __init__(self, structure: Adjustable, effort: int) -> None:
        self._structure = structure
        self._effort = effort
        self.kind = structure.kind
        self.base = structure.base

    @property
    def nbytes(self) -> int:
        """Bytes that it takes besides the codes."""
        return self._structure.nbytes

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the codes."""
        return self._structure.arrays()

    def pays(self, k: int, allowed: Allowed, recall: float) -> bool:
        """Always: it is what is measured."""
        del k, allowed, recall
        return True

    def candidates(
        self, queries: Queries, count: int, allowed: Allowed, recall: float
    ) -> list[Candidates]:
        """See `index.engines.approximate.Structure`."""
        del recall
        return self._structure.scan(queries, count, allowed, self._effort)


STRUCTURES: dict[str, Callable[[CodeBlocks], Adjustable]] = {"ivf": InvertedLists.build}
"""What builds a structure, by kind."""
_built: WeakKeyDictionary[Collection, dict[str, Adjustable]] = WeakKeyDictionary()


def structure_of(collection: Collection, kind: str) -> Adjustable:
    """A structure over a collection, built once for both metrics, on all cores."""
    found = _built.setdefault(collection, {})
    if kind not in found:
        found[kind] = STRUCTURES[kind](blocks_of(collection))
    return found[kind]


def approximate(kind: str) -> Callable[[Collection, int, Path], Tuned]:
    """What makes a contestant of a structure."""

    def build(collection: Collection, threads: int, folder: Path) -> Tuned:
        del folder
        structure = structure_of(collection, kind)

        def tuned(effort: int) -> Ask:
            fixed = AtEffort(structure, effort)
            return ask(ApproximateEngine(fixed, structure.base, threads=threads))

        return tuned

    return build


def approximate_engine(collection: Collection, kind: str) -> ApproximateEngine:
    """An approximate engine over a collection, as an archive would have it."""
    blocks = blocks_of(collection)
    structure = STRUCTURES[kind](blocks)
    return ApproximateEngine(AtEffort(structure, 1), blocks)


APPROXIMATE = tuple(
    Contestant(
        f"bittern {kind}, {metric}",
        approximate(kind),
        parameter=parameter,
        settings=settings,
        metric=metric,
        graph=kind == "graph",
    )
    for kind, parameter, settings in (("ivf", "nprobe", PROBES),)
    for metric in METRICS
)
ENGINES: dict[str, Callable[[Collection], SearchEngine]] = {
    "flat": flat_engine,
    "ivf": lambda collection: approximate_engine(collection, "ivf"),
}
"""What makes an engine over a collection, by kind."""
