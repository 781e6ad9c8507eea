"""Bittern finds wildlife photographs and sound recordings by words, by sound or by picture.

An archive is searched in this process or over gRPC, with the same methods::

    with bittern.open("my-archive") as archive:
        print(archive.search("an owl on a branch", k=5))

    with bittern.connect("localhost:50051") as archive:
        archive.search(audio="call.wav", target="image")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pathlib import Path

    from bittern import errors as errors
    from bittern.api import ArchiveAPI as ArchiveAPI
    from bittern.client import RemoteArchive as RemoteArchive
    from bittern.client import connect as connect
    from bittern.query import SearchOptions as SearchOptions
    from bittern.service.local.archive import LocalArchive as LocalArchive
    from bittern.types import Adding as Adding
    from bittern.types import AddResult as AddResult
    from bittern.types import AddStatus as AddStatus
    from bittern.types import AddTotals as AddTotals
    from bittern.types import ArchiveStats as ArchiveStats
    from bittern.types import Encoded as Encoded
    from bittern.types import EngineStats as EngineStats
    from bittern.types import Hit as Hit
    from bittern.types import MediaItem as MediaItem
    from bittern.types import ModelInfo as ModelInfo
    from bittern.types import Observation as Observation
    from bittern.types import SearchResult as SearchResult

_NAMES = {
    "bittern.api": ["ArchiveAPI"],
    "bittern.client": ["RemoteArchive", "connect"],
    "bittern.query": ["SearchOptions"],
    "bittern.service.local.archive": ["LocalArchive"],
    "bittern.types": [
        *("AddResult", "AddStatus", "AddTotals", "Adding", "ArchiveStats", "Encoded"),
        *("EngineStats", "Hit", "MediaItem", "ModelInfo", "Observation", "SearchResult"),
    ],
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = ["__version__", "errors", "open", *sorted(_HOMES)]


def open(  # noqa: A001
    path: str | Path,
    *,
    write: bool = False,
    search: SearchOptions | None = None,
    snapshot: str | int | None = None,
) -> LocalArchive:
    """Open an archive folder in this process.

        bittern.open("my-archive", search=bittern.SearchOptions(recall=0.95, threads=1))
        bittern.open("my-archive", snapshot="spring")

    Args:
        path: the archive's folder, made by ``bittern index``.
        write: also add and delete; one process at a time may.
        search: which engine searches, what recall is wanted where a search does not say, how
            many threads, how much memory of a graphics card, whether indexes are built; None for
            what suits the archive, always exact.
        snapshot: name of a snapshot, or number of a version that is still there: the archive as
            it was then, for reading only. None for the newest state.

    Raises:
        NotFoundError: there is no such snapshot.
        QueryError: `search` is no SearchOptions.
        ArchiveNotFoundError: there is no archive at this path.
        ArchiveLockedError: another process has it open for writing.
        ArchiveVersionError: it was made by a newer version of Bittern.
        ArchiveDamagedError: parts of it are missing.
    """
    from bittern.service.local.archive import LocalArchive

    return LocalArchive.open(path, write=write, search=search, snapshot=snapshot)


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that the command line starts fast."""
    from importlib import import_module

    if name == "errors":
        return import_module("bittern.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'bittern' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
