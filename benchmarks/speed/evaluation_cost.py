"""What an evaluation costs beside the search that it needs: time, and memory.

An evaluation places all relevant items, ties told, and computes measures under every rule for
ties; the bare search only finds the nearest codes, and forgets them. Both are asked the same
queries in turns, in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.measures import Tie, measure
from bittern.benchmarks.eval.ranking import Limits, Searched, Settings, rank
from bittern.benchmarks.eval.systems.base import Metric
from bittern.benchmarks.eval.tasks import Relevance
from bittern.benchmarks.speed.memory import MIB, peak_memory
from bittern.benchmarks.speed.report import Report, Table, say
from bittern.benchmarks.speed.search.codes import SPECIES_APART, SPECIES_PER_GENUS, flips, soft
from bittern.benchmarks.speed.timing import Rounds
from bittern.hashing.codes import pack, unpack
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.scans import give_back_freed

MEASURES = ("AP_hits@{k}", "AP_minR@{k}", "P@10", "hit@10")
METRICS: tuple[Metric, ...] = ("symmetric", "asymmetric")
_ROWS_PER_SPECIES = 100
_NOISE = 0.3
"""Share of a code's bits that differ from its species: so many that species overlap, and the
ties at the depth are of the right and the wrong.
"""


@dataclass(frozen=True)
class Size:
    """How large the problem is.

    Attributes:
        queries: how many.
        rows: codes that are searched.
        bits: their length.
        depth: how deep is ranked.
        rounds: turns of each.
    """

    queries: int = 100_000
    rows: int = 1_000_000
    bits: int = 256
    depth: int = 100
    rounds: int = 1

    @classmethod
    def quick(cls) -> Size:
        """Seconds instead of most of an hour."""
        return cls(queries=2_000, rows=100_000, rounds=5)


@dataclass(frozen=True)
class Species:
    """Codes around species, as `search.codes` draws them, and which are relevant.

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
        genera = rng.integers(0, 256, (count // SPECIES_PER_GENUS, size.bits // 8), dtype=np.uint8)
        species = genera[rng.integers(0, len(genera), count)]
        species ^= flips(rng, count, size.bits, SPECIES_APART)
        of_rows = rng.integers(0, count, size.rows).astype(np.int32)
        codes = species[of_rows]
        codes ^= flips(rng, size.rows, size.bits, _NOISE)
        # Of a species that there are codes of.
        asked = of_rows[rng.integers(0, size.rows, size.queries)]
        return cls(codes, soft(rng, species[asked]), Relevance.by_class(asked, of_rows))


class Logits:
    """A system whose embeddings are logits."""

    metrics = METRICS
    digest = ""

    def __init__(self, bits: int) -> None:
        self.bits: int | None = bits
        self.bytes_per_row = bits / 8

    def store(self, embeddings: NDArray[np.float32]) -> NDArray[Any]:
        """Codes."""
        return pack(embeddings)

    def ask(self, embeddings: NDArray[np.float32], metric: Metric) -> Queries:
        """Queries by either distance."""
        if metric == "symmetric":
            return Queries.of_codes(pack(embeddings))
        return Queries.of_logits(embeddings)

    def distances(self, asked: Queries, stored: NDArray[Any], first: int, last: int) -> Any:
        """See `Fitted.distances`."""
        found = np.stack([asked[query].distances(0, stored) for query in range(first, last)])
        return found.astype(np.int32) if asked.metric == "hamming" else found


class Signs:
    """Rows whose embeddings are the signs of codes, made a tile at a time."""

    failed: Sequence[tuple[int, str]] = ()
    digest = ""

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        self._codes = codes
        self.dim = codes.shape[1] * 8
        self.owners = np.arange(len(codes), dtype=np.int64)
        self.spans = np.broadcast_to(np.float32(np.nan), (len(codes), 2))

    def __len__(self) -> int:
        return len(self._codes)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """See `EmbeddedRows.tiles`."""
        for first in range(0, len(self), rows):
            yield first, self.read(np.arange(first, min(first + rows, len(self))))

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `EmbeddedRows.read`."""
        return unpack(self._codes[rows]).astype(np.float32) - np.float32(0.5)


@dataclass(frozen=True)
class _Taken:
    """Of one metric: seconds of both, and bytes by which the process grew at most."""

    seconds: Rounds
    search_bytes: int
    evaluation_bytes: int
    values: dict[str, float]


def run(size: Size | None = None) -> Report:
    """Measure on drawn codes, by both distances."""
    size = size or Size()
    say(f"{size.rows:,} codes of {size.bits} bits, {size.queries:,} queries")
    species = Species.drawn(size)
    taken = {metric: _measured(species, size, metric) for metric in METRICS}
    rows = [_cells(metric, one, size) for metric, one in taken.items()]
    names = ", ".join(_names(size))
    table = Table(
        "evaluation beside the bare search",
        ("", "search ms/query", "evaluation ms/query", "ratio", "search MiB", "evaluation MiB"),
        rows,
        [
            f"evaluation: {names}, each under {len(get_args(Tie))} rules for ties",
            "search: the same engine and batches; what it finds is thrown away",
            "MiB: growth of the process at most, codes, queries and relevance not included; "
            "the evaluation's codes, which it keeps a copy of, are",
        ],
    )
    return Report(
        "evaluation",
        f"{size.queries:,} queries, {size.rows:,} codes of {size.bits} bits, depth {size.depth}, "
        f"{size.rounds} rounds",
        [table],
        {
            "size": vars(size),
            "metrics": {
                metric: {
                    "seconds": one.seconds.to_json(),
                    "ratio": one.seconds.ratio("evaluation", "search").to_json(),
                    "search_bytes": one.search_bytes,
                    "evaluation_bytes": one.evaluation_bytes,
                    "values": one.values,
                }
                for metric, one in taken.items()
            },
        },
    )


def _measured(species: Species, size: Size, metric: Metric) -> _Taken:
    fitted, limits = Logits(size.bits), Limits()
    blocks = CodeBlocks.of(np.arange(size.rows, dtype=np.int64), species.codes)
    engine = FlatEngine(blocks)
    engine.search(fitted.ask(species.logits[:64], metric), size.depth)
    values: dict[str, float] = {}

    def search() -> float:
        begun = perf_counter()
        for first in range(0, size.queries, limits.batch):
            engine.search(
                fitted.ask(species.logits[first : first + limits.batch], metric), size.depth
            )
        return perf_counter() - begun

    def evaluation() -> float:
        searched = Searched(Signs(species.codes), size.rows, species.relevance)
        settings = Settings(depth=size.depth, keep=10, limits=limits)
        ranking = rank(fitted, species.logits, metric, searched, settings)
        begun = perf_counter()
        for name in _names(size):
            for tie in get_args(Tie):
                values[f"{name} {tie}"] = float(measure(name).of(ranking.places, tie).mean())
        return ranking.seconds + perf_counter() - begun

    seconds: dict[str, list[float]] = {"search": [], "evaluation": []}
    grown = {"search": 0, "evaluation": 0}
    contestants: dict[str, Callable[[], float]] = {"search": search, "evaluation": evaluation}
    for turn in range(size.rounds):
        for name, contestant in contestants.items():
            say(f"{metric}, round {turn + 1}: {name}")
            give_back_freed()
            with peak_memory() as peak:
                seconds[name].append(contestant())
            grown[name] = max(grown[name], peak.growth)
    rounds = Rounds({name: np.array(times) for name, times in seconds.items()})
    return _Taken(rounds, grown["search"], grown["evaluation"], values)


def _cells(metric: str, taken: _Taken, size: Size) -> list[str]:
    return [
        metric,
        taken.seconds.time("search", 1e3 / size.queries).text(".3f"),
        taken.seconds.time("evaluation", 1e3 / size.queries).text(".3f"),
        taken.seconds.ratio("evaluation", "search").text(),
        f"{taken.search_bytes / MIB:,.0f}",
        f"{taken.evaluation_bytes / MIB:,.0f}",
    ]


def _names(size: Size) -> list[str]:
    return [name.format(k=size.depth) for name in MEASURES]


def of_options(
    quick: bool, queries: int | None, rows: int | None, bits: int | None, rounds: int | None
) -> Size:
    """A size with what the command line changes."""
    changed = {"queries": queries, "rows": rows, "bits": bits, "rounds": rounds}
    return replace(
        Size.quick() if quick else Size(), **{name: n for name, n in changed.items() if n}
    )
