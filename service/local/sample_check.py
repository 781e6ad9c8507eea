"""Checks codes against the models: codes a sample of an archive's media again.

Media are searched in the folder that they were indexed from. Media whose fingerprint has changed
are reported apart from media whose codes differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Modality
from bittern.errors import BitternError, ObservationNotFoundError
from bittern.files import is_file
from bittern.index.archive import Archive
from bittern.index.models import ModelRecord
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.items import Embedded
from bittern.service.local.models import ModelRegistry
from bittern.service.models.model import Embedders, Model, catalogue_encoder
from bittern.types import MediaItem, Page

SAMPLE = 16
"""Default number of media items per model that are coded again."""
_NOISE = 0.05
"""Share of a code's bits that may differ between machines or batches."""
_PAGE = 10_000
_MOST_OBSERVATIONS = 100_000
"""Observations whose media are searched."""
_MOST_WINDOWS = 200
"""Longer recordings are not coded again: it would take minutes."""


@dataclass
class SampleCheck:
    """The result of coding a sample again.

    Attributes:
        media: media items that were coded again.
        codes: observations whose code was compared.
        bits: bits that were compared.
        flipped: bits that differed.
        wrong: ids of observations whose codes differ by more than noise.
        changed: `occurrenceID`s whose media have changed since they were coded.
        unusable: media that could not be coded again, with the reason.
        unchecked: models that could not be loaded, with the reason.
        searched: media files that were searched.
        missing: how many of them were not found.
        some_missing: a few of the missing ones, by `occurrenceID`.
    """

    media: int = 0
    codes: int = 0
    bits: int = 0
    flipped: int = 0
    wrong: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    searched: int = 0
    missing: int = 0
    some_missing: list[str] = field(default_factory=list)


def check_sample(archive: Archive, sample: int = SAMPLE) -> SampleCheck:
    """Code some of an archive's media again, and check that the others still exist.

    Args:
        archive: open; nothing is written to it.
        sample: media items per model; 0 codes none.
    """
    found = SampleCheck()
    present = _present_media(archive, found)
    if not sample or not present:
        return found
    registry = ModelRegistry(archive, Embedders(catalogue_encoder))
    for record in archive.model_records():
        coded = archive.coded([one.occurrence_id for one in present], record.digest)
        mine = [one for one in present if one.occurrence_id in coded]
        chosen = [mine[n] for n in _evenly(len(mine), sample)]
        if not chosen:
            continue
        try:
            model = registry.load(record)
            found.media += len(chosen)
            _compare(archive, record, model, chosen, found)
        except BitternError as error:
            found.unchecked.append(f"{record.name} ({record.digest[:16]}): {error.message}")
    return found


def _present_media(archive: Archive, found: SampleCheck) -> list[MediaItem]:
    """Media files that still exist, one entry each."""
    present: dict[str, MediaItem] = {}
    windows: dict[str, int] = {}
    seen: set[str] = set()
    for page in _pages(archive):
        for one in page.observations:
            name = one.occurrence_id
            windows[name] = windows.get(name, 0) + 1
            if name in seen or not one.media_root:
                continue
            seen.add(name)
            found.searched += 1
            path = Path(one.media_root) / one.media
            if is_file(path):
                root = one.media_root
                present[name] = MediaItem(name, one.media, one.modality, path, media_root=root)
            else:
                found.missing += 1
                if len(found.some_missing) < 5:
                    found.some_missing.append(name)
    return [item for name, item in present.items() if windows[name] <= _MOST_WINDOWS]


def _pages(archive: Archive) -> Iterator[Page]:
    token = ""
    for _ in range(_MOST_OBSERVATIONS // _PAGE):
        page = archive.list(page_size=_PAGE, page_token=token)
        yield page
        token = page.next_token
        if not token:
            return


def _evenly(count: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` evenly spread positions below `count`; all if there are fewer."""
    if count <= wanted:
        return np.arange(count)
    return np.linspace(0, count - 1, wanted).astype(np.int64)


def _compare(
    archive: Archive,
    record: ModelRecord,
    model: Model,
    chosen: Sequence[MediaItem],
    found: SampleCheck,
) -> None:
    before = archive.coded([one.occurrence_id for one in chosen], record.digest)
    for embedded in embed_items(model.embedder, chosen):
        name = embedded.item.occurrence_id if embedded.item else ""
        if embedded.result is not None or embedded.item is None:
            reason = embedded.result.message if embedded.result else "it cannot be read"
            found.unusable.append(reason)
            continue
        then, now = before[name].fingerprint, embedded.fingerprint
        if then is not None and now is not None and then.content != now.content:
            found.changed.append(name)
            continue
        _compare_codes(archive, record, model, embedded, found)


def _compare_codes(
    archive: Archive, record: ModelRecord, model: Model, embedded: Embedded, found: SampleCheck
) -> None:
    assert embedded.item is not None
    codes = model.codes(Modality(embedded.item.modality), embedded.stacked())
    for one, code in zip(embedded.observations(), codes, strict=True):
        try:
            stored = archive.code(one.id, record.digest)
        except ObservationNotFoundError:
            continue
        flipped = int(np.bitwise_count(stored ^ code).sum())
        found.codes += 1
        found.bits += record.bits
        found.flipped += flipped
        if flipped > max(1, _NOISE * record.bits):
            found.wrong.append(one.id)
