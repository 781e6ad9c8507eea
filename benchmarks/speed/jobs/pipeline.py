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

from bittern.benchmarks.speed.harness import Ratio, Report, Spread, Table, say, seconds_of
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
    """One kind of media through one model.

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

    def ratio(self) -> Ratio:
        """Items per second of the pipeline, relative to the bare network."""
        rates = Spread.of(np.array(self.bare) / np.array(self.whole))
        what = f"{self.name}: items/s, files to archive"
        return Ratio(what, "bare network", rates, TARGET, at_least=True)

    def possible(self) -> float:
        """The ratio of an ideal schedule on these cores."""
        bare = float(np.median(self.bare))
        network = bare * float(np.median(self.bare_cores))
        return bare / max(bare, (network + self.decoding) / len(os.sched_getaffinity(0)))

    def to_json(self) -> dict[str, Any]:
        """All numbers."""
        return {
            "name": self.name,
            "model": self.model.card.name,
            "files": len(self.items),
            "media": self.media,
            "bare_s": self.bare,
            "bare_cores": self.bare_cores,
            "decoding_cpu_s": self.decoding,
            "pipeline_s": self.whole,
            "possible": self.possible(),
            "resident_bytes": self.resident,
            "reports": [report.to_json() for report in self.reports],
        }


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
    ratios = [course.ratio() for course in courses]
    rows = []
    for course, ratio in zip(courses, ratios, strict=True):
        count = len(course.items)
        rows.append(
            [
                course.name,
                f"{count} ({course.media})",
                *(f"{count / float(np.median(s)):.2f}" for s in (course.bare, course.whole)),
                ratio.value.text(),
                f"{course.possible():.2f}",
                f"{course.resident / MIB:.0f}" if course.resident else "",
            ]
        )
    table = Table(
        f"Files to archive against the bare network (target: {TARGET} or more)",
        ["course", "files (media)", "bare /s", "files /s", "ratio", "possible", "memory, MiB"],
        rows,
        [
            "possible: what a schedule without gaps would reach on these cores, from the processor",
            "time of the bare network and of decoding. memory: greatest growth while the pipeline",
            "ran in a process of its own, libraries and network loaded before.",
        ],
    )
    stages = Table(
        "Media per second of work of each stage, inside the pipeline",
        ["course", *STAGES],
        [[course.name, *(_rate(course, stage) for stage in STAGES)] for course in courses],
        ["list, read: files; the others: pictures, or windows of recordings. One worker's rate."],
    )
    report.tables += [table, stages]
    report.values["pipeline"] = [course.to_json() for course in courses]
    report.add_targets("pipeline", ratios)


def _rate(course: Course, stage: str) -> str:
    stages = [report.stages[stage] for report in course.reports]
    rate = float(np.median([max(1, one.items) / max(one.busy_s, 1e-9) for one in stages]))
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"


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
        ["", "seconds", "items /s", "ratio"],
        [
            ["one process", f"{local_s:.1f}", f"{count / local_s:.1f}", "1.00"],
            [
                f"Ray, {workers} workers",
                f"{ray_s:.1f}",
                f"{count / ray_s:.1f}",
                f"{local_s / ray_s:.2f}",
            ],
        ],
        [
            f"Of Ray's seconds {first_s:.1f} passed before the first unit was back: "
            f"workers start and load their networks; the rest took {ray_s - first_s:.1f} s.",
            f"Share of bits that differ between the two: {flips:.2e}.",
        ],
    )
    value = {
        "items": count,
        "local_s": local_s,
        "ray_s": ray_s,
        "first_s": first_s,
        "workers": workers,
        "differing_bits": flips,
    }
    report.add("ray", table, value)


def _flips(model: Model, one: Embedded, other: Embedded) -> float:
    assert one.item is not None
    modality = Modality(one.item.modality)
    codes = [model.codes(modality, each.stacked()) for each in (one, other)]
    return float(np.unpackbits(codes[0] ^ codes[1]).mean())
