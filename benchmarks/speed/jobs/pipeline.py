"""Files to codes against the bare network: whether anything but the network is in the way.

The bare network embeds the same items, decoded beforehand, in batches of the same size, with
nothing beside it. On a machine without a graphics card decoding and network share the cores, so
the pipeline cannot reach the bare network's rate: the table also says what the best possible
schedule of the same work would reach, from the processor time that each takes by itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from bittern.benchmarks.speed.report import Table, say
from bittern.benchmarks.speed.search.ratio import Ratio
from bittern.benchmarks.speed.timing import Spread
from bittern.encoders.base import Media, Modality
from bittern.index.archive import Archive
from bittern.service.engine import Engine
from bittern.service.ingest.embedding import NETWORK_BATCH
from bittern.service.ingest.items import decode
from bittern.service.ingest.report import STAGES, JobReport
from bittern.service.jobs.indexing import IndexOptions, index_source
from bittern.service.models.loaded import Model
from bittern.types import MediaItem

WANTED = 0.9


@dataclass
class Course:
    """One kind of media through one model.

    Attributes:
        name: for the table.
        model: loaded.
        items: the files.
        bare: seconds of the bare network, per round.
        bare_cores: cores that the bare network kept busy.
        decoding: processor seconds that decoding takes by itself.
        whole: seconds of the pipeline, per round.
        reports: of these rounds.
        resident: greatest growth of resident memory while the pipeline ran, in bytes.
        pieces: what the network takes.
    """

    name: str
    model: Model
    items: Sequence[MediaItem]
    bare: list[float] = field(default_factory=list)
    bare_cores: list[float] = field(default_factory=list)
    decoding: float = 0.0
    whole: list[float] = field(default_factory=list)
    reports: list[JobReport] = field(default_factory=list)
    resident: int = 0
    pieces: int = 0

    @property
    def modality(self) -> Modality:
        """Of all items."""
        return Modality(self.items[0].modality)

    def ratio(self) -> Ratio:
        """Items per second end to end, against the bare network's."""
        rates = np.array(self.bare) / np.array(self.whole)
        what = f"{self.name}: items/s, files to archive"
        return Ratio(what, "bare network", Spread.of(rates), WANTED, at_least=True)

    def possible(self) -> float:
        """The ratio that a schedule without any gap would reach on these cores."""
        network = float(np.median(self.bare)) * float(np.median(self.bare_cores))
        cores = len(os.sched_getaffinity(0))
        best = max(float(np.median(self.bare)), (network + self.decoding) / cores)
        return float(np.median(self.bare)) / best


def run_course(course: Course, folder: Path, rounds: int) -> None:
    """Measure one course: decode, then bare network and pipeline in turns."""
    say(f"{course.name}: decoding {len(course.items)} files")
    embedder = course.model.embedder
    begun = process_time()
    decoded: list[Media] = []
    for item in course.items:
        decoded += [piece.data for piece in decode(item, embedder.windowing)]
    course.decoding = process_time() - begun
    course.pieces = len(decoded)
    embedder.embed(course.modality, decoded[:NETWORK_BATCH])
    for turn in range(1 + rounds):
        say(f"{course.name}: turn {turn} of {rounds}")
        cpu, begun = process_time(), perf_counter()
        for start in range(0, len(decoded), NETWORK_BATCH):
            embedder.embed(course.modality, decoded[start : start + NETWORK_BATCH])
        bare = perf_counter() - begun
        cores = (process_time() - cpu) / bare
        begun = perf_counter()
        name = f"{course.name}-{turn}".replace(" ", "-").replace("/", "-")
        report = index_once(course.model, course.items, folder / name)
        whole = perf_counter() - begun
        if turn:
            course.bare.append(bare)
            course.bare_cores.append(cores)
            course.whole.append(whole)
            course.reports.append(report)


def index_once(model: Model, items: Sequence[MediaItem], place: Path) -> JobReport:
    """Files to a new archive at `place`, by a model that is loaded."""
    folder = place.with_suffix(".model")
    model.saved.save(folder)
    with Archive.create(place) as archive:
        engine = Engine(archive, load_encoder=lambda name: model.embedder.encoder())
        return index_source(engine, list(items), IndexOptions(model=str(folder)))


def pipeline_table(courses: Sequence[Course]) -> Table:
    """What was measured, course by course."""
    rows = []
    for course in courses:
        count = len(course.items)
        bare, whole = float(np.median(course.bare)), float(np.median(course.whole))
        rows.append(
            [
                course.name,
                f"{count} ({course.pieces})",
                f"{count / bare:.2f}",
                f"{count / whole:.2f}",
                course.ratio().value.text(),
                f"{course.possible():.2f}",
                f"{course.resident / 2**20:.0f}" if course.resident else "",
            ]
        )
    return Table(
        f"Files to archive against the bare network (wanted: {WANTED} or more)",
        ["course", "files (pieces)", "bare /s", "files /s", "ratio", "possible", "memory, MiB"],
        rows,
        [
            "possible: what a schedule without gaps would reach on these cores, from the processor",
            "time of the bare network and of decoding. memory: greatest growth while the pipeline",
            "ran in a process of its own, libraries and network loaded before.",
        ],
    )


def stage_table(courses: Sequence[Course]) -> Table:
    """Busy seconds of each stage per item, from the pipeline's own reports."""
    rows = []
    for course in courses:
        cells = []
        for stage in STAGES:
            seconds = [report.stages[stage].busy_s for report in course.reports]
            items = [max(1, report.stages[stage].items) for report in course.reports]
            rate = float(np.median(np.array(items) / np.maximum(np.array(seconds), 1e-9)))
            cells.append(f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}")
        rows.append([course.name, *cells])
    return Table(
        "Things per second of work of each stage, inside the pipeline",
        ["course", *STAGES],
        rows,
        ["list, read: files; the others: pictures, or windows of recordings. One worker's rate."],
    )


def courses_to_json(courses: Sequence[Course]) -> list[dict[str, Any]]:
    """Every single number."""
    return [
        {
            "name": course.name,
            "model": course.model.card.name,
            "files": len(course.items),
            "pieces": course.pieces,
            "bare_s": course.bare,
            "bare_cores": course.bare_cores,
            "decoding_cpu_s": course.decoding,
            "pipeline_s": course.whole,
            "possible": course.possible(),
            "resident_bytes": course.resident,
            "reports": [report.to_json() for report in course.reports],
        }
        for course in courses
    ]
