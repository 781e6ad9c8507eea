"""The jobs of `bittern serve`: the queue, the folders and models that callers may name.

A call names a folder that the operator has allowed and a path below it. It must not lead out of
the allowed folders: neither the source, by `..` or a link, nor a file that a manifest names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bittern.errors import (
    InvalidInputError,
    ModelNotFoundError,
    PreconditionError,
    QueryError,
    SourceNotFoundError,
)
from bittern.service.ingest.report import Cancelled, JobReport, OnProgress
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.queue import JobQueue
from bittern.service.jobs.record import JobRecord
from bittern.service.sources import Entry, Listed, Source, SourceOptions, read_source
from bittern.service.sources.base import modality_of_suffix
from bittern.types import AddResult, AddStatus, MediaItem

if TYPE_CHECKING:
    from bittern.service.engine import Engine

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_SOURCE_CHARS = 4_096


class AllowedFolders:
    """The folders below which calls may name media.

    Args:
        folders: by the name that calls use.

    Raises:
        InvalidInputError: a name with other characters than letters, digits and ``._-``, or a
            path that is no folder.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        for name, folder in folders.items():
            if not _NAME.fullmatch(name):
                raise InvalidInputError(
                    f"{name!r} cannot be the name of an allowed folder: use letters, digits, "
                    "'.', '_' and '-'; write NAME=FOLDER to give it another",
                    field="jobs_from",
                )
            if not folder.is_dir():
                raise InvalidInputError(f"there is no folder at {folder}", field="jobs_from")
        self._folders = {name: folder.resolve() for name, folder in folders.items()}

    @classmethod
    def parse(cls, options: Sequence[str]) -> AllowedFolders:
        """From an operator's options: ``FOLDER``, under its own name, or ``NAME=FOLDER``.

        Raises:
            InvalidInputError: two folders of one name, or as for `AllowedFolders`.
        """
        folders: dict[str, Path] = {}
        for option in options:
            name, equals, path = option.partition("=")
            folder = Path(path if equals else option).expanduser()
            name = name if equals else folder.resolve().name
            if name in folders:
                raise InvalidInputError(
                    f"two allowed folders are called {name!r}; write NAME=FOLDER",
                    field="jobs_from",
                )
            folders[name] = folder
        return cls(folders)

    @property
    def names(self) -> list[str]:
        """The first parts of possible sources."""
        return sorted(self._folders)

    def allows(self, source: str) -> bool:
        """Whether the folder that a source begins with is allowed."""
        return source.split("/")[0] in self._folders

    def find(self, source: str, field: str = "source") -> Path:
        """The path of a source, below an allowed folder.

        Args:
            source: ``NAME`` or ``NAME/path/below``.
            field: of the request, for messages.

        Raises:
            PreconditionError: no folder is allowed at all.
            InvalidInputError: it is no such path, or leads out of the folder.
            SourceNotFoundError: no folder of this name is allowed, or there is no such path.
        """
        if not self._folders:
            raise PreconditionError(
                "this server codes no media on its own disks: its operator has allowed no "
                "folder (bittern serve --jobs-from FOLDER)",
                field=field,
            )
        path = PurePosixPath(source)
        usable = 0 < len(source) <= _MAX_SOURCE_CHARS and source.isprintable()
        if not usable or path.is_absolute() or ".." in path.parts or "://" in source:
            raise InvalidInputError(
                f"{field} is the name of an allowed folder and a path below it, without '..', "
                f"not {source[:100]!r}; allowed are {', '.join(self.names)}",
                field=field,
            )
        folder = self._folders.get(path.parts[0]) if path.parts else None
        if folder is None:
            raise SourceNotFoundError(
                f"no folder called {source[:100]!r} is allowed here; allowed are "
                f"{', '.join(self.names)}",
                field=field,
            )
        found = folder.joinpath(*path.parts[1:])
        if not _is_below(found, folder):
            raise InvalidInputError(f"'{source[:100]}' leads out of its folder", field=field)
        if not found.exists():
            raise SourceNotFoundError(f"there is nothing at '{source[:200]}'", field=field)
        return found

    def source(self, name: str, options: SourceOptions) -> Source:
        """The media of a source; those outside the allowed folders are failed entries.

        Raises:
            as `find` and `bittern.service.sources.read_source`; nothing is ever fetched.
        """
        path = self.find(name)
        if options.media is not None:
            options = replace(options, media=str(self.find(options.media, "media")))
        self._refuse_links_out(path)
        source = read_source(path, replace(options, fetch=()))
        listing = source.listing

        def confined() -> Iterator[Listed]:
            for listed in listing():
                yield listed._replace(entry=self._confined(listed.entry))

        return replace(source, listing=confined)

    def without_paths(self, text: str) -> str:
        """A message for callers: it names the allowed folders, not their paths."""
        for name, folder in self._folders.items():
            text = text.replace(str(folder), name)
        return text

    def _allows_path(self, path: Path) -> bool:
        return any(_is_below(path, folder) for folder in self._folders.values())

    def _confined(self, entry: Entry) -> Entry:
        if not isinstance(entry, MediaItem) or entry.path is None:
            return entry
        if self._allows_path(Path(entry.path)):
            return entry
        return AddResult(
            entry.occurrence_id,
            AddStatus.FAILED,
            reason=SourceNotFoundError("").reason,
            message=f"'{entry.media[:200]}' lies outside the folders that the operator has allowed",
        )

    def _refuse_links_out(self, path: Path) -> None:
        """Refuse a folder with a link out of it to anything but media.

        Links to media are checked one by one as they are listed; tables, pages and shards are
        opened by the listing.
        """
        for directory, _, names in os.walk(path) if path.is_dir() else ():
            for name in names:
                one = Path(directory, name)
                if modality_of_suffix(one) is not None or not one.is_symlink():
                    continue
                if not self._allows_path(one):
                    shown = one.relative_to(path).as_posix()
                    raise InvalidInputError(
                        f"'{shown[:200]}' leads out of its folder", field="source"
                    )


