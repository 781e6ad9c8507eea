"""All measurements of jobs, table by table; a failed table does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bittern.benchmarks.speed.harness import Options, Report, say, short
from bittern.benchmarks.speed.jobs.archives import measure_many_commits, measure_sizes
from bittern.benchmarks.speed.jobs.pipeline import Course, measure_ray, report_courses, run_course
from bittern.benchmarks.speed.jobs.restart import MODULE, measure_restart
from bittern.benchmarks.speed.media import media_of, write_photographs, write_recordings
from bittern.benchmarks.speed.models import RANDOM, loaded_model
from bittern.benchmarks.speed.process import in_fresh_process

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
    """Measure every table that the options name."""
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
    with TemporaryDirectory(prefix="bittern-jobs-") as folder:
        measurements = _Measurements(settings, Path(folder), report)
        for table in options.chosen_tables(TABLES):
            report.attempt(table, getattr(measurements, table))
    return report.finish()


class _Measurements:
    """One method per table; they share media."""

    def __init__(self, settings: Settings, folder: Path, report: Report) -> None:
        self._settings = settings
        self._folder = folder
        self._report = report
        self._weights = folder / "weights"

    def pipeline(self) -> None:
        photographs, recordings = self._photographs(), self._folder / "recordings"
        write_recordings(recordings, 1, 3600 * self._settings.hours)
        field = loaded_model("field", self._weights)
        large = loaded_model(RANDOM, self._weights)
        images = media_of(photographs)
        courses = {
            Course("field, photographs", field, images): photographs,
            Course("field, long recording", field, media_of(recordings)): recordings,
            Course(
                "ViT-B/16, photographs", large, images[: self._settings.slow_photographs]
            ): photographs,
        }
        for course, source in courses.items():
            run_course(course, self._folder, self._settings.rounds)
            say(f"{course.name}: memory, in a process of its own")
            target = self._folder / course.file_name("alone")
            name = course.model.embedder.name
            found = in_fresh_process(MODULE, name, self._weights, source, target)
            course.resident = int(found["growth"])
        report_courses(list(courses), self._report)

    def archives(self) -> None:
        settings = self._settings
        measure_sizes(self._folder, settings.sizes, 4 * settings.rounds, self._report)

    def commits(self) -> None:
        measure_many_commits(self._folder, self._settings.commits, self._report)

    def restart(self) -> None:
        source, count = self._photographs(), self._settings.photographs
        measure_restart(source, count, self._folder, self._weights, self._report)

    def ray(self) -> None:
        model = loaded_model("field", self._weights)
        items = media_of(self._photographs())
        measure_ray(model, items, self._settings.workers, self._report)

    def _photographs(self) -> Path:
        folder = self._folder / "photographs"
        if not folder.is_dir():
            say(f"drawing {self._settings.photographs} photographs of 12 megapixels")
            write_photographs(folder, self._settings.photographs)
        return folder
