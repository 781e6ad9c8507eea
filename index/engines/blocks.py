"""The codes of one generation, in blocks that generations share.

A block never changes. Adding rows makes a new block; small blocks at the end are joined, so their
number stays logarithmic. Deleting rows sets tombstones in a mask of the generation; a block with
more than half of its rows deleted is replaced. The cost of a change does not grow with the archive.

A *position* counts the rows of a block, or of all blocks in turn, including deleted rows.
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
from bittern.index.engines.scans import FastScan, RangeScan, gathered
from bittern.index.engines.search_engine import RowSet

BLOCK_ROWS = 1 << 20
"""Most rows of a block: large enough that starting a scan takes little time."""
_MOST_DEAD = 0.5
_STRIDE = 0x9E3779B1
"""A prime beyond the size of blocks, so that its multiples are different positions; near 2^32
divided by the golden ratio, so that they are spread evenly."""
_DENSE = 8
"""Rows are looked up in a table if their span is at most this many numbers per row."""


class RowNumbers:
    """Strictly ascending row numbers; a run without gaps takes no memory.

    Args:
        rows: int64 [n], strictly ascending.
    """

    __slots__ = ("_array", "_count", "_first")

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self._count = len(rows)
        self._first = int(rows[0]) if self._count else 0
        self._array: NDArray[np.int64] | None = None
        if self._count and int(rows[-1]) - self._first + 1 != self._count:
            self._array = np.ascontiguousarray(rows, dtype=np.int64).view()
            self._array.flags.writeable = False

    @classmethod
    def run(cls, first: int, count: int) -> RowNumbers:
        """The rows `first`, `first + 1`, ... without an array of them."""
        made = cls(np.empty(0, np.int64))
        made._first, made._count = first, count
        return made

    def __len__(self) -> int:
        return self._count

    @property
    def first(self) -> int:
        """The least row number; 0 if there is none."""
        return self._first

    @property
    def last(self) -> int:
        """The greatest row number; -1 if there is none."""
        if not self._count:
            return -1
        return self._first + self._count - 1 if self._array is None else int(self._array[-1])

    @property
    def nbytes(self) -> int:
        """Bytes that the numbers take."""
        return 0 if self._array is None else self._array.nbytes

    def array(self) -> NDArray[np.int64]:
        """The numbers: int64 [n]."""
        if self._array is not None:
            return self._array
        return np.arange(self._first, self._first + self._count, dtype=np.int64)

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers at some positions."""
        rows: NDArray[np.int64] = (
            positions + self._first if self._array is None else self._array[positions]
        )
        return rows

    def positions_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of those of `rows` (int64, ascending) that exist here, ascending."""
        begin, end = np.searchsorted(rows, [self.first, self.last + 1])
        within = rows[begin:end]
        if self._array is None or not len(within):
            return within - self._first
        if self.last - self._first < _DENSE * self._count < _DENSE * _DENSE * len(within):
            wanted = np.zeros(self.last - self._first + 1, dtype=bool)
            wanted[within - self._first] = True
            return np.flatnonzero(wanted[self._array - self._first])
        positions = np.searchsorted(self._array, within)
        return np.asarray(positions[self._array[positions] == within], dtype=np.int64)


class Block:
    """Codes in memory (or mapped from a file) and their rows.

    Args:
        rows: their numbers, ascending.
        codes: uint8 [n, bits/8]; not copied, and must not be changed.
    """

    def __init__(self, rows: RowNumbers, codes: NDArray[np.uint8]) -> None:
        self.rows = rows
        self.codes = np.ascontiguousarray(codes).view()
        self.codes.flags.writeable = False
        self._fast: FastScan | None = None
        self._range: RangeScan | None = None
        self._scans = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes besides the codes: row numbers and the layouts for scanning."""
        return self.rows.nbytes + sum(one.nbytes for one in (self._fast, self._range) if one)

    def fast_scan(self, queries: int) -> FastScan | None:
        """The layout for fast scans, made after enough queries; None before."""
        if self._fast is None and FastScan.suits(self.codes):
            with self._lock:
                self._scans += queries
                if self._fast is None and FastScan.pays_after(self._scans):
                    self._fast = FastScan(self.codes)
        return self._fast

    def range_scan(self) -> RangeScan | None:
        """The layout for scans up to a distance, made at first use; None before `fast_scan`."""
        if self._range is None and self._fast is not None:
            with self._lock:
                self._range = self._range or RangeScan(self.codes)
        return self._range

    def sample(self, count: int) -> NDArray[np.int64]:
        """Different positions without a pattern: int64 [n], `count` or all if there are fewer."""
        return np.arange(min(count, len(self)), dtype=np.int64) * _STRIDE % len(self)


