"""Bittern's engines, warmed up: what they lay out on first use is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.search.codes import METRICS, Collection
from bittern.benchmarks.speed.search.contestants import Ask, Contestant, Tuned
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.engine import SearchEngine
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.graph import Graph
from bittern.index.engines.inverted_lists import InvertedLists
from bittern.index.engines.ivf import Allowed, ApproximateEngine, Structure
from bittern.index.engines.queries import Queries
from bittern.index.engines.scans import Candidates

E = TypeVar("E", bound=SearchEngine)
PROBES = (1, 2, 4, 8, 16, 32, 64, 128)
BEAMS = (100, 150, 200, 300, 500, 800)
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


Scan = Callable[[Queries, int, Allowed, int], list[Candidates]]
"""Candidates of queries, how many, among what may be found, at an effort."""


@dataclass(frozen=True)
class Kind:
    """A kind of approximate search.

    Attributes:
        build: builds its structure, on all cores.
        scan: that of a structure.
        parameter: what its effort is called.
        efforts: that are measured.
    """

    build: Callable[[CodeBlocks], Structure]
    scan: Callable[[Any], Scan]
    parameter: str
    efforts: tuple[int, ...]


def _following(graph: Graph) -> Scan:
    def scan(queries: Queries, count: int, allowed: Allowed, beam: int) -> list[Candidates]:
        return graph.follow(queries, min(count, beam), allowed, beam, beam)

    return scan


KINDS = {
    "ivf": Kind(InvertedLists.build, lambda lists: lists.scan, "nprobe", PROBES),
    "graph": Kind(Graph.build, _following, "beam", BEAMS),
}


class AtEffort:
    """A structure at one effort, whatever recall it is asked for.

    Args:
        structure: that is built.
        scan: its search.
        effort: lists or width of the beam.
    """

    def __init__(self, structure: Structure, scan: Scan, effort: int) -> None:
        self._structure = structure
        self._scan = scan
        self._effort = effort
        self.kind = structure.kind
        self.base = structure.base

    def __getattr__(self, name: str) -> Any:
        """Everything else is the structure's own."""
        return getattr(self._structure, name)

    def pays(self, k: int, allowed: Allowed, recall: float) -> bool:
        """Always: it is what is measured."""
        del k, allowed, recall
        return True

    def candidates(
        self, queries: Queries, count: int, allowed: Allowed, recall: float
    ) -> list[Candidates]:
        """See `bittern.index.engines.ivf.Structure`."""
        del recall
        return self._scan(queries, count, allowed, self._effort)


_built: WeakKeyDictionary[Collection, dict[str, Structure]] = WeakKeyDictionary()


def structure_of(collection: Collection, kind: str) -> Structure:
    """A structure over a collection, built once for both metrics."""
    found = _built.setdefault(collection, {})
    if kind not in found:
        found[kind] = KINDS[kind].build(blocks_of(collection))
    return found[kind]


def at_effort(structure: Structure, effort: int, threads: int | None = None) -> ApproximateEngine:
    """An engine that searches a structure at one effort."""
    fixed = AtEffort(structure, KINDS[structure.kind].scan(structure), effort)
    return ApproximateEngine(fixed, structure.base, threads=threads)


def approximate(kind: str) -> Callable[[Collection, int, Path], Tuned]:
    """What makes a contestant of a structure."""

    def build(collection: Collection, threads: int, folder: Path) -> Tuned:
        del folder
        structure = structure_of(collection, kind)
        return lambda effort: ask(at_effort(structure, effort, threads))

    return build


APPROXIMATE = tuple(
    Contestant(
        f"bittern {kind}, {metric}",
        approximate(kind),
        parameter=it.parameter,
        settings=it.efforts,
        metric=metric,
        graph=kind == "graph",
    )
    for kind, it in KINDS.items()
    for metric in METRICS
)


def engine_of(collection: Collection, kind: str) -> SearchEngine:
    """A new engine of some kind over a collection."""
    if kind == "flat":
        return flat_engine(collection)
    blocks = blocks_of(collection)
    return at_effort(KINDS[kind].build(blocks), KINDS[kind].efforts[0])


ENGINES = ("flat", *KINDS)
"""All kinds."""
