"""The sharded engine on a cluster of this machine's own. One cluster serves all tests."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bittern.errors import (
    ArchiveDamagedError,
    DeadlineExceededError,
    PreconditionError,
    ServiceUnavailableError,
    ShardUnavailableError,
)
from bittern.index.archive import Archive
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.search_engine import RowSet, SearchEngine
from bittern.index.engines.sharded import (
    ShardedEngine,
    Sharding,
    local_cluster,
)
from bittern.index.engines.sharded.cluster import ray_library
from bittern.index.engines.sharded.shard import Partitions
from bittern.index.shard_source import StoreSource
from tests.index.samples import OWL, photo
from tests.search import test_contract as contract
from tests.search.collections import collection, pairs, questions

pytestmark = pytest.mark.ray

WAIT_S = 60.0


class MemorySource:
    """Hands out codes that are in Ray's object store, where they stay as long as it lives."""

    def __init__(self) -> None:
        self._versions: dict[int, tuple[Any, Any]] = {}

    def put(self, rows: np.ndarray, codes: np.ndarray) -> int:
        """Add a generation: ascending rows and their codes. Returns its version."""
        version = 1 + max(self._versions, default=0)
        self._versions[version] = (ray_library().put(rows), ray_library().put(codes))
        return version

    def forget(self, version: int) -> None:
        self._versions.pop(version, None)

    def read(
        self,
        version: int,
        partitions: Partitions,
        shard: int,
        before: tuple[int, CodeBlocks] | None,
    ) -> CodeBlocks:
        if version not in self._versions:
            raise ArchiveDamagedError(f"there is no generation {version}; put it there first")
        all_rows, all_codes = ray_library().get(list(self._versions[version]))
        rows = partitions.split(all_rows)[shard]
        return partitions.blocks(rows, all_codes.take(np.searchsorted(all_rows, rows), axis=0))


