"""The media of an archive as a source, to encode them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bittern.errors import BitternError, SourceNotFoundError, SourceUnreachableError
from bittern.files import is_file
from bittern.index.archive import Archive
from bittern.index.observation import Fingerprint
from bittern.index.reencode import StoredMedium, media_of
from bittern.service.sources.addresses import below, is_address, may_fetch
from bittern.service.sources.base import Entry
from bittern.types import AddResult, MediaItem

_AT_ONCE = 256


class ArchiveMedia:
    """Photographs and recordings of an archive, listed lazily.

    Args:
        archive: open.
        names: `occurrenceID`s to list.
        media: their folder or address now; None means where they were indexed from.
        fetch: prefixes of addresses that the operator allows to be fetched. The archive itself may
            come from anywhere: nothing else is fetched for it.
    """

    def __init__(
        self,
        archive: Archive,
        names: Sequence[str],
        media: str | None = None,
        fetch: Sequence[str] = (),
    ) -> None:
        self._archive = archive
        self._names = names
        self._media = media
        named = [media] if media is not None and is_address(media) else []
        self.fetch = (*fetch, *named)
        self._fingerprints: dict[str, Fingerprint] = {}

    def __iter__(self) -> Iterator[Entry]:
        for begin in range(0, len(self._names), _AT_ONCE):
            names = self._names[begin : begin + _AT_ONCE]
            known = media_of(self._archive, names)
            for name in names:
                if name in known:  # not deleted meanwhile
                    yield self._entry(name, known[name])

    def fingerprint(self, name: str) -> Fingerprint | None:
        """Remove and return the fingerprint of a listed file when it was first encoded."""
        return self._fingerprints.pop(name, None)

    def _entry(self, name: str, medium: StoredMedium) -> Entry:
        seen = medium.observations[0]
        folder = self._media or seen.media_root
        try:
            path, url = self._locate(name, folder, seen.media)
        except BitternError as error:
            return AddResult.failure(name, error)
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

    def _locate(self, name: str, folder: str, media: str) -> tuple[Path | None, str | None]:
        """Path or address of a file."""
        if is_address(media) or is_address(folder):
            url = media if is_address(media) else below(folder, media)
            if not may_fetch(url, self.fetch):
                raise SourceUnreachableError(
                    f"'{name}' is at {url[:200]}, which may not be fetched; allow the beginning "
                    "of that address with --fetch if you trust it"
                )
            return None, url
        if not folder:
            raise SourceNotFoundError(
                f"'{name}' was added as bytes, so there is no file to read again; give the folder "
                "of its media with --media, or add it again with the new model"
            )
        path = Path(folder) / media
        if not is_file(path):
            raise SourceNotFoundError(
                f"{path} is missing; restore it, or give the present folder of the media with "
                "--media"
            )
        return path, None
