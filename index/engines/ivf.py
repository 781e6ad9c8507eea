"""Approximate search: a structure over the codes of one generation, used in later ones too.

A structure (lists, a graph) is built over some generation's codes and never changed. In a
later generation its rows are masked where they were deleted, and rows that it does not know
are searched exactly beside it; so recall does not suffer from what has changed since, and a
search never mixes generations. Its candidates are scored exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines import planning
from bittern.index.engines.blocks import Block, BlockSelection, CodeBlocks, Selection
from bittern.index.engines.flat import FlatEngine, search_selection
from bittern.index.engines.nearest import Nearest
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowSet
from bittern.index.engines.scans import Candidates, gathered
from bittern.index.engines.threads import for_each

LEAST_ROWS = 8_000
"""So few rows that may be found are searched exactly: it takes no longer."""
_TIMES, _PLUS = 2, 100
NONE = Selection((), 0)


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
    ) -> Sequence[Candidates | None]:
        """Likely nearest codes for each query, about `count` of them; `floor` is not used.

        None for a query that is better answered exactly.

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
        candidates: Callable[[Queries, int, Allowed], Sequence[Candidates]],
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
    ) -> Sequence[Candidates]:
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
        known = [one for part in found for one in part]
        wanted = min(k, covered.known.count)
        answered = [query for query, one in enumerate(known) if one and len(one) == wanted]
        nearest = self._beside(queries, k, covered, known, answered)
        left = [query for query in range(len(queries)) if query not in nearest]
        if left:
            exact = self._flat.search(queries.only(left), k, rows)
            nearest.update(zip(left, exact, strict=True))
        return [nearest[query] for query in range(len(queries))]

    def _beside(
        self,
        queries: Queries,
        k: int,
        covered: Covered,
        known: Sequence[Nearest | None],
        answered: list[int],
    ) -> dict[int, Nearest]:
        """What the structure answered, with what it does not know searched exactly beside it."""
        found = {query: one for query in answered if (one := known[query]) is not None}
        if not covered.others.count or not found:
            return found
        beside = search_selection(
            queries.only(answered), k, covered.others, planning.scan, self._threads
        )
        return {
            query: Nearest.best_of([found[query], one], k)
            for query, one in zip(answered, beside, strict=True)
        }

    def within(self, queries: Queries, radius: float, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.within`; always exact."""
        return self._flat.within(queries, radius, rows)

    def _worth_it(self, queries: Queries, k: int, known: Allowed) -> bool:
        if not known.count or not queries.weights.any(axis=1).all():
            return False
        if self._always:
            return True
        return known.count > LEAST_ROWS and self.structure.pays(k, known, self.recall)

    def _known(self, queries: Queries, k: int, known: Allowed) -> list[Nearest | None]:
        """The nearest of what the structure knows; None for a query that it leaves."""
        base = self.structure.base
        found = self.structure.candidates(queries, _TIMES * k + _PLUS, known, self.recall)
        nearest: list[Nearest | None] = []
        for query, one in enumerate(found):
            if one is None:
                nearest.append(None)
                continue
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
    """Split what may be found into what a structure over `base` knows, and the rest.

    A row whose code was overwritten since is not known: its number is the same, its code is
    another.
    """
    selection = blocks.selection(rows)
    if base.blocks == blocks.blocks:
        return Covered(_allowed(base, {part.block: part.mask for part in selection.blocks}), NONE)
    shared = set(base.blocks) & set(blocks.blocks)
    masks: dict[Block, NDArray[np.bool_] | None] = {
        part.block: part.mask for part in selection.blocks if part.block in shared
    }
    gone = [block for block in base.blocks if block not in shared]
    masks.update((block, np.zeros(len(block), dtype=bool)) for block in gone)
    others = []
    for part in selection.blocks:
        if part.block not in shared:
            others.append(_unknown(part, gone, masks))
    unknown = tuple(part for part in others if part.count)
    return Covered(_allowed(base, masks), Selection(unknown, sum(part.count for part in unknown)))


def _unknown(
    part: BlockSelection,
    gone: Sequence[Block],
    masks: Mapping[Block, NDArray[np.bool_] | None],
) -> BlockSelection:
    """Of a selection, what the structure does not know; what it knows is allowed in `masks`."""
    block = part.block
    left = np.ones(len(block), dtype=bool) if part.mask is None else part.mask.copy()
    numbers = block.rows.array()
    for old in gone:
        before = old.rows.places_of(numbers)
        now = block.rows.places_of(old.rows.at(before))
        same = (gathered(old.codes, before) == gathered(block.codes, now)).all(axis=1)
        same &= left[now]
        left[now[same]] = False
        mask = masks[old]
        assert mask is not None
        mask[before[same]] = True
    return BlockSelection(block, left, int(np.count_nonzero(left)))


def _allowed(base: CodeBlocks, masks: Mapping[Block, NDArray[np.bool_] | None]) -> Allowed:
    """What is allowed of `base`, where a block without an entry is not, and None is all of it."""
    if all(block in masks and masks[block] is None for block in base.blocks):
        return Allowed(None, len(base))
    parts = []
    for block in base.blocks:
        if block not in masks:
            parts.append(np.zeros(len(block), dtype=bool))
        else:
            mask = masks[block]
            parts.append(np.ones(len(block), dtype=bool) if mask is None else mask)
    mask = np.concatenate(parts) if parts else np.empty(0, dtype=bool)
    return Allowed(mask, int(np.count_nonzero(mask)))
