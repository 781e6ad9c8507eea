"""Approximate search by inverted lists, also in later generations than the lists' own.

Lists never change after they are built. In a later generation their deleted rows are masked, and
rows that are not in them are searched exactly. So recall does not suffer from changes, and a search
never mixes generations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.blocks import Block, BlockSelection, CodeBlocks, Selection
from bittern.index.engines.flat import FlatEngine, scan, search_selection, shares_of
from bittern.index.engines.inverted_lists import Allowed, InvertedLists
from bittern.index.engines.queries import Queries
from bittern.index.engines.scans import gathered
from bittern.index.engines.search_engine import Nearest, RowSet
from bittern.index.engines.threads import for_each

LEAST_ROWS = 8_000
"""Up to this many allowed rows are searched exactly, which is as fast."""
_NONE = Selection((), 0)


class IvfEngine:
    """Inverted lists used for one generation of the codes.

    Args:
        lists: built over this generation or an earlier one.
        blocks: the codes of the generation.
        recall: wanted share of the true nearest.
        threads: most threads of one call; None for one per usable core.
        coverage: the rows of the generation in the lists; computed if None.
        always: use the lists even if exact search is as fast: for tests and benchmarks.
        probes: number of lists to scan, for measurements; None for the number for the recall.
    """

    kind = "ivf"
    exact = False

    def __init__(
        self,
        lists: InvertedLists,
        blocks: CodeBlocks,
        *,
        recall: float = 0.95,
        threads: int | None = None,
        coverage: Coverage | None = None,
        always: bool = False,
        probes: int | None = None,
    ) -> None:
        self.lists = lists
        self.blocks = blocks
        self.recall = recall
        self._threads = threads
        self._flat = FlatEngine(blocks, threads)
        self._coverage = coverage or Coverage(lists.base, blocks)
        self._always = always
        self._probes = probes

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.search`."""
        queries.check_fits(self.blocks.bits)
        covered = self._coverage.of(rows)
        if not self._is_faster(queries, k, covered.known):
            return self._flat.search(queries, k, rows)
        shares = shares_of(len(queries), 1, self._threads if len(queries) > 1 else 1)
        batches = for_each(
            lambda share: self.lists.nearest(
                queries[share], k, covered.known, recall=self.recall, lists=self._probes
            ),
            shares,
            self._threads,
        )
        known = [one for batch in batches for one in batch]
        found = {query: one for query, one in enumerate(known) if one is not None}
        if found and covered.others.count:
            found = self._with_others(queries, k, covered.others, found)
        rest = [query for query in range(len(queries)) if query not in found]
        if rest:
            exact = self._flat.search(queries.only(rest), k, rows)
            found.update(zip(rest, exact, strict=True))
        return [found[query] for query in range(len(queries))]

    def _with_others(
        self, queries: Queries, k: int, others: Selection, found: Mapping[int, Nearest]
    ) -> dict[int, Nearest]:
        """The hits of the lists, merged with an exact search of the rows that are not in them."""
        chosen = list(found)
        beside = search_selection(queries.only(chosen), k, others, scan, self._threads)
        return {
            query: Nearest.merged([found[query], one], k)
            for query, one in zip(chosen, beside, strict=True)
        }

    def _is_faster(self, queries: Queries, k: int, known: Allowed) -> bool:
        if not known.count or not queries.weights.any(axis=1).all():
            return False
        if self._always or self._probes:
            return True
        return known.count > LEAST_ROWS and self.lists.is_faster(k, known)


@dataclass(frozen=True)
class Covered:
    """The allowed rows: those in the lists, and the others.

    Attributes:
        known: among the lists' positions.
        others: among the generation's blocks.
    """

    known: Allowed
    others: Selection


class Coverage:
    """The rows of a generation that are in an index; computed once for each set of rows.

    Args:
        base: the codes that the index was built over.
        blocks: the codes of the generation.
    """

    def __init__(self, base: CodeBlocks, blocks: CodeBlocks) -> None:
        self._base = base
        self._blocks = blocks
        self._everything: Covered | None = None

    def is_of(self, lists: InvertedLists, blocks: CodeBlocks) -> bool:
        """Whether it was made of these."""
        return self._base is lists.base and self._blocks is blocks

    def of(self, rows: RowSet | None) -> Covered:
        """The allowed rows; `rows` None for everything."""
        if rows is None:
            if self._everything is None:
                self._everything = _covered(self._base, self._blocks, None)
            return self._everything
        known: Covered | None = rows.cache.get(self)
        if known is None:
            rows.cache[self] = known = _covered(self._base, self._blocks, rows)
        return known


def _covered(base: CodeBlocks, blocks: CodeBlocks, rows: RowSet | None) -> Covered:
    """Split the allowed rows into those in an index over `base`, and the others.

    A row whose code was overwritten since counts as not in the index.
    """
    selection = blocks.selection(rows)
    if base.blocks == blocks.blocks:
        return Covered(_allowed(base, {one.block: one.mask for one in selection.blocks}), _NONE)
    shared = set(base.blocks) & set(blocks.blocks)
    masks: dict[Block, NDArray[np.bool_] | None] = {
        one.block: one.mask for one in selection.blocks if one.block in shared
    }
    replaced = [block for block in base.blocks if block not in shared]
    masks.update((block, np.zeros(len(block), dtype=bool)) for block in replaced)
    others = [_unknown(one, replaced, masks) for one in selection.blocks if one.block not in shared]
    unknown = tuple(one for one in others if one.count)
    return Covered(_allowed(base, masks), Selection(unknown, sum(one.count for one in unknown)))


def _unknown(
    selected: BlockSelection,
    replaced: Sequence[Block],
    masks: Mapping[Block, NDArray[np.bool_] | None],
) -> BlockSelection:
    """The selected rows that are not in the index; those that are, are set in `masks`."""
    block = selected.block
    left = np.ones(len(block), dtype=bool) if selected.mask is None else selected.mask.copy()
    numbers = block.rows.array()
    for old in replaced:
        before = old.rows.positions_of(numbers)
        now = block.rows.positions_of(old.rows.at(before))
        same = (gathered(old.codes, before) == gathered(block.codes, now)).all(axis=1)
        same &= left[now]
        left[now[same]] = False
        mask = masks[old]
        assert mask is not None
        mask[before[same]] = True
    return BlockSelection(block, left, int(np.count_nonzero(left)))


def _allowed(base: CodeBlocks, masks: Mapping[Block, NDArray[np.bool_] | None]) -> Allowed:
    """The allowed rows of `base`: none of a block without an entry, all of one with None."""
    if all(block in masks and masks[block] is None for block in base.blocks):
        return Allowed(None, len(base))
    joined = [np.empty(0, dtype=bool)]
    for block in base.blocks:
        mask = masks.get(block)
        joined.append(np.full(len(block), block in masks) if mask is None else mask)
    whole = np.concatenate(joined)
    return Allowed(whole, int(np.count_nonzero(whole)))
