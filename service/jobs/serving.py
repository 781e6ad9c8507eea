"""The jobs of `bittern serve`, and the folders and models that callers may name.

A call names an allowed folder and a path below it. Neither the source (by `..` or a link) nor a
file in a manifest may be outside the allowed folders.
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
from bittern.service.jobs.queue import JobQueue
from bittern.service.jobs.record import JobRecord
from bittern.service.sources import Entry, Listed, Source, SourceOptions, read_source
from bittern.service.sources.base import modality_of_suffix
from bittern.types import AddResult, MediaItem

if TYPE_CHECKING:
    from bittern.service.local.archive import LocalArchive

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_SOURCE_CHARS = 4_096


class AllowedFolders:
    """The folders whose media calls may name.

    Args:
        folders: by the name that calls use.

    Raises:
        InvalidInputError: a name with other characters than letters, digits and ``._-``, or a
            path that is not a folder.
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
        """From the operator's options, ``FOLDER`` or ``NAME=FOLDER``.

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
        """Names of the folders."""
        return sorted(self._folders)

    def allows(self, source: str) -> bool:
        """Whether the folder of a source is allowed."""
        return source.split("/")[0] in self._folders

    def find(self, source: str, field: str = "source") -> Path:
        """The path of a source.

        Args:
            source: ``NAME`` or ``NAME/path/below``.
            field: of the request, for messages.

        Raises:
            PreconditionError: no folder is allowed.
            InvalidInputError: not such a path, or it is outside the folder.
            SourceNotFoundError: unknown folder, or no such path.
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
        """The media of a source; media outside the allowed folders fail. Nothing is fetched.

        Raises:
            as `find` and `bittern.service.sources.read_source`.
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
        """A message without paths of this machine: allowed folders are named instead."""
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
        error = SourceNotFoundError(
            f"'{entry.media[:200]}' lies outside the folders that the operator has allowed"
        )
        return AddResult.failure(entry.occurrence_id, error)

    def _refuse_links_out(self, path: Path) -> None:
        """Refuse links to outside files, except media, which are checked as they are listed."""
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
    """Whether the resolved path is the folder, or below it."""
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError, ValueError):
        return False
    return resolved == folder or folder in resolved.parents


def check_model_name(name: str, known: set[str]) -> None:
    """Check that a call names a known model, not a path.

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
    """The jobs of a server.

    Attributes:
        queue: runs them.
        allowed: the folders that they may read.
    """

    queue: JobQueue
    allowed: AllowedFolders

    @classmethod
    def none(cls) -> Jobs:
        """A server without jobs."""

        def refuse(*_: object) -> JobReport:
            raise PreconditionError("this server runs no jobs")

        return cls(JobQueue({}, refuse), AllowedFolders({}))

    @classmethod
    def of(cls, archives: Mapping[str, LocalArchive], allowed: AllowedFolders) -> Jobs:
        """Jobs of these archives; queued ones start at once.

        Args:
            archives: by the archive's name, open for writing.
            allowed: the folders that they may read.
        """
        from bittern.service.jobs.indexing import JobControl, index_source
        from bittern.service.jobs.run import counting, judged

        def run(record: JobRecord, on_progress: OnProgress, cancelled: Cancelled) -> JobReport:
            local = archives[record.archive]
            # Checked again: the record may be another server's.
            check_model_name(record.spec.model, {model.name for model in local.models()})
            source = allowed.source(record.spec.source, record.spec.reading)
            report = JobReport()
            with counting(source, report):
                # Without `fetch`: a call must not make the server fetch addresses.
                control = JobControl(on_progress, cancelled, report)
                return judged(record.spec, index_source(local, source, record.spec, control))

        def ready(record: JobRecord) -> bool:
            """A job waits while its folder is not allowed."""
            return allowed.allows(record.spec.source)

        folders = {name: local.archive.path / "jobs" for name, local in archives.items()}
        return cls(JobQueue(folders, run, ready), allowed)
