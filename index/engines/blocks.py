"""The codes of one generation, in blocks that generations share.

A block never changes once made. Adding rows makes a new block (small ones at the end are
joined, so that their number stays logarithmic); deleting rows marks them in a mask that
belongs to the generation (a tombstone), until half of a block is dead and it is made anew.
Neither costs more in a large archive than in a small one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bittern.hashing.codes import check_codes
from bittern.index.engines.rows import RowNumbers, RowSet
from bittern.index.engines.scans import FastScan, gathered

BLOCK_ROWS = 1 << 20
"""Most rows of a block: large enough that beginning a scan anew costs little beside it."""
_MOST_DEAD = 0.5


class Block:
    """Codes in memory (or mapped from a file) and their rows.

    Args:
        rows: their numbers, ascending.
        codes: uint8 [n, bits/8]; not copied, and not to be changed any more.
    """

    def __init__(self, rows: RowNumbers, codes: NDArray[np.uint8]) -> None:
        self.rows = rows
        self.codes = np.ascontiguousarray(codes).view()
        self.codes.flags.writeable = False
        self._fast: FastScan | None = None
        self._scans = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes besides the codes: row numbers and the layout for scanning."""
        return self.rows.nbytes + (self._fast.nbytes if self._fast else 0)

    def fast_scan(self, queries: int) -> FastScan | None:
        """The layout for scanning, once so many queries were asked that it is worth making."""
        if self._fast is None and FastScan.suits(self.codes):
            with self._lock:
                self._scans += queries
                if self._fast is None and FastScan.pays_after(self._scans):
                    self._fast = FastScan(self.codes)
        return self._fast