PROMISES: list[Callable[..., None]] = [
    contract.test_exact_search_equals_brute_force_in_the_total_order,
    contract.test_one_query_is_answered_as_in_a_batch,
    contract.test_any_real_weight_per_bit_is_a_query,
    contract.test_a_query_without_any_weight_gets_the_first_rows,
    contract.test_queries_of_another_length_are_refused_with_both_lengths,
    contract.test_nothing_is_found_where_nothing_is,
    contract.test_searching_leaves_the_callers_faiss_threads_as_they_were,
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with local_cluster(cpus=8):
        yield ray_library()


@pytest.fixture(scope="module")
def memory(cluster: Any) -> Iterator[tuple[MemorySource, ShardedEngine]]:
    source = MemorySource()
    empty = source.put(np.empty(0, np.int64), np.empty((0, 8), np.uint8))
    with ShardedEngine(source, empty, Sharding(2, partition_rows=20, timeout_s=WAIT_S)) as engine:
        yield source, engine


@pytest.fixture
def make(memory: tuple[MemorySource, ShardedEngine]) -> Callable[[CodeBlocks], ShardedEngine]:
    source, engine = memory
    assert engine.wait(WAIT_S)

    def made(blocks: CodeBlocks) -> ShardedEngine:
        before = engine.version
        engine.refresh(source.put(blocks.rows, blocks.codes))
        source.forget(before)
        return engine

    return made


@pytest.fixture(scope="module")
def marsh(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    archive = Archive.create(tmp_path_factory.mktemp("archives") / "marsh")
    archive.register_model(OWL, {"card.json": b"{}"})
    archive.add([photo(f"p{i}", seed=i) for i in range(300)], model=OWL.digest)
    return archive


@pytest.fixture(scope="module")
def reading(cluster: Any, marsh: Archive) -> Iterator[ShardedEngine]:
    source = StoreSource(marsh.path / "store", OWL.code_column)
    with ShardedEngine(
        source, marsh.generation, Sharding(2, partition_rows=50, timeout_s=WAIT_S)
    ) as made:
        yield made


def on_one_machine(archive: Archive, version: int) -> FlatEngine:
    source = StoreSource(archive.path / "store", OWL.code_column)
    return FlatEngine(source.read(version, Partitions(1), 0, None))


def process(engine: ShardedEngine, number: int) -> int:
    return int(ray_library().get(engine._handles()[number].process.remote()))


def kill(engine: ShardedEngine, number: int) -> None:
    """End one shard's process."""
    killed_process = process(engine, number)
    handle = os.pidfd_open(killed_process)
    try:
        os.kill(killed_process, signal.SIGKILL)
        assert select.select([handle], [], [], WAIT_S)[0], "the process did not end"
    finally:
        os.close(handle)


def check_same(engine: ShardedEngine, wanted: SearchEngine) -> None:
    for metric in ("hamming", "asymmetric"):
        queries = questions(metric, 3)
        for rows in (None, RowSet(np.arange(0, 300, 3)), RowSet(np.arange(10, 20))):
            assert [pairs(one) for one in engine.search(queries, 40, rows)] == [
                pairs(one) for one in wanted.search(queries, 40, rows)
            ]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_it_keeps_the_promise_of_all_engines(
    promise: Callable[..., None], make: Callable[[CodeBlocks], SearchEngine]
) -> None:
    promise(make=make)


def test_many_codes_are_searched_as_on_one_machine(
    make: Callable[[CodeBlocks], SearchEngine],
) -> None:
    for metric in contract.METRICS:
        for share in (None, 0.3):
            contract.test_many_codes_are_searched_exactly_whatever_they_are(
                make, metric, 64, 40, share
            )


def test_nothing_of_the_cluster_listens_on_a_network(cluster: Any) -> None:
    assert [node["NodeManagerAddress"] for node in cluster.nodes()] == ["127.0.0.1"]


def test_a_search_waits_for_the_replacement_of_a_shard_that_was_killed(
    make: Callable[[CodeBlocks], ShardedEngine],
) -> None:
    blocks = collection(300).blocks
    engine = make(blocks)
    restarts = engine.shards[1].restarts
    kill(engine, 1)
    check_same(engine, FlatEngine(blocks))
    assert engine.shards[1].restarts == restarts + 1


def test_a_shard_that_is_killed_while_it_searches_is_replaced(
    make: Callable[[CodeBlocks], ShardedEngine],
) -> None:
    blocks = collection(300).blocks
    engine = make(blocks)
    stopped = process(engine, 0)
    os.kill(stopped, signal.SIGSTOP)
    queries = questions("asymmetric", 2)
    with ThreadPoolExecutor(1) as other:
        found = other.submit(engine.search, queries, 5)
        os.kill(stopped, signal.SIGKILL)
        wanted = FlatEngine(blocks).search(queries, 5)
        assert [pairs(one) for one in found.result(WAIT_S)] == [pairs(one) for one in wanted]


def test_a_shard_that_hangs_is_given_up_and_replaced(cluster: Any) -> None:
    source = MemorySource()
    version = source.put(np.arange(9), np.zeros((9, 8), np.uint8))
    with ShardedEngine(source, version, Sharding(1, timeout_s=0.3)) as engine:
        os.kill(process(engine, 0), signal.SIGSTOP)
        with pytest.raises(ShardUnavailableError, match="did not answer in time"):
            engine.search(questions("hamming", 1), 5)
        assert engine.wait(WAIT_S)
        assert [status.restarts for status in engine.shards] == [1]


def test_a_partial_answer_says_which_rows_were_not_searched(
    make: Callable[[CodeBlocks], ShardedEngine],
) -> None:
    rows = np.arange(110, dtype=np.int64)
    blocks = CodeBlocks.of(rows, collection(110).codes)
    engine, queries = make(blocks), questions("asymmetric", 2)
    there = RowSet(np.flatnonzero(rows // 20 % 2 == 0))
    kill(engine, 1)
    partial = engine.search_available(queries, 500)
    assert not partial.complete
    assert partial.missing.tolist() == [[20, 40], [60, 80], [100, 110]]
    wanted = FlatEngine(blocks).search(queries, 500, there)
    assert list(map(pairs, partial.nearest)) == list(map(pairs, wanted))
    # What the lost shard could not hold is answered in full.
    assert len(engine.search(queries, 500, there)[0]) == len(there)
    assert engine.wait(WAIT_S)
    whole = engine.search_available(queries, 500)
    assert whole.complete
    assert [len(one) for one in whole.nearest] == [110, 110]


def test_shards_read_their_own_rows_and_answer_as_one_machine(
    reading: ShardedEngine, marsh: Archive
) -> None:
    assert reading.wait(WAIT_S)
    check_same(reading, on_one_machine(marsh, reading.version))
    assert all(status.loaded and status.loaded.codes < len(reading) for status in reading.shards)


def test_new_rows_and_deletions_are_seen_after_a_refresh(
    reading: ShardedEngine, marsh: Archive
) -> None:
    assert reading.wait(WAIT_S)
    before = on_one_machine(marsh, reading.version)
    marsh.delete(["p7", "p60"])
    marsh.add([photo(f"q{i}", seed=1000 + i) for i in range(120)], model=OWL.digest)
    check_same(reading, before)
    reading.refresh(marsh.generation)
    check_same(reading, on_one_machine(marsh, marsh.generation))
    assert len(reading) == 418


def test_a_shard_whose_store_is_gone_says_so_and_comes_back_with_it(
    reading: ShardedEngine, marsh: Archive
) -> None:
    assert reading.wait(WAIT_S)
    wanted = on_one_machine(marsh, reading.version)
    store = marsh.path / "store"
    store.rename(marsh.path / "away")
    kill(reading, 0)
    with pytest.raises(ShardUnavailableError, match=r"1 of 2 .*cannot be read.* try again") as it:
        reading.search(questions("hamming", 1), 5)
    assert isinstance(it.value, ServiceUnavailableError)
    assert it.value.details == {"shards": "0", "of": "2"}
    (marsh.path / "away").rename(store)
    check_same(reading, wanted)


class GatedSource(MemorySource):
    """Its second generation can be read once something is written to a named pipe."""

    def __init__(self, gate: Path) -> None:
        super().__init__()
        self.gate = gate

    def read(
        self,
        version: int,
        partitions: Partitions,
        shard: int,
        before: tuple[int, CodeBlocks] | None,
    ) -> CodeBlocks:
        if version == 2:
            self.gate.read_bytes()
        return super().read(version, partitions, shard, before)


def test_a_shard_that_is_slow_but_alive_is_not_replaced_and_still_searches(
    cluster: Any, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    source = GatedSource(gate)
    for n in (9, 5):
        source.put(np.arange(n), np.zeros((n, 8), np.uint8))
    with ShardedEngine(source, 1, Sharding(1)) as engine:
        patient, engine._sharding = engine._sharding, Sharding(1, loading_s=0.1)
        with pytest.raises(DeadlineExceededError, match="shard 0 is still at work"):
            engine.refresh(2)
        assert len(engine.search(questions("hamming", 1), 20)[0]) == 9
        gate.write_bytes(b"open")
        engine._sharding = patient
        engine.refresh(2)
        assert len(engine.search(questions("hamming", 1), 20)[0]) == 5
        assert engine.shards[0].restarts == 0


def test_more_shards_than_cores_are_refused(cluster: Any) -> None:
    with pytest.raises(PreconditionError, match="need 18 cores, the Ray cluster has 8"):
        ShardedEngine(MemorySource(), 1, Sharding(9, threads=2))


def test_a_generation_that_cannot_be_read_changes_nothing(
    reading: ShardedEngine, marsh: Archive
) -> None:
    assert reading.wait(WAIT_S)
    version = reading.version
    with pytest.raises(ArchiveDamagedError):
        reading.refresh(10_000)
    assert reading.version == version
    check_same(reading, on_one_machine(marsh, version))


def test_no_search_sees_two_generations(memory: tuple[MemorySource, ShardedEngine]) -> None:
    source, engine = memory
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (200, 8), dtype=np.uint8)
    # No row is in two generations, so each row says which one it is of.
    versions = [source.put(np.arange(n * 200, (n + 1) * 200), codes) for n in range(12)]
    engine.refresh(versions[0])
    seen, done = set(), threading.Event()
    problems: list[str] = []

    def search() -> None:
        while not done.is_set():
            (found,) = engine.search(questions("hamming", 1), 150)
            generations = set((found.rows // 200).tolist())
            seen.update(generations)
            if len(generations) != 1 or len(found) != 150:
                problems.append(f"{len(found)} of {generations}")

    searching = threading.Thread(target=search)
    searching.start()
    for version in versions[1:]:
        engine.refresh(version)
    done.set()
    searching.join(WAIT_S)
    assert not problems
    assert len(seen) > 1


def test_codes_that_cannot_be_read_are_an_error_at_once(cluster: Any) -> None:
    with pytest.raises(ShardUnavailableError, match="cannot be read: there is no generation 1"):
        ShardedEngine(MemorySource(), 1, Sharding(1))


def test_without_ray_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PreconditionError, match=r"pip install 'bittern-search\[ray\]'"):
        ShardedEngine(MemorySource(), 1)


def test_without_a_cluster_the_message_says_how_to_start_one(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_library(), "is_initialized", lambda: False)
    with pytest.raises(PreconditionError, match="local_cluster"):
        ShardedEngine(MemorySource(), 1)


@pytest.mark.parametrize("document", ["background/search.md", "decisions/0013-sharding.md"])
def test_the_documents_say_how_long_a_range_is(document: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / document).read_text("utf-8")
    assert f"ranges of {Sharding().partition_rows:,}" in text
