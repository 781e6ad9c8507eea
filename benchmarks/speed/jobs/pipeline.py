"""The pipeline compared with the bare network, and one process with workers of Ray.

The bare network embeds the same items, decoded before, in batches of the same size. Without a GPU,
decoding and network share the cores, so the pipeline cannot reach the bare network's rate: the
table also gives the rate of an ideal schedule, from the processor time of each.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from bittern.benchmarks.speed.harness import (
    Cell,
    Ratio,
    Report,
    Spread,
    Table,
    say,
    seconds_of,
)
from bittern.benchmarks.speed.process import MIB
from bittern.encoders.base import Media, Modality
from bittern.index.archive import Archive
from bittern.service.ingest.embedding import NETWORK_BATCH, embed_items
from bittern.service.ingest.items import Embedded, decode
from bittern.service.ingest.report import STAGES, JobReport
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.indexing import JobControl, index_source
from bittern.service.jobs.ray import cluster
from bittern.service.local.archive import LocalArchive
from bittern.service.models.model import Embedder, Model
from bittern.types import MediaItem

TARGET = 0.9


@dataclass(eq=False)
class Course:
    """One kind of media through one model, and what was measured.

    Attributes:
        name: for the table.
        model: loaded.
        items: the files.
        bare: seconds of the bare network, per round.
        bare_cores: cores used by the bare network.
        decoding: processor seconds of decoding alone.
        whole: seconds of the pipeline, per round.
        reports: of these rounds.
        resident: largest growth of resident memory in the pipeline, in bytes.
        media: number of pictures or windows.
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
    media: int = 0

    def file_name(self, suffix: object) -> str:
        """A name for its archives."""
        return f"{self.name}-{suffix}".replace(" ", "-").replace("/", "-")

    def possible(self) -> float:
        """The ratio of an ideal schedule on these cores."""
        bare = float(np.median(self.bare))
        network = bare * float(np.median(self.bare_cores))
        return bare / max(bare, (network + self.decoding) / len(os.sched_getaffinity(0)))

    def to_json(self) -> dict[str, Any]:
        """The times of each turn."""
        reports = [report.to_json() for report in self.reports]
        return vars(self) | {"model": self.model.card.name, "items": None, "reports": reports}


def run_course(course: Course, folder: Path, rounds: int) -> None:
    """Measure one course: decode, then bare network and pipeline in turns."""
    say(f"{course.name}: decoding {len(course.items)} files")
    embedder, modality = course.model.embedder, Modality(course.items[0].modality)
    begun = process_time()
    media = decoded(course.items, embedder)
    course.decoding = process_time() - begun
    course.media = len(media)

    def network() -> None:
        for start in range(0, len(media), NETWORK_BATCH):
            embedder.embed(modality, media[start : start + NETWORK_BATCH])

    for turn in range(1 + rounds):
        say(f"{course.name}: turn {turn} of {rounds}")
        cpu = process_time()
        bare = seconds_of(network)
        cores = (process_time() - cpu) / bare
        begun = perf_counter()
        report = index_once(course.model, course.items, folder / course.file_name(turn))
        if turn:
            course.whole.append(perf_counter() - begun)
            course.bare.append(bare)
            course.bare_cores.append(cores)
            course.reports.append(report)


def decoded(items: Sequence[MediaItem], embedder: Embedder) -> list[Media]:
    """Pictures, or the windows of recordings, in order; one thread."""
    return [one.data for item in items for one in decode(item, embedder.windowing)]


def index_once(model: Model, items: Sequence[MediaItem], path: Path) -> JobReport:
    """Index files into a new archive with a loaded model."""
    folder = path.with_suffix(".model")
    model.saved.save(folder)
    with Archive.create(path) as archive:
        engine = LocalArchive(archive, load_encoder=lambda name: model.embedder.encoder())
        return index_source(engine, list(items), IndexOptions(model=str(folder)))


def report_courses(courses: Sequence[Course], report: Report) -> None:
    """Tables and numbers of all courses."""
    lines: list[list[Cell]] = []
    for course in courses:
        count = len(course.items)
        ratio = Spread.of(np.array(course.bare) / np.array(course.whole))
        what = f"{course.name}: items/s, files to archive"
        report.add_targets("pipeline", [Ratio(what, "bare network", ratio, f">= {TARGET}")])
        lines.append(
            [
                course.name,
                f"{count} ({course.media})",
                *(count / float(np.median(seconds)) for seconds in (course.bare, course.whole)),
                ratio,
                course.possible(),
                course.resident / MIB or None,
            ]
        )
    formats = {"bare /s": ".2f", "files /s": ".2f", "ratio": ".2f", "possible": ".2f"}
    table = Table(
        f"Files to archive against the bare network (target: {TARGET} or more)",
        {"course": "", "files (media)": "", **formats, "memory, MiB": ".0f"},
        lines,
        [
            "possible: what a schedule without gaps would reach on these cores, from the processor",
            "time of the bare network and of decoding. memory: greatest growth while the pipeline",
            "ran in a process of its own, libraries and network loaded before.",
        ],
    )
    stages = Table(
        "Media per second of work of each stage, inside the pipeline",
        {"course": "", **dict.fromkeys(STAGES, ",.1f")},
        [[course.name, *(_rate(course, stage) for stage in STAGES)] for course in courses],
        ["list, read: files; the others: pictures, or windows of recordings. One worker's rate."],
    )
    report.add("pipeline", table, stages, courses=[course.to_json() for course in courses])


def _rate(course: Course, stage: str) -> float:
    stages = [report.stages[stage] for report in course.reports]
    return float(np.median([max(1, one.items) / max(one.busy_s, 1e-9) for one in stages]))


def measure_ray(model: Model, items: Sequence[MediaItem], workers: int, report: Report) -> None:
    """Embed items in one process and with workers of Ray on this machine; compare the codes.

    Ray's seconds go from the first unit out to the last embedding back, the start of the workers
    and the loading of their networks included.
    """
    say(f"one process: {len(items)} photographs")
    begun = perf_counter()
    local = list(embed_items(model.embedder, items))
    local_s = perf_counter() - begun
    say(f"Ray with {workers} workers")
    found: list[Embedded] = []
    first_s = 0.0
    with cluster(workers):
        begun = perf_counter()
        control = JobControl(workers=workers)
        for one in control.embed(model.embedder, items, model.saved):
            first_s = first_s or perf_counter() - begun
            found.append(one)
        ray_s = perf_counter() - begun
    flips = float(np.mean([_flips(model, a, b) for a, b in zip(local, found, strict=True)]))
    count = len(items)
    table = Table(
        f"Local against Ray on this machine, {count} photographs",
        {"": "", "seconds": ".1f", "items /s": ".1f", "ratio": ".2f"},
        [
            ["one process", local_s, count / local_s, 1.0],
            [f"Ray, {workers} workers", ray_s, count / ray_s, local_s / ray_s],
        ],
        [
            f"Of Ray's seconds {first_s:.1f} passed before the first unit was back: "
            f"workers start and load their networks; the rest took {ray_s - first_s:.1f} s.",
            f"Share of bits that differ between the two: {flips:.2e}.",
        ],
    )
    report.add("ray", table, first_s=first_s, differing_bits=flips)


def _flips(model: Model, one: Embedded, other: Embedded) -> float:
    assert one.item is not None
    modality = Modality(one.item.modality)
    codes = [model.codes(modality, each.stacked()) for each in (one, other)]
    return float(np.unpackbits(codes[0] ^ codes[1]).mean())
