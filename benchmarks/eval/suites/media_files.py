"""Photographs and recordings that lie below a data folder, as contents of items or queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bittern.types import MediaItem

ASKED_BY_RECORDING = (
    "A recording that is asked with is the mean of its windows' embeddings, whatever --windows "
    "says of those that are searched"
)
"""For `Task.notes`, where recordings are queries."""


class MediaFiles(Sequence[Any]):
    """Photographs or recordings below a folder, as `MediaItem`s made when they are asked for.

    Args:
        root: the data folder.
        ids: one per file.
        files: paths below `root`.
        modality: ``image`` or ``audio``.
        metadata: columns of names and rights, one sequence per column; empty texts are left out.
    """

    def __init__(
        self,
        root: Path,
        ids: Sequence[str],
        files: Sequence[str],
        modality: str,
        metadata: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.ids, self.files = ids, files
        self._root, self._modality, self._metadata = root, modality, metadata or {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: Any, /) -> Any:
        """One item, or a list of those in a slice."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        told = {name: column[place] for name, column in self._metadata.items()}
        return MediaItem(
            occurrence_id=self.ids[place],
            media=self.files[place],
            modality=self._modality,
            path=self._root / self.files[place],
            media_root=str(self._root),
            metadata={name: value for name, value in told.items() if value},
        )
