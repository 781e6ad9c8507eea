"""A folder of media."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bittern.errors import SourceNotFoundError
from service.requests import MediaItem
from service.sources.base import Listed, SourceOptions, failed, modality_of_suffix


def folder_entries(folder: Path, options: SourceOptions) -> Iterator[Listed]:
    """The media below a folder, in the order of their paths; hidden files are left out."""
    closed: list[OSError] = []
    for directory, children, names in os.walk(folder, onerror=closed.append):
        children[:] = sorted(c for c in children if not c.startswith("."))
        for name in sorted(names):
            path = Path(directory) / name
            modality = modality_of_suffix(path)
            if modality is None or name.startswith("."):
                continue
            media = path.relative_to(folder).as_posix()
            item = MediaItem(
                occurrence_id=media,
                media=media,
                modality=modality,
                path=path,
                media_root=str(folder.resolve()),
            )
            yield Listed(item, media)
    for error in closed:
        name = os.path.relpath(str(error.filename), folder)
        message = f"the folder '{name}' cannot be read: {error.strerror}"
        yield failed(name, "", SourceNotFoundError(message))
