"""Exact search compared with raw Faiss, with reading memory, and with other libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bittern.benchmarks.speed.codes import METRICS, Collection
from bittern.benchmarks.speed.harness import (
    Cell,
    Contestants,
    Ratio,
    Report,
    Rounds,
    Table,
    interleaved,
    ratio_table,
    say,
)
from bittern.benchmarks.speed.search.engines import (
    EXACT,
    FAISS,
    K,
    Search,
    brute_force,
    built,
    described,
    faiss_flat,
    flat_engine,
    is_right,
    search_of,
)
from bittern.index.engines.queries import Queries
from bittern.index.engines.threads import usable_cores
from bittern.types import Metric

READ = "plain read"
_PEER_TARGET = "<= 0.1"
_QUERIES = 4
"""Searched one by one in every turn."""
_CHECKED = 3
"""Queries whose results are compared with brute force."""
_MOST_SECONDS = 3.0
"""A turn of raw Faiss that would take longer than this is skipped."""
_CODES_PER_SECOND = 3e8
"""Lower estimate of Faiss's speed: 256 bits, one thread."""


def measure_exact(collection: Collection, rounds: int, report: Report) -> None:
    """Time exact searches of one collection, and check Bittern's."""
    cores = usable_cores()
    engines = {threads: flat_engine(collection, threads) for threads in sorted({1, cores})}
    turns = {READ: reading(collection)}
    with ExitStack() as stack:
        skipped = []
        for peer in EXACT:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            tuned, why = built(peer, collection, 1 if peer.name == FAISS else cores, folder)
            if tuned is None:
                skipped.append(why)
                continue
            turns[peer.name] = one_by_one(tuned(0), collection.queries("hamming", _QUERIES))
            if peer.name == FAISS:  # timed next to each other, for their ratios
                for threads, engine in engines.items():
                    for metric in METRICS:
                        queries = collection.queries(metric, _QUERIES)
                        turns[ours(metric, threads)] = one_by_one(search_of(engine), queries)
        say(f"timing {len(turns)} exact searches of {described(collection)}")
        times = interleaved(turns, rounds=rounds)
    right = [
        is_right(engines[1].search(query, K)[0], brute_force(query, collection.codes, K))
        for metric in METRICS
        for query in collection.queries(metric, _CHECKED)
    ]
    ratios = _ratios(times, cores)
    table = ratio_table(
        f"Exact search: {described(collection)}",
        ratios,
        [
            f"One query at a time, top {K}: medians over the rounds, with quartiles.",
            f"{FAISS} and {READ}: one thread, which is all that they use for one query.",
            f"{READ}: numpy looks for the largest 8-byte word of the same codes. Both go over the",
            "same bytes of codes, so the ratio of bytes per second is that of the times.",
            "The other libraries take all cores, and so does Bittern beside them.",
        ],
    )
    milliseconds = Table(
        "The same in milliseconds per query",
        {"": "", "ms": ".2f"},
        [[name, times.time(name, 1e3 / _QUERIES)] for name in times.seconds],
        [f"{np.mean(right):.0%} of the results are those of brute force, in its order.", *skipped],
    )
    report.add("exact", table, milliseconds, seconds=times, right=float(np.mean(right)))
    report.add_targets(described(collection), ratios)


def _ratios(times: Rounds, cores: int) -> list[Ratio]:
    def to(name: str, against: str, target: str = "") -> Ratio:
        return Ratio(name, against, times.ratio(name, against), target)

    ratios = [
        to(ours("asymmetric", 1), FAISS, "<= 1.2"),
        to(ours("hamming", 1), FAISS),
        to(ours("asymmetric", cores), FAISS),
        to(ours("hamming", cores), FAISS, "<= 0.6"),
    ]
    for metric in METRICS:
        name = ours(metric, 1)
        ratios.append(Ratio(f"{name}: bytes/s", READ, times.ratio(READ, name), ">= 0.7"))
    peers = [peer.name for peer in EXACT if peer.name in times.seconds and peer.name != FAISS]
    return ratios + [to(ours(m, cores), peer, _PEER_TARGET) for peer in peers for m in METRICS]


def ours(metric: Metric, threads: int) -> str:
    """Name of Bittern's exact search in the tables."""
    return f"bittern {metric}, {threads} thread{'s' if threads > 1 else ''}"


def one_by_one(search: Search, queries: Queries) -> Callable[[], object]:
    """A turn: every query alone."""
    alone = list(queries)
    return lambda: [search(query, K) for query in alone]


def reading(collection: Collection) -> Callable[[], object]:
    """A turn: reading all codes once per query, with numpy on one thread."""
    flat = collection.codes.reshape(-1)
    words = flat[: len(flat) // 8 * 8].view(np.uint64)
    return lambda: [words.max() for _ in range(_QUERIES)]


def measure_grid(
    collections: Sequence[Collection], batches: Sequence[int], rounds: int, report: Report
) -> None:
    """Every size, code length, batch and number of threads, beside raw Faiss."""
    lines: list[list[Cell]] = []
    seconds = []
    for collection in collections:
        say(f"exact search of {described(collection)}, batches of {', '.join(map(str, batches))}")
        rows, bits = len(collection.codes), collection.bits
        for threads in sorted({1, usable_cores()}):
            searches = {metric: search_of(flat_engine(collection, threads)) for metric in METRICS}
            faiss = faiss_flat(collection, threads, Path())(0)
            for batch in batches:
                if batch * rows * bits / 256 / _CODES_PER_SECOND / threads > _MOST_SECONDS:
                    say(f"skipped: batches of {batch} on {threads} threads")
                    continue
                turns: Contestants = {
                    **{m: partial(searches[m], collection.queries(m, batch), K) for m in METRICS},
                    "faiss": partial(faiss, collection.queries("hamming", batch), K),
                }
                times = interleaved(turns, rounds=rounds)
                milliseconds = [times.time(name, 1e3 / batch).median for name in turns]
                ratios = [times.ratio(metric, "faiss").median for metric in METRICS]
                lines.append([rows, bits, batch, threads, *milliseconds, *ratios])
                seconds.append(times)
    columns = {
        **{"rows": ",", "bits": "", "batch": "", "threads": ""},
        **dict.fromkeys((*METRICS, "faiss"), ".3f"),
        **{f"{metric} ratio": ".2f" for metric in METRICS},
    }
    table = Table(
        "Exact search: milliseconds per query, and times as long as raw Faiss",
        columns,
        lines,
        [
            f"Top {K}; medians. faiss: IndexBinaryFlat, by Hamming distance, given as many",
            "threads; one query keeps it to one. Both ratios are to it.",
        ],
    )
    report.add("grid", table, seconds=seconds)
