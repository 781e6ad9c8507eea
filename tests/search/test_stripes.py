"""What a shard is told and holds, without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.errors import ArchiveDamagedError
from bittern.index.archive import Archive
from bittern.index.engines.blocks import BLOCK_ROWS, CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.sharded.partitions import Stripes
from bittern.index.engines.sharded.shard import Asked, Found, GenerationGoneError, Limits, Shard
from bittern.index.engines.sharded.sources import Known, StoreSource, blocks_of
from tests.index.samples import BAT, OWL, photo, recording
from tests.search.collections import collection, pairs, questions

STRIPES = st.builds(Stripes, st.integers(1, 5), st.integers(1, 40))
ROWS = st.lists(st.integers(0, 2_000), unique=True).map(lambda r: np.array(sorted(r), np.int64))


@given(STRIPES, ROWS)
def test_every_row_belongs_to_the_shard_whose_ranges_hold_it(
    stripes: Stripes, rows: np.ndarray
) -> None:
    parts = stripes.split(rows)
    assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
    for shard, part in enumerate(parts):
        ranges = stripes.ranges(shard, 2_001)
        held = [row for first, end in ranges for row in range(first, end)]
        assert set(part.tolist()) == set(held) & set(rows.tolist())


@given(STRIPES, ROWS)
def test_packed_rows_come_out_as_they_went_in(stripes: Stripes, rows: np.ndarray) -> None:
    for shard, part in enumerate(stripes.split(rows)):
        assert stripes.unpacked(shard, stripes.packed(part)).tolist() == part.tolist()


def test_many_rows_are_sent_as_a_bit_each() -> None:
    stripes = Stripes(2, 1_000)
    (part, _) = stripes.split(np.arange(100_000, dtype=np.int64))
    assert len(stripes.packed(part).values) == 50_000 / 8
    assert len(stripes.packed(part[:3]).values) <= 3 * 8
    assert not stripes.packed(part[::100]).are_bits


@pytest.mark.parametrize("metric", ["hamming", "asymmetric"])
def test_queries_and_hits_are_the_same_to_the_last_bit_after_they_were_sent(metric: str) -> None:
    made = collection(500)
    queries = questions(metric, 3)
    sent = Asked.of(queries).queries()
    assert sent.metric == metric
    found = FlatEngine(made.blocks).search(queries, 20)
    again = Found.of(FlatEngine(made.blocks).search(sent, 20)).nearest()
    assert list(map(pairs, again)) == list(map(pairs, found))


def test_whole_ranges_hold_no_row_numbers_in_memory() -> None:
    stripes = Stripes(2)
    (_, rows) = stripes.split(np.arange(2 * BLOCK_ROWS + 5, dtype=np.int64))
    blocks = blocks_of(rows, np.zeros((len(rows), 2), np.uint8), stripes)
    assert len(blocks) == BLOCK_ROWS
    assert blocks.nbytes_besides == 0


@pytest.fixture
def marsh(tmp_path: Path) -> Archive:
    archive = Archive.create(tmp_path / "marsh")
    archive.register_model(OWL, {"card.json": b"{}"})
    items = [photo(f"p{i}") for i in range(40)] + [recording("r", 9)]
    archive.add(items, model=OWL.digest)
    return archive


def source(archive: Archive, modality: str | None = None) -> StoreSource:
    return StoreSource(archive.path / "store", OWL.code_column, modality)


def held(blocks: CodeBlocks) -> dict[int, bytes]:
    return {int(row): code.tobytes() for row, code in zip(blocks.rows, blocks.codes, strict=True)}


def test_shards_together_hold_the_codes_of_the_archive_each_once(marsh: Archive) -> None:
    stripes = Stripes(3, 4)
    parts = [source(marsh).read(marsh.generation, stripes, n, None) for n in range(3)]
    whole = source(marsh).read(marsh.generation, Stripes(1), 0, None)
    assert len(whole) == 49 == sum(map(len, parts))
    assert held(parts[0]) | held(parts[1]) | held(parts[2]) == held(whole)
    observation = marsh.get("p7")
    assert held(whole)[observation.row] == marsh.code("p7", OWL.digest).tobytes()


def test_a_shard_can_hold_one_modality(marsh: Archive) -> None:
    audio = source(marsh, "audio").read(marsh.generation, Stripes(1), 0, None)
    assert audio.rows.tolist() == marsh.rows(modality="audio").tolist()


def test_a_later_generation_is_read_as_what_has_changed(marsh: Archive) -> None:
    stripes, first = Stripes(2, 16), marsh.generation
    before = [source(marsh).read(first, stripes, n, None) for n in range(2)]
    marsh.delete(["p3", "r"])
    marsh.add([photo("p5", seed=99)], model=OWL.digest, on_duplicate="overwrite")
    marsh.add([photo(f"q{i}") for i in range(30)], model=OWL.digest)
    for shard in range(2):
        known = Known(first, before[shard])
        changed = source(marsh).read(marsh.generation, stripes, shard, known)
        anew = source(marsh).read(marsh.generation, stripes, shard, None)
        assert held(changed) == held(anew)
        assert held(before[shard]) == held(source(marsh).read(first, stripes, shard, None))


def test_a_shard_keeps_its_codes_where_nothing_of_it_has_changed(marsh: Archive) -> None:
    stripes, first = Stripes(2, 1_000), marsh.generation
    before = source(marsh).read(first, stripes, 0, None)
    marsh.register_model(BAT, {"card.json": b"{}"})
    after = source(marsh).read(marsh.generation, stripes, 0, Known(first, before))
    assert marsh.generation > first
    assert after is before


def test_a_version_without_the_models_codes_is_refused(marsh: Archive) -> None:
    with pytest.raises(ArchiveDamagedError, match=f"no column {BAT.code_column}"):
        StoreSource(marsh.path / "store", BAT.code_column).read(
            marsh.generation, Stripes(1), 0, None
        )


def test_a_shard_holds_the_generation_that_is_served_and_the_next(marsh: Archive) -> None:
    shard, first = Shard(0, Stripes(1), 1), marsh.generation
    shard.load(source(marsh), first, first)
    asked = Asked.of(questions("hamming", 1))
    for name in ("x", "y"):
        marsh.add([photo(name)], model=OWL.digest)
        shard.load(source(marsh), marsh.generation, first)
    assert shard.search(first, asked, 100, None).counts.tolist() == [49]
    assert shard.search(marsh.generation, asked, 100, None).counts.tolist() == [51]
    with pytest.raises(GenerationGoneError):
        shard.search(marsh.generation - 1, asked, 100, None)


def test_a_shard_works_out_a_set_of_rows_once(marsh: Archive) -> None:
    stripes = Stripes(1, 8)
    shard = Shard(0, stripes, 1)
    shard.load(source(marsh), marsh.generation, marsh.generation)
    asked = Asked.of(questions("hamming", 1))
    limits = Limits(7, stripes.packed(np.array([1, 4, 20])))
    found = shard.search(marsh.generation, asked, 10, limits)
    assert sorted(found.rows.tolist()) == [1, 4, 20]
    assert shard._rows(limits) is shard._rows(limits)
    for token in range(100, 200):
        shard._rows(Limits(token, limits.rows))
    assert len(shard._row_sets) <= 16
