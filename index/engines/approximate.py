"""Approximate search: a structure over the codes of one generation, used in later ones too.

A structure (lists, a graph) is built over some generation's codes and never changed. In a
later generation its rows are masked where they were deleted, and rows that it does not know
are searched exactly beside it; so recall does not suffer from what has changed since, and a
search never mixes generations. Its candidates are scored exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index.engines import planning
from index.engines.blocks import BlockSelection, CodeBlocks, Selection
from index.engines.flat import FlatEngine, search_selection
from index.engines.nearest import Nearest
from index.engines.queries import Queries
from index.engines.rows import RowSet
from index.engines.scans import Candidates
from index.engines.threads import for_each

LEAST_ROWS = 8_000
"""So few rows that may be found are searched exactly: it takes no longer."""
_TIMES, _PLUS = 2, 100


@dataclass(frozen=True)
class Allowed:
    """What may be found among the rows of a structure.

    Attributes:
        mask: bool [n] over the structure's places; None for all.
        count: how many may be found.
    """

    mask: NDArray[np.bool_] | None
    count: int

    @cached_property
    def bitmap(self) -> NDArray[np.uint8] | None:
        """The mask in bits, bit i % 8 (little) of byte i // 8 for place i; None for all."""
        return None if self.mask is None else np.packbits(self.mask, bitorder="little")


class Structure(Protocol):
    """Built over codes; names candidates without looking at all of them.

    Attributes:
        kind: ``ivf`` or ``graph``.
        base: the codes that it was built over, without tombstones. A place is a position in
            the concatenation of its blocks.
    """

    kind: str
    base: CodeBlocks

    @property
    def nbytes(self) -> int:
        """Bytes that it takes besides the codes."""
        ...

    def pays(self, k: int, allowed: Allowed, recall: float) -> bool:
        """Whether it is faster than exact search for the k nearest at this recall."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the codes, as plain arrays to be stored."""
        ...

    def candidates(
        self, queries: Queries, count: int, allowed: Allowed, recall: float
    ) -> list[Candidates]:
        """Likely nearest codes for each query, about `count` of them; `floor` is not used.

        Called with OpenMP held to one thread.

        Args:
            queries: none of them without any weight.
            count: how many for each.
            allowed: what may be found.
            recall: share of the true nearest that is wanted, 0 to 1.
        """
        ...


