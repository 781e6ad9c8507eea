"""Small collections, systems and a plain full sort that rankings are compared with."""

from __future__ import annotations

import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.measures.ranks import Ranks
from bittern.benchmarks.eval.ranking import Limits, Searched, Settings, rank
from bittern.benchmarks.eval.systems.base import Metric
from bittern.benchmarks.eval.systems.exact import cosine_distances
from bittern.benchmarks.eval.tasks import Relevance
from bittern.hashing.codes import pack
from bittern.index.engines.queries import Queries


class Codes:
    """Embeddings are logits."""

    metrics: tuple[Metric, ...] = ("symmetric", "asymmetric")
    digest = ""

    def __init__(self, bits: int) -> None:
        self.bits: int | None = bits
        self.bytes_per_row = bits / 8

    def encode_items(self, embeddings: NDArray[np.float32]) -> NDArray[Any]:
        return pack(embeddings)

    def encode_queries(self, embeddings: NDArray[np.float32], metric: Metric) -> Any:
        if metric == "symmetric":
            return Queries.of_codes(pack(embeddings))
        return Queries.of_logits(embeddings)

    def distances(self, queries: Any, stored: NDArray[Any], first: int, last: int) -> NDArray[Any]:
        found = np.stack([queries.distances(query, stored) for query in range(first, last)])
        return found.astype(np.int32) if queries.metric == "hamming" else found


class Vectors:
    """Negative inner products: whole numbers, so that there are ties."""

    metrics: tuple[Metric, ...] = ("cosine",)
    digest = ""
    bits: int | None = None
    bytes_per_row = 0.0

    def encode_items(self, embeddings: NDArray[np.float32]) -> NDArray[Any]:
        return embeddings

    def encode_queries(self, embeddings: NDArray[np.float32], metric: Metric) -> Any:
        return embeddings

    def distances(self, queries: Any, stored: NDArray[Any], first: int, last: int) -> NDArray[Any]:
        found: NDArray[Any] = queries[first:last].astype(float) @ stored.astype(float).T
        return -found


class Rows:
    """Embeddings in memory; only one tile of them may be held by others at a time."""

    def __init__(
        self, embeddings: NDArray[np.float32], owners: Sequence[int] | NDArray[np.integer]
    ) -> None:
        self._embeddings = embeddings
        self.dim = embeddings.shape[1]
        self.owners = np.array(owners, dtype=np.int64)
        self.spans = np.full((len(owners), 2), np.nan, np.float32)
        self.failed: Sequence[tuple[int, str]] = ()
        self.digest = ""
        self.most_at_once = 0

    def __len__(self) -> int:
        return len(self.owners)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        given: list[weakref.ref[Any]] = []
        for first in range(0, len(self), rows):
            tile = self._embeddings[first : first + rows].copy()
            given.append(weakref.ref(tile))
            self.most_at_once = max(self.most_at_once, sum(one() is not None for one in given))
            yield first, tile
            del tile

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._embeddings[rows]
        return found


class Distances(Vectors):
    """Distances that are given: queries and items are their numbers."""

    def __init__(self, distances: NDArray[Any], metric: Metric) -> None:
        self.metrics = (metric,)
        self._distances = distances

    def distances(self, queries: Any, stored: NDArray[Any], first: int, last: int) -> NDArray[Any]:
        chosen = np.ix_(queries[first:last, 0].astype(int), stored[:, 0].astype(int))
        found: NDArray[Any] = self._distances[chosen]
        return found


def ranks_of(
    distances: NDArray[Any],
    relevance: Relevance,
    *,
    depth: int | None = None,
    hamming: bool = False,
) -> Ranks:
    """Ranks of relevant items from all distances, [q, n]."""
    metric: Metric = "symmetric" if hamming else "cosine"
    numbers = [np.arange(count, dtype=np.float32)[:, None] for count in distances.shape]
    rows = Rows(numbers[1], np.arange(distances.shape[1]))
    settings = Settings(depth=depth, limits=Limits(threads=1))
    searched = Searched(rows, relevance)
    return rank(Distances(distances, metric), numbers[0], metric, searched, settings).ranks


