"""The nearest items by code are ranked anew by float cosine; what is behind them stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.base import EmbeddedRows
from bittern.benchmarks.eval.ranking.counting import in_lists
from bittern.benchmarks.eval.ranking.placed import Nearest, Placed
from bittern.benchmarks.eval.ranking.settings import Limits
from bittern.benchmarks.eval.ranking.units import (
    Ints,
    Units,
    Wanted,
    first_least,
    lookup,
    offsets_of,
)
from bittern.benchmarks.eval.systems.exact import cosine_distances
from bittern.errors import InvalidInputError
from bittern.index.engines.threads import for_each, usable_cores


def reranked(
    placed: Placed,
    count: int,
    queries: NDArray[np.float32],
    rows: EmbeddedRows,
    units: Units,
    wanted: Wanted,
    limits: Limits,
) -> Placed:
    """Rank the `count` nearest units of each query anew, by (1 - cosine, row).

    Args:
        placed: the ranking by code, with at least `count` of the nearest, as far as there are.
        count: how many.
        queries: float32 [q, dim].
        rows: embeddings; those of the nearest are read.
        units: what is ranked.
        wanted: what is relevant.
        limits: memory and threads.

    Raises:
        InvalidInputError: a cosine is not a number.
    """
    top = placed.nearest.first(count)
    anew = Nearest.none(*top.units.shape)
    each = max(1, top.units.shape[1] * units.rows // max(len(units), 1))
    size = max(1, limits.block_bytes // (12 * each * rows.dim))
    blocks = [slice(begin, begin + size) for begin in range(0, len(queries), size)]

    def block(some: slice) -> None:
        own = _by_cosine(queries[some], top.units[some], rows, units, some.start)
        anew.put(np.arange(len(queries))[some], own)

    for_each(block, blocks, limits.threads or usable_cores())
    return _joined(placed, anew, wanted, len(units))


def _joined(placed: Placed, anew: Nearest, wanted: Wanted, units: int) -> Placed:
    """Entries of units that were ranked anew, and those behind them."""
    count = anew.units.shape[1]
    there = anew.units >= 0
    number = np.repeat(np.arange(len(there)), there.sum(axis=1))
    standing = in_lists(anew.distances[there], offsets_of(there.sum(axis=1)))
    at, relevant = lookup(number, anew.units[there], wanted, units)
    behind = placed.ranks > count
    nearer = np.maximum(placed.nearer[behind], count)
    ranks = placed.ranks[behind]
    tied = placed.nearer[behind] + placed.tied[behind] - nearer
    old = placed.nearest
    return replace(
        placed,
        queries=np.concatenate([number[relevant], placed.queries[behind]]),
        units=np.concatenate([anew.units[there][relevant], placed.units[behind]]),
        grades=np.concatenate([wanted.grades[at[relevant]], placed.grades[behind]]),
        nearer=np.concatenate([standing.nearer[relevant], nearer]),
        before=np.concatenate([standing.before[relevant], ranks - 1 - nearer]),
        tied=np.concatenate([standing.tied[relevant], tied]),
        nearest=Nearest(
            np.concatenate([anew.units, old.units[:, count:]], axis=1),
            np.concatenate([anew.distances, old.distances[:, count:]], axis=1),
            np.concatenate([anew.rows, old.rows[:, count:]], axis=1),
        ),
        within=None,
    )


def _by_cosine(
    queries: NDArray[np.float32], chosen: Ints, rows: EmbeddedRows, units: Units, first: int
) -> Nearest:
    """Units [q, n] (-1 for none) in order of their cosine."""
    found = Nearest.none(*chosen.shape)
    there = chosen >= 0
    if not there.any():
        return found
    numbers, begins = units.rows_of(chosen[there])
    ends = np.append(begins, len(numbers))
    unique, inverse = np.unique(numbers, return_inverse=True)
    embeddings = rows.read(unique)
    of_query = offsets_of(there.sum(axis=1))
    distances = np.empty(len(numbers))
    for query, vector in enumerate(queries):
        own = slice(ends[of_query[query]], ends[of_query[query + 1]])
        distances[own] = cosine_distances(vector[None], embeddings[inverse[own]])[0]
        if not np.isfinite(distances[own]).all():
            raise InvalidInputError(
                f"query {first + query} has cosines that are not numbers; look for embeddings of "
                "items that are not finite"
            )
    nearest = first_least(distances, begins)
    if units.windows == "mean":
        means = np.add.reduceat(distances, begins) / np.diff(ends)
    else:
        means = distances[nearest]
    found.units[there], found.distances[there] = chosen[there], means
    found.rows[there] = numbers[nearest]
    order = np.lexsort((found.units, found.distances), axis=1)
    return Nearest(
        np.take_along_axis(found.units, order, axis=1),
        np.take_along_axis(found.distances, order, axis=1),
        np.take_along_axis(found.rows, order, axis=1),
    )
