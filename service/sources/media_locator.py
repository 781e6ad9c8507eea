"""Finds the media that a row of an export names.

Exports hold addresses and ids, seldom media. The media lie in a folder, or can be fetched. Rows are
not trusted: a row may name the files of one folder and no others:

- names with ``..`` are refused, and of an absolute path only the file name is used;
- a link that leads out of the folder is refused beside the source, and followed below a folder that
  the operator named with ``--media``;
- an address is fetched only if the operator allowed a prefix of it with ``--fetch``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from bittern.errors import ManifestError, SourceNotFoundError, UnsupportedMediaError
from bittern.index.columns import Value
from bittern.service.sources.addresses import is_address, may_fetch
from bittern.service.sources.base import SourceOptions, modality_of_suffix
from bittern.service.sources.spill import Spill
from bittern.types import MediaItem

_SIZES = frozenset(
    {"original", "large", "medium", "small", "thumb", "square", "default", "image", "photo",
     "full", "audio", "sound", "download", "content", "file"}
)  # fmt: skip
"""Last segments of addresses that name a size or a service, so that many media share them."""
_MODALITIES = {
    "stillimage": "image",
    "image": "image",
    "photo": "image",
    "sound": "audio",
    "audio": "audio",
    "movingimage": "video",
    "video": "video",
}
_SHOWN = 200
_NAMED = 3
"""File names listed in an error message."""


class FoundMedia(NamedTuple):
    """The location of one photograph or recording; the fields are those of a `MediaItem`."""

    media: str
    path: Path | None
    media_root: str
    url: str | None

    def item(self, occurrence_id: str, modality: str, metadata: Mapping[str, Value]) -> MediaItem:
        """An entry at this location."""
        return MediaItem(
            occurrence_id=occurrence_id,
            media=self.media,
            modality=modality,
            path=self.path,
            media_root=self.media_root,
            metadata=metadata,
            url=self.url,
        )


class MediaLocator:
    """Finds the media of one source; for one listing at a time.

    Memory does not grow with the source: file names claimed by addresses are kept on disk.

    Args:
        source: the source's file or folder.
        options: `media` and `fetch` select where to search; the default is the source itself if it
            is a folder, else its parent.

    Attributes:
        folder: folder to search for files; None if only addresses are used.
    """

    def __init__(self, source: Path, options: SourceOptions) -> None:
        self._fetch = options.fetch
        self._base = options.media if is_address(options.media) else None
        self._trusted = False
        self.folder: Path | None = None
        if options.media is None:
            self.folder = source if source.is_dir() else source.parent
        elif self._base is None:
            self._trusted = True
            self.folder = Path(options.media).expanduser()
            if not self.folder.is_dir():
                raise SourceNotFoundError(
                    f"there is no folder with media at {self.folder}", field="media"
                )
        self._root = Path() if self.folder is None else self.folder.resolve()
        self._claims = Spill()

    def find(
        self, name: str, *, also: Iterable[str] = (), addresses: Sequence[str] = ()
    ) -> FoundMedia:
        """The file or address of one photograph or recording.

        Args:
            name: from the row: an address, a relative path or a file name; may be empty.
            also: paths below the folder by which the reader knows the media, such as
                ``1234/original.jpg``. They are tried first, in this order.
            addresses: further addresses, the preferred one first; `name` comes before them if it
                is an address.

        Raises:
            ManifestError: the row's path is invalid or leads out of the folder, or its file name
                belongs to another address already.
            SourceNotFoundError: the media were not found; the message names both remedies.
        """
        also = list(also)
        own = [name, *addresses] if is_address(name) else list(addresses)
        for wanted in also:
            found = self._file(_safe(wanted))
            if found is not None:
                return found
        names = list(_names(name))
        for wanted, whole in names:
            found = self._file(wanted)
            if found is not None:
                if not whole:
                    self._claim(wanted, name)
                return found
        tried = [*also, *(wanted for wanted, _ in names)]
        if self._base is not None:
            own += [f"{self._base.rstrip('/')}/{wanted}" for wanted in tried]
        for address in own:
            if may_fetch(address, self._fetch):
                return FoundMedia(address, None, "", address)
        raise self._not_found(own, tried)

    def _file(self, wanted: str) -> FoundMedia | None:
        if self.folder is None:
            return None
        path = self.folder / wanted
        try:
            if not path.is_file():
                return None
            inside = self._trusted or path.resolve().is_relative_to(self._root)
        except OSError:  # a name longer than the file system allows
            return None
        if not inside:
            raise ManifestError(
                f"'{_short(wanted)}' is a link that leaves {self.folder}; if you trust the links "
                "in this folder, give it with --media"
            )
        return FoundMedia(wanted, path, str(self._root), None)

    def _claim(self, wanted: str, name: str) -> None:
        """Refuse a file name that the media of two addresses share."""
        if self._claims.add_first("claim", wanted, name):
            return
        owner = str(self._claims.get("claim", wanted))
        if owner != name:
            raise ManifestError(
                f"the file '{_short(wanted)}' may belong to '{_short(owner)}' or to "
                f"'{_short(name)}'; put the files into folders as in the addresses"
            )

    def _not_found(self, addresses: list[str], tried: list[str]) -> SourceNotFoundError:
        different = list(dict.fromkeys(tried))
        names = ", ".join(f"'{_short(each)}'" for each in different[:_NAMED]) or "no name"
        if len(different) > _NAMED:
            names += f" and {len(different) - _NAMED} other names"
        source = f"; their address is {_short(addresses[0])}" if addresses else ""
        message = (
            f"the media were not found: looked in {self.folder or 'no folder'} for "
            f"{names}{source}. Give their folder with --media FOLDER"
        )
        if not addresses:
            return SourceNotFoundError(message)
        prefix = _prefix(addresses[0])
        fetch = f", or allow fetching with --fetch {prefix}" if prefix else ""
        return SourceNotFoundError(f"{message}{fetch}")


def modality_of_media(name: str, kind: str = "", mime: str = "") -> str:
    """``image`` or ``audio``, by the row's type and the suffix of the name.

    Args:
        name: path or address.
        kind: a Darwin Core or Dublin Core type: ``StillImage``, ``Sound``; may be an address.
        mime: a media type: ``image/jpeg``.

    Raises:
        UnsupportedMediaError: it is a video.
        ManifestError: the modality is unknown.
    """
    path = _split(name).path if is_address(name) else name
    modality = (
        _MODALITIES.get(re.split(r"[/#:]", kind.strip())[-1].replace(" ", "").lower())
        or _MODALITIES.get(mime.strip().partition("/")[0].lower())
        or modality_of_suffix(path)
    )
    if modality == "video":
        raise UnsupportedMediaError(
            f"'{_short(name)}' is a video; only pictures and sounds can be read"
        )
    if modality is None:
        raise ManifestError(
            f"'{_short(name)}' may be a picture or a sound: neither the row's type and format nor "
            "the suffix tell which"
        )
    return modality


def _names(name: str) -> Iterator[tuple[str, bool]]:
    """Paths to try, best first, and whether a path is the row's whole name."""
    if not name:
        return
    if "\0" in name:
        raise ManifestError("the name of the media contains a zero byte")
    if not is_address(name):
        last = PurePosixPath(name.replace("\\", "/")).name
        if name.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", name):
            if last not in ("", ".."):
                yield last, False
            return
        yield _safe(name), True
        if "\\" in name:
            yield _safe(name.replace("\\", "/")), True
        return
    address = unquote(_split(name).path)
    names = [n for n in address.replace("\\", "/").split("/") if n not in ("", ".", "..")]
    if "\0" in address or not names:
        return
    if len(names) > 2:
        yield "/".join(names), False
    if len(names) > 1:
        yield "/".join(names[-2:]), False
    if names[-1].partition(".")[0].lower() not in _SIZES:
        yield names[-1], False


def _safe(wanted: str) -> str:
    """Refuse a path that leads out of the folder."""
    path = PurePosixPath(wanted)
    backslashed = PurePosixPath(wanted.replace("\\", "/"))
    if "\0" in wanted or path.is_absolute() or ".." in backslashed.parts or not path.parts:
        raise ManifestError(
            f"'{_short(wanted)}' leads out of the media folder, which is not allowed"
        )
    return str(path)


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise ManifestError(f"'{_short(address)}' is not a valid address: {error}") from error


def _prefix(address: str) -> str:
    split = _split(address)
    return f"{split.scheme}://{_short(split.netloc)}/" if split.netloc else ""


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN else name[: _SHOWN - 3] + "..."
