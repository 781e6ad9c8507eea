"""Local against Ray: the same files, the same model, workers on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from bittern.benchmarks.speed.report import Table, say
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.items import Embedded
from bittern.service.ingest.report import new_stages
from bittern.service.jobs.ray import cluster, embed_on_ray
from bittern.service.models.loaded import Model
from bittern.types import MediaItem


@dataclass(frozen=True)
class Engines:
    """Seconds, after everything is loaded.

    Attributes:
        items: files.
        local_s: one process, all cores.
        ray_s: `workers` workers, from the first unit out to the last embedding back, their
            start and the loading of their networks included.
        first_s: of these, until the first embedding was back.
        workers: processes.
        differing_bits: share of the codes' bits that differ.
    """

    items: int
    local_s: float
    ray_s: float
    first_s: float
    workers: int
    differing_bits: float

    def table(self) -> Table:
        """For people."""
        rest = self.ray_s - self.first_s
        rows = [
            ["one process", f"{self.local_s:.1f}", f"{self.items / self.local_s:.1f}", "1.00"],
            [
                f"Ray, {self.workers} workers",
                f"{self.ray_s:.1f}",
                f"{self.items / self.ray_s:.1f}",
                f"{self.local_s / self.ray_s:.2f}",
            ],
        ]
        return Table(
            f"Local against Ray on this machine, {self.items} photographs",
            ["", "seconds", "items /s", "ratio"],
            rows,
            [
                f"Of Ray's seconds {self.first_s:.1f} passed before the first unit was back: "
                f"workers start and load their networks; the rest took {rest:.1f} s.",
                f"Share of bits that differ between the two: {self.differing_bits:.2e}.",
            ],
        )

    def to_json(self) -> dict[str, Any]:
        """Every number."""
        return asdict(self)


def measure_engines(model: Model, items: Sequence[MediaItem], workers: int) -> Engines:
    """Embed the items with both, and compare the codes."""
    say(f"one process: {len(items)} photographs")
    begun = perf_counter()
    local = list(embed_items(model.embedder, items))
    local_s = perf_counter() - begun
    say(f"Ray with {workers} workers")
    found: list[Embedded] = []
    first_s = 0.0
    with cluster(workers):
        begun = perf_counter()
        for one in embed_on_ray(
            model.embedder, items, new_stages(), saved=model.saved, workers=workers
        ):
            first_s = first_s or perf_counter() - begun
            found.append(one)
        ray_s = perf_counter() - begun
    flips = np.mean([_flips(model, a, b) for a, b in zip(local, found, strict=True)])
    return Engines(len(items), local_s, ray_s, first_s, workers, float(flips))


def _flips(model: Model, one: Embedded, other: Embedded) -> float:
    from bittern.encoders.base import Modality

    assert one.item is not None
    modality = Modality(one.item.modality)
    codes = [model.codes(modality, each.stacked()) for each in (one, other)]
    return float(np.unpackbits(codes[0] ^ codes[1]).mean())
