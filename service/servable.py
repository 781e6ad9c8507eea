"""What the server needs of an engine; `service.engine.Engine` has it, and so do test doubles."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from bittern.service.engine.deadline import Deadline
from bittern.service.export.base import Rows
from bittern.types import (
    AddResult,
    ArchiveStats,
    Encoded,
    MediaItem,
    ModelInfo,
    Observation,
    OnDuplicate,
    Page,
    Query,
    SearchResult,
)


class Servable(Protocol):
    """One archive that can be asked. Called from several threads at once."""

    @property
    def name(self) -> str:
        """The archive's name."""
        ...

    def search(self, query: Query, *, deadline: Deadline | None = None) -> SearchResult:
        """Answer one search."""
        ...

    def add(
        self,
        items: Iterable[MediaItem],
        *,
        on_duplicate: OnDuplicate = "error",
        model: str | None = None,
        batch_size: int = 64,
    ) -> Iterator[builtins.list[AddResult]]:
        """Code and store items; yield one list of results per committed batch."""
        ...

    def get(self, id: str) -> Observation:  # noqa: A002
        """Return one observation."""
        ...

    def list(self, *, page_size: int = 100, page_token: str = "", where: str | None = None) -> Page:
        """Return one page of observations in row order."""
        ...

    def delete(self, ids: Sequence[str]) -> builtins.list[str]:
        """Remove observations, all or none; return the ids of those removed."""
        ...

    def encode(
        self, modality: str, data: str | bytes, *, model: str | None = None, name: str = ""
    ) -> builtins.list[Encoded]:
        """Code words or media without storing them."""
        ...

    def rows(self, where: str | None = None, *, codes: bool = False) -> Rows:
        """Observations in row order for a file, with their codes where these are wanted."""
        ...

    def stats(self) -> ArchiveStats:
        """Tell what the archive holds."""
        ...

    def models(self) -> builtins.list[ModelInfo]:
        """List the archive's models."""
        ...
