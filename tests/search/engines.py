"""The engines that the contract tests run over."""

from __future__ import annotations

import os
from typing import Any

import pytest

from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.device_memory import DeviceMemory
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.gpu import GpuEngine
from bittern.index.engines.inverted_lists import InvertedLists
from bittern.index.engines.ivf import IvfEngine
from bittern.index.engines.search_engine import SearchEngine

DEVICE = os.environ.get("BITTERN_TEST_DEVICE", "cpu")
"""PyTorch's device in these tests; set it to ``cuda`` where there is a card."""


def flat(blocks: CodeBlocks) -> SearchEngine:
    return FlatEngine(blocks)


def flat_laid_out(blocks: CodeBlocks) -> SearchEngine:
    """As after a few searches, with the layout for fast scans."""
    for block in blocks.blocks:
        block.fast_scan(1_000)
    return FlatEngine(blocks, threads=2)


def ivf(blocks: CodeBlocks) -> SearchEngine:
    """Used whatever the size."""
    if not blocks.blocks:
        return FlatEngine(blocks)
    return IvfEngine(InvertedLists.build(blocks, lists=16), blocks, always=True)


def gpu(blocks: CodeBlocks) -> SearchEngine:
    """On the device, whatever the size."""
    return GpuEngine(blocks, memory=DeviceMemory(DEVICE, 1 << 24), threads=2, least_rows=0)


EXACT: list[Any] = [
    pytest.param(flat, id="flat"),
    pytest.param(flat_laid_out, id="flat, laid out"),
    pytest.param(gpu, id="gpu"),
]
ALL: list[Any] = [*EXACT, pytest.param(ivf, id="ivf")]
