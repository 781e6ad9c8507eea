"""What scans claim about what they found, and about what they may have missed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from bittern.index.engines import scans
from bittern.index.engines.blocks import Block, BlockSelection, CodeBlocks, RowNumbers
from bittern.index.engines.flat import Bound, scan, search_selection
from bittern.index.engines.queries import Queries, hamming
from bittern.index.engines.scans import _LAYOUTS, Candidates, FastScan, RangeScan, scan_raw
from tests.search.collections import questions


def check(found: Candidates, queries: Queries, codes: np.ndarray, allowed: np.ndarray) -> None:
    exact = queries.distances(0, codes)
    assert len(np.unique(found.positions)) == len(found.positions)
    assert allowed[found.positions].all()
    assert np.abs(found.distances - exact[found.positions]).max(initial=0) <= found.error
    others = allowed.copy()
    others[found.positions] = False
    assert exact[others].min(initial=np.inf) >= found.floor


@pytest.mark.parametrize("bits", [16, 64, 256, 1024])
@pytest.mark.parametrize("scale", [1e-13, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize("layout", [None, *_LAYOUTS])
def test_no_code_beyond_the_candidates_is_nearer_than_their_floor(
    monkeypatch: pytest.MonkeyPatch, bits: int, scale: float, layout: tuple[int, int] | None
) -> None:
    monkeypatch.setattr(scans, "_fastest_layout", lambda bits: layout)
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 256, (5000, bits // 8), dtype=np.uint8)
    scan_codes = partial(scan_raw, codes) if layout is None else FastScan(codes).scan
    for _ in range(10):
        weights = rng.normal(size=(1, bits)) * scale * rng.exponential(size=(1, bits))
        for queries in (Queries.of_weights(weights), Queries.of_codes(codes[:1])):
            for count in (1, 50):
                found = scan_codes(queries, count)[0]
                assert len(found.positions) >= count
                check(found, queries, codes, np.ones(5000, dtype=bool))


@pytest.mark.parametrize("bits", [16, 64, 256, 1024])
@pytest.mark.parametrize("scale", [1e-13, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize("share", [None, 0.3])
def test_a_scan_up_to_a_distance_misses_no_allowed_code(
    bits: int, scale: float, share: float | None
) -> None:
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 256, (5000, bits // 8), dtype=np.uint8)
    allowed = np.ones(5000, dtype=bool) if share is None else rng.random(5000) < share
    bitmap = None if share is None else np.packbits(allowed, bitorder="little")
    laid_out = RangeScan(codes)
    for _ in range(10):
        weights = rng.normal(size=(1, bits)) * scale * rng.exponential(size=(1, bits))
        for query in (Queries.of_weights(weights), Queries.of_codes(codes[:1])):
            exact = query.distances(0, codes)
            nearest = np.sort(exact[allowed])
            for limit in (nearest[0] - 1, *nearest[[0, 1, 40, 500, -2, -1]], nearest[-1] + 1):
                found = laid_out.within(query, limit, bitmap)
                if found is not None:
                    assert len(np.unique(found)) == len(found)
                    assert allowed[found].all()
                    assert set(np.flatnonzero(allowed & (exact <= limit))) <= set(found)
                else:
                    assert scale < 1e-3 or limit > nearest[500]


def test_hamming_distances_are_differing_bits_whatever_the_width() -> None:
    rng = np.random.default_rng(0)
    for width in (1, 2, 8, 9, 16, 24, 32, 40, 64, 128):
        codes = rng.integers(0, 256, (300, width), dtype=np.uint8)
        differing = np.unpackbits(codes ^ codes[7], axis=1).sum(axis=1)
        assert hamming(codes[7], codes).tolist() == differing.tolist()
        assert hamming(codes[7], codes[::2]).tolist() == differing[::2].tolist()
        assert hamming(codes[7], codes[:0]).tolist() == []


def test_a_scan_for_everything_has_nothing_to_miss() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (5000, 8), dtype=np.uint8)
    for metric in ("hamming", "asymmetric"):
        queries = questions(metric, 1)
        assert scan_raw(codes, queries, 9000)[0].floor == np.inf
        found = FastScan(codes).scan(queries, 9000)[0]
        check(found, queries, codes, np.ones(5000, dtype=bool))


def test_the_floor_is_tight_enough_to_be_of_use() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (50_000, 32), dtype=np.uint8)
    queries = questions("asymmetric", 1, 256)
    found = FastScan(codes).scan(queries, 220)[0]
    tenth = np.sort(queries.distances(0, codes))[9]
    assert tenth < found.floor


def test_a_block_is_laid_out_only_once_it_is_worth_it() -> None:
    codes = np.zeros((5000, 8), dtype=np.uint8)
    assert not FastScan.suits(codes[:10])
    assert not FastScan.suits(np.zeros((5000, 256), dtype=np.uint8))
    assert FastScan.suits(codes)
    assert not FastScan.pays_after(1)
    assert FastScan.pays_after(64)


def test_blocks_share_the_candidates_of_the_first_scan() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (4_000, 8), dtype=np.uint8)
    blocks = [
        Block(RowNumbers.run(start, 1_000), codes[start : start + 1_000])
        for start in range(0, 4_000, 1_000)
    ]
    selection = CodeBlocks(64, blocks).selection()
    counts = []

    def counting(
        selected: BlockSelection, queries: Queries, count: int, bound: Bound | None
    ) -> list[Candidates]:
        counts.append((count, bound))
        return scan(selected, queries, count, bound)

    search_selection(questions("hamming", 1), 100, selection, counting, 1)
    assert counts[:4] == [(400 / 4 + 100 / 2 + 20, None)] * 4
