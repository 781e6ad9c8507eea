"""A folder of media with a manifest, which `bittern index` reads again.

    FOLDER/media/...       copies of the media
    FOLDER/manifest.csv    one row per photograph or recording, with all its metadata
    FOLDER/missing.csv     media that could not be copied, and why; only if there are any

Media are read from where they were coded. They are copied, not linked: changes to the folder must
not change the originals.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bittern.errors import InvalidInputError, SourceNotFoundError
from bittern.files import check_outside_archives
from bittern.index.columns import as_given
from bittern.service.export.files import OnProgress
from bittern.service.export.writers import FOLDER, harmless
from bittern.types import Exported, Hit, Observation

_TYPES = {"image": "StillImage", "audio": "Sound"}
_FIRST = ("media", "occurrenceID", "type")
_OF_HITS = ("rank", "distance", "windows")
_UNSAFE = re.compile(r"[^\w.-]+")
"""Characters that are replaced in names."""
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])", re.IGNORECASE)
_LONGEST_NAME = 100
_MOST_BYTES = 200
"""Most bytes of a name without its suffix, in UTF-8; file systems allow 255 with it."""


@dataclass
class Medium:
    """One photograph or recording of the manifest.

    Attributes:
        observation: its first window, for a recording.
        rank: of its best hit; None without a search.
        distance: likewise.
        windows: seconds of the windows that are hits.
    """

    observation: Observation
    rank: int | None = None
    distance: float | None = None
    windows: list[str] = field(default_factory=list)


def media_of_hits(hits: Sequence[Hit]) -> list[Medium]:
    """The media of hits, best first, each once with all its windows."""
    found: dict[tuple[str, str], Medium] = {}
    for hit in hits:
        seen = hit.observation
        key = (seen.occurrence_id, seen.media)
        medium = found.setdefault(key, Medium(seen, hit.rank, hit.distance))
        if seen.start_s is not None and seen.end_s is not None:
            medium.windows.append(f"{as_given(seen.start_s)}-{as_given(seen.end_s)}")
    return list(found.values())


def media_of_observations(observations: Iterable[Observation]) -> Iterator[Medium]:
    """The media of observations, each once."""
    seen: set[tuple[str, str]] = set()
    for observation in observations:
        key = (observation.occurrence_id, observation.media)
        if key not in seen:
            seen.add(key)
            yield Medium(observation)


def write_folder(
    media: Iterable[Medium],
    to: Path,
    columns: Sequence[str],
    *,
    hits: bool = False,
    below: Sequence[Path] = (),
    total: int = 0,
    on_progress: OnProgress = lambda done, total: None,
) -> Exported:
    """Copy media and write their manifest; the folder is created atomically.

    An archive from other people may name any picture or recording that this user can read; `below`
    limits which are copied.

    Args:
        media: to be copied.
        to: a new folder.
        columns: metadata columns of the manifest.
        hits: also write rank, distance and windows.
        below: media outside these folders, with links resolved, are missing; empty for any.
        total: number of media, for `on_progress`.
        on_progress: called after each of them.

    Raises:
        InvalidInputError: `to` exists already or is in an archive, its parent folder does not
            exist, or one of `below` is no folder.
        SourceNotFoundError: none of the media can be copied; no folder is made.
    """
    _check_new(to)
    allowed = [_folder(one) for one in below]
    roots: dict[str, None] = {}
    partial = to.with_name(f"{to.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        done, missing, reason = _fill(
            partial, media, columns, hits, _Copying(allowed, roots), total, on_progress
        )
        if missing and missing == done:
            raise SourceNotFoundError(
                f"none of the {missing} media can be copied: {reason}", field="to"
            )
        _check_new(to)
        partial.rename(to)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Exported(to, FOLDER, done - missing, missing=missing, copied_from=tuple(roots))


def _check_new(to: Path) -> None:
    if to.exists() or to.is_symlink():
        raise InvalidInputError(f"{to} exists already; name a new folder", field="to")
    check_outside_archives(to, "to")
    if not to.absolute().parent.is_dir():
        raise InvalidInputError(f"there is no folder {to.parent} to make {to.name} in", field="to")


def _fill(
    folder: Path,
    media: Iterable[Medium],
    columns: Sequence[str],
    hits: bool,
    copying: _Copying,
    total: int,
    on_progress: OnProgress,
) -> tuple[int, int, str]:
    """The number of media, of missing ones, and the reason of the last one."""
    (folder / "media").mkdir()
    own = (*_FIRST, *(_OF_HITS if hits else ()))
    others = [name for name in columns if name.lower() not in {each.lower() for each in own}]
    names, done, missing, reason = _Names(), 0, 0, ""
    with (
        (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as manifest,
        (folder / "missing.csv").open("w", encoding="utf-8", newline="") as lost,
    ):
        rows, losses = csv.writer(manifest), csv.writer(lost)
        rows.writerow([*own, *others])
        losses.writerow(["media", "occurrenceID", "reason"])
        for medium in media:
            seen = medium.observation
            done += 1
            name = names.new(seen.media)
            why = copying.copy(seen, folder / "media" / name)
            if why:
                missing, reason = missing + 1, why
                losses.writerow(map(_cell, (seen.media, seen.occurrence_id, why)))
            else:
                first = [f"media/{name}", seen.occurrence_id, _TYPES.get(seen.modality)]
                if hits:
                    first += [medium.rank, medium.distance, "; ".join(medium.windows)]  # type: ignore[list-item]
                rows.writerow(map(_cell, [*first, *(seen.metadata.get(c) for c in others)]))
            on_progress(done, total)
    if not missing:
        (folder / "missing.csv").unlink()
    return done, missing, reason


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise InvalidInputError(f"there is no folder {path} with media", field="media")
    return path.resolve()


@dataclass
class _Copying:
    """Copies media from `allowed` folders (empty for any), and records the folders in `roots`."""

    allowed: Sequence[Path]
    roots: dict[str, None]

    def copy(self, seen: Observation, to: Path) -> str:
        """Copy a medium; returns the reason if that is not possible."""
        why = _copy(seen, to, self.allowed)
        if not why:
            inside = seen.media_root and not Path(seen.media).is_absolute()
            self.roots[seen.media_root if inside else str(Path(seen.media).parent)] = None
        return why


def _copy(seen: Observation, to: Path, allowed: Sequence[Path]) -> str:
    from bittern.service.sources.base import modality_of_suffix

    source, root = Path(seen.media), Path(seen.media_root)
    if not source.is_absolute():
        if not seen.media_root:
            return "the archive does not know where the file is"
        source = root / source
        # A path in an archive must not lead out of the media folder.
        if ".." in Path(seen.media).parts:
            return f"'{seen.media[:200]}' leads out of the folder of the media"
    if modality_of_suffix(source) is None:
        return "the name is not that of a photograph or a recording"
    try:
        if allowed and not any(source.resolve().is_relative_to(folder) for folder in allowed):
            return f"{source} is outside the folders that media may be copied from (--media)"
        if not source.is_file():
            return f"there is no file {source}"
        shutil.copyfile(source, to)
    except (OSError, ValueError, RuntimeError) as error:
        to.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename2 == str(to):
            raise
        return f"it cannot be read: {error}"
    return ""


class _Names:
    """File names that every file system accepts, each used once."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def new(self, media: str) -> str:
        base = unicodedata.normalize("NFC", media.replace("\\", "/").rpartition("/")[2])
        stem, dot, suffix = _UNSAFE.sub("_", base).rpartition(".")
        stem = (stem or suffix).strip("._-")[:_LONGEST_NAME]
        stem = stem.encode("utf-8", "ignore")[:_MOST_BYTES].decode("utf-8", "ignore") or "media"
        suffix = f".{suffix[:10]}" if dot and suffix else ""
        if _DEVICES.fullmatch(stem.partition(".")[0]):
            stem = f"{stem}_"
        name, count = f"{stem}{suffix}", self._given.get(f"{stem}{suffix}".lower(), 0)
        while name.lower() in self._given:
            count += 1
            name = f"{stem}-{count + 1}{suffix}"
        self._given[f"{stem}{suffix}".lower()] = count
        self._given.setdefault(name.lower(), 0)
        return name


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return harmless(value) if isinstance(value, str) else str(as_given(value))
