"""The media of an archive as a source: what has to be read again to be coded anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bittern.errors import SourceNotFoundError
from index.archive import Archive
from index.observation import AddResult, AddStatus, Fingerprint
from index.recoding import StoredMedium, media_of
from service.requests import MediaItem
from service.sources.base import Entry

_AT_ONCE = 256
_ADDRESSES = ("https://", "http://")


class ArchiveMedia:
    """Photographs and recordings of an archive, listed lazily.

    Args:
        archive: open.
        names: `occurrenceID`s of those that are wanted.
        media: folder that they lie below now; None for where they were indexed from.
    """

    def __init__(self, archive: Archive, names: Sequence[str], media: str | None = None) -> None:
        self._archive = archive
        self._names = names
        self._media = media
        self._fingerprints: dict[str, Fingerprint] = {}

    def __iter__(self) -> Iterator[Entry]:
        for begin in range(0, len(self._names), _AT_ONCE):
            names = self._names[begin : begin + _AT_ONCE]
            known = media_of(self._archive, names)
            for name in names:
                if name in known:  # else it was deleted meanwhile
                    yield self._entry(name, known[name])

    def fingerprint(self, name: str) -> Fingerprint | None:
        """What a file that was listed had been when it was first coded; told once."""
        return self._fingerprints.pop(name, None)

    def _entry(self, name: str, medium: StoredMedium) -> Entry:
        seen = medium.observations[0]
        folder = self._media or seen.media_root
        path, url = None, None
        if seen.media.startswith(_ADDRESSES):
            url = seen.media
        elif folder.startswith(_ADDRESSES):
            url = f"{folder.rstrip('/')}/{seen.media}"
        elif folder:
            path = Path(folder) / seen.media
        else:
            error = SourceNotFoundError(
                f"'{name}' was handed over as bytes, so there is no file to read again; name the "
                "folder that its media lie in with --media, or add it again with the new model"
            )
            return AddResult(name, AddStatus.FAILED, 0, error.reason, error.message)
        if path is not None and not path.is_file():
            error = SourceNotFoundError(
                f"{path} is not there any more; bring it back, or name the folder that the media "
                "are in now with --media"
            )
            return AddResult(name, AddStatus.FAILED, 0, error.reason, error.message)
        if medium.fingerprint is not None:
            self._fingerprints[name] = medium.fingerprint
        return MediaItem(
            occurrence_id=name,
            media=seen.media,
            modality=seen.modality,
            path=path,
            media_root=seen.media_root,
            metadata=seen.metadata,
            url=url,
        )
