"""Codes, rows and queries made up for tests of search engines, and the answers by brute force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest, RowSet, SearchEngine

Make = Callable[[CodeBlocks], SearchEngine]
Pairs = list[tuple[float, int]]


@dataclass(frozen=True)
class Collection:
    """Rows with gaps and their codes, some of them deleted since."""

    rows: NDArray[np.int64]
    codes: NDArray[np.uint8]
    deleted: NDArray[np.int64]

    @property
    def blocks(self) -> CodeBlocks:
        """In two parts, one added later, without what was deleted."""
        half = len(self.rows) // 2
        made = CodeBlocks.of(self.rows[:half], self.codes[:half])
        return made.appended(self.rows[half:], self.codes[half:]).without(self.deleted)

    def nearest(self, queries: Queries, rows: RowSet | None = None) -> list[Pairs]:
        """Every live row with its distance, in order, by looking at each."""
        live = ~np.isin(self.rows, self.deleted)
        if rows is not None:
            live &= np.isin(self.rows, rows.rows)
        found = []
        for query in range(len(queries)):
            distances = queries.distances(query, self.codes[live])
            found.append(sorted(zip(distances.tolist(), self.rows[live].tolist(), strict=True)))
        return found


def pairs(nearest: Nearest) -> Pairs:
    return list(zip(nearest.distances.tolist(), nearest.rows.tolist(), strict=True))


def collection(
    n: int, bits: int = 64, *, seed: int = 0, distinct: int | None = None, deleted: float = 0.0
) -> Collection:
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(3 * n + 1, n, replace=False)).astype(np.int64)
    values = rng.integers(0, 256, (distinct or max(n, 1), bits // 8), dtype=np.uint8)
    codes = values[rng.integers(0, len(values), n)]
    return Collection(rows, codes, rows[rng.random(n) < deleted])


def questions(
    metric: str, count: int, bits: int = 64, *, seed: int = 0, scale: float = 1.0
) -> Queries:
    rng = np.random.default_rng(seed + 1)
    if metric == "hamming":
        return Queries.of_codes(rng.integers(0, 256, (count, bits // 8), dtype=np.uint8))
    return Queries.of_logits(scale * rng.normal(size=(count, bits)))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Collection, Queries, int, RowSet | None]:
    """Small collections with heavy ties, deletions, and filters from nothing to everything."""
    bits = draw(st.sampled_from([16, 32, 64, 72, 256, 1024]))
    seed = draw(st.integers(0, 2**16))
    n = draw(st.integers(0, 80))
    made = collection(
        n,
        bits,
        seed=seed,
        distinct=draw(st.integers(1, 6)),
        deleted=draw(st.sampled_from([0.0, 0.1, 0.6, 1.0])),
    )
    queries = questions(draw(st.sampled_from(["hamming", "asymmetric"])), 2, bits, seed=seed)
    rows = None
    if draw(st.booleans()):
        share = draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
        rng = np.random.default_rng(seed + 2)
        rows = RowSet(np.flatnonzero(rng.random(3 * n + 1) < share).astype(np.int64))
    return made, queries, draw(st.integers(1, 100)), rows