@dataclass(frozen=True)
class BlockSelection:
    """What may be found in one block.

    Attributes:
        block: the block.
        mask: bool [n], true where a row may be found; None for all.
        count: how many may be found.
    """

    block: Block
    mask: NDArray[np.bool_] | None
    count: int

    @cached_property
    def bitmap(self) -> NDArray[np.uint8] | None:
        """The mask in bits, bit i % 8 (little) of byte i // 8 for place i; None for all."""
        return None if self.mask is None else np.packbits(self.mask, bitorder="little")

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Places in the block that may be found: int64 [count], ascending."""
        if self.mask is None:
            return np.arange(len(self.block), dtype=np.int64)
        return np.flatnonzero(self.mask)


@dataclass(frozen=True)
class Selection:
    """What may be found in each block that holds any of it.

    Attributes:
        blocks: one selection per such block.
        count: how many rows may be found altogether.
    """

    blocks: tuple[BlockSelection, ...]
    count: int


class CodeBlocks:
    """The codes of one model and modality at one generation.

    Args:
        bits: code length.
        blocks: in ascending order of rows.
        dead: for each block bool [n], true where a row was deleted, or None.
    """

    def __init__(
        self,
        bits: int,
        blocks: Sequence[Block] = (),
        dead: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> None:
        self.bits = bits
        self.blocks = tuple(blocks)
        self.dead = tuple(dead) if dead is not None else (None,) * len(self.blocks)

    @classmethod
    def of(cls, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> CodeBlocks:
        """Blocks of codes whose rows are ascending: int64 [n] and uint8 [n, bits/8].

        The codes are not copied, and not to be changed any more.
        """
        codes = check_codes(codes)
        blocks = [
            Block(RowNumbers(rows[start : start + BLOCK_ROWS]), codes[start : start + BLOCK_ROWS])
            for start in range(0, len(codes), BLOCK_ROWS)
        ]
        return cls(codes.shape[1] * 8, blocks)

    def __len__(self) -> int:
        return self._everything.count

    @property
    def width(self) -> int:
        """Bytes of one code."""
        return self.bits // 8

    @property
    def nbytes(self) -> int:
        """Bytes of codes, dead ones included."""
        return sum(len(block) for block in self.blocks) * self.width

    @property
    def nbytes_besides(self) -> int:
        """Bytes besides the codes: row numbers, tombstones, layouts for scanning."""
        return sum(block.nbytes for block in self.blocks) + sum(
            dead.nbytes for dead in self.dead if dead is not None
        )

    @property
    def last_row(self) -> int:
        """The greatest row number that was ever here; -1 where there is none."""
        return self.blocks[-1].rows.last if self.blocks else -1

    @property
    def rows(self) -> NDArray[np.int64]:
        """The live rows: int64 [n], ascending."""
        return np.concatenate(
            [part.block.rows.at(part.places) for part in self._everything.blocks]
            or [np.empty(0, np.int64)]
        )

    @property
    def codes(self) -> NDArray[np.uint8]:
        """The codes of the live rows, copied: uint8 [n, bits/8]."""
        return np.concatenate(
            [gathered(part.block.codes, part.places) for part in self._everything.blocks]
            or [np.empty((0, self.width), np.uint8)]
        )

    def code(self, row: int) -> NDArray[np.uint8] | None:
        """The code of one row, uint8 [bits/8]; None where the row has none here."""
        wanted = np.array([row], dtype=np.int64)
        for block, dead in zip(self.blocks, self.dead, strict=True):
            places = block.rows.places_of(wanted)
            if len(places) and (dead is None or not dead[places[0]]):
                return np.array(block.codes[places[0]])
        return None

    # Places: positions in the concatenation of the blocks, tombstones included

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The place of each block's first row, and the number of all places: int64 [b + 1]."""
        return np.cumsum([0, *(len(block) for block in self.blocks)], dtype=np.int64)

    def codes_at(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The codes at some places, copied: uint8 [n, bits/8]."""
        if len(self.blocks) == 1:
            return gathered(self.blocks[0].codes, places)
        codes = np.empty((len(places), self.width), dtype=np.uint8)
        for number, chosen in self._by_block(places):
            block = self.blocks[number]
            codes[chosen] = gathered(block.codes, places[chosen] - self.starts[number])
        return codes

    def rows_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row numbers at some places: int64 [n]."""
        rows = np.empty(len(places), dtype=np.int64)
        for number, chosen in self._by_block(places):
            rows[chosen] = self.blocks[number].rows.at(places[chosen] - self.starts[number])
        return rows

    def live_codes(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The codes of the live rows with these positions among them: uint8 [n, bits/8]."""
        parts = self._everything.blocks
        ends = np.cumsum([part.count for part in parts], dtype=np.int64)
        codes = np.empty((len(numbers), self.width), dtype=np.uint8)
        which = np.searchsorted(ends, numbers, side="right")
        for number, part in enumerate(parts):
            chosen = which == number
            within = numbers[chosen] - (ends[number] - part.count)
            places = within if part.mask is None else part.places[within]
            codes[chosen] = gathered(part.block.codes, places)
        return codes

    def _by_block(
        self, places: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.int64] | slice]]:
        """For each block that holds any of the places: its number, and which of them."""
        if len(self.blocks) == 1:
            yield 0, slice(None)
            return
        numbers = np.searchsorted(self.starts, places, side="right") - 1
        for number in np.unique(numbers):
            yield int(number), np.flatnonzero(numbers == number)

    # The next generation

    def appended(self, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> CodeBlocks:
        """These codes and more, whose rows come after all that were ever here."""
        fresh = CodeBlocks.of(rows, codes)
        blocks, dead = list(self.blocks), list(self.dead)
        for block in fresh.blocks:
            blocks.append(block)
            dead.append(None)
            while len(blocks) > 1 and _worth_joining(len(blocks[-2]), len(blocks[-1])):
                joined = _joined(blocks[-2:], dead[-2:])
                blocks[-2:], dead[-2:] = [joined], [None]
        return CodeBlocks(self.bits, blocks, dead)

    def without(self, rows: NDArray[np.int64]) -> CodeBlocks:
        """These codes but those of some rows (int64, ascending), known here or not."""
        blocks, masks = list(self.blocks), list(self.dead)
        for number, (block, dead) in enumerate(zip(self.blocks, self.dead, strict=True)):
            places = block.rows.places_of(rows)
            if not len(places):
                continue
            mask = np.zeros(len(block), dtype=bool) if dead is None else dead.copy()
            mask[places] = True
            masks[number] = mask
            if mask.mean() > _MOST_DEAD:
                blocks[number], masks[number] = _joined([block], [mask]), None
        kept = [number for number, block in enumerate(blocks) if len(block)]
        return CodeBlocks(self.bits, [blocks[n] for n in kept], [masks[n] for n in kept])

    def merged(self, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> CodeBlocks:
        """These codes and more, whose rows (ascending, not live here) may lie anywhere.

        Only blocks into whose range rows fall are made anew.
        """
        if not len(rows):
            return self
        if rows[0] > self.last_row:
            return self.appended(rows, codes)
        begins = np.searchsorted(rows, [block.rows.first for block in self.blocks[1:]])
        blocks: list[Block] = []
        dead: list[NDArray[np.bool_] | None] = []
        bounds = pairwise([0, *begins.tolist(), len(rows)])
        for block, mask, (begin, end) in zip(self.blocks, self.dead, bounds, strict=True):
            made = CodeBlocks(self.bits, [block], [mask])
            if begin < end:
                all_rows = np.concatenate([made.rows, rows[begin:end]])
                all_codes = np.concatenate([made.codes, codes[begin:end]])
                order = np.argsort(all_rows, kind="stable")
                made = CodeBlocks.of(all_rows[order], gathered(all_codes, order))
            blocks += made.blocks
            dead += made.dead
        return CodeBlocks(self.bits, blocks, dead)

    # What may be found

    def selection(self, rows: RowSet | None = None) -> Selection:
        """What may be found, block by block: live rows, and of them only `rows` if given."""
        if rows is None:
            return self._everything
        known: Selection | None = rows.known.get(self)
        if known is None:
            rows.known[self] = known = _selected(
                [self._part(number, rows) for number in range(len(self.blocks))]
            )
        return known

    @cached_property
    def _everything(self) -> Selection:
        return _selected(
            [
                BlockSelection(block, None, len(block))
                if dead is None
                else BlockSelection(block, ~dead, len(block) - int(np.count_nonzero(dead)))
                for block, dead in zip(self.blocks, self.dead, strict=True)
            ]
        )

    def _part(self, number: int, rows: RowSet) -> BlockSelection:
        block, dead = self.blocks[number], self.dead[number]
        places = block.rows.places_of(rows.rows)
        if len(places) == len(block) and dead is None:
            return BlockSelection(block, None, len(block))
        mask = np.zeros(len(block), dtype=bool)
        mask[places] = True
        if dead is not None:
            mask &= ~dead
        return BlockSelection(block, mask, int(np.count_nonzero(mask)))


def _selected(parts: list[BlockSelection]) -> Selection:
    kept = tuple(part for part in parts if part.count)
    return Selection(kept, sum(part.count for part in kept))


def _worth_joining(before: int, last: int) -> bool:
    return before < 2 * last and before + last <= BLOCK_ROWS


def _joined(blocks: Sequence[Block], dead: Sequence[NDArray[np.bool_] | None]) -> Block:
    """The live rows of neighbouring blocks as one block."""
    rows, codes = [], []
    for block, mask in zip(blocks, dead, strict=True):
        live = None if mask is None else np.flatnonzero(~mask)
        rows.append(block.rows.array() if live is None else block.rows.at(live))
        codes.append(block.codes if live is None else gathered(block.codes, live))
    return Block(RowNumbers(np.concatenate(rows)), np.concatenate(codes))
