"""What gRPC adds to a search: latency over the same engine in process, and answers per second.

Server and clients run in this one process and share its interpreter lock, so the rates are
what one process can do, not what a server can do for clients elsewhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bittern.benchmarks.speed.collection import SAMPLE, Collection, embed_manifest
from bittern.benchmarks.speed.load import Ask, answers_per_second
from bittern.benchmarks.speed.models import model_of
from bittern.benchmarks.speed.report import Report, Table, say
from bittern.benchmarks.speed.timing import Rounds, interleaved
from bittern.client import RemoteArchive, connect
from bittern.index.archive import Archive
from bittern.service.config import ServiceConfig
from bittern.service.engine import Engine
from bittern.service.grpc.server import serve
from bittern.service.ingest.commit import ArchiveCommits
from bittern.types import Query

WORDS = "a giraffe in the savanna"
K = 10
ROUNDS = 300
WARMUP = 20
CALLERS = (1, 4, 8)
LOAD_S = 1.0
LOAD_ROUNDS = 3


def run(manifest: Path = SAMPLE, encoder: str = "field", *, rounds: int | None = None) -> Report:
    """Measure searches of a manifest's archive in process and over gRPC."""
    rounds = rounds or ROUNDS
    collection = embed_manifest(manifest, encoder)
    with _served(collection) as (engine, address):
        queries = _queries(engine, encoder)
        with connect(address) as client:
            say(f"timing {len(queries)} queries in process and over gRPC, {rounds} rounds")
            times = interleaved(_contestants(engine, client, queries), rounds=rounds, warmup=WARMUP)
        say(f"asking with {', '.join(map(str, CALLERS))} callers at once")
        rates = _rates(engine, address, queries)
        rows = sum(engine.stats().observations.values())
    return Report(
        "service",
        f"{manifest}: {rows} observations, encoder {encoder}; top {K}, {rounds} rounds after "
        f"{WARMUP} to warm up; server and clients in one process, over the loopback",
        [_latency_table(times, queries), _rate_table(rates)],
        {
            "seconds": times.to_json(),
            "answers_per_second": rates,
        },
    )


@contextmanager
def _served(collection: Collection) -> Iterator[tuple[Engine, str]]:
    """An archive of the collection in a temporary folder, and a server in front of it."""
    saved = model_of(collection.embedder, collection.embeddings)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        archive = stack.enter_context(Archive.create(Path(folder) / "archive"))
        engine = Engine(archive, load_encoder=lambda name: collection.embedder.encoder())
        ArchiveCommits(archive, engine.register(saved), "error").commit(collection.embedded)
        engine.warm()
        server = serve({engine.name: engine}, listen="127.0.0.1:0", config=ServiceConfig())
        stack.callback(server.stop, 5.0)
        yield engine, server.address


def _queries(engine: Engine, encoder: str) -> dict[str, Query]:
    """The same question by words, and by a code, which needs no network."""
    model = engine.models()[0]
    target = "image" if model.rows.get("image") else "audio"
    code = np.arange(model.bits // 8, dtype=np.uint8).tobytes()
    queries = {"by code": Query(code=code, target=target, k=K)}
    if "text" in model.modalities:
        queries["by words"] = Query(text=WORDS, target=target, k=K)
    return queries


def _contestants(
    engine: Engine, client: RemoteArchive, queries: dict[str, Query]
) -> dict[str, Callable[[], object]]:
    contestants: dict[str, Callable[[], object]] = {}
    for name, query in queries.items():
        contestants[f"{name}, in process"] = _in_process(engine, query)
        contestants[f"{name}, gRPC"] = _remote(client, query)
    return contestants


def _in_process(engine: Engine, query: Query) -> Ask:
    return lambda: engine.search(query)


def _remote(client: RemoteArchive, query: Query) -> Ask:
    return lambda: client.search(query.text, code=query.code, target=query.target, k=query.k)


def _rates(engine: Engine, address: str, queries: dict[str, Query]) -> dict[str, dict[str, Any]]:
    """Per query and way, answers per second by number of callers; rounds take turns."""
    measured: dict[str, dict[str, list[float]]] = {}
    for _ in range(LOAD_ROUNDS):
        for name, query in queries.items():
            for count in CALLERS:
                here = measured.setdefault(f"{name}, in process", {}).setdefault(str(count), [])
                here.append(answers_per_second([_in_process(engine, query)] * count, LOAD_S))
                there = measured.setdefault(f"{name}, gRPC", {}).setdefault(str(count), [])
                there.append(_remote_rate(address, query, count))
    return {
        name: {count: float(np.median(rates)) for count, rates in by_count.items()}
        for name, by_count in measured.items()
    }


def _remote_rate(address: str, query: Query, count: int) -> float:
    """With one connection per caller."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(address)) for _ in range(count)]
        return answers_per_second([_remote(client, query) for client in clients], LOAD_S)


def _latency_table(times: Rounds, queries: dict[str, Query]) -> Table:
    rows = []
    for name in queries:
        here, there = f"{name}, in process", f"{name}, gRPC"
        rows.append(
            [
                name,
                times.time(here, 1e3).text(),
                times.time(there, 1e3).text(),
                times.excess(there, here, 1e3).text(),
                times.ratio(there, here).text(),
            ]
        )
    return Table(
        "One search at a time, milliseconds",
        ["query", "in process", "gRPC", "added", "ratio"],
        rows,
        ["Medians over the rounds, with quartiles. By code, no network runs."],
    )


def _rate_table(rates: dict[str, dict[str, Any]]) -> Table:
    return Table(
        "Answers per second, by callers at once",
        ["query", *map(str, CALLERS)],
        [[name, *(f"{by[str(c)]:.0f}" for c in CALLERS)] for name, by in rates.items()],
        [f"Medians of {LOAD_ROUNDS} runs of {LOAD_S:g} s; each caller has its own connection."],
    )
