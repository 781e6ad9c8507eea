"""What coding media costs: per item and stage, and end to end against the bare network.

The pipeline's target is 1.3 times the bare network or less: decoding should hide behind the
network, and hashing and committing should cost little beside it. Also measured: how many bits of
a code depend on its batch. Floats may differ between batch sizes in their last digits, and a
logit that is close to zero may then change its sign.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bittern.benchmarks.speed.harness import (
    Options,
    Report,
    Rounds,
    Spread,
    Table,
    interleaved,
    say,
)
from bittern.benchmarks.speed.media import media_of
from bittern.benchmarks.speed.models import load_embedder, product_model
from bittern.encoders.base import Media, Modality
from bittern.hashing.codes import hamming_distance
from bittern.index.archive import Archive
from bittern.service.engine import Engine
from bittern.service.ingest.embedding import NETWORK_BATCH
from bittern.service.ingest.items import decode
from bittern.service.ingest.report import JobReport
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.indexing import index_source
from bittern.service.models.loaded import Embedder, Model
from bittern.types import MediaItem

ROUNDS = 3
TARGET = 1.3
WARMUP = 1


@dataclass(frozen=True)
class Batch:
    """The items of one modality, decoded.

    Attributes:
        modality: image or audio.
        items: the files.
        media: what the network takes: pictures, or the windows of all recordings.
    """

    modality: Modality
    items: Sequence[MediaItem]
    media: Sequence[Media]


@dataclass(frozen=True)
class Flips:
    """How codes depend on the batch, of one modality.

    Attributes:
        codes: codes that were made both ways.
        bits: length of one.
        flipped: bits that differ, over all codes.
        codes_changed: codes with any bit that differs.
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


