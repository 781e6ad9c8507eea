"""An archive opened in this process."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bittern.api import ArchiveAPI
from bittern.types import (
    AddResult,
    ArchiveStats,
    Encoded,
    Hit,
    MediaItem,
    ModelInfo,
    Observation,
    OnDuplicate,
    Page,
    Query,
    SearchResult,
)

if TYPE_CHECKING:
    from bittern.index.snapshots import SnapshotInfo
    from bittern.service.export.files import Exported, FileChunk, OnProgress
    from bittern.service.local.archive import Engine
    from bittern.types import SearchOptions

FOLDER_PAGE = 1_000
"""Observations that are looked up at a time while their media are copied."""


class LocalArchive(ArchiveAPI):
    """An archive folder, searched without a server. See `ArchiveAPI` for the methods."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __repr__(self) -> str:
        return f"<LocalArchive '{self._engine.name}'>"

    def stats(self) -> ArchiveStats:
        """See `ArchiveAPI.stats`."""
        return self._engine.stats()

    def models(self) -> builtins.list[ModelInfo]:
        """See `ArchiveAPI.models`."""
        return self._engine.models()

    def encoders(self) -> set[str]:
        """Names of the encoders behind the archive's models."""
        return self._engine.encoders()

    def close(self) -> None:
        """See `ArchiveAPI.close`."""
        self._engine.close()

    def snapshots(self, *, unnamed: bool = False) -> builtins.list[SnapshotInfo]:
        """The snapshots, oldest first; with `unnamed` also versions that are still there."""
        return self._engine.archive.snapshots(unnamed=unnamed)

    def take_snapshot(self, name: str, *, note: str = "") -> SnapshotInfo:
        """Keep the newest state under a name; see `bittern.open` for how to look at it."""
        return self._engine.archive.take_snapshot(name, note=note)

    def drop_snapshot(self, name: str) -> SnapshotInfo:
        """Forget a snapshot.

        Raises:
            NotFoundError: there is none of this name.
        """
        return self._engine.archive.drop_snapshot(name)

    def restore(self, snapshot: str | int) -> SnapshotInfo:
        """Make an old state the newest one; returns the snapshot of the state before.

        Raises:
            NotFoundError: there is no such snapshot.
            PreconditionError: the archive is open for reading only.
        """
        return self._engine.archive.restore(snapshot)

    def _get(self, id: str) -> Observation:  # noqa: A002
        return self._engine.get(id)

    def _search(self, query: Query) -> SearchResult:
        return self._engine.search(query)

    def _add(
        self,
        items: Iterable[MediaItem],
        on_duplicate: OnDuplicate,
        model: str | None,
        batch_size: int,
    ) -> Iterator[builtins.list[AddResult]]:
        return self._engine.add(
            items, on_duplicate=on_duplicate, model=model, batch_size=batch_size
        )

    def _delete(self, ids: builtins.list[str]) -> builtins.list[str]:
        return self._engine.delete(ids)

    def _list_page(self, page_size: int, page_token: str, where: str | None) -> Page:
        return self._engine.list(page_size=page_size, page_token=page_token, where=where)

    def _export(self, format_: str, where: str | None) -> Iterator[FileChunk]:
        from bittern.service.export.files import file_chunks
        from bittern.service.export.writers import writer_of

        writer = writer_of(format_)
        return file_chunks(writer, self._engine.rows(where, codes=writer.codes))

    def _export_folder(
        self,
        to: Path,
        where: str | None,
        hits: Sequence[Hit] | None,
        below: Sequence[Path],
        on_progress: OnProgress,
    ) -> Exported:
        from bittern.service.export.folder import (
            media_of_hits,
            media_of_observations,
            write_folder,
        )
        from bittern.service.export.rows import metadata_types

        if hits is not None:
            media, columns = media_of_hits(hits), metadata_types(hit.observation for hit in hits)
            return write_folder(
                media,
                to,
                list(columns),
                hits=True,
                below=below,
                total=len(media),
                on_progress=on_progress,
            )
        stats = self._engine.stats()
        seen = self._every_page(FOLDER_PAGE, where)
        return write_folder(
            media_of_observations(seen),
            to,
            list(stats.columns),
            below=below,
            total=stats.observations.get("image", 0) + stats.recordings if not where else 0,
            on_progress=on_progress,
        )

    def _encode(self, query: Query, name: str) -> builtins.list[Encoded]:
        return self._engine.encode(query, name=name)


def open_archive(
    path: str | Path,
    *,
    write: bool = False,
    search: SearchOptions | None = None,
    snapshot: str | int | None = None,
) -> LocalArchive:
    """Open an archive folder in this process; see `bittern.open`."""
    from bittern.service.local.archive import Engine

    return LocalArchive(Engine.open(Path(path), write=write, search=search, snapshot=snapshot))
