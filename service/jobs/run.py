"""Runs a job, and writes its report."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from time import monotonic

from bittern.errors import BitternError, PreconditionError
from bittern.files import check_inside
from bittern.index.archive import Archive
from bittern.index.folder import ArchiveFolder
from bittern.service.ingest.precomputed import Precomputed
from bittern.service.ingest.report import Cancelled, JobReport, OnProgress, never
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.encoding import encode_source
from bittern.service.jobs.indexing import JobControl, index_source
from bittern.service.jobs.model_choice import load_first
from bittern.service.local.archive import LocalArchive
from bittern.service.models.model import Embedders, catalogue_encoder
from bittern.service.sources import Entry, Source, read_source
from bittern.text import counted

REPORT_EVERY_S = 5.0
"""How often the report of a running job is written."""
COUNT_S = 20.0
"""Counting a source stops after so many seconds."""
COUNTED = ("folder", "manifest")
"""Formats that are counted: listing them twice reads no media."""
_log = logging.getLogger(__name__)


def run_job(
    spec: JobSpec,
    on_progress: OnProgress = lambda report: None,
    cancelled: Cancelled = never,
    *,
    embedders: Embedders | None = None,
    report_to: Path | None = None,
) -> JobReport:
    """Run a job.

    Run again, it codes only what is missing. A bad file does not end it. If every item failed, or
    any item of a ``strict`` job, its final state is ``failed``, with the reason.

    Args:
        spec: what to do.
        on_progress: called after every commit, and about once a second, with the live report;
            from one thread at a time, not always the caller's.
        cancelled: called often, from any thread; once it is true, the job makes a last commit
            and returns with the state ``stopped``.
        embedders: encoders, perhaps loaded; new ones by default.
        report_to: file for the report; by default `report_file`.

    Raises:
        BitternError: the job cannot begin or continue, such as for a missing source or a full
            disk. Commits before that are durable.
    """
    report, embedders = JobReport(), embedders or Embedders(catalogue_encoder)
    path = report_to or report_file(spec)
    inside = Path(spec.target) if report_to is None and spec.kind != "encode" else None
    with _writing_report(path, report, inside) as write:

        def progress(report: JobReport) -> None:
            write()
            on_progress(report)

        return judged(spec, _run(spec, JobControl(progress, cancelled, report), embedders))


def judged(spec: JobSpec, report: JobReport) -> JobReport:
    """The report of an ended job; ``failed`` if all its items have, or one of a strict job."""
    if report.state != "done" or not report.failed or spec.kind == "reencode":
        return report
    if report.failed == report.done:
        report.state = "failed"
        report.error = f"none of the {report.failed} items could be used"
        if report.failed == 1:
            report.error = "the only item could not be used"
    elif spec.strict:
        where = "archive" if spec.kind == "index" else "file"
        report.state = "failed"
        report.error = (
            f"{counted(report.failed, 'item')} could not be used, and the job is strict; all "
            f"others are in the {where}"
        )
    return report


def _run(spec: JobSpec, control: JobControl, embedders: Embedders) -> JobReport:
    if spec.kind == "reencode":
        from bittern.service.jobs.reencode import reencode

        with _opened(spec, (), embedders, control) as local:
            return reencode(spec, local, control)
    embeddings = Precomputed.open(Path(spec.embeddings)) if spec.embeddings else None
    source = read_source(spec.source, spec.reading)
    with counting(source, control.report), _workers(spec) as workers:
        control = replace(control, fetch=source.fetch, workers=workers, embeddings=embeddings)
        if spec.kind == "encode":
            reading = spec.to_json()["reading"]
            reading["columns"] = reading.pop("rename")  # as in Parquet parts of 0.1.0
            return encode_source(
                source,
                Path(spec.target),
                spec,
                control,
                job={"source": spec.source, "reading": reading},
                embedders=embedders,
            )
        with _opened(spec, source, embedders, control) as local:
            return index_source(local, source, spec, control)


@contextmanager
def _opened(
    spec: JobSpec, source: Iterable[Entry], embedders: Embedders, control: JobControl
) -> Iterator[LocalArchive]:
    """The archive of a job, open for writing; created for ``index``."""
    archive = Path(spec.target)
    exists = archive.is_dir() and any(archive.iterdir())
    make = not exists and spec.kind == "index"
    if make:  # errors come before an archive is created
        load_first(spec, embedders, source)
    with Archive.create(archive) if make else Archive.open(archive, write=True) as opened:
        control.on_progress(control.report)
        yield LocalArchive(opened, embedders=embedders)


@contextmanager
def _workers(spec: JobSpec) -> Iterator[int]:
    """The number of workers of Ray that embed, while they can be used; 0 for this process."""
    if spec.engine == "local":
        yield 0
        return
    from bittern.service.jobs.ray import cluster

    with cluster(spec.workers):
        yield spec.workers


def report_file(spec: JobSpec) -> Path:
    """The default file for a job's report: in the archive, or beside the file of codes."""
    target = Path(spec.target)
    if spec.kind == "encode":
        return target.with_name(target.name + ".report.json")
    return target / "reports" / f"{spec.kind}.json"


@contextmanager
def _writing_report(
    path: Path, report: JobReport, inside: Path | None
) -> Iterator[Callable[[], None]]:
    """Keep the report at `path`, perhaps in the archive `inside`, up to date; log failed writes."""
    # Nothing is written before the first progress, when the job holds the archive or the Parquet
    # parts: a second, refused job must not overwrite the report of the first.
    last, begun = -inf, False

    def write(every_s: float = REPORT_EVERY_S) -> None:
        nonlocal last, begun
        begun = True
        if monotonic() - last < every_s:
            return
        last = monotonic()
        try:
            if inside is not None:
                if not ArchiveFolder(inside).header_file.is_file():
                    return
                check_inside(inside, path.parent)
                path.parent.mkdir(exist_ok=True)
            if path.parent.is_dir():
                report.write(path)
        except (OSError, PreconditionError) as error:
            _log.warning("the report cannot be written to %s: %s", path, error)

    try:
        yield write
    except BaseException as error:
        report.state = "failed" if isinstance(error, Exception) else "stopped"
        report.error = error.message if isinstance(error, BitternError) else repr(error)
        raise
    finally:
        if begun:
            write(0)


@contextmanager
def counting(source: Source, report: JobReport) -> Iterator[None]:
    """Count the items of a local source in a thread, for at most `COUNT_S` seconds."""
    over = threading.Event()

    def count() -> None:
        begun, number = monotonic(), 0
        try:
            # A second listing: the job iterates the source itself.
            for _ in source.listing():
                number += 1
                if over.is_set() or monotonic() - begun > COUNT_S:
                    return
        except Exception:
            return  # the job meets the same error, and fails with it
        report.counted = number

    thread = threading.Thread(target=count, name="bittern-count")
    if source.format in COUNTED and not source.address:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()