class Jobs:
    """What is timed, all with one model that is already loaded.

    Attributes:
        reports: of the indexing runs, by the modalities that they coded.
    """

    def __init__(self, model: Model, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self.reports: dict[str, list[JobReport]] = {}
        model.saved.save(folder / "model")

    def decode(self, batch: Batch) -> None:
        """Decode every item, in one thread."""
        decoded(batch.items, self._model.embedder)

    def network(self, batches: Sequence[Batch]) -> None:
        """The network alone, on decoded media, in batches of the pipeline's size."""
        for batch in batches:
            for start in range(0, len(batch.media), NETWORK_BATCH):
                self._model.embedder.embed(
                    batch.modality, batch.media[start : start + NETWORK_BATCH]
                )

    def index(self, batches: Sequence[Batch]) -> None:
        """Files to a new archive: decode, network, hash, commit."""
        name = "+".join(str(batch.modality) for batch in batches)
        reports = self.reports.setdefault(name, [])
        options = IndexOptions(model=str(self._folder / "model"))
        with Archive.create(self._folder / f"{name}-{len(reports)}") as archive:
            engine = Engine(archive, load_encoder=lambda name: self._model.embedder.encoder())
            items = [item for batch in batches for item in batch.items]
            reports.append(index_source(engine, items, options))


def run(options: Options) -> Report:
    """Measure a manifest's media with an encoder.

    Raises:
        SourceNotFoundError, ManifestError, WeightsMissingError, MediaError: unusable input.
    """
    rounds = options.rounds or ROUNDS
    embedder = load_embedder(options.encoder)
    batches = _batches(options.manifest, embedder)
    model = product_model(
        embedder, lambda: {str(b.modality): embedder.embed(b.modality, b.media) for b in batches}
    )
    with tempfile.TemporaryDirectory() as folder:
        jobs = Jobs(model, Path(folder))
        say(f"coding everything in {WARMUP + rounds} rounds")
        times = interleaved(_contestants(jobs, batches), rounds=rounds, warmup=WARMUP)
    say("coding one by one, and in batches")
    media = {batch.modality: batch.media for batch in batches}
    if Modality.TEXT in model.modalities:
        media[Modality.TEXT] = _words(batches)
    flips = {str(modality): flipped_bits(model, modality, media[modality]) for modality in media}
    sizes = ", ".join(f"{len(b.items)} {b.modality} items ({len(b.media)} media)" for b in batches)
    names = [name.removeprefix("index ") for name in times.seconds if name.startswith("index ")]
    ratios = {name: times.ratio(f"index {name}", f"network {name}") for name in names}
    return Report(
        "encode",
        f"{options.manifest}: {sizes}; model {model.card.name}, batches of {NETWORK_BATCH}, "
        f"{rounds} rounds after {WARMUP} to warm up",
        [_stages(batches, times, jobs), _ratios(times, ratios), _flips_table(flips)],
        {
            "seconds": times.to_json(),
            "ratios": {name: ratio.to_json() for name, ratio in ratios.items()},
            "flips": {name: asdict(one) | {"rate": one.rate} for name, one in flips.items()},
        },
    )


def _batches(manifest: Path, embedder: Embedder) -> list[Batch]:
    items = media_of(manifest)
    batches = []
    for modality in (Modality.IMAGE, Modality.AUDIO):
        chosen = [item for item in items if item.modality == modality]
        if chosen and modality in embedder.encoder().modalities:
            batches.append(Batch(modality, chosen, decoded(chosen, embedder)))
    return batches


def decoded(items: Sequence[MediaItem], embedder: Embedder) -> list[Media]:
    """Pictures, or the windows of recordings, in order."""
    return [one.data for item in items for one in decode(item, embedder.windowing)]


def _words(batches: Sequence[Batch]) -> list[Media]:
    """Names that the manifest gives, as texts."""
    names = (item.metadata.get("vernacularName") for b in batches for item in b.items)
    return sorted({str(name) for name in names if name}) or ["a bird"]


def flipped_bits(model: Model, modality: Modality, media: Sequence[Media]) -> Flips:
    """Code media one by one, and in batches of the pipeline's size, and compare."""
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


def _contestants(jobs: Jobs, batches: Sequence[Batch]) -> dict[str, Callable[[], object]]:
    contestants: dict[str, Callable[[], object]] = {}
    for batch in batches:
        contestants[f"decode {batch.modality}"] = partial(jobs.decode, batch)
        contestants[f"network {batch.modality}"] = partial(jobs.network, [batch])
        contestants[f"index {batch.modality}"] = partial(jobs.index, [batch])
    if len(batches) > 1:
        contestants["network all"] = partial(jobs.network, batches)
        contestants["index all"] = partial(jobs.index, batches)
    return contestants


def _stages(batches: Sequence[Batch], times: Rounds, jobs: Jobs) -> Table:
    rows = []
    for batch in batches:
        name, count = str(batch.modality), len(batch.items)
        stages = [report.stages for report in jobs.reports[name][WARMUP:]]
        inside = (
            [one["hash"].busy_s for one in stages],
            [one["commit"].busy_s for one in stages],
            [one["network"].waited_s for one in stages],
        )
        medians = [
            *(times.time(f"{what} {name}").median for what in ("decode", "network")),
            *(float(np.median(seconds)) for seconds in inside),
            times.time(f"index {name}").median,
        ]
        cells = [f"{seconds * 1e3 / count:.1f}" for seconds in medians]
        rows.append([name, f"{len(batch.media) / count:.1f}", *cells])
    reports = [report for runs in jobs.reports.values() for report in runs]
    refused = sorted({failure.message for report in reports for failure in report.failures})
    return Table(
        "Milliseconds per item, medians",
        ["items", "media", "decode", "network", "hash", "commit", "waited", "index"],
        rows,
        [
            "decode: one thread, alone. network: alone, on media decoded before. hash, commit,",
            "waited (for a decoded item): inside index, which does all of it, files to archive.",
            *(f"Not stored: {reason}" for reason in refused),
        ],
    )


def _ratios(times: Rounds, ratios: Mapping[str, Spread]) -> Table:
    rows = [
        [name, *(times.time(f"{what} {name}").text() for what in ("index", "network")), one.text()]
        for name, one in ratios.items()
    ]
    return Table(
        f"Files to archive, against the network alone (target: {TARGET} or less)",
        ["items", "index, s", "network, s", "ratio"],
        rows,
        ["Medians over the rounds (with quartiles); each round's two runs follow each other."],
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
