"""Search over shards compared with one process: cost of distribution, and of losing an actor.

The actors read the codes from an archive's store. Everything runs on this machine, without a
network: the messages are counted in bytes instead.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bittern.benchmarks.speed.codes import (
    METRICS,
    Collection,
    clustered,
    coded,
    record_of,
    write_archive,
)
from bittern.benchmarks.speed.harness import (
    Cell,
    Contestants,
    Options,
    Report,
    Table,
    interleaved,
    say,
    seconds_of,
)
from bittern.benchmarks.speed.process import own_memory
from bittern.errors import BitternError, InternalError
from bittern.index.archive import Archive
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest, RowSet, SearchEngine
from bittern.index.engines.sharded import ShardedEngine, Sharding, local_cluster
from bittern.index.engines.sharded.cluster import ray_library
from bittern.index.shard_source import StoreSource
from bittern.index.store import Store

ROWS = 2_000_000
ROUNDS = 7
BITS = 256
K = 100
SHARDS = 2
BATCHES = (1, 8, 64)
SHARE = 0.3
"""Of the rows that a filter lets through."""
ADDED = 10_000
_RECORD = record_of(BITS)
_ONE, _CORES, _SHARDS = "1 thread", "2 threads", "2 actors"
_WARMING_TURNS = 4


def run(options: Options) -> Report:
    """Measure search over two actors.

    Raises:
        PreconditionError: Ray is not installed, or does not start.
        InternalError: the shards and one process find different results.
    """
    rows, rounds = options.rows or ROWS, options.rounds or ROUNDS
    say(f"drawing {rows:,} codes of {BITS} bits, starting Ray, storing the codes")
    collection = clustered(rows, BITS)
    report = Report(
        "sharded", f"{rows:,} codes of {BITS} bits, top {K}, {SHARDS} actors, {rounds} rounds"
    )
    # Ray first: it starts processes, which must not inherit an open store.
    with local_cluster(cpus=2 * SHARDS), tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        write_archive(archive, collection)
        store = Store(archive / "store")
        source = StoreSource(store.path, _RECORD.code_column)
        partition_rows = min(Sharding().partition_rows, -(-rows // (2 * SHARDS)))
        begun = perf_counter()
        with ShardedEngine(source, store.version, Sharding(SHARDS, 1, partition_rows)) as engine:
            report.values["ready_s"] = perf_counter() - begun
            _batches(collection, engine, rounds, report)
            _filters(collection, engine, rounds, report)
            _lifetime(collection, archive, engine, report)
    return report


def _batches(collection: Collection, engine: ShardedEngine, rounds: int, report: Report) -> None:
    """Batches of queries in one process and over the actors; results are compared."""
    blocks = CodeBlocks.of(collection.rows, collection.codes)
    one, cores = FlatEngine(blocks, threads=1), FlatEngine(blocks, threads=SHARDS)
    lines: list[list[Cell]] = []
    measured: list[dict[str, Any]] = []
    for metric in METRICS:
        for batch in BATCHES:
            say(f"{metric}, batches of {batch}")
            queries = collection.queries(metric, batch)
            found = engine.search(queries, K)
            _check_same(found, one.search(queries, K))
            turns: Contestants = {
                _ONE: _turn(one, queries),
                _CORES: _turn(cores, queries),
                _SHARDS: _turn(engine, queries),
            }
            times = interleaved(turns, rounds=rounds, warmup=_WARMING_TURNS)
            milliseconds = [times.time(name, 1e3).median for name in turns]
            ratios = [times.ratio(_SHARDS, to) for to in (_ONE, _CORES)]
            lines.append([f"{metric}, {batch}", *milliseconds, *ratios])
            sizes = [len(pickle.dumps(message, 5)) for message in (queries, found)]
            measured.append({"seconds": times, "bytes_to_and_from_each_shard": sizes})
    table = Table(
        "A batch of queries, one process or two actors: milliseconds (medians), and ratios",
        {
            **{"metric, batch": "", _ONE: ".2f", _CORES: ".2f", _SHARDS: ".2f"},
            **{"to 1 thread": ".2f", "to 2 threads": ".2f"},
        },
        lines,
        [
            "Each actor has one thread. The answers were compared: the same rows at the same",
            "distances, bit for bit. For one asymmetric query, each shard was sent and sent back",
            "{:,} and {:,} bytes.".format(*measured[0]["bytes_to_and_from_each_shard"]),
        ],
    )
    report.add("batches", table, batches=measured)


def _filters(collection: Collection, engine: ShardedEngine, rounds: int, report: Report) -> None:
    """Searches among two rows, which cost no scan, and with a filter."""
    query, rows = collection.queries("asymmetric", 1), len(collection.codes)
    one = FlatEngine(CodeBlocks.of(collection.rows, collection.codes), threads=1)
    few = RowSet(np.array([0, rows - 1]))
    kept = np.flatnonzero(np.random.default_rng(0).random(rows) < SHARE)
    some = RowSet(kept)
    _check_same(engine.search(query, K, some), one.search(query, K, some))
    turns: Contestants = {
        "2 rows of 2 shards": lambda: engine.search(query, 1, few),
        "2 rows of 1 process": lambda: one.search(query, 1, few),
        "filter, again, 2 actors": lambda: engine.search(query, K, some),
        "filter, again, 1 process": lambda: one.search(query, K, some),
        "filter, first, 2 actors": lambda: engine.search(query, K, RowSet(kept)),
        "filter, first, 1 process": lambda: one.search(query, K, RowSet(kept)),
    }
    times = interleaved(turns, rounds=4 * rounds)
    table = Table(
        "What scattering itself costs, and a filter: milliseconds per query",
        {"": "", "ms": ".2f"},
        [[name, times.time(name, 1e3)] for name in turns],
        [
            "2 rows: the codes do not matter, so this is sending, gathering and merging.",
            f"filter: {SHARE:.0%} of the rows, drawn at random; first: rows that were never sent.",
        ],
    )
    report.add("filters", table, seconds=times)


def _lifetime(collection: Collection, archive: Path, engine: ShardedEngine, report: Report) -> None:
    """Cost of reading, of following the archive, and of losing an actor."""
    ray, query = ray_library(), collection.queries("asymmetric", 1)
    actors = engine._handles()
    resident = np.mean([own_memory(ray.get(actor.process.remote())) for actor in actors])
    store = Store(archive / "store")
    read_s = seconds_of(lambda: store.read(["row", _RECORD.code_column]))
    with Archive.open(archive, write=True) as opened:
        more = clustered(ADDED, BITS, seed=1)
        opened.add(coded(more.codes, "added"), model=_RECORD.digest)
    refresh_s = seconds_of(lambda: engine.refresh(Store(store.path).version))
    begun, noticed_s = perf_counter(), 0.0
    ray.kill(actors[0])
    try:
        engine.search(query, K)
    except BitternError:
        noticed_s = perf_counter() - begun
    engine.wait(600.0)
    back_s = perf_counter() - begun
    codes_mb = collection.codes.nbytes / SHARDS / 1e6
    table = Table(
        "A shard's lifetime",
        {"": "", "s": ".3f", "MB": ".0f"},
        [
            ["from nothing to searchable, both", report.values["ready_s"]],
            ["rows and codes read from the store by one process", read_s],
            [f"refresh after {ADDED:,} new rows", refresh_s],
            ["killed, noticed by a search", noticed_s],
            ["killed, searchable again", back_s],
            ["memory of an actor", None, float(resident) / 1e6],
            ["codes of an actor", None, codes_mb],
        ],
    )
    report.add("lifetime", table)


def _turn(engine: SearchEngine, queries: Queries) -> Callable[[], object]:
    return lambda: engine.search(queries, K)


def _check_same(found: list[Nearest], expected: list[Nearest]) -> None:
    for one, other in zip(found, expected, strict=True):
        if not np.array_equal(one.rows, other.rows) or not np.array_equal(
            one.distances, other.distances
        ):
            raise InternalError("the shards found other rows or distances than one process")
