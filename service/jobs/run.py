"""Running a job: which engine does what it asks for, and where its report lies meanwhile.

The command line, the service and Python all come through `run_job`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from time import monotonic

from bittern.errors import BitternError
from bittern.index.archive import Archive
from bittern.index.folder import ArchiveFolder
from bittern.service.engine import Engine
from bittern.service.ingest.report import Cancelled, JobReport, OnProgress, never
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.encoding import code_source
from bittern.service.jobs.indexing import Embedding, IndexOptions, Watch, embed_here, index_source
from bittern.service.jobs.model_choice import load_first
from bittern.service.models.loaded import Embedders, catalogue_encoder
from bittern.service.sources import Entry, Source, read_source

REPORT_EVERY_S = 5.0
"""How often the report of a running job is written down."""
COUNTED_FOR_S = 20.0
"""A source that takes longer to list is not counted beforehand."""
COUNTED = ("folder", "manifest")
"""Formats that are counted beforehand: going through them twice reads no media."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a job runs, if that is to be another place than a process of its own.

    Attributes:
        engine: an archive that is open for writing already; the job leaves it open.
        embedders: encoders that may be loaded already.
        report: file that the report is written to; None for `report_file`.
    """

    engine: Engine | None = None
    embedders: Embedders | None = None
    report: Path | None = None


def run_job(
    spec: JobSpec,
    on_progress: OnProgress = lambda report: None,
    cancelled: Cancelled = never,
    *,
    place: Place | None = None,
) -> JobReport:
    """Do a job, or what is left of it.

    The same job run again does only what is missing. One bad file never ends it. If every item
    failed, or with ``strict`` any, its state at the end is ``failed``, with the reason.

    Args:
        spec: what is to be done.
        on_progress: called after every commit, and about once a second, with the live report;
            from one thread at a time, which may be another than the caller's.
        cancelled: asked often, from any thread; once true, the job commits what is coded and
            returns with the state ``stopped``.
        place: an archive that is open already, encoders that are loaded, another report file.

    Raises:
        BitternError: the job cannot begin, or go on: a source or model that is not there, a
            full disk. What was committed stays.
    """
    place, report = place or Place(), JobReport()
    path = place.report or report_file(spec)
    inside = Path(spec.target) if place.report is None and spec.kind != "encode" else None
    with _written_down(path, report, inside) as write:

        def tell(report: JobReport) -> None:
            write()
            on_progress(report)

        return judged(spec, _run(spec.checked(), Watch(tell, cancelled, report), place))


def judged(spec: JobSpec, report: JobReport) -> JobReport:
    """The report of a job that is through; failed if too many of its items have."""
    if report.state != "done" or not report.failed or spec.kind == "reencode":
        return report
    if report.failed == report.done:
        report.state = "failed"
        report.error = f"none of the {report.failed} items could be used"
        if report.failed == 1:
            report.error = "the only item could not be used"
    elif spec.strict:
        place = "archive" if spec.kind == "index" else "file"
        items = "1 item" if report.failed == 1 else f"{report.failed} items"
        report.state = "failed"
        report.error = (
            f"{items} could not be used, and the job is strict; all others are in the {place}"
        )
    return report


def _run(spec: JobSpec, watch: Watch, place: Place) -> JobReport:
    if spec.kind == "reencode":
        from bittern.service.jobs.reencode import reencode

        with _engine(spec, (), place, watch) as engine:
            return reencode(
                spec, watch.on_progress, watch.cancelled, report=watch.report, engine=engine
            )
    source = read_source(spec.source, spec.reading)
    with _counted(source, watch.report), _embedding(spec) as embed:
        if spec.kind == "encode":
            return code_source(
                source,
                Path(spec.target),
                options_of(spec),
                watch,
                job={"source": spec.source, "reading": spec.reading.to_json()},
                fetch=source.fetch,
                embedders=place.embedders or Embedders(catalogue_encoder),
                embed=embed,
            )
        with _engine(spec, source, place, watch) as engine:
            return index_source(
                engine, source, options_of(spec), watch, fetch=source.fetch, embed=embed
            )


@contextmanager
def _engine(spec: JobSpec, source: Iterable[Entry], place: Place, watch: Watch) -> Iterator[Engine]:
    """The archive that a job writes to, open for writing; made if it is not there."""
    if place.engine is not None:
        watch.on_progress(watch.report)
        yield place.engine
        return
    embedders = place.embedders or Embedders(catalogue_encoder)
    archive = Path(spec.target)
    exists = archive.is_dir() and any(archive.iterdir())
    if not exists and spec.kind == "index":  # mistakes are told before an archive is made
        load_first(options_of(spec), embedders, source)
    make = not exists and spec.kind == "index"
    with Archive.create(archive) if make else Archive.open(archive, write=True) as opened:
        watch.on_progress(watch.report)
        yield Engine(opened, embedders=embedders)


@contextmanager
def _embedding(spec: JobSpec) -> Iterator[Embedding]:
    """What embeds: this process, or a pool of workers."""
    if spec.engine == "local":
        yield embed_here
        return
    from bittern.service.jobs.ray import cluster, embedding_on_ray

    with cluster(spec.workers):
        yield embedding_on_ray(spec.workers)


def options_of(spec: JobSpec) -> IndexOptions:
    """How a job's source is indexed."""
    return IndexOptions(
        model=spec.model,
        bits=spec.bits,
        hasher=spec.hasher,
        on_duplicate=spec.on_duplicate,
        keep_embeddings=spec.keep_embeddings,
        commit_items=spec.commit_items,
        commit_s=spec.commit_s,
    )


