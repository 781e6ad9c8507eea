"""All measurements of jobs, part after part; what fails is said, and the rest goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from bittern.benchmarks.speed.jobs.archives import measure_sizes
from bittern.benchmarks.speed.jobs.engines import measure_engines
from bittern.benchmarks.speed.jobs.media import write_photographs, write_recordings
from bittern.benchmarks.speed.jobs.models import RANDOM, loaded_model
from bittern.benchmarks.speed.jobs.pipeline import (
    Course,
    courses_to_json,
    pipeline_table,
    run_course,
    stage_table,
)
from bittern.benchmarks.speed.jobs.restart import measure_restart
from bittern.benchmarks.speed.jobs.upkeep import measure_upkeep
from bittern.benchmarks.speed.report import Report, Table, say
from bittern.benchmarks.speed.search.ratio import Ratio, ratio_table, short
from bittern.service.sources import read_source
from bittern.types import MediaItem

PARTS = ("pipeline", "archives", "upkeep", "restart", "engines")


@dataclass(frozen=True)
class Settings:
    """Sizes.

    Attributes:
        photographs: of 12 megapixels, for `field`.
        slow_photographs: likewise, for the larger network.
        hours: length of each recording.
        recordings: how many.
        sizes: rows of archives.
        commits: of `upkeep`.
        rounds: timed turns.
        workers: of Ray.
        parts: which of `PARTS`.
    """

    photographs: int = 128
    slow_photographs: int = 64
    hours: float = 1.0
    recordings: int = 1
    sizes: Sequence[int] = (10_000, 100_000, 1_000_000)
    commits: int = 10_000
    rounds: int = 3
    workers: int = 2
    parts: Sequence[str] = PARTS

    @classmethod
    def quick(cls) -> Settings:
        """A glance: a minute or two."""
        return cls(32, 16, 0.05, 1, (1_000, 10_000), 200, 1)


@dataclass
class _Results:
    tables: list[Table] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    wanted: list[Ratio] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def attempt(self, what: str, part: Callable[[], None]) -> None:
        begun = perf_counter()
        try:
            part()
        except Exception as error:
            self.failed.append(f"{what} failed: {type(error).__name__}: {error}")
            say(self.failed[-1])
        self.values.setdefault("seconds", {})[what] = round(perf_counter() - begun, 1)


def run(settings: Settings) -> Report:
    """Measure everything that the settings name."""
    os.environ.setdefault("LANCEDB_LOG", "error")
    results = _Results()
    with TemporaryDirectory(prefix="bittern-jobs-") as place:
        work = _Work(settings, Path(place), results)
        for part in settings.parts:
            results.attempt(part, getattr(work, part))
    if results.wanted:
        results.tables.insert(0, ratio_table("Ratios", results.wanted, results.failed))
    elif results.failed:
        results.tables.append(Table("Failed", [""], [[line] for line in results.failed]))
    results.values["ratios"] = [ratio.to_json() for ratio in results.wanted]
    results.values["failed"] = results.failed
    size = (
        f"{settings.photographs} photographs of 12 megapixels ({settings.slow_photographs} for "
        f"the larger network), {settings.recordings} recording of {settings.hours:g} h, archives "
        f"of {', '.join(map(short, settings.sizes))} rows, {settings.commits} commits, "
        f"{settings.rounds} rounds"
    )
    return Report("jobs", size, results.tables, results.values)


class _Work:
    """The parts, which share media."""

    def __init__(self, settings: Settings, folder: Path, results: _Results) -> None:
        self._settings = settings
        self._folder = folder
        self._results = results
        self._weights = folder / "weights"

    def _photographs(self) -> Path:
        place = self._folder / "photographs"
        if not place.is_dir():
            say(f"drawing {self._settings.photographs} photographs of 12 megapixels")
            write_photographs(place, self._settings.photographs)
        return place

    def _recordings(self) -> Path:
        place = self._folder / "recordings"
        if not place.is_dir():
            write_recordings(place, self._settings.recordings, 3600 * self._settings.hours)
        return place

    def pipeline(self) -> None:
        """Files to archive against the bare network."""
        settings = self._settings
        photographs, recordings = _items(self._photographs()), _items(self._recordings())
        field_model = loaded_model("field", self._weights)
        courses = [
            Course("field, photographs", field_model, photographs),
            Course("field, long recording", field_model, recordings),
        ]
        large = photographs[: settings.slow_photographs]
        courses.append(Course("ViT-B/16, photographs", loaded_model(RANDOM, self._weights), large))
        for course, source in zip(
            courses, (self._photographs(), self._recordings(), self._photographs()), strict=True
        ):
            run_course(course, self._folder, settings.rounds)
            course.resident = self._growth(course, source)
        self._results.wanted += [course.ratio() for course in courses]
        self._results.tables += [pipeline_table(courses), stage_table(courses)]
        self._results.values["pipeline"] = courses_to_json(courses)

    def _growth(self, course: Course, source: Path) -> int:
        say(f"{course.name}: memory, in a process of its own")
        place = self._folder / f"alone-{course.name}".replace(" ", "-").replace("/", "-")
        name = course.model.embedder.name
        command = [
            sys.executable,
            "-m",
            "bittern.benchmarks.speed.jobs.alone",
            name,
            str(self._weights),
        ]
        done = subprocess.run(  # noqa: S603
            [*command, str(source), str(place)], check=True, stdout=subprocess.PIPE, text=True
        )
        return int(json.loads(done.stdout.splitlines()[-1])["growth"])

    def archives(self) -> None:
        """Commits, opening and disk use against the size of the archive."""
        sizes = measure_sizes(self._folder, self._settings.sizes, 4 * self._settings.rounds)
        self._results.wanted += sizes.ratios()
        self._results.tables.append(sizes.table())
        self._results.values["archives"] = sizes.to_json()

    def upkeep(self) -> None:
        """Many small commits."""
        upkeep = measure_upkeep(self._folder, self._settings.commits)
        self._results.wanted += upkeep.ratios()
        self._results.tables.append(upkeep.table())
        self._results.values["upkeep"] = upkeep.to_json()

    def restart(self) -> None:
        """What a kill costs."""
        source = self._photographs()
        restart = measure_restart(source, self._settings.photographs, self._folder, self._weights)
        self._results.tables.append(restart.table())
        self._results.values["restart"] = restart.to_json()

    def engines(self) -> None:
        """Local against Ray."""
        items = _items(self._photographs())
        model = loaded_model("field", self._weights)
        engines = measure_engines(model, items, self._settings.workers)
        self._results.tables.append(engines.table())
        self._results.values["engines"] = engines.to_json()


def _items(folder: Path) -> list[MediaItem]:
    return [entry for entry in read_source(folder) if isinstance(entry, MediaItem)]
