"""Cost of an evaluation compared with its bare search: time and memory.

An evaluation ranks all relevant items and computes measures under every rule for ties; the bare
search only finds the nearest codes. Both take turns with the same queries in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.measures import Tie, measure
from bittern.benchmarks.eval.ranking import Limits, Searched, Settings, rank
from bittern.benchmarks.eval.systems.base import Metric
from bittern.benchmarks.eval.tasks import Relevance
from bittern.benchmarks.speed.codes import SPECIES_PER_GENUS, drawn_species, flips, soft
from bittern.benchmarks.speed.harness import (
    Cell,
    Options,
    Report,
    Rounds,
    Table,
    say,
    seconds_of,
)
from bittern.benchmarks.speed.process import MIB, peak_memory
from bittern.hashing.codes import pack
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.scans import release_memory

MEASURES = ("AP_hits@{k}", "AP_minR@{k}", "P@10", "hit@10")
METRICS: tuple[Metric, ...] = ("symmetric", "asymmetric")
_ROWS_PER_SPECIES = 100
_NOISE = 0.3
"""Share of a code's bits that differ from its species. Species overlap, so that ties at the depth
include relevant and irrelevant rows.
"""


@dataclass(frozen=True)
class Size:
    """Size of the problem.

    Attributes:
        queries: number of queries.
        rows: number of codes.
        bits: their length.
        depth: ranks that are computed.
        rounds: turns of each.
    """

    queries: int = 10_000
    rows: int = 1_000_000
    bits: int = 256
    depth: int = 100
    rounds: int = 1

    @classmethod
    def quick(cls) -> Size:
        """Seconds instead of minutes."""
        return cls(queries=2_000, rows=100_000, rounds=5)


@dataclass(frozen=True)
class Species:
    """Random codes of species, as in `bittern.benchmarks.speed.codes`, and their relevance.

    Attributes:
        codes: uint8 [n, bits/8].
        logits: float32 [q, bits], the queries.
        relevance: a query's species.
    """

    codes: NDArray[np.uint8]
    logits: NDArray[np.float32]
    relevance: Relevance

    @classmethod
    def drawn(cls, size: Size, seed: int = 0) -> Species:
        """A hundred codes of each species, and queries for them."""
        rng = np.random.default_rng([seed, size.bits])
        count = max(SPECIES_PER_GENUS, size.rows // _ROWS_PER_SPECIES)
        species = drawn_species(rng, count, size.bits)
        of_rows = rng.integers(0, count, size.rows).astype(np.int32)
        codes = species[of_rows]
        codes ^= flips(rng, size.rows, size.bits, _NOISE)
        wanted = of_rows[rng.integers(0, size.rows, size.queries)]
        return cls(codes, soft(rng, species[wanted]), Relevance.by_class(wanted, of_rows))


class Logits:
    """A system whose items are codes and whose queries are logits."""

    metrics = METRICS
    digest = ""

    def __init__(self, bits: int) -> None:
        self.bits: int | None = bits
        self.bytes_per_row = bits / 8

    def encode_items(self, embeddings: NDArray[Any]) -> NDArray[Any]:
        """The codes as they are."""
        return embeddings

    def encode_queries(self, embeddings: NDArray[np.float32], metric: Metric) -> Queries:
        """Queries for either distance."""
        if metric == "symmetric":
            return Queries.of_codes(pack(embeddings))
        return Queries.of_logits(embeddings)

    def distances(self, queries: Queries, stored: NDArray[Any], first: int, last: int) -> Any:
        """See `Fitted.distances`."""
        found = np.stack([queries[query].distances(0, stored) for query in range(first, last)])
        return found.astype(np.int32) if queries.metric == "hamming" else found


class CodeRows:
    """Codes as `EmbeddedRows`."""

    failed: Sequence[tuple[int, str]] = ()
    digest = ""

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        self._codes: NDArray[Any] = codes
        self.dim = codes.shape[1] * 8
        self.owners = np.arange(len(codes), dtype=np.int64)
        self.spans = np.broadcast_to(np.float32(np.nan), (len(codes), 2))

    def __len__(self) -> int:
        return len(self._codes)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[Any]]]:
        """See `EmbeddedRows.tiles`."""
        for first in range(0, len(self), rows):
            yield first, self._codes[first : first + rows]

    def read(self, rows: NDArray[np.integer]) -> NDArray[Any]:
        """See `EmbeddedRows.read`."""
        found: NDArray[Any] = self._codes[rows]
        return found


def run(options: Options) -> Report:
    """Measure on random codes, by both distances."""
    size = Size.quick() if options.quick else Size()
    rows, rounds = options.rows or size.rows, options.rounds or size.rounds
    return measure_evaluation(replace(size, rows=rows, rounds=rounds))


def measure_evaluation(size: Size) -> Report:
    """Measure at one size."""
    say(f"{size.rows:,} codes of {size.bits} bits, {size.queries:,} queries")
    species = Species.drawn(size)
    names = [name.format(k=size.depth) for name in MEASURES]
    report = Report(
        "evaluation",
        f"{size.queries:,} queries, {size.rows:,} codes of {size.bits} bits, depth {size.depth}, "
        f"{size.rounds} rounds",
    )
    lines: list[list[Cell]] = []
    measured: dict[str, Any] = {}
    for metric in METRICS:
        values: dict[str, float] = {}
        contestants = {
            "search": _bare_search(species, size, metric),
            "evaluation": _evaluation(species, size, metric, names, values),
        }
        rounds, grown = _in_turns(contestants, size.rounds, str(metric))
        times = [rounds.time(name, 1e3 / size.queries) for name in contestants]
        ratio = rounds.ratio("evaluation", "search")
        lines.append([metric, *times, ratio, *(grown[name] / MIB for name in contestants)])
        measured[metric] = {"seconds": rounds, "bytes": grown, "values": values}
    formats = {"search ms/query": ".3f", "evaluation ms/query": ".3f", "ratio": ".2f"}
    table = Table(
        "evaluation beside the bare search",
        {"": "", **formats, "search MiB": ",.0f", "evaluation MiB": ",.0f"},
        lines,
        [
            f"evaluation: {', '.join(names)}, each under {len(get_args(Tie))} rules for ties",
            "search: the same engine and batches, without ranking and measures",
            "MiB: largest growth of the process, without codes, queries and relevance, but with "
            "the evaluation's copy of the codes",
        ],
    )
    report.add("evaluation", table, **measured)
    return report


def _bare_search(species: Species, size: Size, metric: Metric) -> Callable[[], None]:
    fitted, batch = Logits(size.bits), Limits().batch
    blocks = CodeBlocks.of(np.arange(size.rows, dtype=np.int64), species.codes)
    engine = FlatEngine(blocks)
    engine.search(fitted.encode_queries(species.logits[:64], metric), size.depth)

    def search() -> None:
        for first in range(0, size.queries, batch):
            queries = fitted.encode_queries(species.logits[first : first + batch], metric)
            engine.search(queries, size.depth)

    return search


def _evaluation(
    species: Species, size: Size, metric: Metric, names: Sequence[str], values: dict[str, float]
) -> Callable[[], None]:
    """Ranks and measures; their means are put into `values`."""
    searched = Searched(CodeRows(species.codes), species.relevance)
    settings = Settings(depth=size.depth, keep=10)

    def evaluation() -> None:
        ranking = rank(Logits(size.bits), species.logits, metric, searched, settings)
        for name in names:
            for tie in get_args(Tie):
                values[f"{name} {tie}"] = float(measure(name).of(ranking.ranks, tie).mean())

    return evaluation


def _in_turns(
    contestants: dict[str, Callable[[], None]], rounds: int, what: str
) -> tuple[Rounds, dict[str, int]]:
    """Seconds of each, and the largest growth of the process in bytes."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    grown = dict.fromkeys(contestants, 0)
    for turn in range(rounds):
        for name, contestant in contestants.items():
            say(f"{what}, round {turn + 1}: {name}")
            release_memory()
            with peak_memory() as peak:
                seconds[name].append(seconds_of(contestant))
            grown[name] = max(grown[name], peak.growth)
    return Rounds({name: np.array(times) for name, times in seconds.items()}), grown
