"""Search engines behind one interface: Bittern's, Faiss, usearch and LanceDB; are they right?

The other libraries are called directly, by Hamming distance, the only one they support, with
favourable settings.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.codes import METRICS, Collection
from bittern.benchmarks.speed.harness import say, seconds_of, short
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.inverted_lists import InvertedLists
from bittern.index.engines.ivf import IvfEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest, SearchEngine
from bittern.index.engines.threads import faiss_threads
from bittern.types import Metric

K = 100
"""Rows per query."""
PROBES = (1, 2, 4, 8, 16, 32, 64, 128)
EF = (100, 150, 200, 300, 500, 800)
"""Candidates of a graph search; at least k."""
FAISS = "faiss IndexBinaryFlat"
INSTALL = "pip install 'bittern-search[bench]'"
_MOST_LISTS = 4096
_TRAINING_POINTS_PER_LIST = 40
_LINKS = 32
_EF_BUILDING = 200
_WARMING_QUERIES, _WARMING_TURNS = 8, 4
"""Searches by each metric before timing."""
_BLOCK_ROWS = 1 << 16
_ROUNDING = 1e-9
"""Distances that differ by less are equal."""

Search = Callable[[Queries, int], Sequence[NDArray[np.int64]]]
"""Rows of each query, int64 [k] or fewer."""
Tuned = Callable[[int], Search]
"""The search at one setting of its parameter."""


@dataclass(frozen=True)
class Contestant:
    """A search engine to measure.

    Attributes:
        name: for tables.
        build: builds it from codes, with a number of threads and a folder for its files.
        parameter: the parameter that trades time for recall; empty for exact search.
        settings: its values; 0 for exact search.
        metric: of its queries.
        module: an optional module that it needs; empty for none.
    """

    name: str
    build: Callable[[Collection, int, Path], Tuned]
    parameter: str = ""
    settings: tuple[int, ...] = (0,)
    metric: Metric = "hamming"
    module: str = ""


def built(
    contestant: Contestant, collection: Collection, threads: int, folder: Path
) -> tuple[Tuned | None, str]:
    """A contestant over a collection; or None and the reason.

    An error in another library skips that library only.
    """
    tuned: list[Tuned] = []

    def build() -> None:
        tuned.append(contestant.build(collection, threads, folder))
        tuned[0](contestant.settings[0])(collection.queries(contestant.metric, 1), 1)

    why = ""
    if contestant.module and not importlib.util.find_spec(contestant.module):
        why = f"{contestant.module} is not installed ({INSTALL})"
    else:
        try:
            say(f"{contestant.name}: built in {seconds_of(build):.1f} s")
        except Exception as error:
            why = f"{type(error).__name__}: {str(error)[:200]}"
    if why:
        say(f"{contestant.name} is skipped: {why}")
        return None, f"{contestant.name} is skipped: {why}"
    return tuned[0], ""


# Bittern's engines


def blocks_of(collection: Collection) -> CodeBlocks:
    """The codes as blocks of an archive."""
    return CodeBlocks.of(collection.rows, collection.codes)


def flat_engine(collection: Collection, threads: int | None = None) -> FlatEngine:
    """The exact engine over a collection, after a few searches."""
    engine = FlatEngine(blocks_of(collection), threads)
    for metric in METRICS:
        queries = collection.queries(metric, _WARMING_QUERIES)
        for _ in range(_WARMING_TURNS):
            engine.search(queries, 1)
    return engine


def ivf_engine(collection: Collection) -> SearchEngine:
    """Inverted lists over a collection, of which one is searched."""
    lists = InvertedLists.build(blocks_of(collection))
    return IvfEngine(lists, lists.base, probes=PROBES[0])


ENGINES: Mapping[str, Callable[[Collection], SearchEngine]] = {
    "flat": flat_engine,
    "ivf": ivf_engine,
}
"""Bittern's engines for CPUs."""


def search_of(engine: SearchEngine) -> Search:
    """An engine's search as a contestant's."""
    return lambda queries, k: [nearest.rows for nearest in engine.search(queries, k)]


def ivf(collection: Collection, threads: int, folder: Path) -> Tuned:
    """Bittern's inverted lists."""
    lists = InvertedLists.build(blocks_of(collection))
    return lambda probes: search_of(IvfEngine(lists, lists.base, threads=threads, probes=probes))


# Others


def lists_for(rows: int) -> int:
    """Inverted lists: twice the root of the number of codes, to a power of two."""
    return int(min(_MOST_LISTS, 1 << round(math.log2(2 * max(rows, 1) ** 0.5))))


def faiss_flat(collection: Collection, threads: int, folder: Path) -> Tuned:
    """`IndexBinaryFlat`."""
    import faiss

    index = faiss.IndexBinaryFlat(collection.bits)
    index.add(collection.codes)
    return lambda setting: partial(_faiss_search, index, threads)


def faiss_lists(collection: Collection, threads: int, folder: Path) -> Tuned:
    """`IndexBinaryIVF`."""
    import faiss

    quantizer = faiss.IndexBinaryFlat(collection.bits)
    lists = lists_for(len(collection.codes))
    index = faiss.IndexBinaryIVF(quantizer, collection.bits, lists)
    index.own_fields = False
    index.cp.max_points_per_centroid = _TRAINING_POINTS_PER_LIST
    index.cp.min_points_per_centroid = 1
    index.train(collection.codes)
    index.add(collection.codes)

    def tuned(setting: int) -> Search:
        def search(queries: Queries, k: int) -> Sequence[NDArray[np.int64]]:
            index.nprobe = setting
            assert quantizer.ntotal == lists  # keeps a reference, so that it is not freed
            return _faiss_search(index, threads, queries, k)

        return search

    return tuned


