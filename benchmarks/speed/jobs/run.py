"""All measurements of jobs, table by table; a failed table does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from bittern.benchmarks.speed.harness import Options, Report, say, short
from bittern.benchmarks.speed.inputs import (
    RANDOM,
    loaded_model,
    media_of,
    write_photographs,
    write_recording,
)
from bittern.benchmarks.speed.jobs.archives import measure_many_commits, measure_sizes
from bittern.benchmarks.speed.jobs.pipeline import Course, measure_ray, report_courses, run_course
from bittern.benchmarks.speed.jobs.restart import job_alone, measure_restart

TABLES = ("pipeline", "archives", "commits", "restart", "ray")


@dataclass(frozen=True)
class Settings:
    """Sizes.

    Attributes:
        photographs: of 12 megapixels, for `field`.
        slow_photographs: likewise, for the larger network.
        hours: length of the recording.
        sizes: rows of archives.
        commits: small commits.
        rounds: timed turns.
        workers: of Ray.
    """

    photographs: int = 128
    slow_photographs: int = 64
    hours: float = 1.0
    sizes: Sequence[int] = (10_000, 100_000, 1_000_000)
    commits: int = 10_000
    rounds: int = 3
    workers: int = 2


QUICK = Settings(32, 16, 0.05, (1_000, 10_000), 200, 1)
"""A minute or two."""


def run(options: Options) -> Report:
    """Measure every table that the options name.

    Raises:
        InvalidInputError: an unknown table.
    """
    os.environ.setdefault("LANCEDB_LOG", "error")
    settings = QUICK if options.quick else Settings()
    settings = replace(settings, rounds=options.rounds or settings.rounds)
    report = Report(
        "jobs",
        f"{settings.photographs} photographs of 12 megapixels ({settings.slow_photographs} for "
        f"the larger network), a recording of {settings.hours:g} h, archives "
        f"of {', '.join(map(short, settings.sizes))} rows, {settings.commits} commits, "
        f"{settings.rounds} rounds",
    )
    chosen = options.chosen_tables(TABLES)
    with TemporaryDirectory(prefix="bittern-jobs-") as folder:
        measurements = _Measurements(settings, Path(folder), report)
        for table in chosen:
            report.attempt(table, getattr(measurements, table))
    return report.finish()


@dataclass
class _Measurements:
    """One method per table; they share media."""

    settings: Settings
    folder: Path
    report: Report

    def pipeline(self) -> None:
        recordings, weights = self.folder / "recordings", self.folder / "weights"
        recordings.mkdir()
        write_recording(recordings / "long.wav", 3600 * self.settings.hours)
        field, large = loaded_model("field", weights), loaded_model(RANDOM, weights)
        images = media_of(self._photographs)
        few = images[: self.settings.slow_photographs]
        courses = {
            Course("field, photographs", field, images): self._photographs,
            Course("field, long recording", field, media_of(recordings)): recordings,
            Course("ViT-B/16, photographs", large, few): self._photographs,
        }
        for course, source in courses.items():
            run_course(course, self.folder, self.settings.rounds)
            say(f"{course.name}: memory, in a process of its own")
            target = self.folder / course.file_name("alone")
            found = job_alone(course.model.embedder.name, weights, source, target)
            course.resident = int(found["growth"])
        report_courses(list(courses), self.report)

    def archives(self) -> None:
        settings = self.settings
        measure_sizes(self.folder, settings.sizes, 4 * settings.rounds, self.report)

    def commits(self) -> None:
        measure_many_commits(self.folder, self.settings.commits, self.report)

    def restart(self) -> None:
        weights, count = self.folder / "weights", self.settings.photographs
        measure_restart(self._photographs, count, self.folder, weights, self.report)

    def ray(self) -> None:
        model = loaded_model("field", self.folder / "weights")
        measure_ray(model, media_of(self._photographs), self.settings.workers, self.report)

    @cached_property
    def _photographs(self) -> Path:
        say(f"drawing {self.settings.photographs} photographs of 12 megapixels")
        write_photographs(self.folder / "photographs", self.settings.photographs)
        return self.folder / "photographs"