class WithEffort:
    """A structure that always makes the same effort, whatever recall is wanted: to measure it.

    Args:
        structure: the structure.
        candidates: its candidates for queries, a count and what is allowed, at that effort.
    """

    nbytes = 0

    def __init__(
        self,
        structure: Structure,
        candidates: Callable[[Queries, int, Allowed], list[Candidates]],
    ) -> None:
        self.kind = structure.kind
        self.base = structure.base
        self._candidates = candidates

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Nothing: it is not to be stored."""
        return {}

    def pays(self, k: int, allowed: Allowed, recall: float) -> bool:
        """Always: how fast it is, is what is to be found out."""
        return True

    def candidates(
        self, queries: Queries, count: int, allowed: Allowed, recall: float
    ) -> list[Candidates]:
        """See `Structure.candidates`."""
        return self._candidates(queries, count, allowed)


@dataclass(frozen=True)
class Covered:
    """What may be found: what the structure knows, and the rest.

    Attributes:
        known: among the structure's places.
        others: among the generation's blocks.
    """

    known: Allowed
    others: Selection


class ApproximateEngine:
    """A structure used for one generation of the codes.

    Args:
        structure: built over this generation or an earlier one.
        blocks: the codes of the generation.
        recall: share of the true nearest that is wanted.
        threads: the most threads of one call; None for one per usable core.
        coverage: what of the generation the structure knows; worked out if it is not given.
        always: use the structure even where exact search is as fast, as when measuring it.
    """

    exact = False

    def __init__(
        self,
        structure: Structure,
        blocks: CodeBlocks,
        *,
        recall: float = 0.95,
        threads: int | None = None,
        coverage: Coverage | None = None,
        always: bool = False,
    ) -> None:
        self.kind = structure.kind
        self.structure = structure
        self.blocks = blocks
        self.recall = recall
        self._threads = threads
        self._flat = FlatEngine(blocks, threads)
        self._always = always
        self._coverage = coverage or Coverage(structure.base, blocks)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds besides the codes."""
        return self.structure.nbytes + self._flat.nbytes

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.search`."""
        queries.check_fits(self.blocks.bits)
        covered = self._coverage.of(rows)
        if not self._worth_it(queries, k, covered.known):
            return self._flat.search(queries, k, rows)
        shares = planning.shares_of(len(queries), 1, self._threads if len(queries) > 1 else 1)
        found = for_each(
            lambda share: self._known(queries[share], k, covered.known), shares, self._threads
        )
        nearest = [one for part in found for one in part]
        if covered.others.count:
            beside = search_selection(queries, k, covered.others, planning.scan, self._threads)
            nearest = [Nearest.best_of(both, k) for both in zip(nearest, beside, strict=True)]
        wanted = min(k, covered.known.count + covered.others.count)
        return [
            one if len(one) == wanted else self._flat.search(query, k, rows)[0]
            for query, one in zip(queries, nearest, strict=True)
        ]

    def within(self, queries: Queries, radius: float, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.within`; always exact."""
        return self._flat.within(queries, radius, rows)

    def _worth_it(self, queries: Queries, k: int, known: Allowed) -> bool:
        if not known.count or not queries.weights.any(axis=1).all():
            return False
        if self._always:
            return True
        return known.count > LEAST_ROWS and self.structure.pays(k, known, self.recall)

    def _known(self, queries: Queries, k: int, known: Allowed) -> list[Nearest]:
        """The nearest of what the structure knows."""
        base = self.structure.base
        found = self.structure.candidates(queries, _TIMES * k + _PLUS, known, self.recall)
        nearest = []
        for query, one in enumerate(found):
            highest = one.distances + one.error
            limit = np.partition(highest, k - 1)[k - 1] if len(highest) > k else np.inf
            places = one.places[one.distances - one.error <= limit]
            distances = queries.distances(query, base.codes_at(places))
            nearest.append(Nearest.of(distances, base.rows_at(places), k))
        return nearest


class Coverage:
    """What of a generation a structure knows; worked out once for each set of rows.

    Args:
        base: the codes that the structure was built over.
        blocks: the codes of the generation.
    """

    def __init__(self, base: CodeBlocks, blocks: CodeBlocks) -> None:
        self._base = base
        self._blocks = blocks
        self._everything: Covered | None = None

    def is_of(self, structure: Structure, blocks: CodeBlocks) -> bool:
        """Whether it was made of these."""
        return self._base is structure.base and self._blocks is blocks

    def of(self, rows: RowSet | None) -> Covered:
        """What may be found of `rows`; None for everything."""
        if rows is None:
            if self._everything is None:
                self._everything = _coverage(self._base, self._blocks, None)
            return self._everything
        known: Covered | None = rows.known.get(self)
        if known is None:
            rows.known[self] = known = _coverage(self._base, self._blocks, rows)
        return known


def _coverage(base: CodeBlocks, blocks: CodeBlocks, rows: RowSet | None) -> Covered:
    """Split what may be found into what a structure over `base` knows, and the rest."""
    selection = blocks.selection(rows)
    if base is blocks or base.blocks == blocks.blocks:
        return Covered(_allowed(base, selection), Selection((), 0))
    shared = set(base.blocks)
    others = [part for part in selection.blocks if part.block not in shared]
    if shared <= set(blocks.blocks):
        known = [part for part in selection.blocks if part.block in shared]
        kept = Selection(tuple(known), sum(part.count for part in known))
        return Covered(
            _allowed(base, kept), Selection(tuple(others), sum(part.count for part in others))
        )
    # Some of its blocks were made anew since: go by row numbers.
    present = [part.block.rows.at(part.places) for part in selection.blocks]
    live = RowSet(np.concatenate(present) if present else np.empty(0, np.int64))
    unknown = [_unknown(base, part) for part in others]
    unknown = [part for part in unknown if part.count]
    return Covered(
        _allowed(base, base.selection(live)),
        Selection(tuple(unknown), sum(part.count for part in unknown)),
    )


def _allowed(base: CodeBlocks, selection: Selection) -> Allowed:
    if selection.count == len(base):
        return Allowed(None, selection.count)
    parts = {part.block: part for part in selection.blocks}
    masks = []
    for block in base.blocks:
        part = parts.get(block)
        if part is None:
            masks.append(np.zeros(len(block), dtype=bool))
        elif part.mask is None:
            masks.append(np.ones(len(block), dtype=bool))
        else:
            masks.append(part.mask)
    return Allowed(np.concatenate(masks), selection.count)


def _unknown(base: CodeBlocks, part: BlockSelection) -> BlockSelection:
    """Of a selection, the rows that `base` does not hold."""
    mask = np.ones(len(part.block), dtype=bool) if part.mask is None else part.mask.copy()
    numbers = part.block.rows.array()
    for block in base.blocks:
        mask[part.block.rows.places_of(block.rows.at(block.rows.places_of(numbers)))] = False
    return BlockSelection(part.block, mask, int(np.count_nonzero(mask)))
