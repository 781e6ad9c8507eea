"""Partitions, and what a shard holds and finds, without Ray."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.errors import ArchiveDamagedError
from bittern.index.archive import Archive
from bittern.index.engines.blocks import BLOCK_ROWS, CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.sharded.shard import GenerationGoneError, Partitions, Shard, ShardRows
from bittern.index.shard_source import StoreSource
from tests.index.samples import BAT, OWL, photo, recording
from tests.search.collections import collection, pairs, questions

PARTITIONS = st.builds(Partitions, st.integers(1, 5), st.integers(1, 40))
ROWS = st.lists(st.integers(0, 2_000), unique=True).map(lambda r: np.array(sorted(r), np.int64))


@given(PARTITIONS, ROWS)
def test_every_row_belongs_to_the_shard_of_its_partition(
    partitions: Partitions, rows: np.ndarray
) -> None:
    split = partitions.split(rows)
    assert sorted(np.concatenate(split).tolist()) == rows.tolist()
    for shard, own in enumerate(split):
        ranges = partitions.ranges(shard, 2_001)
        held = [row for first, end in ranges for row in range(first, end)]
        assert set(own.tolist()) == set(held) & set(rows.tolist())


@given(PARTITIONS, ROWS)
def test_packed_rows_are_unpacked_again(partitions: Partitions, rows: np.ndarray) -> None:
    for shard, own in enumerate(partitions.split(rows)):
        assert partitions.unpacked(shard, partitions.packed(own)).tolist() == own.tolist()


def test_many_rows_are_packed_as_a_bit_each() -> None:
    partitions = Partitions(2, 1_000)
    (own, _) = partitions.split(np.arange(100_000, dtype=np.int64))
    assert partitions.packed(own).nbytes == 50_000 / 8
    assert len(partitions.packed(own[:3])) <= 3 * 8
    assert partitions.packed(own[::100]).dtype == np.int64


@pytest.mark.parametrize("metric", ["hamming", "asymmetric"])
def test_queries_and_hits_are_the_same_to_the_last_bit_after_pickling(metric: str) -> None:
    engine, queries = FlatEngine(collection(500).blocks), questions(metric, 3)
    sent = pickle.loads(pickle.dumps(queries))
    assert sent.metric == metric
    found = pickle.loads(pickle.dumps(engine.search(sent, 20)))
    assert list(map(pairs, found)) == list(map(pairs, engine.search(queries, 20)))


def test_full_partitions_hold_no_row_numbers_in_memory() -> None:
    partitions = Partitions(2)
    (_, rows) = partitions.split(np.arange(2 * BLOCK_ROWS + 5, dtype=np.int64))
    blocks = partitions.blocks(rows, np.zeros((len(rows), 2), np.uint8))
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
    partitions = Partitions(3, 4)
    shards = [source(marsh).read(marsh.generation, partitions, n, None) for n in range(3)]
    whole = source(marsh).read(marsh.generation, Partitions(1), 0, None)
    assert len(whole) == 49 == sum(map(len, shards))
    assert held(shards[0]) | held(shards[1]) | held(shards[2]) == held(whole)
    observation = marsh.get("p7")
    assert held(whole)[observation.row] == marsh.code("p7", OWL.digest).tobytes()


def test_a_shard_can_hold_one_modality(marsh: Archive) -> None:
    audio = source(marsh, "audio").read(marsh.generation, Partitions(1), 0, None)
    assert audio.rows.tolist() == marsh.rows("modality = 'audio'").tolist()


def test_a_later_generation_is_read_as_what_has_changed(marsh: Archive) -> None:
    partitions, first = Partitions(2, 16), marsh.generation
    before = [source(marsh).read(first, partitions, n, None) for n in range(2)]
    marsh.delete(["p3", "r"])
    marsh.add([photo("p5", seed=99)], model=OWL.digest, on_duplicate="overwrite")
    marsh.add([photo(f"q{i}") for i in range(30)], model=OWL.digest)
    for shard in range(2):
        changed = source(marsh).read(marsh.generation, partitions, shard, (first, before[shard]))
        anew = source(marsh).read(marsh.generation, partitions, shard, None)
        assert held(changed) == held(anew)
        assert held(before[shard]) == held(source(marsh).read(first, partitions, shard, None))


def test_a_shard_keeps_its_codes_where_none_of_them_has_changed(marsh: Archive) -> None:
    partitions, first = Partitions(2, 1_000), marsh.generation
    before = source(marsh).read(first, partitions, 0, None)
    marsh.register_model(BAT, {"card.json": b"{}"})
    after = source(marsh).read(marsh.generation, partitions, 0, (first, before))
    assert marsh.generation > first
    assert after is before


def test_a_version_without_the_models_codes_is_refused(marsh: Archive) -> None:
    lacking = StoreSource(marsh.path / "store", BAT.code_column)
    with pytest.raises(ArchiveDamagedError, match=f"no column {BAT.code_column}"):
        lacking.read(marsh.generation, Partitions(1), 0, None)


def test_a_shard_holds_the_generation_that_is_served_and_the_next(marsh: Archive) -> None:
    shard, first = Shard(0, Partitions(1), 1), marsh.generation
    shard.load(source(marsh), first, first)
    queries = questions("hamming", 1)
    for name in ("x", "y"):
        marsh.add([photo(name)], model=OWL.digest)
        shard.load(source(marsh), marsh.generation, first)
    assert list(map(len, shard.search(first, queries, 100, None))) == [49]
    assert list(map(len, shard.search(marsh.generation, queries, 100, None))) == [51]
    with pytest.raises(GenerationGoneError):
        shard.search(marsh.generation - 1, queries, 100, None)


def test_a_shard_unpacks_a_set_of_rows_once(marsh: Archive) -> None:
    partitions = Partitions(1, 8)
    shard = Shard(0, partitions, 1)
    shard.load(source(marsh), marsh.generation, marsh.generation)
    rows = ShardRows(7, partitions.packed(np.array([1, 4, 20])))
    (found,) = shard.search(marsh.generation, questions("hamming", 1), 10, rows)
    assert sorted(found.rows.tolist()) == [1, 4, 20]
    assert shard._row_set(rows) is shard._row_set(rows)
    for token in range(100, 200):
        shard._row_set(ShardRows(token, rows.packed))
    assert len(shard._row_sets) <= 16
