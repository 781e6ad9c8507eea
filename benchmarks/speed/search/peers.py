"""What can search binary codes beside Bittern: Faiss, usearch, LanceDB, Milvus Lite.

Each is called directly, by Hamming distance, which is all that they know, with settings in
which it does well.
"""

from __future__ import annotations

import importlib
import math
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.search.codes import Collection
from bittern.benchmarks.speed.search.contestants import Ask, Contestant, Tuned
from bittern.index.engines.queries import Queries

HIGHEST_LISTS = 4096
_TRAINING_POINTS_PER_LIST = 40
_LINKS = 32
_EF_BUILDING = 200


def lists_for(rows: int) -> int:
    """Inverted lists: twice the root of the number of codes, to a power of two."""
    return int(min(HIGHEST_LISTS, 1 << round(math.log2(2 * max(rows, 1) ** 0.5))))


def probes(lists: int = HIGHEST_LISTS) -> tuple[int, ...]:
    """Numbers of lists to look into."""
    return tuple(n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n <= lists)


EF = (100, 150, 200, 300, 500, 800)
"""Candidates that a graph search keeps; no fewer than k."""


def faiss_flat(collection: Collection, threads: int, folder: Path) -> Tuned:
    """`IndexBinaryFlat`."""
    del folder
    import faiss

    index = faiss.IndexBinaryFlat(collection.bits)
    index.add(collection.codes)
    return lambda setting: _faiss(index, threads)


def faiss_lists(collection: Collection, threads: int, folder: Path) -> Tuned:
    """`IndexBinaryIVF`."""
    del folder
    import faiss

    quantizer = faiss.IndexBinaryFlat(collection.bits)
    lists = lists_for(len(collection.codes))
    index = faiss.IndexBinaryIVF(quantizer, collection.bits, lists)
    index.own_fields = False
    index.cp.max_points_per_centroid = _TRAINING_POINTS_PER_LIST
    index.cp.min_points_per_centroid = 1
    index.train(collection.codes)
    index.add(collection.codes)

    def tuned(setting: int) -> Ask:
        ask = _faiss(index, threads)

        def search(queries: Queries, k: int) -> Sequence[NDArray[np.int64]]:
            index.nprobe = setting
            assert quantizer.ntotal == lists  # and keeps it from being freed
            return ask(queries, k)

        return search

    return tuned


def faiss_graph(collection: Collection, threads: int, folder: Path) -> Tuned:
    """`IndexBinaryHNSW`, built on all cores."""
    del folder
    import faiss

    index = faiss.IndexBinaryHNSW(collection.bits, _LINKS)
    index.hnsw.efConstruction = _EF_BUILDING
    index.add(collection.codes)

    def tuned(setting: int) -> Ask:
        ask = _faiss(index, threads)

        def search(queries: Queries, k: int) -> Sequence[NDArray[np.int64]]:
            index.hnsw.efSearch = setting
            return ask(queries, k)

        return search

    return tuned


def _faiss(index: Any, threads: int) -> Ask:
    import faiss

    def search(queries: Queries, k: int) -> Sequence[NDArray[np.int64]]:
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(threads)
        try:
            return list(index.search(queries.codes, k)[1])
        finally:
            faiss.omp_set_num_threads(before)

    return search


def _usearch() -> Any:
    return importlib.import_module("usearch.index")


def usearch_exact(collection: Collection, threads: int, folder: Path) -> Tuned:
    """Usearch's search of a matrix without an index."""
    del folder
    index = _usearch()

    def ask(queries: Queries, k: int) -> Sequence[NDArray[np.int64]]:
        found = index.search(
            collection.codes,
            queries.codes,
            k,
            index.MetricKind.Hamming,
            exact=True,
            threads=threads,
        )
        return list(np.atleast_2d(found.keys).astype(np.int64))

    return lambda setting: ask


def usearch_graph(collection: Collection, threads: int, folder: Path) -> Tuned:
    """Usearch's HNSW over bits, built on all cores."""
    del folder
    usearch = _usearch()
    index = usearch.Index(
        ndim=collection.bits,
        metric=usearch.MetricKind.Hamming,
        dtype="b1",
        connectivity=_LINKS,
        expansion_add=_EF_BUILDING,
    )
    index.add(collection.rows, collection.codes)

    def tuned(setting: int) -> Ask:
        def search(queries: Queries, k: int) -> Sequence[NDArray[np.int64]]:
            index.expansion_search = setting
            found = index.search(queries.codes, k, threads=threads)
            return list(np.atleast_2d(found.keys).astype(np.int64))

        return search

    return tuned


