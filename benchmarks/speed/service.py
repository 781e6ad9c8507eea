"""Overhead of gRPC: latency compared with the same engine in process, and results per second.

Server and clients share one process and its interpreter lock, so the rates are lower than those of
a server with clients on other machines.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Barrier
from time import perf_counter

import numpy as np

from bittern.benchmarks.speed.harness import Options, Report, Table, interleaved, say
from bittern.benchmarks.speed.inputs import load_embedder
from bittern.client import RemoteArchive, connect
from bittern.index.archive import Archive
from bittern.query import Query
from bittern.service.grpc.server import serve
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.indexing import index_source
from bittern.service.limits import ServiceConfig
from bittern.service.local.archive import LocalArchive
from bittern.service.sources import read_source

WORDS = "a giraffe in the savanna"
K = 10
ROUNDS = 300
WARMUP = 20
CALLERS = (1, 4, 8)
LOAD_S = 1.0
LOAD_ROUNDS = 3

Search = Callable[[], object]
"""One search."""


def run(options: Options) -> Report:
    """Measure searches of a manifest's archive in process and over gRPC."""
    rounds = options.rounds or ROUNDS
    with _served(options) as (engine, address):
        queries = _queries(engine)
        with connect(address) as client:
            say(f"timing {len(queries)} queries in process and over gRPC, {rounds} rounds")
            contestants: dict[str, Search] = {}
            for name, query in queries.items():
                contestants[f"{name}, in process"] = _in_process(engine, query)
                contestants[f"{name}, gRPC"] = _remote(client, query)
            times = interleaved(contestants, rounds=rounds, warmup=WARMUP)
        say(f"searching with {', '.join(map(str, CALLERS))} callers at once")
        rates = _rates(engine, address, queries)
        rows = sum(engine.stats().observations.values())
    report = Report(
        "service",
        f"{options.manifest}: {rows} observations, encoder {options.encoder}; top {K}, {rounds} "
        f"rounds after {WARMUP} to warm up; server and clients in one process, over the loopback",
    )
    ways = {name: (f"{name}, in process", f"{name}, gRPC") for name in queries}
    latency = Table(
        "One search at a time, milliseconds",
        {"query": "", "in process": ".2f", "gRPC": ".2f", "ratio": ".2f"},
        [
            [name, times.time(here, 1e3), times.time(there, 1e3), times.ratio(there, here)]
            for name, (here, there) in ways.items()
        ],
        ["Medians over the rounds, with quartiles. By code, no network runs."],
    )
    throughput = Table(
        "Answers per second, by callers at once",
        {"query": "", **{str(count): ".0f" for count in CALLERS}},
        [[name, *(by[count] for count in CALLERS)] for name, by in rates.items()],
        [f"Medians of {LOAD_ROUNDS} runs of {LOAD_S:g} s; each caller has its own connection."],
    )
    report.add("service", latency, throughput, seconds=times)
    return report


@contextmanager
def _served(options: Options) -> Iterator[tuple[LocalArchive, str]]:
    """An archive of the manifest in a temporary folder, and a server in front of it."""
    source = read_source(options.manifest)
    embedder = load_embedder(options.encoder)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        archive = stack.enter_context(Archive.create(Path(folder) / "archive"))
        engine = LocalArchive(archive, load_encoder=lambda name: embedder.encoder())
        say(f"indexing {options.manifest} with {options.encoder}")
        index_source(engine, source, IndexOptions(model=options.encoder))
        engine.warm()
        server = serve({engine.name: engine}, listen="127.0.0.1:0", config=ServiceConfig())
        stack.callback(server.stop, 5.0)
        yield engine, server.address


def _queries(engine: LocalArchive) -> dict[str, Query]:
    """A query by words, and one by a code, which needs no network."""
    model = engine.models()[0]
    target = "image" if model.rows.get("image") else "audio"
    code = np.arange(model.bits // 8, dtype=np.uint8).tobytes()
    queries = {"by code": Query(code=code, target=target, k=K)}
    if "text" in model.modalities:
        queries["by words"] = Query(text=WORDS, target=target, k=K)
    return queries


def _in_process(engine: LocalArchive, query: Query) -> Search:
    return lambda: engine.answer(query)


def _remote(client: RemoteArchive, query: Query) -> Search:
    return lambda: client.answer(query)


def _rates(
    engine: LocalArchive, address: str, queries: Mapping[str, Query]
) -> dict[str, dict[int, float]]:
    """Results per second by query, access and number of callers: medians over the rounds."""
    measured: dict[str, dict[int, list[float]]] = {}
    for _ in range(LOAD_ROUNDS):
        for name, query in queries.items():
            for count in CALLERS:
                with ExitStack() as stack:
                    clients = [stack.enter_context(connect(address)) for _ in range(count)]
                    ways = {
                        f"{name}, in process": [_in_process(engine, query)] * count,
                        f"{name}, gRPC": [_remote(client, query) for client in clients],
                    }
                    for way, callers in ways.items():
                        rates = measured.setdefault(way, {}).setdefault(count, [])
                        rates.append(answers_per_second(callers, LOAD_S))
    return {
        way: {count: float(np.median(rates)) for count, rates in by_count.items()}
        for way, by_count in measured.items()
    }


def answers_per_second(callers: Sequence[Search], seconds: float) -> float:
    """Let every caller search repeatedly, each in its own thread.

    Args:
        callers: each call searches once and waits for the result.
        seconds: no search starts later than this; started searches and their time count.
    """
    start = Barrier(len(callers))

    def repeat(search: Search) -> tuple[int, float, float]:
        start.wait()
        begun = perf_counter()
        count = 0
        while perf_counter() - begun < seconds:
            search()
            count += 1
        return count, begun, perf_counter()

    with ThreadPoolExecutor(len(callers)) as pool:
        done = list(pool.map(repeat, callers))
    took = max(end for _, _, end in done) - min(begun for _, begun, _ in done)
    return sum(count for count, _, _ in done) / took
