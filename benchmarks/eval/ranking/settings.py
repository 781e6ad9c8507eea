"""What is ranked, how, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.base import EmbeddedRows
from bittern.benchmarks.eval.places import Places
from bittern.benchmarks.eval.protocol import Windows
from bittern.benchmarks.eval.tasks import Relevance
from bittern.errors import InvalidInputError

DEEP = 1_000
"""How deep is ranked where ranking everything would take too long."""
_MOST_COMPARED = 2_000_000_000
"""Distances that are worked out one by one; some minutes on two cores."""
RADIUS = 2
"""Hamming radius of `Places.within`."""


@dataclass(frozen=True)
class Limits:
    """How much memory is used, and how many threads. None of it changes a ranking.

    Attributes:
        kept_bytes: what is stored is kept up to so much, else made anew from each tile.
        block_bytes: distances that a thread holds at a time.
        tile_rows: embeddings that are read at a time.
        batch: queries that are searched at a time.
        threads: the most at once; None for one per usable core.
    """

    kept_bytes: int = 1 << 30
    block_bytes: int = 1 << 26
    tile_rows: int = 65_536
    batch: int = 1_024
    threads: int | None = None


@dataclass(frozen=True)
class Settings:
    """How items are ranked.

    Attributes:
        windows: an item counts by its nearest row (``max``), by the mean over its rows (``mean``),
            or each row is ranked by itself (``separate``).
        depth: ranks beyond it need not be known; None or 0 for everything.
        candidates: the only items that are ranked for each query, where a benchmark gives them.
            Relevant items that are not among them count as relevant all the same: who counts
            otherwise leaves them out of the relevance.
        rerank: so many of the nearest are ranked anew by float cosine; 0 for none.
        keep: so many of the nearest are told by name; no more than the depth.
        limits: memory and threads.
    """

    windows: Windows = "max"
    depth: int | None = None
    candidates: Relevance | None = None
    rerank: int = 0
    keep: int = 0
    limits: Limits = field(default_factory=Limits)

    @property
    def deep(self) -> int | None:
        """How deep is ranked: no less than is ranked anew; None for everything."""
        return max(self.depth, self.rerank) if self.depth and self.candidates is None else None

    def checked(self) -> Settings:
        """These settings, if they can be used.

        Raises:
            InvalidInputError: a name that there is not, or a number below 0.
        """
        if self.windows not in get_args(Windows):
            raise InvalidInputError(
                f"windows must be one of {', '.join(get_args(Windows))}, not {self.windows!r}",
                field="windows",
            )
        numbers = {"depth": self.depth or 0, "rerank": self.rerank, "keep": self.keep}
        for name, number in numbers.items():
            if number < 0:
                raise InvalidInputError(f"{name} must be 0 or more, not {number}", field=name)
        return self


@dataclass(frozen=True)
class Searched:
    """What is searched, and what is right.

    Attributes:
        rows: the items' embeddings.
        items: how many items there are; those without a row are not ranked.
        relevance: which of them answer which query. Those without a row are never found, but
            count as relevant.
    """

    rows: EmbeddedRows
    items: int
    relevance: Relevance

    def check(self, queries: NDArray[np.float32], candidates: Relevance | None) -> None:
        """Check that all parts are of one size.

        Raises:
            InvalidInputError: they are not, or a query's embedding is not finite.
        """
        for name, pairs in (("relevance", self.relevance), ("candidates", candidates)):
            if pairs is None:
                continue
            if len(pairs) != len(queries):
                raise InvalidInputError(
                    f"{name} is given for {len(pairs)} queries, there are {len(queries)}"
                )
            _check_items(name, pairs.items, self.items)
        _check_items("the embedded rows", self.rows.owners, self.items)
        if queries.ndim != 2 or queries.shape[1] != self.rows.dim:
            raise InvalidInputError(
                f"queries have shape {list(queries.shape)}, the items' embeddings are of "
                f"{self.rows.dim} numbers: use one model for both"
            )
        broken = np.flatnonzero(~np.isfinite(queries).all(axis=1))
        if len(broken):
            raise InvalidInputError(
                f"the embedding of query {broken[0]} holds NaN or infinity; embed it anew, or "
                "leave it out"
            )


@dataclass(frozen=True)
class Ranking:
    """What was found.

    Attributes:
        places: where the relevant items stand.
        hits: int64 [q, h], the nearest items in order, -1 where there are no more.
        distances: float64 [q, h], theirs; infinite where there are no more. Of items that were
            ranked anew it is 1 - cosine, of those behind them still the system's.
        rows: int64 [q, h], the observation of each hit that was nearest; -1 where there is none.
        seconds: taken by ranking alone; reading embeddings and storing them is not part of it.
    """

    places: Places
    hits: NDArray[np.int64]
    distances: NDArray[np.float64]
    rows: NDArray[np.int64]
    seconds: float


def default_depth(queries: int, rows: int, coded: bool) -> int | None:
    """How deep to rank where nobody says: None, everything, while that takes minutes.

    Ranking everything works out each distance of each query; a search of codes to a depth does
    not. Float vectors gain nothing by a depth, as each of their distances is needed in any case.

    Args:
        queries: how many.
        rows: observations that are ranked.
        coded: whether codes are searched.
    """
    return DEEP if coded and queries * rows > _MOST_COMPARED else None


def _check_items(name: str, places: NDArray[np.int64], items: int) -> None:
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < items:
        wrong = int(places.min()) if places.min() < 0 else int(places.max())
        raise InvalidInputError(f"{name}: there is no item {wrong}, only 0 to {items - 1}")
