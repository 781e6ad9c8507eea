"""Archives for measuring: written in bulk, past the checks of every single observation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bittern.benchmarks.speed.search.codes import MOST_SPECIES, Collection
from bittern.index.archive import Archive
from bittern.index.lookups import make_lookups
from bittern.index.models import ModelRecord
from bittern.index.observation import CodedObservation
from bittern.index.store import TABLE, Store
from bittern.types import Observation

_COMMIT_ROWS = 1 << 20
_READ_BYTES = 8 << 20


def model_of(bits: int) -> ModelRecord:
    """A model that made the codes."""
    return ModelRecord("benchmark", f"{bits:064x}", bits, "benchmark", ("image", "text"))


def write_archive(folder: Path, collection: Collection) -> None:
    """An archive of photographs with a species each, in large commits, indexed for look-ups.

    As a writer leaves it that has compacted it.
    """
    import lancedb

    record = model_of(collection.bits)
    with Archive.create(folder) as archive:
        archive.register_model(record, {"model.json": b"{}"})
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
    """Items to add: one photograph per code, with identifiers that nothing else has."""
    found = []
    for number, code in enumerate(codes):
        key = f"urn:benchmark:{name}:{number}"
        observation = Observation(key, key, "image", key, metadata={"scientificName": name})
        found.append([CodedObservation(observation, code)])
    return found


def files_of(path: Path) -> Iterator[Path]:
    """All files in a folder, or the file itself."""
    if path.is_file():
        yield path
    else:
        yield from sorted(p for p in path.rglob("*") if p.is_file())


def read_once(path: Path) -> int:
    """Read a file, or all files of a folder, from beginning to end; returns how many bytes."""
    buffer = bytearray(_READ_BYTES)
    total = 0
    for file in files_of(path):
        with file.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                total += count
    return total


def forget(path: Path) -> None:
    """Have the system drop what it has cached of a file or a folder, where it can."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in files_of(path):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
