"""An archive's observations as items, with the codes that its own models made of them.

The archive is opened for reading, and is left as it was. While a large one is read, the version
that is read is kept from clean-up, as in an export.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks import AUDIO, IMAGE, Items
from bittern.errors import BitternError, LayoutError, PreconditionError
from bittern.index.archive import Archive
from bittern.index.models import ModelRecord
from bittern.types import MediaItem

_BATCH = 50_000
_COLUMNS = ("id", "occurrenceID", "start_s", "end_s")


@dataclass(frozen=True)
class StoredCodes:
    """What one model of an archive made of a task's items.

    Rows of an item stand together, items in order; otherwise rows are in the archive's order.

    Attributes:
        name: of the model.
        digest: hex SHA-256 of everything that decides a code.
        modalities: what it has towers for; it answers queries of these.
        folder: where the archive keeps it (`bittern.service.models.saved.load_saved`).
        codes: uint8 [rows, bits/8].
        owners: int64 [rows], the item of each row, not falling.
        spans: float32 [rows, 2], start and end in seconds; NaN for pictures.
        uncoded: how many items it has not coded: they cannot be found.
    """

    name: str
    digest: str
    modalities: frozenset[str]
    folder: Path
    codes: NDArray[np.uint8]
    owners: NDArray[np.int64]
    spans: NDArray[np.float32]
    uncoded: int

    @property
    def bits(self) -> int:
        """Length of a code."""
        return int(self.codes.shape[1]) * 8

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True)
class ArchiveItems(Items):
    """Items of an archive.

    Attributes:
        archive: its folder.
        stored: the codes of each of its models that has coded some of them.
        windows: the item of each observation, by the observation's id.
    """

    archive: Path = Path()
    stored: tuple[StoredCodes, ...] = ()
    windows: dict[str, int] = field(default_factory=dict, repr=False)


class _ArchiveMedia:
    """Media of an archive's items, looked up when they are needed.

    Args:
        archive: its folder.
        ids: an observation of each item.
    """

    def __init__(self, archive: Path, ids: Sequence[str]) -> None:
        self._path, self._ids = archive, ids
        self._archive: Archive | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, position: int, /) -> MediaItem:
        if self._archive is None:
            self._archive = Archive.open(self._path)
        observation = self._archive.get(self._ids[position])
        path = Path(observation.media_root) / observation.media
        there = bool(observation.media_root) and path.is_file()
        return MediaItem(
            occurrence_id=observation.occurrence_id,
            media=observation.media,
            modality=observation.modality,
            path=path if there else None,
            media_root=observation.media_root,
            metadata=observation.metadata,
        )


def read_archive(folder: Path) -> dict[str, ArchiveItems]:
    """The pictures and the recordings of an archive, whichever it has.

    Raises:
        LayoutError: it is no archive that can be read, or has no model or no observations.
        PreconditionError: it was changed meanwhile.
    """
    try:
        with Archive.open(folder) as archive:
            records = [each for each in archive.model_records() if each.state != "pending"]
            before = archive.generation
            found = {m: _items(archive, m, records) for m in (IMAGE, AUDIO)}
            if archive.generation != before:
                raise PreconditionError(
                    f"the archive at {folder} was changed while it was read; run this again, or "
                    "copy the archive first"
                )
    except PreconditionError:
        raise
    except BitternError as error:
        raise LayoutError(f"{folder} cannot be read: {error.message}", field="data") from error
    found = {modality: items for modality, items in found.items() if items.stored}
    if not found:
        raise LayoutError(
            f"the archive at {folder} has no codes: index some media into it first", field="data"
        )
    return found


@dataclass
class _Listed:
    """Observations of one modality in the archive's order."""

    items: dict[str, int] = field(default_factory=dict)
    firsts: list[str] = field(default_factory=list)
    windows: dict[str, int] = field(default_factory=dict)
    owners: list[NDArray[np.int64]] = field(default_factory=list)
    spans: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, batch: Any) -> None:
        """The next observations."""
        owners = np.empty(batch.num_rows, np.int64)
        names, ids = batch.column("occurrenceID").to_pylist(), batch.column("id").to_pylist()
        for row, (owner, name) in enumerate(zip(names, ids, strict=True)):
            position = self.items.setdefault(owner, len(self.items))
            if position == len(self.firsts):
                self.firsts.append(name)
            self.windows[name] = owners[row] = position
        self.owners.append(owners)
        times = [batch.column(c).to_numpy(zero_copy_only=False) for c in ("start_s", "end_s")]
        self.spans.append(np.stack(times, axis=1).astype(np.float32))


def _items(archive: Archive, modality: str, records: Sequence[ModelRecord]) -> ArchiveItems:
    where = f"modality = '{modality}'"
    listed = _Listed()
    for batch in archive.iter_batches(_COLUMNS, where=where, batch_rows=_BATCH):
        listed.add(batch)
    owners = np.concatenate([np.empty(0, np.int64), *listed.owners])
    spans = np.concatenate([np.empty((0, 2), np.float32), *listed.spans])
    stored = [
        _stored(archive, record, where, owners, spans, len(listed.items))
        for record in records
        if modality in record.modalities
    ]
    return ArchiveItems(
        ids=list(listed.items),
        modality=modality,
        contents=_ArchiveMedia(archive.path, listed.firsts),
        classes=np.full(len(listed.items), -1, np.int32),
        side=modality,
        archive=archive.path,
        stored=tuple(each for each in stored if len(each)),
        windows=listed.windows,
    )


def _stored(
    archive: Archive,
    record: ModelRecord,
    where: str,
    owners: NDArray[np.int64],
    spans: NDArray[np.float32],
    items: int,
) -> StoredCodes:
    coded = np.zeros(len(owners), np.bool_)
    chunks = [np.empty((0, record.bits // 8), np.uint8)]
    for first, batch in _codes(archive, record, where):
        there = np.asarray(batch.is_valid())
        if first + len(there) > len(coded):
            raise PreconditionError(f"the archive at {archive.path} was changed while it was read")
        coded[first : first + len(there)] = there
        kept = b"".join(batch.drop_null().to_pylist())
        chunks.append(np.frombuffer(kept, np.uint8).reshape(-1, record.bits // 8))
    codes = np.concatenate(chunks)
    mine = owners[coded]
    order = np.argsort(mine, kind="stable")
    if (np.diff(mine) < 0).any():  # windows of a recording that were added apart
        codes, mine = codes[order], mine[order]
    return StoredCodes(
        name=record.name,
        digest=record.digest,
        modalities=frozenset(map(str, record.modalities)),
        folder=archive.model_folder(record.digest),
        codes=codes,
        owners=mine,
        spans=spans[coded][order],
        uncoded=items - len(np.unique(mine)),
    )


def _codes(archive: Archive, record: ModelRecord, where: str) -> Iterator[tuple[int, Any]]:
    """The model's codes batch by batch, null where there is none, and each batch's first row."""
    first = 0
    for batch in archive.iter_batches(["id"], model=record.digest, where=where, batch_rows=_BATCH):
        yield first, batch.column("code")
        first += batch.num_rows
