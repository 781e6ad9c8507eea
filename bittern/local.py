"""An archive opened in this process."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bittern.api import ArchiveAPI
from index.observation import AddResult, ArchiveStats, Observation, OnDuplicate, Page
from service.requests import Encoded, MediaItem, ModelInfo, Query, SearchResult

if TYPE_CHECKING:
    from index.engines.options import SearchOptions
    from service.engine import Engine


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

    def close(self) -> None:
        """See `ArchiveAPI.close`."""
        self._engine.close()

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

    def _encode(
        self, modality: str, data: str | bytes, model: str | None, name: str
    ) -> builtins.list[Encoded]:
        return self._engine.encode(modality, data, model=model, name=name)


def open_archive(
    path: str | Path, *, write: bool = False, search: SearchOptions | None = None
) -> LocalArchive:
    """Open an archive folder in this process; see `bittern.open`."""
    from service.engine import Engine

    return LocalArchive(Engine.open(Path(path), write=write, search=search))
