"""Every kind of `EmbeddedRows` hands out the same rows, in tiles and here and there."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.precomputed import PrecomputedRows
from bittern.benchmarks.eval.embeddings.rows import EmbeddedRows
from bittern.benchmarks.eval.embeddings.shards import Content, ShardedRows, read_shard, write_shard
from bittern.benchmarks.speed.process import own_memory
from bittern.errors import CodeError, MediaError
from bittern.service.ingest.precomputed import Precomputed

DIM = 5
OWNERS = np.array([0, 1, 1, 1, 2, 4, 4, 5, 7, 7])
"""Of eight items; 3 and 6 have no row."""
ITEMS = 8
IDS = [f"i{n}" for n in range(ITEMS)]


def unit(rows: int, dim: int = DIM) -> NDArray[np.float32]:
    values = np.random.default_rng(rows).standard_normal((rows, dim)).astype(np.float32)
    unit: NDArray[np.float32] = values / np.linalg.norm(values, axis=1, keepdims=True)
    return unit


WANTED = unit(len(OWNERS))
SPANS = np.array([[n, n + 1] for n in range(len(OWNERS))], np.float32)


def sharded(folder: Path) -> EmbeddedRows:
    """Shards of three, one and four items."""
    shards = []
    for number, (first, last) in enumerate([(0, 3), (3, 4), (4, 8)]):
        mine = (first <= OWNERS) & (last > OWNERS)
        failed = [(n - first, "broken") for n in (3, 6) if first <= n < last]
        digest = f"{number}" * 64
        content = Content(last - first, WANTED[mine], OWNERS[mine] - first, SPANS[mine], failed)
        write_shard(folder, digest, content)
        shard = read_shard(folder, digest, last - first, DIM)
        assert shard is not None
        shards.append(shard)
    return ShardedRows(shards, DIM, "0" * 64)


def made_outside(folder: Path) -> EmbeddedRows:
    """In another order, with rows that nobody wants; windows stand in theirs."""
    order = np.argsort(np.array([5, 2, 2, 2, 7, 0, 0, 1, 4, 4]), kind="stable")
    names = [IDS[OWNERS[n]] for n in order]
    np.save(folder / "embeddings.npy", np.concatenate([unit(2), WANTED[order]]))
    np.save(folder / "spans.npy", np.concatenate([SPANS[:2], SPANS[order]]))
    (folder / "ids.txt").write_text("\n".join(["unknown", "i77", *names]) + "\n")
    return PrecomputedRows(Precomputed.open(folder), IDS, missing="skip")


KINDS = [sharded, made_outside]


@pytest.fixture(params=KINDS)
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> EmbeddedRows:
    make: Callable[[Path], EmbeddedRows] = request.param
    return make(tmp_path)


def test_rows_have_owners_spans_and_those_that_failed(rows: EmbeddedRows) -> None:
    assert (len(rows), rows.dim, len(rows.digest)) == (10, DIM, 64)
    assert [str(rows.owners.dtype), str(rows.spans.dtype)] == ["int64", "float32"]
    assert rows.owners.tolist() == OWNERS.tolist()
    assert np.array_equal(rows.spans, SPANS)
    assert [position for position, why in rows.failed if why] == [3, 6]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 9, 10, 11, 65_536])
def test_tiles_are_all_rows_in_order(rows: EmbeddedRows, size: int) -> None:
    seen = 0
    for first, tile in rows.tiles(size):
        assert first == seen
        assert tile.dtype == np.float32
        assert 0 < len(tile) <= size
        assert np.array_equal(tile, WANTED[first : first + len(tile)])
        seen += len(tile)
    assert seen == 10


@pytest.mark.parametrize("chosen", [[], [0], [9], [3, 3, 0], [9, 4, 5, 1, 0, 8], list(range(10))])
def test_some_rows_come_in_the_order_given(rows: EmbeddedRows, chosen: list[int]) -> None:
    read = rows.read(np.array(chosen, np.int64))
    assert read.dtype == np.float32
    assert np.array_equal(read, WANTED[chosen])


@pytest.mark.parametrize("chosen", [[10], [-1], [0, 2**40], [[0]]])
def test_unknown_rows_are_refused(rows: EmbeddedRows, chosen: Any) -> None:
    with pytest.raises(CodeError, match="from 0 to 9"):
        rows.read(np.array(chosen))


def test_tiles_can_be_gone_through_again_and_side_by_side(rows: EmbeddedRows) -> None:
    for (first, one), (again, other) in zip(rows.tiles(3), rows.tiles(3), strict=True):
        assert first == again
        assert np.array_equal(one, other)


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), tile=st.integers(1, 9))
def test_shards_of_any_size_join_without_a_seam(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], tile: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    values = unit(sum(sizes) + 1)[: sum(sizes)]
    shards, at = [], 0
    for number, size in enumerate(sizes):
        # Its last item has no row, so that a shard without any is one too.
        failed = [(size, "broken")]
        spans = np.zeros((size, 2), np.float32)
        content = Content(size + 1, values[at : at + size], np.arange(size), spans, failed)
        write_shard(folder, f"{number}" * 64, content)
        shards.append(read_shard(folder, f"{number}" * 64, size + 1, DIM))
        at += size
    rows = ShardedRows([shard for shard in shards if shard is not None], DIM, "")
    tiles = [each for _, each in rows.tiles(tile)]
    assert np.array_equal(np.concatenate([values[:0], *tiles]), values)
    backwards = np.arange(sum(sizes))[::-1]
    assert np.array_equal(rows.read(backwards), values[backwards])
    assert len(rows.failed) == len(sizes)


@pytest.mark.parametrize("make", [sharded, made_outside])
def test_no_more_than_the_tile_at_hand_is_kept(
    tmp_path: Path, make: Callable[[Path], EmbeddedRows]
) -> None:
    alive: list[weakref.ref[Any]] = []
    for _, tile in make(tmp_path).tiles(2):
        alive.append(weakref.ref(tile))
        del tile
        gc.collect()
        assert not any(ref() is not None for ref in alive)
    assert len(alive) == 5


def test_reading_everything_takes_memory_for_one_tile(tmp_path: Path) -> None:
    shards = []
    for number in range(8):  # 8 × 8 MB
        digest = f"{number}" * 64
        spans = np.zeros((4096, 2), np.float32)
        write_shard(tmp_path, digest, Content(4096, unit(4096, 512), np.arange(4096), spans, ()))
        shards.append(read_shard(tmp_path, digest, 4096, 512))
    rows = ShardedRows([shard for shard in shards if shard is not None], 512, "")
    before, most = own_memory(), 0
    for _, tile in rows.tiles(1024):
        most = max(most, own_memory())
        del tile
    assert most - before < 24 << 20  # a tile has 2 MB, everything 64


# Embeddings that were made before; `tests/jobs/test_precomputed.py` tests their files


def test_items_without_an_embedding_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "embeddings.npy", unit(2))
    (tmp_path / "ids.txt").write_text("a\nb\n")
    source = Precomputed.open(tmp_path)
    with pytest.raises(MediaError, match=r"2 of 3 items: 'c', 'd'.*--missing skip"):
        PrecomputedRows(source, ["c", "a", "d"])
    assert [n for n, _ in PrecomputedRows(source, ["c", "a", "d"], missing="skip").failed] == [0, 2]
