"""Search over shards against one process: what scattering costs, and what a loss costs.

The codes lie in a store as those of an archive do; the actors read them there. All that is
compared runs on this one machine, so nothing here crosses a network: what a network would
carry is counted in bytes instead.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.report import Report, Table, say
from bittern.benchmarks.speed.search.codes import METRICS, Collection, clustered
from bittern.benchmarks.speed.timing import Contestants, Rounds, interleaved
from bittern.errors import BitternError, InternalError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.engine import SearchEngine
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.nearest import Nearest
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowSet
from bittern.index.engines.sharded import ShardedEngine, Sharding, StoreSource, local_cluster
from bittern.index.engines.sharded.cluster import ray_library
from bittern.index.engines.sharded.shard import Asked, Found
from bittern.index.models import ModelRecord
from bittern.index.store import Store
from bittern.types import Metric

ROWS = 2_000_000
ROUNDS = 7
BITS = 256
K = 100
SHARDS = 2
BATCHES = (1, 8, 64)
SHARE = 0.3
"""Of the rows that a filter lets through."""
ADDED = 10_000
_WRITTEN_AT_ONCE = 500_000
_RECORD = ModelRecord("drawn", "d" * 64, BITS, "none", ("image",))
_ONE, _CORES, _SHARDS = "1 thread", "2 threads", "2 actors"


@dataclass(frozen=True)
class Compared:
    """One metric and batch.

    Attributes:
        metric: of the queries.
        batch: how many are handed over at once.
        times: of the contestants.
        sent: bytes to each shard and back from it, together.
    """

    metric: Metric
    batch: int
    times: Rounds
    sent: tuple[int, int]

    def line(self) -> list[str]:
        """As a row of the table."""
        return [
            f"{self.metric}, {self.batch}",
            *(f"{self.times.time(name, 1e3).median:.2f}" for name in (_ONE, _CORES, _SHARDS)),
            self.times.ratio(_SHARDS, _ONE).text(),
            self.times.ratio(_SHARDS, _CORES).text(),
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "metric": self.metric,
            "batch": self.batch,
            "seconds": self.times.to_json(),
            "bytes_to_each_shard": self.sent[0],
            "bytes_from_each_shard": self.sent[1],
        }


def run(*, rows: int | None = None, rounds: int | None = None) -> Report:
    """Measure search over two actors.

    Args:
        rows: codes of 256 bits.
        rounds: timed turns of each contestant.

    Raises:
        PreconditionError: Ray is not installed, or does not start.
        InternalError: the shards do not find what one process finds.
    """
    rows, rounds = rows or ROWS, rounds or ROUNDS
    say(f"drawing {rows:,} codes of {BITS} bits, starting Ray, storing the codes")
    collection = clustered(rows, BITS)
    # Ray first: it starts processes, which a store that is open would rather not have.
    with local_cluster(cpus=2 * SHARDS), tempfile.TemporaryDirectory() as folder:
        store = _stored(Path(folder) / "store", collection)
        return _measured(collection, store, rounds)


def _measured(collection: Collection, store: Store, rounds: int) -> Report:
    rows = len(collection.codes)
    begun = perf_counter()
    source = StoreSource(store.path, _RECORD.code_column)
    stripe_rows = min(Sharding().stripe_rows, -(-rows // (2 * SHARDS)))
    with ShardedEngine(source, store.version, Sharding(SHARDS, 1, stripe_rows)) as engine:
        ready_s = perf_counter() - begun
        blocks = CodeBlocks.of(collection.rows, collection.codes)
        compared = [
            _compared(collection, blocks, engine, metric, batch, rounds)
            for metric in METRICS
            for batch in BATCHES
        ]
        fixed = _fixed(collection, blocks, engine, rounds)
        lives = {"ready_s": ready_s, **_lives(collection, store, engine)}
    values = {
        "compared": [one.to_json() for one in compared],
        "fixed_seconds": fixed.to_json(),
        "lives": lives,
    }
    size = f"{rows:,} codes of {BITS} bits, top {K}, {SHARDS} actors, {rounds} rounds"
    return Report(
        "sharded",
        size,
        [_table(compared), _fixed_table(fixed), _lives_table(lives, compared)],
        values,
    )


def _compared(
    collection: Collection,
    blocks: CodeBlocks,
    engine: ShardedEngine,
    metric: Metric,
    batch: int,
    rounds: int,
) -> Compared:
    say(f"{metric}, batches of {batch}")
    queries = collection.queries(metric, batch)
    one = FlatEngine(blocks, threads=1)
    found = engine.search(queries, K)
    _check_same(found, one.search(queries, K))
    turns: Contestants = {
        _ONE: _turn(one, queries),
        _CORES: _turn(FlatEngine(blocks, threads=SHARDS), queries),
        _SHARDS: _turn(engine, queries),
    }
    for _ in range(4):  # so that all have laid out their codes
        for turn in turns.values():
            turn()
    sent = len(pickle.dumps(Asked.of(queries), 5)), len(pickle.dumps(Found.of(found), 5))
    return Compared(metric, batch, interleaved(turns, rounds=rounds), sent)


def _fixed(
    collection: Collection, blocks: CodeBlocks, engine: ShardedEngine, rounds: int
) -> Rounds:
    """Searches in which the codes do not matter, or only some of them may be found."""
    query = collection.queries("asymmetric", 1)
    rows = len(collection.codes)
    few = RowSet(np.array([0, rows - 1]))
    kept = np.flatnonzero(np.random.default_rng(0).random(rows) < SHARE)
    some, one = RowSet(kept), FlatEngine(blocks, threads=1)
    _check_same(engine.search(query, K, some), one.search(query, K, some))
    turns: dict[str, Callable[[], object]] = {
        "2 rows of 2 shards": lambda: engine.search(query, 1, few),
        "2 rows of 1 process": lambda: one.search(query, 1, few),
        "filter, again, 2 actors": lambda: engine.search(query, K, some),
        "filter, again, 1 process": lambda: one.search(query, K, some),
        "filter, first, 2 actors": lambda: engine.search(query, K, RowSet(kept)),
        "filter, first, 1 process": lambda: one.search(query, K, RowSet(kept)),
    }
    return interleaved(turns, rounds=4 * rounds)


def _lives(collection: Collection, store: Store, engine: ShardedEngine) -> dict[str, float]:
    """What reading, following the archive, and losing an actor cost."""
    rows = len(collection.codes)
    ray = ray_library()
    query = collection.queries("asymmetric", 1)
    resident = [_resident(ray.get(actor.process.remote())) for actor in engine._members.actors()]
    codes_bytes = collection.codes.nbytes / SHARDS
    begun = perf_counter()
    Store(store.path).read(["row", _RECORD.code_column])
    read_s = perf_counter() - begun
    more = clustered(ADDED, BITS, seed=1)
    _append(store, rows, more.codes)
    begun = perf_counter()
    engine.refresh(store.version)
    refresh_s = perf_counter() - begun
    begun, noticed_s = perf_counter(), 0.0
    ray.kill(engine._members.actors()[0])
    try:
        engine.search(query, K)
    except BitternError:
        noticed_s = perf_counter() - begun
    engine.wait(600.0)
    back_s = perf_counter() - begun
    return {
        "read_in_one_process_s": read_s,
        "refresh_s": refresh_s,
        "noticed_s": noticed_s,
        "back_s": back_s,
        "resident_bytes_per_actor": float(np.mean(resident)),
        "code_bytes_per_actor": codes_bytes,
    }


def _resident(process: int) -> int:
    """Bytes of memory that a process shares with no other."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def _stored(path: Path, collection: Collection) -> Store:
    store = Store.create(path)
    store.add_code_column(_RECORD)
    for start in range(0, len(collection.codes), _WRITTEN_AT_ONCE):
        _append(store, start, collection.codes[start : start + _WRITTEN_AT_ONCE])
    return store