@dataclass(frozen=True)
class Case:
    """Something to rank."""

    fitted: Any
    metric: Metric
    queries: NDArray[np.float32]
    rows: Rows
    items: int
    relevance: Relevance

    @property
    def searched(self) -> Searched:
        return Searched(self.rows, self.relevance)


def case(
    seed: int, metric: Metric, items: int = 40, windows: int = 1, bits: int = 8, queries: int = 5
) -> Case:
    """Items of up to `windows` rows (some of none), few distinct embeddings, many ties."""
    rng = np.random.default_rng(seed)
    counts = np.ones(items, int) if windows == 1 else rng.integers(0, windows + 1, items)
    owners = np.repeat(np.arange(items), counts)
    few = rng.integers(-2, 3, (max(4, items // 3), bits)) + 0.5
    embeddings = few[rng.integers(0, len(few), len(owners))].astype(np.float32)
    embedded = (rng.integers(-2, 3, (queries, bits)) + 0.25).astype(np.float32)
    fitted = Vectors() if metric == "cosine" else Codes(bits)
    return Case(
        fitted, metric, embedded, Rows(embeddings, owners), items, pairs(rng, queries, items)
    )


def pairs(rng: np.random.Generator, queries: int, items: int, share: float = 0.3) -> Relevance:
    """Each query's relevant items, at least one, of grades 1 to 3."""
    own = [np.flatnonzero(rng.random(items) < share) for _ in range(queries)]
    own = [one if len(one) else np.array([0]) for one in own]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in own])]).astype(np.int64)
    found = np.concatenate(own).astype(np.int64)
    return Relevance(offsets, found, rng.integers(1, 4, len(found)).astype(np.int32))


@dataclass(frozen=True)
class Expected:
    """One query's ranking, unit by unit; a distance says before itself whether the unit is behind
    all that was re-ranked.
    """

    order: list[int]
    distances: list[tuple[int, float]]
    items: list[int]
    rows: list[int]

    def entry(self, position: int) -> tuple[int, int, int]:
        """Rank, nearer, tied of what stands at a position."""
        own = self.distances[position]
        nearer = bisect_left(self.distances, own)
        return position + 1, nearer, bisect_right(self.distances, own) - nearer


def sorted_plainly(given: Case, query: int, settings: Settings) -> Expected:
    """Everything is ranked by a full sort in plain Python; then the nearest once more."""
    one = given.queries[query : query + 1]
    stored = given.fitted.encode_items(given.rows.read(np.arange(len(given.rows))))
    near = given.fitted.distances(given.fitted.encode_queries(one, given.metric), stored, 0, 1)[0]
    owners = given.rows.owners.tolist()
    groups: dict[int, list[int]] = {}
    for row, owner in enumerate(owners):
        groups.setdefault(owner, []).append(row)
    if settings.candidates is not None:
        allowed = set(settings.candidates.of(query).tolist())
        groups = {unit: rows for unit, rows in groups.items() if owners[rows[0]] in allowed}

    def by(values: NDArray[Any], rows: list[int]) -> float:
        own = np.array([float(values[row]) for row in rows])
        # The order of additions decides the last bit.
        whole = float(np.add.reduceat(own, [0])[0])
        return whole / len(own) if settings.mean else float(own.min())

    parts = [0] * len(groups)
    standing = sorted((by(near, rows), rows[0], unit) for unit, rows in groups.items())
    nearest = {u: min(rows, key=lambda row: (near[row], row)) for u, rows in groups.items()}
    if settings.rerank:
        cosine = cosine_distances(one, given.rows.read(np.arange(len(owners))))[0]
        top = sorted((by(cosine, groups[u]), row, u) for _, row, u in standing[: settings.rerank])
        behind = standing[settings.rerank :]
        for _, _, u in top:
            nearest[u] = min(groups[u], key=lambda row: (cosine[row], row))
        standing = top + behind
        # What is behind is farther than all that was re-ranked.
        parts = [0] * len(top) + [1] * len(behind)
    units = [unit for _, _, unit in standing]
    return Expected(
        units,
        [(part, distance) for part, (distance, _, _) in zip(parts, standing, strict=True)],
        [owners[groups[unit][0]] for unit in units],
        [nearest[unit] for unit in units],
    )
