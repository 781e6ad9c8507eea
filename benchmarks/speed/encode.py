"""What coding media costs: per item and stage, and end to end against the bare network.

The pipeline's target is 1.3 times the bare network or less: decoding should hide behind the
network, hashing and committing cost little beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bittern.benchmarks.speed.collection import SAMPLE, load_embedder, media_of
from bittern.benchmarks.speed.flips import flipped_bits
from bittern.benchmarks.speed.models import model_of
from bittern.benchmarks.speed.report import Report, Table, say
from bittern.benchmarks.speed.timing import Rounds, Spread, interleaved
from bittern.encoders.base import Media, Modality
from bittern.index.archive import Archive
from bittern.service.engine import Engine
from bittern.service.ingest.embedding import NETWORK_BATCH
from bittern.service.ingest.items import decode
from bittern.service.ingest.report import JobReport
from bittern.service.jobs.indexing import IndexOptions, index_source
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
        pieces: what the network takes: pictures, or the windows of all recordings.
    """

    modality: Modality
    items: Sequence[MediaItem]
    pieces: Sequence[Media]


class Jobs:
    """What is timed, all with one model that is loaded already.

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
        """The network alone, on decoded pieces, in batches of the pipeline's size."""
        for batch in batches:
            for start in range(0, len(batch.pieces), NETWORK_BATCH):
                pieces = batch.pieces[start : start + NETWORK_BATCH]
                self._model.embedder.embed(batch.modality, pieces)

    def index(self, batches: Sequence[Batch]) -> None:
        """Files to a new archive: decode, network, hash, commit."""
        name = "+".join(str(batch.modality) for batch in batches)
        reports = self.reports.setdefault(name, [])
        place = self._folder / f"{name}-{len(reports)}"
        options = IndexOptions(model=str(self._folder / "model"))
        with Archive.create(place) as archive:
            engine = Engine(archive, load_encoder=lambda name: self._model.embedder.encoder())
            items = [item for batch in batches for item in batch.items]
            reports.append(index_source(engine, list(items), options))


def run(manifest: Path = SAMPLE, encoder: str = "field", *, rounds: int | None = None) -> Report:
    """Measure a manifest's media with an encoder.

    Raises:
        SourceNotFoundError, ManifestError, WeightsMissingError, MediaError: unusable input.
    """
    rounds = rounds or ROUNDS
    embedder = load_embedder(encoder)
    batches = _batches(manifest, embedder)
    model = Model(model_of(embedder, lambda: _embeddings(embedder, batches)), embedder)
    with tempfile.TemporaryDirectory() as folder:
        jobs = Jobs(model, Path(folder))
        say(f"coding everything in {WARMUP + rounds} rounds")
        times = interleaved(_contestants(jobs, batches), rounds=rounds, warmup=WARMUP)
    say("coding one by one, and in batches")
    pieces: dict[Modality, Sequence[Media]] = {b.modality: b.pieces for b in batches}
    if Modality.TEXT in model.modalities:
        pieces[Modality.TEXT] = _words(batches)
    flips = flipped_bits(model, pieces)
    parts = ", ".join(
        f"{len(b.items)} {b.modality} items ({len(b.pieces)} pieces)" for b in batches
    )
    return Report(
        "encode",
        f"{manifest}: {parts}; model {model.card.name}, batches of {NETWORK_BATCH}, "
        f"{rounds} rounds after {WARMUP} to warm up",
        [_stages(batches, times, jobs), _ratios(times), flips.table()],
        {"seconds": times.to_json(), "ratios": _ratio_values(times), "flips": flips.to_json()},
    )


def _batches(manifest: Path, embedder: Embedder) -> list[Batch]:
    items = media_of(manifest)
    towers = embedder.encoder().modalities
    batches = []
    for modality in (Modality.IMAGE, Modality.AUDIO):
        chosen = [item for item in items if item.modality == modality]
        if chosen and modality in towers:
            batches.append(Batch(modality, chosen, decoded(chosen, embedder)))
    return batches


def decoded(items: Sequence[MediaItem], embedder: Embedder) -> list[Media]:
    """Pictures, or the windows of recordings, in order."""
    return [piece.data for item in items for piece in decode(item, embedder.windowing)]


def _embeddings(embedder: Embedder, batches: Sequence[Batch]) -> dict[str, Any]:
    return {str(b.modality): embedder.embed(b.modality, b.pieces) for b in batches}


def _words(batches: Sequence[Batch]) -> list[Media]:
    """Names that the manifest gives, as texts."""
    names = (item.metadata.get("vernacularName") for b in batches for item in b.items)
    return sorted({str(name) for name in names if name}) or ["a bird"]


def _contestants(jobs: Jobs, batches: Sequence[Batch]) -> dict[str, Callable[[], object]]:
    contestants: dict[str, Callable[[], object]] = {}
    for batch in batches:
        name = str(batch.modality)
        contestants[f"decode {name}"] = partial(jobs.decode, batch)
        contestants[f"network {name}"] = partial(jobs.network, [batch])
        contestants[f"index {name}"] = partial(jobs.index, [batch])
    if len(batches) > 1:
        contestants["network all"] = partial(jobs.network, batches)
        contestants["index all"] = partial(jobs.index, batches)
    return contestants


def _stages(batches: Sequence[Batch], times: Rounds, jobs: Jobs) -> Table:
    rows = []
    for batch in batches:
        name = str(batch.modality)
        per_item = 1e3 / len(batch.items)
        reports = jobs.reports[name][WARMUP:]
        cells = [
            times.time(f"decode {name}", per_item),
            times.time(f"network {name}", per_item),
            Spread.of(np.array([r.stages["hash"].busy_s * per_item for r in reports])),
            Spread.of(np.array([r.stages["commit"].busy_s * per_item for r in reports])),
            Spread.of(np.array([r.stages["network"].waited_s * per_item for r in reports])),
            times.time(f"index {name}", per_item),
        ]
        pieces = f"{len(batch.pieces) / len(batch.items):.1f}"
        rows.append([name, pieces, *(f"{cell.median:.1f}" for cell in cells)])
    return Table(
        "Milliseconds per item, medians",
        ["items", "pieces", "decode", "network", "hash", "commit", "waited", "index"],
        rows,
        [
            "decode: one thread, alone. network: alone, on what was decoded before. hash, commit,",
            "waited (for a decoded item): inside index, which does all of it, files to archive.",
            *(f"Not stored: {reason}" for reason in _refused(jobs)),
        ],
    )


def _refused(jobs: Jobs) -> list[str]:
    """Why items did not come into the archive, each reason once."""
    reports = [report for runs in jobs.reports.values() for report in runs]
    return sorted({failure.message for report in reports for failure in report.failures})


def _ratio_values(times: Rounds) -> dict[str, dict[str, float]]:
    names = [name.removeprefix("index ") for name in times.seconds if name.startswith("index ")]
    return {name: times.ratio(f"index {name}", f"network {name}").to_json() for name in names}


def _ratios(times: Rounds) -> Table:
    rows = []
    for name in _ratio_values(times):
        ratio = times.ratio(f"index {name}", f"network {name}")
        rows.append(
            [
                name,
                times.time(f"index {name}").text(),
                times.time(f"network {name}").text(),
                ratio.text(),
            ]
        )
    return Table(
        f"Files to archive, against the network alone (target: {TARGET} or less)",
        ["items", "index, s", "network, s", "ratio"],
        rows,
        ["Medians over the rounds (with quartiles); each round's two runs follow each other."],
    )