def faiss_graph(collection: Collection, threads: int, folder: Path) -> Tuned:
    """`IndexBinaryHNSW`, built on all cores."""
    import faiss

    index = faiss.IndexBinaryHNSW(collection.bits, _LINKS)
    index.hnsw.efConstruction = _EF_BUILDING
    index.add(collection.codes)

    def tuned(setting: int) -> Search:
        def search(queries: Queries, k: int) -> Sequence[NDArray[np.int64]]:
            index.hnsw.efSearch = setting
            return _faiss_search(index, threads, queries, k)

        return search

    return tuned


def _faiss_search(
    index: Any, threads: int, queries: Queries, k: int
) -> Sequence[NDArray[np.int64]]:
    with faiss_threads(threads):
        return list(index.search(queries.codes, k)[1])


def usearch_exact(collection: Collection, threads: int, folder: Path) -> Tuned:
    """Usearch's search of a matrix without an index."""
    usearch = importlib.import_module("usearch.index")
    metric = usearch.MetricKind.Hamming

    def search(queries: Queries, k: int) -> Sequence[NDArray[np.int64]]:
        found = usearch.search(
            collection.codes, queries.codes, k, metric, exact=True, threads=threads
        )
        return list(np.atleast_2d(found.keys).astype(np.int64))

    return lambda setting: search


def lancedb_scan(collection: Collection, threads: int, folder: Path) -> Tuned:
    """LanceDB without an index, on all cores, with cached files."""
    table = _lancedb_table(collection, folder)
    return lambda setting: partial(_lancedb_search, table, 0)


def lancedb_lists(collection: Collection, threads: int, folder: Path) -> Tuned:
    """LanceDB's IVF_FLAT, with its own choice of threads."""
    from lancedb.index import IvfFlat

    table = _lancedb_table(collection, folder)
    lists = lists_for(len(collection.codes))
    table.create_index("code", config=IvfFlat(distance_type="hamming", num_partitions=lists))
    return lambda setting: partial(_lancedb_search, table, setting)


def _lancedb_table(collection: Collection, folder: Path) -> Any:
    import lancedb
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(
        pa.array(collection.codes.ravel()), collection.codes.shape[1]
    )
    rows = pa.table({"row": pa.array(collection.rows), "code": column})
    return lancedb.connect(str(folder)).create_table("codes", rows)


def _lancedb_search(
    table: Any, nprobes: int, queries: Queries, k: int
) -> Sequence[NDArray[np.int64]]:
    found = []
    for code in queries.codes:
        query = table.search(code, vector_column_name="code").distance_type("hamming")
        query = query.nprobes(nprobes) if nprobes else query
        answer = query.limit(k).select(["row", "_distance"]).to_arrow()
        found.append(answer["row"].to_numpy().astype(np.int64))
    return found


EXACT = (
    Contestant(FAISS, faiss_flat),
    Contestant("usearch exact", usearch_exact, module="usearch"),
    Contestant("LanceDB scan", lancedb_scan),
)
"""Exact searches beside Bittern's."""
APPROXIMATE = (
    *(Contestant(f"bittern ivf, {m}", ivf, "nprobe", PROBES, m) for m in METRICS),
    Contestant("faiss IndexBinaryIVF", faiss_lists, "nprobe", PROBES),
    Contestant("LanceDB IVF_FLAT", lancedb_lists, "nprobes", PROBES),
    Contestant("faiss IndexBinaryHNSW", faiss_graph, "ef", EF),
)
"""Searches that skip some codes."""


# Right or not


def described(collection: Collection) -> str:
    """Name, size and code length."""
    return f"{collection.name}, {short(len(collection.codes))} x {collection.bits} bits"


def all_distances(query: Queries, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Distances of one query to all codes: float64 [n]."""
    blocks = [
        query.distances(0, codes[start : start + _BLOCK_ROWS])
        for start in range(0, len(codes), _BLOCK_ROWS)
    ]
    return np.concatenate(blocks)


def brute_force(query: Queries, codes: NDArray[np.uint8], k: int) -> Nearest:
    """The k nearest in the order (distance, row), by comparing every row."""
    return Nearest.of(all_distances(query, codes), np.arange(len(codes)), k)


def is_right(found: Nearest, truth: Nearest) -> bool:
    """Whether an exact search found the rows of brute force, in its order."""
    return np.array_equal(found.rows, truth.rows) and np.allclose(
        found.distances, truth.distances, atol=_ROUNDING
    )


def recall(
    found: Sequence[NDArray[np.int64]],
    queries: Queries,
    codes: NDArray[np.uint8],
    truths: Sequence[Nearest],
) -> float:
    """Share of the k nearest that were found: a row counts if its distance is at most that of the
    true k-th, so ties are equivalent.

    Args:
        found: of each query the rows; negative ones are ignored, repeated ones count once.
        queries: the queries.
        codes: uint8 [n, bits/8], of row 0, 1, ...
        truths: the k nearest of each query.
    """
    shares = []
    for number, (rows, truth) in enumerate(zip(found, truths, strict=True)):
        distinct = np.unique(rows[rows >= 0])
        limit = truth.distances[-1] + _ROUNDING
        hits = np.count_nonzero(queries.distances(number, codes[distinct]) <= limit)
        shares.append(min(1.0, hits / len(truth)))
    return float(np.mean(shares))
