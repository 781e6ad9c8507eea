"""Inverted lists: recall, updates, and what is stored of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.calibration import Calibration
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.inverted_lists import (
    InvertedLists,
    lists_for,
)
from bittern.index.engines.ivf import IvfEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import RowSet
from bittern.index.engines.stored_lists import rows_of, runs_of


def clustered(n: int, bits: int = 64, *, seed: int = 0, centres: int = 60) -> NDArray[np.uint8]:
    """Codes as those of species: a share of a centre's bits flipped. Centres are the same."""
    middle = np.random.default_rng(99).integers(0, 256, (centres, bits // 8), dtype=np.uint8)
    rng = np.random.default_rng(seed)
    flips = np.packbits(rng.random((n, bits)) < 0.12, axis=1, bitorder="little")
    found: NDArray[np.uint8] = middle[rng.integers(0, centres, n)] ^ flips
    return found


def soft(codes: NDArray[np.uint8], seed: int = 1) -> Queries:
    signs = Queries.of_codes(codes).weights
    noise = np.random.default_rng(seed).standard_normal(signs.shape)
    return Queries.of_logits(signs + 0.8 * noise)


def mean_recall(engine: IvfEngine, queries: Queries, k: int = 100, **options: Any) -> float:
    true = FlatEngine(engine.blocks).search(queries, k, **options)
    found = engine.search(queries, k, **options)
    shares = [np.mean(f.distances <= t.distances[-1]) for f, t in zip(found, true, strict=True)]
    return float(np.mean(shares))


def engine_over(blocks: CodeBlocks, built: InvertedLists | None = None) -> IvfEngine:
    built = built or InvertedLists.build(blocks, lists=64)
    return IvfEngine(built, blocks, recall=0.95, always=True)


@pytest.fixture(scope="module")
def blocks() -> CodeBlocks:
    return CodeBlocks.of(np.arange(20_000), clustered(20_000))


@pytest.fixture(scope="module")
def built(blocks: CodeBlocks) -> InvertedLists:
    return InvertedLists.build(blocks, lists=64)


def test_the_wanted_recall_is_reached_by_both_metrics(
    blocks: CodeBlocks, built: InvertedLists
) -> None:
    queries = clustered(40, seed=5)
    assert mean_recall(engine_over(blocks, built), Queries.of_codes(queries)) >= 0.95
    assert mean_recall(engine_over(blocks, built), soft(queries)) >= 0.95


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_filter_keeps_the_recall(blocks: CodeBlocks, built: InvertedLists, share: float) -> None:
    rows = RowSet(np.flatnonzero(np.random.default_rng(3).random(20_000) < share))
    engine = engine_over(blocks, built)
    assert mean_recall(engine, soft(clustered(40, seed=5)), rows=rows) >= 0.95


def test_a_filter_that_only_unlikely_lists_pass_gets_all_its_hits(
    blocks: CodeBlocks, built: InvertedLists
) -> None:
    queries = soft(clustered(5, seed=5))
    engine = IvfEngine(built, blocks, recall=0.4, always=True)
    for query in queries:
        far = FlatEngine(blocks).search(query, 20_000)[0].rows[-300:]
        rows = RowSet(np.sort(far))
        exact = FlatEngine(blocks).search(query, 7, rows)[0]
        found = engine.search(query, 7, rows)[0]
        assert len(found) == 7
        assert set(found.rows.tolist()) <= set(far.tolist())
        assert len(exact) == 7


def test_what_the_lists_did_not_find_is_searched_exactly_even_beside_newer_rows(
    blocks: CodeBlocks, built: InvertedLists
) -> None:
    later = blocks.appended(np.arange(20_000, 26_000), clustered(6_000, seed=8))
    engine = IvfEngine(built, later, probes=1)
    queries = soft(clustered(3, seed=5))
    for found, exact in zip(
        engine.search(queries, 4_000), FlatEngine(later).search(queries, 4_000), strict=True
    ):
        assert np.array_equal(found.rows, exact.rows)


def test_recall_stays_when_a_third_is_deleted_and_a_third_is_new(
    blocks: CodeBlocks, built: InvertedLists
) -> None:
    gone = np.flatnonzero(np.random.default_rng(4).random(20_000) < 0.3)
    later = blocks.without(gone).appended(np.arange(20_000, 26_000), clustered(6_000, seed=8))
    engine = engine_over(later, built)
    queries = soft(clustered(40, seed=5))
    assert mean_recall(engine, queries) >= 0.95
    found = engine.search(queries, 100)
    assert not set(np.concatenate([one.rows for one in found]).tolist()) & set(gone.tolist())
    assert max(int(one.rows.max()) for one in found) >= 20_000


def test_an_extended_index_knows_the_new_rows(blocks: CodeBlocks, built: InvertedLists) -> None:
    later = blocks.appended(np.arange(20_000, 26_000), clustered(6_000, seed=8))
    extended = built.extended(later)
    assert len(extended.base) == 26_000
    assert mean_recall(engine_over(later, extended), soft(clustered(40, seed=5))) >= 0.95


def test_a_search_never_mixes_generations(blocks: CodeBlocks, built: InvertedLists) -> None:
    first = engine_over(blocks, built)
    later = blocks.without(np.arange(0, 20_000, 2))
    queries = soft(clustered(5, seed=5))
    before = [one.rows.tolist() for one in first.search(queries, 50)]
    assert all((one.rows % 2 == 1).all() for one in engine_over(later, built).search(queries, 50))
    assert [one.rows.tolist() for one in first.search(queries, 50)] == before


def test_blocks_that_were_joined_since_differ_by_their_rows() -> None:
    start = CodeBlocks.of(np.arange(9_000), clustered(9_000))
    start = start.appended(np.arange(9_000, 9_500), clustered(500, seed=7))
    built = InvertedLists.build(start, lists=64)
    later = start.appended(np.arange(9_500, 9_990), clustered(490, seed=8))
    assert start.blocks[-1] not in later.blocks
    engine = engine_over(later, built)
    queries = soft(clustered(20, seed=5))
    rows = [row for one in engine.search(queries, 100) for row in one.rows.tolist()]
    for one in engine.search(queries, 100):
        assert len(set(one.rows.tolist())) == 100
    assert mean_recall(engine, queries) >= 0.95
    assert max(rows) >= 9_500


@pytest.mark.parametrize("bits", [16, 72, 1024])
def test_lists_are_made_of_short_and_long_codes(bits: int) -> None:
    codes = clustered(6_000, bits)
    blocks = CodeBlocks.of(np.arange(6_000), codes)
    engine = engine_over(blocks, InvertedLists.build(blocks, lists=16))
    assert mean_recall(engine, soft(clustered(20, bits, seed=5))) >= 0.95


def test_building_twice_gives_the_same_lists(blocks: CodeBlocks, built: InvertedLists) -> None:
    again = InvertedLists.build(blocks, lists=64)
    assert all(np.array_equal(again.arrays()[n], built.arrays()[n]) for n in built.arrays())


def test_stored_lists_answer_as_before(blocks: CodeBlocks, built: InvertedLists) -> None:
    again = InvertedLists.restored(blocks, built.arrays())
    queries = soft(clustered(10, seed=5))
    before = engine_over(blocks, built).search(queries, 30)
    after = IvfEngine(again, blocks, recall=0.95, always=True)
    assert [o.rows.tolist() for o in after.search(queries, 30)] == [o.rows.tolist() for o in before]


def test_stored_lists_serve_a_later_generation(blocks: CodeBlocks, built: InvertedLists) -> None:
    gone = np.flatnonzero(np.random.default_rng(4).random(20_000) < 0.2)
    later = blocks.without(gone).appended(np.arange(20_500, 24_000), clustered(3_500, seed=8))
    later = CodeBlocks.of(later.rows, later.codes)
    again = InvertedLists.restored(later, built.arrays())
    assert len(again.base) == len(later)
    assert mean_recall(engine_over(later, again), soft(clustered(40, seed=5))) >= 0.95


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_arrays_are_refused_or_harmless(
    data: st.DataObject, blocks: CodeBlocks, built: InvertedLists
) -> None:
    arrays = {name: np.array(values) for name, values in built.arrays().items()}
    name = data.draw(st.sampled_from(sorted(arrays)))
    how = data.draw(st.sampled_from(["drop", "shorten", "retype", "fill", "reshape"]))
    if how == "drop":
        del arrays[name]
    elif how == "shorten":
        arrays[name] = arrays[name][:-1]
    elif how == "retype":
        arrays[name] = arrays[name].astype(data.draw(st.sampled_from(["<f8", "<i4", "<u8"])))
    elif how == "fill":
        value = data.draw(st.sampled_from([0, 1, 255, 65_535, -1, 2**40]))
        with np.errstate(all="ignore"):
            arrays[name].flat[: data.draw(st.integers(1, 50))] = np.array(value).astype(
                arrays[name].dtype
            )
    else:
        arrays[name] = arrays[name].reshape(-1)[None]
    try:
        structure = InvertedLists.restored(blocks, arrays)
    except ArchiveDamagedError:
        return
    engine = IvfEngine(structure, blocks, recall=0.95, always=True)
    queries = soft(clustered(2, seed=5))
    for query, one in enumerate(engine.search(queries, 20)):
        assert len(one) == 20
        assert np.array_equal(one.distances, queries.distances(query, blocks.codes_at(one.rows)))


@given(st.sets(st.integers(0, 300)))
def test_runs_say_which_rows_they_are_of(rows: set[int]) -> None:
    numbers = np.array(sorted(rows), dtype=np.int64)
    assert np.array_equal(rows_of(runs_of(numbers), len(numbers)), numbers)


def test_a_query_scans_as_many_lists_as_its_closeness_needs() -> None:
    known = Calibration(
        np.array([1, 2, 4, 8]),
        np.array([0.6, 0.3]),
        np.array([[0.9, 0.97, 0.99, 1.0], [0.2, 0.5, 0.8, 0.9]]),
    )
    assert [known.lists(0.7, r) for r in (0.5, 0.95, 0.98, 0.995)] == [1, 2, 4, 8]
    assert [known.lists(0.4, r) for r in (0.5, 0.75, 0.88)] == [4, 4, 8]
    assert known.lists(0.4, 0.95) is None
    assert known.lists(0.2, 0.1) is None


def test_a_query_that_is_far_from_everything_is_answered_exactly(
    blocks: CodeBlocks, built: InvertedLists
) -> None:
    anything = Queries.of_codes(np.random.default_rng(0).integers(0, 256, (30, 8), dtype=np.uint8))
    engine = IvfEngine(built, blocks, recall=0.95, always=True)
    for k in (1, 10, 100):
        assert mean_recall(engine, anything, k) >= 0.95


def test_a_row_that_was_overwritten_is_found_by_its_new_code_only(
    blocks: CodeBlocks, built: InvertedLists
) -> None:
    codes = np.array(blocks.codes)
    old = codes[[5, 77]].copy()
    codes[[5, 77]] = np.random.default_rng(1).integers(0, 256, (2, 8), dtype=np.uint8)
    later = CodeBlocks.of(blocks.rows, codes)
    engine = IvfEngine(built, later, recall=0.5, always=True)
    for row, before, now in zip([5, 77], old, codes[[5, 77]], strict=True):
        assert engine.search(Queries.of_codes(now[None]), 1)[0].rows.tolist() == [row]
        found = engine.search(Queries.of_codes(before[None]), 50)[0]
        distances = Queries.of_codes(before[None]).distances(0, codes[found.rows])
        assert np.array_equal(found.distances, distances)


def test_rows_that_were_overwritten_since_are_put_into_their_lists_anew(
    blocks: CodeBlocks, built: InvertedLists
) -> None:
    codes = np.array(blocks.codes)
    codes[:3_000] = clustered(3_000, seed=9)
    later = CodeBlocks.of(blocks.rows, codes)
    again = InvertedLists.restored(later, built.arrays())
    fresh = built.extended(later)
    assert np.mean(again.arrays()["members"] != fresh.arrays()["members"]) < 0.001


def test_building_ends_when_it_is_stopped(blocks: CodeBlocks) -> None:
    class EndedError(Exception):
        pass

    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise EndedError

    with pytest.raises(EndedError):
        InvertedLists.build(blocks, check=check)
    assert len(calls) == 4


def test_the_number_of_lists_follows_the_size() -> None:
    assert [lists_for(n) for n in (1, 200_000, 2_000_000, 10**9)] == [16, 512, 2048, 8192]
