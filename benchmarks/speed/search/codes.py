"""What is searched: codes around species, and codes of real words.

Drawn codes are clustered as those of species are. A genus is a random code; a species is its
genus with a share of the bits flipped, an observation its species with another. Queries are
species too, as logits of varying certainty, so that some of their bits are wrong.

Real codes are those of the words benchmark (glosses of WordNet's animals and plants, MiniLM,
PCA and a random rotation); queries are the names of their classes. There are few of them:
more rows are the same codes again with some bits flipped, as photographs of one animal are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bittern.hashing.codes import pack, unpack
from bittern.index.engines.queries import Queries
from bittern.types import Metric

METRICS: tuple[Metric, ...] = ("asymmetric", "hamming")
MOST_SPECIES = 10_000
ROWS_PER_SPECIES = 100
"""At the least; beyond a million rows there are more of each."""
SPECIES_PER_GENUS = 5
SPECIES_APART = 0.15
"""Share of a species' bits that differ from its genus."""
NOISE = 0.1
"""Share of an observation's bits that differ from its species."""
UNCERTAINTY = 0.8
"""Standard deviation of a query's logits around +1 and -1."""
REPEATED_NOISE = 0.05
"""Share of the bits that differ where a real code is used again."""
QUERIES = 64
SEED = 0
_CHUNK = 1 << 18
_BINARY_PLACES = 8


@dataclass(frozen=True, eq=False)
class Collection:
    """Codes and what is asked of them. The row of a code is its place.

    Attributes:
        name: what they are.
        codes: uint8 [n, bits/8].
        logits: float32 [q, bits], the queries.
    """

    name: str
    codes: NDArray[np.uint8]
    logits: NDArray[np.float32]

    @property
    def bits(self) -> int:
        """Code length."""
        return int(self.codes.shape[1]) * 8

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Row numbers: int64 [n]."""
        return np.arange(len(self.codes), dtype=np.int64)

    def queries(self, metric: Metric, count: int | None = None) -> Queries:
        """The first `count` queries, or all of them."""
        logits = self.logits[:count]
        return (
            Queries.of_logits(logits) if metric == "asymmetric" else Queries.of_codes(pack(logits))
        )

    def first(self, rows: int) -> Collection:
        """The first rows of the codes, not copied; the same queries."""
        return Collection(self.name, self.codes[:rows], self.logits)


def clustered(rows: int, bits: int, queries: int = QUERIES, seed: int = SEED) -> Collection:
    """Drawn codes: 100 or more of each species, which are 10,000 at the most."""
    count = max(SPECIES_PER_GENUS, min(MOST_SPECIES, rows // ROWS_PER_SPECIES))
    rng = np.random.default_rng([seed, bits])
    genera = rng.integers(0, 256, (count // SPECIES_PER_GENUS, bits // 8), dtype=np.uint8)
    species = genera[rng.integers(0, len(genera), count)]
    species ^= flips(rng, count, bits, SPECIES_APART)
    logits = soft(rng, species[rng.integers(0, count, queries)])
    codes = np.empty((rows, bits // 8), dtype=np.uint8)
    for number, start in enumerate(range(0, rows, _CHUNK)):
        part = codes[start : start + _CHUNK]
        chunk = np.random.default_rng([seed, bits, number])
        drawn = species[chunk.integers(0, count, _CHUNK)]
        drawn ^= flips(chunk, _CHUNK, bits, NOISE)
        part[:] = drawn[: len(part)]
    return Collection("clustered", codes, logits)


def words(rows: int, bits: int, queries: int = QUERIES, seed: int = SEED) -> Collection:
    """Real codes, used again with flipped bits beyond the first few thousand rows.

    Raises:
        SourceNotFoundError, LimitExceededError, InvalidInputError: WordNet cannot be used.
        WeightsMissingError: MiniLM is not installed.
    """
    from bittern.benchmarks.words.data import load
    from bittern.hashing.training_free import fit

    embedded = load()
    hasher = fit(
        "pca", {"item": embedded.items, "query": embedded.queries}, bits, seed=seed, basis=["item"]
    )
    real = pack(hasher.logits(embedded.items, "item"))
    rng = np.random.default_rng([seed, bits])
    chosen = rng.permutation(len(embedded.queries))[:queries]
    logits = hasher.logits(embedded.queries[chosen], "query")
    return Collection("words", repeated(real, rows, rng), logits)


def repeated(codes: NDArray[np.uint8], rows: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Codes, then more like them, `rows` altogether."""
    found = np.empty((rows, codes.shape[1]), dtype=np.uint8)
    found[: len(codes)] = codes[:rows]
    for start in range(len(codes), rows, _CHUNK):
        part = found[start : start + _CHUNK]
        part[:] = codes[rng.integers(0, len(codes), len(part))]
        part ^= flips(rng, len(part), codes.shape[1] * 8, REPEATED_NOISE)
    return found


def soft(rng: np.random.Generator, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits whose signs are mostly the bits of codes: float32 [n, bits]."""
    signs = 2.0 * unpack(codes) - 1.0
    return (signs + UNCERTAINTY * rng.standard_normal(signs.shape)).astype(np.float32)


def flips(rng: np.random.Generator, rows: int, bits: int, share: float) -> NDArray[np.uint8]:
    """Codes whose bits are 1 with probability `share` (to 1/256): uint8 [rows, bits/8].

    Each binary place of the share, from the last to the first, either lets in a random half
    of the bits or keeps a random half.
    """
    found = np.zeros((rows, bits // 8), dtype=np.uint8)
    places = round(share * 2**_BINARY_PLACES)
    for place in range(_BINARY_PLACES):
        half = np.frombuffer(rng.bytes(found.size), dtype=np.uint8).reshape(found.shape)
        if places >> place & 1:
            found |= half
        else:
            found &= half
    return found
