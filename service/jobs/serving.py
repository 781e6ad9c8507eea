"""The jobs of `bittern serve`: the queue, the folders it may read, and what runs a job there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bittern.errors import BitternError, InvalidInputError, PreconditionError
from bittern.service.ingest.report import JobReport, OnProgress
from bittern.service.jobs.allowed import AllowedFolders
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.model_names import check_model_name
from bittern.service.jobs.queue import JobQueue
from bittern.service.jobs.record import JobRecord
from bittern.service.sources import Source

if TYPE_CHECKING:
    from bittern.service.engine import Engine


@dataclass(frozen=True)
class Jobs:
    """What a server needs for jobs.

    Attributes:
        queue: runs them.
        allowed: the folders that they may read.
    """

    queue: JobQueue
    allowed: AllowedFolders

    @classmethod
    def none(cls) -> Jobs:
        """No folder is allowed, so there are no jobs."""
        return cls(JobQueue({}, _refuse), AllowedFolders({}))

    @classmethod
    def of(cls, engines: Mapping[str, Engine], allowed: AllowedFolders) -> Jobs:
        """Jobs into the archives behind these engines; those that wait begin at once.

        Args:
            engines: by the archive's name, open for writing.
            allowed: the folders that they may read.
        """

        def run(
            record: JobRecord, on_progress: OnProgress, cancelled: Callable[[], bool]
        ) -> JobReport:
            engine = engines[record.archive]
            # Again, for records that were not written here.
            check_model_name(record.spec.model, {model.name for model in engine.models()})
            source = allowed.source(record.spec.source, record.spec.reading)
            return index_job(engine, source, record.spec, on_progress, cancelled)

        def ready(record: JobRecord) -> bool:
            # One that was submitted when other folders were allowed waits until they are again.
            return allowed.allows(record.spec.source)

        folders = {name: engine.archive.path / "jobs" for name, engine in engines.items()}
        return cls(JobQueue(folders, run, ready), allowed)


def index_job(
    engine: Engine,
    source: Source,
    spec: JobSpec,
    on_progress: OnProgress,
    cancelled: Callable[[], bool],
) -> JobReport:
    """Index a source into an archive that is open."""
    from bittern.service.jobs.indexing import Watch, index_source
    from bittern.service.jobs.run import options_of

    report = JobReport()

    def count() -> None:
        with suppress(BitternError, OSError):
            report.total = source.total()

    threading.Thread(target=count, name="bittern-count", daemon=True).start()
    # Nothing is fetched because a call asks for it, so no addresses are handed on.
    return index_source(engine, source, options_of(spec), Watch(on_progress, cancelled, report))


def folders_by_name(given: Sequence[str]) -> dict[str, Path]:
    """The folders that an operator allows: ``FOLDER``, which goes by its own name, or
    ``NAME=FOLDER``.

    Raises:
        InvalidInputError: two of one name.
    """
    folders: dict[str, Path] = {}
    for one in given:
        name, equals, path = one.partition("=")
        folder = Path(path if equals else one).expanduser()
        name = name if equals else folder.resolve().name
        if name in folders:
            raise InvalidInputError(
                f"two allowed folders are called {name!r}; write NAME=FOLDER", field="jobs_from"
            )
        folders[name] = folder
    return folders


def _refuse(record: JobRecord, on_progress: OnProgress, cancelled: Callable[[], bool]) -> JobReport:
    raise PreconditionError("this server runs no jobs")
