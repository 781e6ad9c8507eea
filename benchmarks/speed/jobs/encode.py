"""Cost of encoding a manifest's media, and bits of codes that depend on the batch.

The whole pipeline is compared with the bare network. Floats may differ between batch sizes in their
last digits, which may change the sign of a logit close to zero.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bittern.benchmarks.speed.harness import Options, Report, Table, say
from bittern.benchmarks.speed.jobs.pipeline import Course, decoded, report_courses, run_course
from bittern.benchmarks.speed.media import media_of
from bittern.benchmarks.speed.models import load_embedder, product_model
from bittern.encoders.base import Media, Modality
from bittern.hashing.codes import hamming_distance
from bittern.service.ingest.embedding import NETWORK_BATCH
from bittern.service.models.model import Model

ROUNDS = 3


@dataclass(frozen=True)
class Flips:
    """Dependence of one modality's codes on the batch.

    Attributes:
        codes: number of codes.
        bits: their length.
        flipped: differing bits of all codes.
        codes_changed: codes with a differing bit.
        largest_difference: of a coordinate of an embedding.
    """

    codes: int
    bits: int
    flipped: int
    codes_changed: int
    largest_difference: float

    @property
    def rate(self) -> float:
        """Share of the bits that flip."""
        return self.flipped / (self.codes * self.bits)


def run(options: Options) -> Report:
    """Measure a manifest's media with an encoder.

    Raises:
        SourceNotFoundError, ManifestError, WeightsMissingError, MediaError: unusable input.
    """
    embedder = load_embedder(options.encoder)
    items = media_of(options.manifest)
    towers = embedder.encoder().modalities
    chosen = {m: [i for i in items if i.modality == m] for m in (Modality.IMAGE, Modality.AUDIO)}
    media = {m: decoded(chosen[m], embedder) for m in chosen if chosen[m] and m in towers}
    model = product_model(
        embedder, lambda: {str(m): embedder.embed(m, some) for m, some in media.items()}
    )
    rounds = options.rounds or ROUNDS
    sizes = ", ".join(f"{len(chosen[m])} {m} items ({len(media[m])} media)" for m in media)
    report = Report(
        "encode",
        f"{options.manifest}: {sizes}; model {model.card.name}, batches of {NETWORK_BATCH}, "
        f"{rounds} rounds",
    )
    courses = [Course(str(modality), model, chosen[modality]) for modality in media]
    with tempfile.TemporaryDirectory() as folder:
        for course in courses:
            run_course(course, Path(folder), rounds)
    report_courses(courses, report)
    say("encoding one by one, and in batches")
    if Modality.TEXT in model.modalities:
        names = {str(item.metadata.get("vernacularName") or "a bird") for item in items}
        media[Modality.TEXT] = sorted(names)
    flips = {str(modality): flipped_bits(model, modality, some) for modality, some in media.items()}
    report.add("flips", _flips_table(flips), {name: asdict(one) for name, one in flips.items()})
    return report


def flipped_bits(model: Model, modality: Modality, media: Sequence[Media]) -> Flips:
    """Encode media one by one, and in batches of the pipeline's size, and compare."""
    single, batched = (
        np.concatenate(
            [
                model.embed(modality, media[start : start + size])
                for start in range(0, len(media), size)
            ]
        )
        for size in (1, NETWORK_BATCH)
    )
    one, many = model.codes(modality, single), model.codes(modality, batched)
    differing = np.diagonal(hamming_distance(one, many))
    return Flips(
        codes=len(one),
        bits=model.card.bits,
        flipped=int(differing.sum()),
        codes_changed=int(np.count_nonzero(differing)),
        largest_difference=float(np.abs(single - batched).max()),
    )


def _flips_table(flips: Mapping[str, Flips]) -> Table:
    rows = [
        [
            name,
            str(one.codes),
            f"{one.flipped} of {one.codes * one.bits}",
            f"{one.rate:.1e}",
            str(one.codes_changed),
            f"{one.largest_difference:.1e}",
        ]
        for name, one in flips.items()
    ]
    return Table(
        f"Bits that flip between batches of 1 and of {NETWORK_BATCH}",
        ["modality", "codes", "flipped bits", "rate", "codes changed", "embeddings differ by"],
        rows,
    )
