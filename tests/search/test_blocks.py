"""Codes in blocks that generations share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bittern.index.engines import blocks as blocks_module
from bittern.index.engines.blocks import BlockSelection, CodeBlocks, RowNumbers
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import RowSet


def some_codes(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The code of a row, derived from its number."""
    return np.stack([rows % 251, rows // 251 % 256], axis=1).astype(np.uint8)


def numbers(values: list[int]) -> NDArray[np.int64]:
    return np.array(sorted(values), dtype=np.int64)


Step = tuple[str, list[int]]


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    kinds = st.sampled_from(["append", "delete", "merge"])
    lists = st.lists(st.integers(0, 400), max_size=40, unique=True)
    return draw(st.lists(st.tuples(kinds, lists), max_size=12))


@given(histories())
@settings(max_examples=200, deadline=None)
def test_blocks_hold_what_was_added_and_not_deleted_whatever_happened(history: list[Step]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "BLOCK_ROWS", 32)
        made, live, last = CodeBlocks(16), set[int](), -1
        generations = []
        for kind, values in history:
            if kind == "append":
                rows = numbers([last + 1 + value for value in values])
                made, live = made.appended(rows, some_codes(rows)), live | set(rows.tolist())
            elif kind == "delete":
                made, live = made.without(numbers(values)), live - set(values)
            else:
                rows = numbers(list(set(values) - live))
                made, live = made.merged(rows, some_codes(rows)), live | set(rows.tolist())
            last = max([last, *live])
            generations.append((made, set(live)))
    for generation, expected in generations:
        rows = numbers(list(expected))
        assert len(generation) == len(rows)
        assert np.array_equal(generation.rows, rows)
        assert np.array_equal(generation.codes, some_codes(rows))
        for row in [*rows[:3].tolist(), 999_999]:
            code = generation.code(row)
            assert (code is not None) == (row in expected)
            assert code is None or np.array_equal(code, some_codes(numbers([row]))[0])
        positions = np.arange(0, len(rows), 3)
        assert np.array_equal(generation.live_codes(positions), some_codes(rows[positions]))


@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)))
@settings(max_examples=200, deadline=None)
def test_a_selection_is_what_is_live_and_wanted(
    present: set[int], deleted: set[int], wanted: set[int]
) -> None:
    rows = numbers(list(present))
    made = CodeBlocks.of(rows, some_codes(rows)).without(numbers(list(deleted)))
    selection = made.selection(RowSet(numbers(list(wanted))))
    found = [
        row for part in selection.blocks for row in part.block.rows.at(part.positions).tolist()
    ]
    assert found == sorted((present - deleted) & wanted)
    assert selection.count == len((present - deleted) & wanted)


def test_adding_keeps_the_large_blocks_and_their_layout() -> None:
    rows = np.arange(10_000)
    made = CodeBlocks.of(rows, some_codes(rows))
    more = made.appended(rows[:10] + 10_000, some_codes(rows[:10]))
    assert more.blocks[0] is made.blocks[0]


def test_many_small_additions_make_few_blocks() -> None:
    made = CodeBlocks(16)
    for row in range(1000):
        rows = np.array([row])
        made = made.appended(rows, some_codes(rows))
    assert len(made.blocks) <= 11


def test_deleting_most_of_a_block_gives_its_memory_back() -> None:
    rows = np.arange(1000)
    made = CodeBlocks.of(rows, some_codes(rows)).without(rows[:600])
    assert made.nbytes == 400 * 2
    assert made.dead == (None,)


def test_codes_and_rows_are_found_by_position_in_every_block() -> None:
    rows = np.arange(0, 60, 2)
    made = CodeBlocks.of(rows[:20], some_codes(rows[:20])).appended(
        rows[20:], some_codes(rows[20:])
    )
    assert len(made.blocks) == 2
    positions = np.array([25, 0, 19, 20])
    assert made.rows_at(positions).tolist() == [50, 0, 38, 40]
    assert np.array_equal(made.codes_at(positions), some_codes(rows[positions]))


def test_tombstones_count_as_memory_besides_the_codes() -> None:
    rows = np.arange(100)
    made = CodeBlocks.of(rows, some_codes(rows))
    assert (made.nbytes_besides, made.without(rows[:3]).nbytes_besides) == (0, 100)


def test_the_layout_for_scans_takes_as_much_memory_as_the_codes_and_a_filter_no_more() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (10_000, 32), dtype=np.uint8)
    made = CodeBlocks.of(np.arange(10_000), codes)
    made.blocks[0].fast_scan(1_000)
    engine = FlatEngine(made)
    logits = np.random.default_rng(1).normal(size=(1, 256))
    for queries in (Queries.of_logits(logits), Queries.of_codes(codes[:1])):
        engine.search(queries, 10)
        engine.search(queries, 10, RowSet(np.arange(0, 10_000, 2)))
    assert made.nbytes_besides == made.nbytes


def test_a_sample_has_different_allowed_positions_even_of_a_mask_with_a_pattern() -> None:
    block = CodeBlocks.of(np.arange(6_000), some_codes(np.arange(6_000))).blocks[0]
    for step in (1, 2, 3, 64, 3_000):
        mask = np.zeros(6_000, dtype=bool)
        mask[::step] = True
        selected = BlockSelection(block, mask, int(mask.sum()))
        for count in (1, 50, 1_000, 9_000):
            drawn = selected.sample(count)
            assert len(np.unique(drawn)) == len(drawn) >= min(count, selected.count) / 2
            assert mask[drawn].all()


def test_codes_cannot_be_changed_from_outside() -> None:
    rows = np.arange(2)
    made = CodeBlocks.of(rows, some_codes(rows))
    with pytest.raises(ValueError, match="read-only"):
        made.blocks[0].codes[0, 0] = 1


def test_row_numbers_without_gaps_take_no_memory() -> None:
    assert RowNumbers(np.arange(5, 1005)).nbytes == 0
    assert RowNumbers(np.array([5, 7])).nbytes == 16


@given(st.sets(st.integers(0, 2000)), st.sets(st.integers(0, 2000)))
@settings(max_examples=200, deadline=None)
def test_positions_of_rows_are_found_in_runs_and_among_gaps(
    here: set[int], wanted: set[int]
) -> None:
    kept = RowNumbers(numbers(list(here)))
    positions = kept.positions_of(numbers(list(wanted)))
    assert kept.at(positions).tolist() == sorted(here & wanted)
