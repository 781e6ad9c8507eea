"""What searches the same codes: Bittern's index, raw Faiss, LanceDB's own scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.flat import FlatCodes


@dataclass(frozen=True)
class Question:
    """One query.

    Attributes:
        logits: float32 [bits].
        code: uint8 [bits/8], their signs.
        k: how many rows.
    """

    logits: NDArray[np.float32]
    code: NDArray[np.uint8]
    k: int


@dataclass(frozen=True)
class Answer:
    """Rows with their distances, best first: float64 [k] and int64 [k]."""

    distances: NDArray[np.float64]
    rows: NDArray[np.int64]


Search = Callable[[Question], Answer]


def bittern_symmetric(index: FlatCodes) -> Search:
    """Bittern's index, by Hamming distance."""

    def search(question: Question) -> Answer:
        found = index.nearest_symmetric(question.code, question.k)
        return Answer(found.distances, found.rows)

    return search


def bittern_asymmetric(index: FlatCodes) -> Search:
    """Bittern's index, by asymmetric distance."""

    def search(question: Question) -> Answer:
        found = index.nearest_asymmetric(question.logits, question.k)
        return Answer(found.distances, found.rows)

    return search


def faiss_flat(codes: NDArray[np.uint8], threads: int) -> Search:
    """Faiss' `IndexBinaryFlat`, called directly, with so many threads."""
    import faiss

    index = faiss.IndexBinaryFlat(codes.shape[1] * 8)
    index.add(codes)

    def search(question: Question) -> Answer:
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(threads)
        try:
            distances, rows = index.search(question.code[None], question.k)
        finally:
            faiss.omp_set_num_threads(before)
        return Answer(distances[0].astype(np.float64), rows[0])

    return search


def lancedb_scan(codes: NDArray[np.uint8], folder: Path) -> Search:
    """LanceDB's search by Hamming distance on a column of fixed-size lists, without an index.

    It uses all cores, and reads the column from its files (which the system has cached).
    """
    import lancedb
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), codes.shape[1])
    rows = pa.array(np.arange(len(codes)))
    table = lancedb.connect(str(folder)).create_table(
        "codes", pa.table({"row": rows, "code": column})
    )

    def search(question: Question) -> Answer:
        query = table.search(question.code, vector_column_name="code").distance_type("hamming")
        found = query.limit(question.k).select(["row", "_distance"]).to_arrow()
        return Answer(
            found["_distance"].to_numpy().astype(np.float64),
            found["row"].to_numpy().astype(np.int64),
        )

    return search
