"""A short mark of each code, to tell whether the code of a row is still the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.blocks import CodeBlocks

_MULTIPLIER = np.uint32(0x9E3779B1)
_BATCH = 1 << 16


def marks_of(blocks: CodeBlocks) -> NDArray[np.uint16]:
    """A mark of the code at each place: uint16 [n]; one other code in 65,536 shares it."""
    marks = np.empty(int(blocks.starts[-1]), dtype=np.uint16)
    for block, start in zip(blocks.blocks, blocks.starts, strict=False):
        for begin in range(0, len(block), _BATCH):
            part = block.codes[begin : begin + _BATCH]
            marks[int(start) + begin : int(start) + begin + len(part)] = marks_of_codes(part)
    return marks


def marks_of_codes(codes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """A mark of each code: uint8 [n, bits/8] in, uint16 [n] out."""
    state = np.zeros(len(codes), dtype=np.uint32)
    for column in codes.T:
        state ^= column
        state *= _MULTIPLIER
        state ^= state >> np.uint32(15)
    return (state >> np.uint32(16)).astype(np.uint16)
