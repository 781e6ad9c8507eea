"""Codes to search, random or real, and archives of them.

Random codes are clustered like those of species. A genus is a random code; a species is its genus
with a share of the bits flipped, an observation its species with another share. Queries are logits
of species with noise, so that some of their bits are wrong.

Real codes are those of `field` for typical embeddings of pictures and sounds; queries are typical
embeddings of words. Beyond the first few thousand, rows repeat these codes with some bits flipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bittern.hashing.codes import pack, unpack
from bittern.hashing.saved_model import SavedModel
from bittern.index.archive import Archive
from bittern.index.engines.queries import Queries
from bittern.index.models import ModelRecord
from bittern.index.observation import CodedObservation
from bittern.index.store import TABLE, Store
from bittern.index.writer import make_lookups
from bittern.types import Metric, Observation

METRICS: tuple[Metric, ...] = ("asymmetric", "hamming")
MOST_SPECIES = 10_000
ROWS_PER_SPECIES = 100
"""At least; more beyond a million rows."""
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
_SHARE_BITS = 8
_COMMIT_ROWS = 1 << 20


@dataclass(frozen=True, eq=False)
class Collection:
    """Codes with row numbers from 0, and queries.

    Attributes:
        name: kind of the codes.
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
        """The first rows of the codes (a view), with the same queries."""
        return Collection(self.name, self.codes[:rows], self.logits)


