"""Approximate indexes as plain arrays, and back: never trusted before they are checked.

Stored beside the arrays are the row numbers of the codes that they belong to, and a mark of
each code, which tells whether the row was overwritten since. So lists that an earlier
generation stored are of use in a later one: what is new or changed is put into its list anew.
A graph is of use only as long as all its rows are there unchanged. Whatever else is wrong
with an index can cost recall or speed only: distances are computed from the codes themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.inverted_lists import InvertedLists
from bittern.index.engines.ivf import Structure
from bittern.index.engines.marks import marks_of

_MOST_ROWS = 1 << 40


def stored(structure: Structure) -> dict[str, NDArray[Any]]:
    """An index as arrays, with the rows that it is of."""
    base = structure.base
    rows = [block.rows.array() for block in base.blocks]
    return {**structure.arrays(), "runs": runs_of(np.concatenate(rows)), "marks": marks_of(base)}


def restored(kind: str, blocks: CodeBlocks, arrays: Mapping[str, NDArray[Any]]) -> Structure:
    """An index over the codes of a generation from what an earlier one stored.

    Args:
        kind: ``ivf`` or ``graph``.
        blocks: the generation's codes.
        arrays: of `stored`.

    Raises:
        ArchiveDamagedError: they do not fit together, or not these codes.
    """
    if "runs" not in arrays or "marks" not in arrays:
        raise ArchiveDamagedError("the stored index does not say which rows it is of")
    marks = arrays["marks"]
    if marks.dtype != np.uint16 or marks.ndim != 1:
        raise ArchiveDamagedError("the stored index has no marks of its codes")
    rows = rows_of(arrays["runs"], len(marks))
    if kind == "ivf":
        return InvertedLists.restored(blocks, rows, marks, arrays)
    from bittern.index.engines.graph import Graph

    base = _restricted(blocks, rows)
    if not np.array_equal(marks_of(base), marks):
        raise ArchiveDamagedError("rows of the stored graph were overwritten since")
    graph: Structure = Graph.from_arrays(base, arrays)
    return graph


def runs_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending rows as runs without gaps: int64 [n] in, int64 [r, 2] (first, count) out."""
    if not len(rows):
        return np.empty((0, 2), dtype=np.int64)
    begins = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1])
    counts = np.diff(np.concatenate([begins, [len(rows)]]))
    return np.stack([rows[begins], counts], axis=1)


def rows_of(runs: NDArray[Any], count: int) -> NDArray[np.int64]:
    """The rows of runs, so many altogether.

    Raises:
        ArchiveDamagedError: they are no runs, or not of so many rows.
    """
    fits = (
        runs.dtype == np.int64
        and runs.ndim == 2
        and runs.shape[1] == 2
        and ((runs >= 0) & (runs < _MOST_ROWS)).all()
        and (runs[:, 1] > 0).all()
        and (runs[1:, 0] > runs[:-1].sum(axis=1) - 1).all()
        and (runs[:, 1] <= count).all()
        and int(runs[:, 1].sum()) == count
    )
    if not fits:
        raise ArchiveDamagedError("the stored index names rows that cannot be")
    starts = np.cumsum(runs[:, 1]) - runs[:, 1]
    rows = np.repeat(runs[:, 0] - starts, runs[:, 1])
    rows += np.arange(len(rows), dtype=np.int64)
    return np.asarray(rows, dtype=np.int64)


def _restricted(blocks: CodeBlocks, rows: NDArray[np.int64]) -> CodeBlocks:
    """The codes of just these rows, in memory that is shared where they are the first ones.

    Raises:
        ArchiveDamagedError: some of them are here no more.
    """
    everything = CodeBlocks(blocks.bits, blocks.blocks)
    numbers = everything.rows
    if len(rows) <= len(numbers) and np.array_equal(numbers[: len(rows)], rows):
        parts: list[CodeBlocks] = []
        for block, start in zip(everything.blocks, everything.starts, strict=False):
            count = min(len(block), len(rows) - int(start))
            if count == len(block):
                parts.append(CodeBlocks(blocks.bits, [block]))
            elif count > 0:
                parts.append(CodeBlocks.of(block.rows.array()[:count], block.codes[:count]))
        return CodeBlocks(blocks.bits, [block for part in parts for block in part.blocks])
    places = np.searchsorted(numbers, rows).clip(max=max(len(numbers) - 1, 0))
    if not len(numbers) or not np.array_equal(numbers[places], rows):
        raise ArchiveDamagedError("rows of the stored index are here no more")
    return CodeBlocks.of(rows, everything.codes_at(places))