@dataclass(frozen=True)
class BlockSelection:
    """The allowed rows of one block.

    Attributes:
        block: the block.
        mask: bool [n], true where a row is allowed; None for all.
        count: number of allowed rows.
    """

    block: Block
    mask: NDArray[np.bool_] | None
    count: int

    @cached_property
    def bitmap(self) -> NDArray[np.uint8] | None:
        """The mask in bits, bit i % 8 (little) of byte i // 8 for position i; None for all."""
        return None if self.mask is None else np.packbits(self.mask, bitorder="little")

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """Positions of the allowed rows: int64 [count], ascending."""
        if self.mask is None:
            return np.arange(len(self.block), dtype=np.int64)
        return np.flatnonzero(self.mask)

    def sample(self, count: int) -> NDArray[np.int64]:
        """Some allowed positions: int64 [n], about `count`, or all if there are fewer."""
        if count >= self.count:
            return self.positions
        drawn = self.block.sample(-(-count * len(self.block) // self.count))
        if self.mask is not None:
            drawn = drawn[self.mask[drawn]]
        return drawn if 2 * len(drawn) > count else self.positions[:: self.count // count]


@dataclass(frozen=True)
class Selection:
    """The allowed rows of all blocks.

    Attributes:
        blocks: one selection per block with allowed rows.
        count: number of allowed rows.
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

        The codes are not copied, and must not be changed.
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
        """Bytes of codes, including deleted ones."""
        return sum(len(block) for block in self.blocks) * self.width

    @property
    def nbytes_besides(self) -> int:
        """Bytes besides the codes: row numbers, tombstones, layouts for fast scans."""
        return sum(block.nbytes for block in self.blocks) + sum(
            dead.nbytes for dead in self.dead if dead is not None
        )

    @property
    def last_row(self) -> int:
        """The greatest row number, including deleted rows; -1 if there is none."""
        return self.blocks[-1].rows.last if self.blocks else -1

    @property
    def rows(self) -> NDArray[np.int64]:
        """The live rows: int64 [n], ascending."""
        return np.concatenate(
            [one.block.rows.at(one.positions) for one in self._everything.blocks]
            or [np.empty(0, np.int64)]
        )

    @property
    def codes(self) -> NDArray[np.uint8]:
        """The codes of the live rows, copied: uint8 [n, bits/8]."""
        return np.concatenate(
            [gathered(one.block.codes, one.positions) for one in self._everything.blocks]
            or [np.empty((0, self.width), np.uint8)]
        )

    def code(self, row: int) -> NDArray[np.uint8] | None:
        """The code of one row, uint8 [bits/8]; None if it has none here."""
        wanted = np.array([row], dtype=np.int64)
        for block, dead in zip(self.blocks, self.dead, strict=True):
            positions = block.rows.positions_of(wanted)
            if len(positions) and (dead is None or not dead[positions[0]]):
                return np.array(block.codes[positions[0]])
        return None

    # By position

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Position of each block's first row, and the number of positions: int64 [b + 1]."""
        return np.cumsum([0, *(len(block) for block in self.blocks)], dtype=np.int64)

    def codes_at(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The codes at some positions, copied: uint8 [n, bits/8]."""
        if len(self.blocks) == 1:
            return gathered(self.blocks[0].codes, positions)
        codes = np.empty((len(positions), self.width), dtype=np.uint8)
        for number, chosen in self._by_block(positions):
            block = self.blocks[number]
            codes[chosen] = gathered(block.codes, positions[chosen] - self.starts[number])
        return codes

    def rows_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row numbers at some positions: int64 [n]."""
        rows = np.empty(len(positions), dtype=np.int64)
        for number, chosen in self._by_block(positions):
            rows[chosen] = self.blocks[number].rows.at(positions[chosen] - self.starts[number])
        return rows

    def live_codes(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The codes of the n-th live rows, not counting deleted rows: uint8 [n, bits/8]."""
        selected = self._everything.blocks
        ends = np.cumsum([one.count for one in selected], dtype=np.int64)
        codes = np.empty((len(numbers), self.width), dtype=np.uint8)
        which = np.searchsorted(ends, numbers, side="right")
        for number, one in enumerate(selected):
            chosen = which == number
            within = numbers[chosen] - (ends[number] - one.count)
            positions = within if one.mask is None else one.positions[within]
            codes[chosen] = gathered(one.block.codes, positions)
        return codes

    def _by_block(
        self, positions: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.int64] | slice]]:
        """For each block that holds any of the positions: its number, and which of them."""
        if len(self.blocks) == 1:
            yield 0, slice(None)
            return
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        for number in np.unique(numbers):
            yield int(number), np.flatnonzero(numbers == number)

    # The next generation

    def appended(self, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> CodeBlocks:
        """These codes and more, whose rows are greater than all rows here."""
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
        """These codes without some rows (int64, ascending), whether they exist or not."""
        blocks, masks = list(self.blocks), list(self.dead)
        for number, (block, dead) in enumerate(zip(self.blocks, self.dead, strict=True)):
            positions = block.rows.positions_of(rows)
            if not len(positions):
                continue
            mask = np.zeros(len(block), dtype=bool) if dead is None else dead.copy()
            mask[positions] = True
            masks[number] = mask
            if mask.mean() > _MOST_DEAD:
                blocks[number], masks[number] = _joined([block], [mask]), None
        kept = [number for number, block in enumerate(blocks) if len(block)]
        return CodeBlocks(self.bits, [blocks[n] for n in kept], [masks[n] for n in kept])

    def merged(self, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> CodeBlocks:
        """These codes and more, with any rows (ascending) that are not live here.

        Only blocks whose range contains new rows are replaced.
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

    # Allowed rows

    def selection(self, rows: RowSet | None = None) -> Selection:
        """The allowed rows, block by block: live rows, and of these only `rows` if given."""
        if rows is None:
            return self._everything
        known: Selection | None = rows.cache.get(self)
        if known is None:
            rows.cache[self] = known = _selected(
                [self._block_selection(number, rows) for number in range(len(self.blocks))]
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

    def _block_selection(self, number: int, rows: RowSet) -> BlockSelection:
        block, dead = self.blocks[number], self.dead[number]
        positions = block.rows.positions_of(rows.rows)
        if len(positions) == len(block) and dead is None:
            return BlockSelection(block, None, len(block))
        mask = np.zeros(len(block), dtype=bool)
        mask[positions] = True
        if dead is not None:
            mask &= ~dead
        return BlockSelection(block, mask, int(np.count_nonzero(mask)))


def _selected(selections: list[BlockSelection]) -> Selection:
    kept = tuple(one for one in selections if one.count)
    return Selection(kept, sum(one.count for one in kept))


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