def _append(store: Store, first: int, codes: NDArray[np.uint8]) -> None:
    rows = range(first, first + len(codes))
    names = [f"o{row}" for row in rows]
    columns = {
        "row": rows,
        "committed": [store.version + 1] * len(codes),
        "id": names,
        "occurrenceID": names,
        "modality": ["image"] * len(codes),
        "media": names,
        _RECORD.code_column: [code.tobytes() for code in codes],
    }
    store.append(store.table(columns, len(codes)))


def _turn(engine: SearchEngine, queries: Queries) -> Callable[[], object]:
    return lambda: engine.search(queries, K)


def _check_same(found: list[Nearest], wanted: list[Nearest]) -> None:
    for one, other in zip(found, wanted, strict=True):
        if not np.array_equal(one.rows, other.rows) or not np.array_equal(
            one.distances, other.distances
        ):
            raise InternalError("the shards found something else than one process")


def _table(compared: list[Compared]) -> Table:
    return Table(
        "A batch of queries, one process or two actors: milliseconds (medians), and ratios",
        ["metric, batch", _ONE, _CORES, _SHARDS, "to 1 thread", "to 2 threads"],
        [one.line() for one in compared],
        [
            "Each actor has one thread. The answers were compared: the same rows at the same",
            "distances, bit for bit.",
        ],
    )


def _fixed_table(fixed: Rounds) -> Table:
    lines = [[name, fixed.time(name, 1e3).text()] for name in fixed.seconds]
    return Table(
        "What scattering itself costs, and a filter: milliseconds per query",
        ["", "ms"],
        lines,
        [
            "2 rows: the codes do not matter, so this is sending, gathering and merging.",
            f"filter: {SHARE:.0%} of the rows, drawn at random; first: rows that were never sent.",
        ],
    )


def _lives_table(lives: dict[str, float], compared: list[Compared]) -> Table:
    single = next(one for one in compared if one.metric == "asymmetric" and one.batch == 1)
    code_bytes = lives["code_bytes_per_actor"]
    return Table(
        "A shard's life",
        ["", ""],
        [
            ["from nothing to searchable, both", f"{lives['ready_s']:.2f} s"],
            [
                "rows and codes read from the store by one process",
                f"{lives['read_in_one_process_s']:.2f} s",
            ],
            [f"refresh after {ADDED:,} new rows", f"{lives['refresh_s'] * 1e3:.0f} ms"],
            ["killed, noticed by a search", f"{lives['noticed_s'] * 1e3:.1f} ms"],
            ["killed, searchable again", f"{lives['back_s']:.2f} s"],
            ["memory of an actor, MB", f"{lives['resident_bytes_per_actor'] / 1e6:.0f}"],
            ["codes of an actor, MB", f"{code_bytes / 1e6:.0f}"],
            ["bytes to each shard, asymmetric, 1 query", f"{single.sent[0]:,}"],
            ["bytes back from each shard", f"{single.sent[1]:,}"],
        ],
    )
