"""The engines that the contract tests run over."""

from __future__ import annotations

from typing import Any

import pytest

from index.engines.blocks import CodeBlocks
from index.engines.flat import FlatEngine


def flat(blocks: CodeBlocks) -> FlatEngine:
    return FlatEngine(blocks)


def flat_laid_out(blocks: CodeBlocks) -> FlatEngine:
    """As after a few searches, with the layout for fast scans."""
    for block in blocks.blocks:
        block.fast_scan(1_000)
    return FlatEngine(blocks, threads=2)


EXACT: list[Any] = [
    pytest.param(flat, id="flat"),
    pytest.param(flat_laid_out, id="flat, laid out"),
]
ALL: list[Any] = [*EXACT]
