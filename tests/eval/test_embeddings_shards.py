"""Shards that were damaged, or made to harm, are found and made again."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from xxhash import xxh3_128_hexdigest

from bittern.benchmarks.eval.embeddings import shards
from bittern.benchmarks.eval.embeddings.encoding import embed_items
from bittern.benchmarks.eval.embeddings.shards import Content, read_shard, tensors_of, write_shard
from bittern.errors import ArchiveDamagedError, InvalidInputError, LimitExceededError
from tests.eval.embedding_toys import (
    Counting,
    embedder,
    images,
    shard_files,
    small_shards,
)


@pytest.fixture(autouse=True)
def _shards_of_four() -> Iterator[None]:
    with small_shards(4):
        yield


def change_record(tensors: Path, **changes: object) -> None:
    path = tensors.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def reload_parameters(tensors: Path, data: bytes) -> None:
    """Other arrays, with a checksum that agrees."""
    tensors.write_bytes(data)
    change_record(tensors, xxh3=xxh3_128_hexdigest(data))


def cut(tensors: Path) -> None:
    tensors.write_bytes(tensors.read_bytes()[:-1])


def empty(tensors: Path) -> None:
    tensors.write_bytes(b"")


def remove(tensors: Path) -> None:
    tensors.unlink()


def flip(tensors: Path) -> None:
    data = bytearray(tensors.read_bytes())
    data[-40] ^= 1
    tensors.write_bytes(data)


def swap(tensors: Path) -> None:
    """Change the files of two shards shard, arrays alone."""
    other = next(path for path in shard_files(tensors.parent) if path != tensors)
    mine = tensors.read_bytes()
    tensors.write_bytes(other.read_bytes())
    other.write_bytes(mine)


def stand_in(tensors: Path) -> None:
    """Another shard instead, record and all."""
    other = next(path for path in shard_files(tensors.parent) if path != tensors)
    shutil.copy(other, tensors)
    shutil.copy(other.with_suffix(".json"), tensors.with_suffix(".json"))


def link(tensors: Path) -> None:
    """The right bytes, in a file that is outside and may change."""
    outside = tensors.parent.parent / "outside"
    tensors.rename(outside)
    tensors.symlink_to(outside)


def more_rows(tensors: Path) -> None:
    change_record(tensors, rows=2**31)


def negative_rows(tensors: Path) -> None:
    change_record(tensors, rows=-4)


def other_dim(tensors: Path) -> None:
    change_record(tensors, dim=6, rows=8)


def other_items(tensors: Path) -> None:
    change_record(tensors, items=5, failed=[[4, "made up"]])


def path_as_digest(tensors: Path) -> None:
    change_record(tensors, digest="../../../../etc/passwd")


def named_file(tensors: Path) -> None:
    change_record(tensors, file="../../outside.safetensors")


def failed_outside(tensors: Path) -> None:
    change_record(tensors, failed=[[99, "made up"]])


def failed_and_there(tensors: Path) -> None:
    change_record(tensors, failed=[[0, "made up"]])


def no_json(tensors: Path) -> None:
    tensors.with_suffix(".json").write_text("{" * 10_000)


def huge_record(tensors: Path) -> None:
    with tensors.with_suffix(".json").open("ab") as stream:
        stream.truncate(1 << 30)


def arrays(**changes: Any) -> bytes:
    rows = np.eye(4, 12, dtype=np.float32)
    spans = np.full((4, 2), np.nan, np.float32)
    whole = {"embeddings": rows, "owners": np.arange(4), "spans": spans, **changes}
    return bytes(save(whole))


def holds_nan(tensors: Path) -> None:
    reload_parameters(tensors, arrays(embeddings=np.full((4, 12), np.nan, np.float32)))


def other_dtype(tensors: Path) -> None:
    reload_parameters(tensors, arrays(embeddings=np.zeros((4, 24), np.float16)))


def falling_owners(tensors: Path) -> None:
    reload_parameters(tensors, arrays(owners=np.array([3, 2, 1, 0])))


def owners_outside(tensors: Path) -> None:
    reload_parameters(tensors, arrays(owners=np.array([0, 1, 2, 2**40])))


def long_header(tensors: Path) -> None:
    data = tensors.read_bytes()
    reload_parameters(tensors, (2**63 - 1).to_bytes(8, "little") + data[8:])


DAMAGE = [
    cut, empty, remove, flip, swap, stand_in, link, more_rows, negative_rows, other_dim,
    other_items, path_as_digest, named_file, failed_outside, failed_and_there, no_json,
    huge_record, holds_nan, other_dtype, falling_owners, owners_outside, long_header,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_made_again_and_nothing_else(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before = embed_items(embedder(Counting()), images(16), tmp_path)
    whole = before.read(np.arange(16))
    damage(shard_files(tmp_path)[1])
    encoder = Counting()
    with caplog.at_level(logging.WARNING):
        after = embed_items(embedder(encoder), images(16), tmp_path)
    assert encoder.layout == (8 if damage is swap else 4)
    assert np.array_equal(after.read(np.arange(16)), whole)
    assert "made again" in caplog.text
    assert embed_items(embedder(Counting(0, pytest.fail)), images(16), tmp_path)


def test_a_shard_without_its_record_was_never_finished(tmp_path: Path) -> None:
    embed_items(embedder(Counting()), images(8), tmp_path)
    shard_files(tmp_path)[0].with_suffix(".json").unlink()
    encoder = Counting()
    embed_items(embedder(encoder), images(8), tmp_path)
    assert encoder.layout == 4


def test_a_shard_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    rows = embed_items(embedder(Counting()), images(8), tmp_path)
    for path in shard_files(tmp_path):
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ArchiveDamagedError, match="Run again"):
        list(rows.tiles())
    with pytest.raises(ArchiveDamagedError, match="Run again"):
        rows.read(np.arange(8))


def test_leftovers_of_killed_runs_go_once_they_are_old(tmp_path: Path) -> None:
    embed_items(embedder(Counting()), images(4), tmp_path)
    folder = shard_files(tmp_path)[0].parent
    old, new = folder / ".partial-old", folder / ".partial-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    embed_items(embedder(Counting()), images(4), tmp_path)
    assert (old.exists(), new.exists()) == (False, True)


def test_nothing_is_left_of_a_shard_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "replace_file", full)
    with pytest.raises(LimitExceededError, match="goes on here"):
        embed_items(embedder(Counting()), images(4), tmp_path)
    assert not shard_files(tmp_path)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    spans = np.array([[0, 1], [1, 2], [0, 1]], np.float32)
    content = Content(3, rows, np.array([0, 0, 2]), spans, [(1, "too short: “π”")])
    write_shard(tmp_path, "ab" * 32, content)
    shard = read_shard(tmp_path, "ab" * 32, 3, 5)
    assert shard is not None
    assert np.array_equal(shard.embeddings.mapped(), rows)
    assert shard.owners.tolist() == [0, 0, 2]
    assert np.array_equal(shard.spans, spans)
    assert list(shard.failed) == [(1, "too short: “π”")]


def _file(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = [
    b"",
    b"\x00" * 7,
    (1 << 40).to_bytes(8, "little") + b"{}",
    _file([1]),
    _file("x"),
    (10).to_bytes(8, "little") + b"\xff" * 10,
    (90_000).to_bytes(8, "little") + b"[" * 90_000,
    _file({"a": F32}),
    _file({"a": F32}, b"\0" * 9),
    _file({"a": F32, "b": F32}, b"\0" * 8),
    _file({"a": {**F32, "dtype": "O"}}, b"\0" * 8),
    _file({"a": {**F32, "dtype": ["F32"]}}, b"\0" * 8),
    _file({"a": {**F32, "shape": [-2]}}, b"\0" * 8),
    _file({"a": {**F32, "shape": [True, 2]}}, b"\0" * 8),
    _file({"a": {**F32, "shape": [2**47, 2**47, 2**47, 2**47]}}, b"\0" * 8),
    _file({"a": {**F32, "shape": [1] * 64 + [2]}}, b"\0" * 8),
    _file({"a": {**F32, "data_offsets": [8, 0]}}, b"\0" * 8),
    _file({"a": {**F32, "data_offsets": [4, 12]}}, b"\0" * 12),
    _file({"a": {**F32, "data_offsets": [0]}}, b"\0" * 8),
    _file({"a": 5}, b"\0" * 8),
]


@pytest.mark.parametrize("content", HOSTILE)
def test_a_hostile_tensor_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"x\.safetensors"):
        tensors_of(path)