def _is_below(path: Path, folder: Path) -> bool:
    """Whether a path, with all links followed, is a folder or lies below it."""
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError, ValueError):
        return False
    return resolved == folder or folder in resolved.parents


def check_model_name(name: str, known: set[str]) -> None:
    """Check that a call names a model, not a path on the server.

    Args:
        name: an encoder, a shipped model, a saved one in a models folder, or one of `known`;
            empty for the archive's own.
        known: the archive's models.

    Raises:
        QueryError: it is a path.
        ModelNotFoundError: there is no such model.
    """
    from bittern.encoders.catalogue import CATALOGUE
    from bittern.service.models.fitting import SHIPPED
    from bittern.service.models.saved import model_folder

    shipped = {folder.name for folder in SHIPPED.iterdir()}
    if not name or name in known or name in CATALOGUE or name in shipped:
        return
    if Path(name).name != name or "\\" in name or name.startswith("."):
        raise QueryError("model is the name of a model, not a path", field="model")
    if model_folder(name) is None:
        choices = ", ".join(sorted({*known, *CATALOGUE}))
        raise ModelNotFoundError(
            f"this server has no model '{name[:100]}'; it has {choices}, and those in its own "
            "models folder",
            field="model",
        )


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

        def refuse(*_: object) -> JobReport:
            raise PreconditionError("this server runs no jobs")

        return cls(JobQueue({}, refuse), AllowedFolders({}))

    @classmethod
    def of(cls, engines: Mapping[str, Engine], allowed: AllowedFolders) -> Jobs:
        """Jobs into the archives of these engines; queued ones begin at once.

        Args:
            engines: by the archive's name, open for writing.
            allowed: the folders that they may read.
        """

        def run(record: JobRecord, on_progress: OnProgress, cancelled: Cancelled) -> JobReport:
            engine = engines[record.archive]
            # Again, for records that this server has not written.
            check_model_name(record.spec.model, {model.name for model in engine.models()})
            source = allowed.source(record.spec.source, record.spec.reading)
            return _index(engine, source, record.spec, on_progress, cancelled)

        def ready(record: JobRecord) -> bool:
            # A job waits as long as its folder is not allowed any more.
            return allowed.allows(record.spec.source)

        folders = {name: engine.archive.path / "jobs" for name, engine in engines.items()}
        return cls(JobQueue(folders, run, ready), allowed)


def _index(
    engine: Engine,
    source: Source,
    spec: JobSpec,
    on_progress: OnProgress,
    cancelled: Cancelled,
) -> JobReport:
    from bittern.service.jobs.indexing import JobControl, index_source
    from bittern.service.jobs.run import counting, judged

    report = JobReport()
    with counting(source, report):
        # Nothing is fetched because a call names it, so no addresses are passed on.
        control = JobControl(on_progress, cancelled, report)
        return judged(spec, index_source(engine, source, spec, control))