def lancedb_scan(collection: Collection, threads: int, folder: Path) -> Tuned:
    """LanceDB without an index. It takes all cores, and reads files that the system has cached."""
    del threads
    table = _lancedb_table(collection, folder)
    return lambda setting: _lancedb(table, 0)


def lancedb_lists(collection: Collection, threads: int, folder: Path) -> Tuned:
    """LanceDB's IVF_FLAT. It takes as many threads as it likes."""
    del threads
    from lancedb.index import IvfFlat

    table = _lancedb_table(collection, folder)
    lists = lists_for(len(collection.codes))
    table.create_index("code", config=IvfFlat(distance_type="hamming", num_partitions=lists))
    return lambda setting: _lancedb(table, setting)


def _lancedb_table(collection: Collection, folder: Path) -> Any:
    import lancedb
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(
        pa.array(collection.codes.ravel()), collection.codes.shape[1]
    )
    rows = pa.table({"row": pa.array(collection.rows), "code": column})
    return lancedb.connect(str(folder)).create_table("codes", rows)


def _lancedb(table: Any, nprobes: int) -> Ask:
    def search(queries: Queries, k: int) -> Sequence[NDArray[np.int64]]:
        found = []
        for code in queries.codes:
            query = table.search(code, vector_column_name="code").distance_type("hamming")
            query = query.nprobes(nprobes) if nprobes else query
            answer = query.limit(k).select(["row", "_distance"]).to_arrow()
            found.append(answer["row"].to_numpy().astype(np.int64))
        return found

    return search


def milvus_flat(collection: Collection, threads: int, folder: Path) -> Tuned:
    """Milvus Lite's BIN_FLAT, the only index for bits that it has; in a process of its own."""
    del threads
    pymilvus = importlib.import_module("pymilvus")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that pkg_resources is deprecated
        client = pymilvus.MilvusClient(str(folder / "milvus.db"))
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", pymilvus.DataType.INT64, is_primary=True)
    schema.add_field("code", pymilvus.DataType.BINARY_VECTOR, dim=collection.bits)
    how = client.prepare_index_params()
    how.add_index("code", index_type="BIN_FLAT", metric_type="HAMMING")
    client.create_collection("codes", schema=schema, index_params=how)
    for start in range(0, len(collection.codes), 10_000):
        part = collection.codes[start : start + 10_000]
        client.insert(
            "codes", [{"row": start + i, "code": code.tobytes()} for i, code in enumerate(part)]
        )
    client.load_collection("codes")

    def ask(queries: Queries, k: int) -> Sequence[NDArray[np.int64]]:
        asked = [code.tobytes() for code in queries.codes]
        found = client.search("codes", asked, limit=k, search_params={"metric_type": "HAMMING"})
        return [np.array([hit["id"] for hit in hits], dtype=np.int64) for hits in found]

    server = importlib.import_module("milvus_lite.server_manager").server_manager_instance
    weakref.finalize(ask, server.release_server, str(folder / "milvus.db"))
    weakref.finalize(ask, client.close)  # the last that is registered is called first
    return lambda setting: ask


PEERS = (
    Contestant("faiss IndexBinaryFlat", faiss_flat, exact=True),
    Contestant("usearch exact", usearch_exact, exact=True, module="usearch"),
    Contestant("LanceDB scan", lancedb_scan, exact=True),
    Contestant("Milvus Lite BIN_FLAT", milvus_flat, exact=True, module="milvus_lite"),
    Contestant("faiss IndexBinaryIVF", faiss_lists, parameter="nprobe", settings=probes()),
    Contestant("LanceDB IVF_FLAT", lancedb_lists, parameter="nprobes", settings=probes()),
    Contestant("faiss IndexBinaryHNSW", faiss_graph, parameter="ef", settings=EF, graph=True),
    Contestant(
        "usearch HNSW", usearch_graph, parameter="ef", settings=EF, graph=True, module="usearch"
    ),
)