def clustered(rows: int, bits: int, queries: int = QUERIES, seed: int = SEED) -> Collection:
    """Random codes: 100 or more of each species, and at most 10,000 species."""
    count = max(SPECIES_PER_GENUS, min(MOST_SPECIES, rows // ROWS_PER_SPECIES))
    rng = np.random.default_rng([seed, bits])
    species = drawn_species(rng, count, bits)
    logits = soft(rng, species[rng.integers(0, count, queries)])
    codes = np.empty((rows, bits // 8), dtype=np.uint8)
    for number, start in enumerate(range(0, rows, _CHUNK)):
        block = codes[start : start + _CHUNK]
        chunk = np.random.default_rng([seed, bits, number])
        drawn = species[chunk.integers(0, count, _CHUNK)]
        drawn ^= flips(chunk, _CHUNK, bits, NOISE)
        block[:] = drawn[: len(block)]
    return Collection("clustered", codes, logits)


def drawn_species(rng: np.random.Generator, count: int, bits: int) -> NDArray[np.uint8]:
    """Random codes of species, close to those of their genus: uint8 [count, bits/8]."""
    genera = rng.integers(0, 256, (count // SPECIES_PER_GENUS, bits // 8), dtype=np.uint8)
    species = genera[rng.integers(0, len(genera), count)]
    species ^= flips(rng, count, bits, SPECIES_APART)
    return species


def real(rows: int, bits: int = 256, queries: int = QUERIES, seed: int = SEED) -> Collection:
    """Codes of the shipped model, repeated with flipped bits beyond the first few thousand.

    Raises:
        CodeError: no shipped model of this length.
        ModelDamagedError: its files or those of `field` are damaged.
    """
    from bittern.encoders.field import calibration
    from bittern.errors import CodeError
    from bittern.service.models.fitting import shipped_model

    model = shipped_model(f"field-{bits}")
    if model is None:
        raise CodeError(f"no model of {bits} bits ships with Bittern; take 64, 128 or 256")
    typical = calibration()
    media = [model.hasher.logits(typical[m], m) for m in ("image", "audio")]
    rng = np.random.default_rng([seed, bits])
    chosen = rng.permutation(len(typical["text"]))[:queries]
    logits = model.hasher.logits(typical["text"][chosen], "text")
    return Collection("real", repeated(pack(np.concatenate(media)), rows, rng), logits)


def repeated(codes: NDArray[np.uint8], rows: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The codes, followed by similar ones up to `rows`."""
    found = np.empty((rows, codes.shape[1]), dtype=np.uint8)
    found[: len(codes)] = codes[:rows]
    for start in range(len(codes), rows, _CHUNK):
        block = found[start : start + _CHUNK]
        block[:] = codes[rng.integers(0, len(codes), len(block))]
        block ^= flips(rng, len(block), codes.shape[1] * 8, REPEATED_NOISE)
    return found


def soft(rng: np.random.Generator, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits whose signs are mostly the bits of codes: float32 [n, bits]."""
    signs = 2.0 * unpack(codes) - 1.0
    return (signs + UNCERTAINTY * rng.standard_normal(signs.shape)).astype(np.float32)


def flips(rng: np.random.Generator, rows: int, bits: int, share: float) -> NDArray[np.uint8]:
    """Codes whose bits are 1 with probability `share` (to 1/256): uint8 [rows, bits/8].

    Each binary digit of the share, from the last to the first, sets a random half of the bits or
    clears one.
    """
    found = np.zeros((rows, bits // 8), dtype=np.uint8)
    digits = round(share * 2**_SHARE_BITS)
    for digit in range(_SHARE_BITS):
        half = np.frombuffer(rng.bytes(found.size), dtype=np.uint8).reshape(found.shape)
        if digits >> digit & 1:
            found |= half
        else:
            found &= half
    return found


# Archives


def record_of(bits: int) -> ModelRecord:
    """The model that made the codes."""
    return ModelRecord("benchmark", f"{bits:064x}", bits, "benchmark", ("image", "text"))


def write_archive(folder: Path, collection: Collection, model: SavedModel | None = None) -> None:
    """An archive of photographs with a species each, in large commits, indexed for look-ups.

    Like a compacted archive; written without the checks of single observations. With a model, the
    archive can be searched by words.
    """
    import lancedb

    record, files = record_of(collection.bits), {"model.json": b"{}"}
    if model is not None:
        card, files = model.card, dict(model.files())
        record = ModelRecord(
            card.name, card.digest, card.bits, card.encoder, tuple(sorted(card.towers))
        )
    with Archive.create(folder) as archive:
        archive.register_model(record, files)
        store = archive.path / "store"
    table = lancedb.connect(str(store)).open_table(TABLE)
    for start in range(0, len(collection.codes), _COMMIT_ROWS):
        codes = collection.codes[start : start + _COMMIT_ROWS]
        values = _columns(start, codes, table.version + 1) | {record.code_column: _binary(codes)}
        arrays = [
            values.get(field.name, pa.nulls(len(codes), field.type)) for field in table.schema
        ]
        table.add(pa.table(arrays, schema=table.schema))
    make_lookups(Store(store))


def _columns(start: int, codes: NDArray[np.uint8], version: int) -> dict[str, Any]:
    count = len(codes)
    rows = np.arange(start, start + count)
    names = pc.binary_join_element_wise(pa.scalar("urn:benchmark:"), _texts(rows), "")
    species = pc.binary_join_element_wise(pa.scalar("Species"), _texts(rows % MOST_SPECIES), " ")
    return {
        "row": pa.array(rows),
        "committed": pa.array(np.full(count, version)),
        "id": names,
        "occurrenceID": names,
        "modality": pa.array(["image"]).take(pa.array(np.zeros(count, dtype=np.int64))),
        "media": names,
        "scientificName": species,
    }


def _texts(numbers: NDArray[np.int64]) -> pa.Array:
    return pc.cast(pa.array(numbers), pa.string())


def _binary(codes: NDArray[np.uint8]) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(codes))
    return pa.Array.from_buffers(pa.binary(codes.shape[1]), len(codes), [None, buffer])


def coded(codes: NDArray[np.uint8], name: str) -> list[list[CodedObservation]]:
    """Items to add: one photograph per code, with unique identifiers."""
    found = []
    for number, code in enumerate(codes):
        key = f"urn:benchmark:{name}:{number}"
        observation = Observation(key, key, "image", key, metadata={"scientificName": name})
        found.append([CodedObservation(observation, code)])
    return found
