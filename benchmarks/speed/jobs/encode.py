"""Cost of encoding a manifest's media, and bits of codes that depend on the batch.

The whole pipeline is compared with the bare network. Floats may differ between batch sizes in their
last digits, which may change the sign of a logit close to zero.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bittern.benchmarks.speed.harness import Cell, Options, Report, Table, say
from bittern.benchmarks.speed.inputs import load_embedder, media_of, product_model
from bittern.benchmarks.speed.jobs.pipeline import Course, decoded, report_courses, run_course
from bittern.encoders.base import Media, Modality
from bittern.hashing.codes import hamming_distance
from bittern.service.ingest.embedding import NETWORK_BATCH
from bittern.service.models.model import Model

ROUNDS = 3


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
    columns = {
        **{"modality": "", "codes": "", "bits": ",", "flipped bits": ",", "rate": ".1e"},
        **{"codes changed": "", "embeddings differ by": ".1e"},
    }
    table = Table(
        f"Bits that flip between batches of 1 and of {NETWORK_BATCH}",
        columns,
        [flipped_bits(model, modality, some) for modality, some in media.items()],
    )
    report.add("flips", table)
    return report


def flipped_bits(model: Model, modality: Modality, media: Sequence[Media]) -> list[Cell]:
    """Encode media one by one and in the pipeline's batches, and compare: a row of the table."""
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
    bits, flipped = len(one) * model.card.bits, int(differing.sum())
    changed, largest = int(np.count_nonzero(differing)), float(np.abs(single - batched).max())
    return [str(modality), len(one), bits, flipped, flipped / bits, changed, largest]