def report_file(spec: JobSpec) -> Path:
    """Where a job's report lies: beside a file of codes, inside an archive."""
    target = Path(spec.target)
    if spec.kind == "encode":
        return target.with_name(target.name + ".report.json")
    return target / "reports" / f"{spec.kind}.json"


@contextmanager
def _written_down(
    path: Path, report: JobReport, inside: Path | None
) -> Iterator[Callable[[], None]]:
    """Keep the file at `path` up to date with the report, until the end and what ended it.

    Nothing is written before the job tells of itself for the first time, which it does once the
    archive, or the parts of a file, are its own. A command that is refused because another one
    is at work there must not write over that one's report.

    A report that cannot be written is no reason to stop.

    Args:
        path: of the file.
        report: live.
        inside: an archive that the file is part of, once there is one.
    """
    last, told = -inf, False

    def write(every_s: float = REPORT_EVERY_S) -> None:
        nonlocal last, told
        told = True
        if monotonic() - last < every_s:
            return
        last = monotonic()
        try:
            if inside is not None:
                if not ArchiveFolder(inside).header_file.is_file():
                    return
                path.parent.mkdir(exist_ok=True)
            if path.parent.is_dir():
                report.write(path)
        except OSError as error:
            _log.warning("the report cannot be written to %s: %s", path, error)

    try:
        yield write
    except BaseException as error:
        report.state = "failed" if isinstance(error, Exception) else "stopped"
        report.error = error.message if isinstance(error, BitternError) else repr(error)
        raise
    finally:
        if told:
            write(0)


@contextmanager
def _counted(source: Source, report: JobReport) -> Iterator[None]:
    """Find out meanwhile how many items there are, if they lie here and that is quickly done."""
    over = threading.Event()

    def count() -> None:
        begun, number = monotonic(), 0
        try:
            # A listing of its own: that of the source is for whoever codes.
            for _ in source.listing():
                number += 1
                if over.is_set() or monotonic() - begun > COUNTED_FOR_S:
                    return
        except Exception:
            return  # whoever lists it to be coded meets it too, and fails by it
        report.total = number

    thread = threading.Thread(target=count, name="bittern-count")
    if source.format in COUNTED and not source.address:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()
