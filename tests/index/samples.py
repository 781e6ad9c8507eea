"""Observations, codes and models made up for tests: small, seeded, without media."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.index.archive import Archive
from bittern.index.models import ModelRecord
from bittern.index.observation import CodedObservation
from bittern.types import Observation


def model(name: str = "owl", bits: int = 64) -> ModelRecord:
    digest = hashlib.sha256(f"{name}-{bits}".encode()).hexdigest()
    return ModelRecord(f"{name}-{bits}", digest, bits, name, ("text", "image", "audio"))


OWL = model()
BAT = model("bat", 32)


def code(seed: int, bits: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, bits // 8, dtype=np.uint8)


def photo(
    name: str,
    metadata: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    record: ModelRecord = OWL,
) -> list[CodedObservation]:
    seed = sum(map(ord, name)) if seed is None else seed
    observation = Observation(name, name, "image", f"{name}.jpg", metadata=metadata or {})
    return [CodedObservation(observation, code(seed, record.bits))]


def recording(
    name: str,
    windows: int,
    metadata: Mapping[str, Any] | None = None,
    *,
    seconds: int = 3,
    seed: int = 0,
    record: ModelRecord = OWL,
) -> list[CodedObservation]:
    return [
        CodedObservation(
            Observation(
                f"{name}#t={seconds * i},{seconds * (i + 1)}",
                name,
                "audio",
                f"{name}.wav",
                start_s=float(seconds * i),
                end_s=float(seconds * (i + 1)),
                metadata=metadata or {},
            ),
            code(seed + i, record.bits),
        )
        for i in range(windows)
    ]


def build_index(archive: Archive, model: str) -> None:
    """Build the approximate index of a model's codes, as a search that wants one does."""
    [bits] = [record.bits for record in archive.model_records() if record.digest == model]
    archive.search(np.zeros(bits), model=model, k=1, metric="hamming", recall=0.9)
    for thread in threading.enumerate():
        if thread.name == "bittern-build":
            thread.join()


def ids(archive: Archive, where: str | None = None) -> list[str]:
    return [o.id for o in archive.list(page_size=10_000, where=where).observations]


def statuses(results: Sequence[Any]) -> list[str]:
    return [str(result.status) for result in results]
