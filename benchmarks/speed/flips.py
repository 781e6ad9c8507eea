"""How many bits of a code depend on the batch that it was made in.

Floats may differ between batch sizes in their last digits, and a logit that is close to zero
may then change its sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bittern.benchmarks.speed.report import Table
from bittern.encoders.base import Media, Modality
from bittern.hashing.codes import hamming_distance
from bittern.service.ingest.embedding import NETWORK_BATCH
from bittern.service.models.loaded import Model


@dataclass(frozen=True)
class Flips:
    """Of one modality.

    Attributes:
        codes: codes that were made both ways.
        bits: length of one.
        flipped: bits that differ, over all codes.
        changed: codes with any bit that differs.
        largest: largest difference of a coordinate of an embedding.
    """

    codes: int
    bits: int
    flipped: int
    changed: int
    largest: float


@dataclass(frozen=True)
class FlipsByModality:
    """Of every modality."""

    found: Mapping[str, Flips]

    def table(self) -> Table:
        """For people."""
        rows = [
            [
                name,
                str(f.codes),
                f"{f.flipped} of {f.codes * f.bits}",
                f"{f.flipped / (f.codes * f.bits):.1e}",
                str(f.changed),
                f"{f.largest:.1e}",
            ]
            for name, f in self.found.items()
        ]
        return Table(
            f"Bits that flip between batches of 1 and of {NETWORK_BATCH}",
            ["modality", "codes", "flipped bits", "rate", "codes changed", "embeddings differ by"],
            rows,
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            name: {
                "codes": f.codes,
                "bits": f.bits,
                "flipped": f.flipped,
                "rate": f.flipped / (f.codes * f.bits),
                "codes_changed": f.changed,
                "largest_difference": f.largest,
            }
            for name, f in self.found.items()
        }


def flipped_bits(model: Model, pieces: Mapping[Modality, Sequence[Media]]) -> FlipsByModality:
    """Code the pieces of each modality one by one, and in batches of the pipeline's size."""
    return FlipsByModality({str(m): _flips(model, m, pieces[m]) for m in pieces})


def _flips(model: Model, modality: Modality, pieces: Sequence[Media]) -> Flips:
    single, batched = (
        np.concatenate(
            [
                model.embed(modality, pieces[start : start + size])
                for start in range(0, len(pieces), size)
            ]
        )
        for size in (1, NETWORK_BATCH)
    )
    one, many = model.codes(modality, single), model.codes(modality, batched)
    differing = np.array(
        [int(hamming_distance(a[None], b[None])[0, 0]) for a, b in zip(one, many, strict=True)]
    )
    return Flips(
        codes=len(one),
        bits=model.card.bits,
        flipped=int(differing.sum()),
        changed=int(np.count_nonzero(differing)),
        largest=float(np.abs(single - batched).max()),
    )
