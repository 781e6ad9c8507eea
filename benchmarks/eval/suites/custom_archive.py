"""An archive's observations as items, with the codes that its own models made of them.

The archive is opened for reading only. Clean-up spares the version that is read, as in an export.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks import AUDIO, IMAGE, Items
from bittern.errors import BitternError, LayoutError, PreconditionError
from bittern.hashing.codes import unpack
from bittern.index.archive import Archive
from bittern.index.models import ModelRecord
from bittern.types import MediaItem

_BATCH = 50_000
_COLUMNS = ("id", "occurrenceID", "start_s", "end_s")


@dataclass
class StoredCodes:
    """The codes of a task's items by one model of an archive, as rows of 1 and -1 for each bit.

    They are `bittern.benchmarks.eval.embeddings.rows.EmbeddedRows`: rows of an item stand
    together, items in order; otherwise rows are in the archive's order.

    Attributes:
        name: of the model.
        digest: hex SHA-256 of everything that decides a code.
        modalities: of its towers, and of the queries that it takes.
        folder: where the archive keeps it (`bittern.service.models.saved.load_saved`).
        codes: uint8 [rows, bits/8].
        owners: int64 [rows], the item of each row, not falling.
        spans: float32 [rows, 2], start and end in seconds; NaN for pictures.
        uncoded: number of items without a code, which cannot be found.
    """

    name: str
    digest: str
    modalities: frozenset[str]
    folder: Path
    codes: NDArray[np.uint8]
    owners: NDArray[np.int64]
    spans: NDArray[np.float32]
    uncoded: int
    failed: Sequence[tuple[int, str]] = ()

    def __post_init__(self) -> None:
        self.dim = self.bits = int(self.codes.shape[1]) * 8

    def __len__(self) -> int:
        return len(self.codes)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """See `EmbeddedRows`."""
        for first in range(0, len(self), rows):
            yield first, self.read(np.arange(first, min(first + rows, len(self))))

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `EmbeddedRows`."""
        signs: NDArray[np.float32] = unpack(self.codes[rows]).astype(np.float32) * 2 - 1
        return signs


@dataclass(frozen=True)
class ArchiveItems(Items):
    """Items of an archive.

    Attributes:
        stored: the codes of each of its models that has coded some of them.
        windows: the item of each observation, by the observation's id.
    """

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
        exists = bool(observation.media_root) and path.is_file()
        return MediaItem(
            occurrence_id=observation.occurrence_id,
            media=observation.media,
            modality=observation.modality,
            path=path if exists else None,
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


def _items(archive: Archive, modality: str, records: Sequence[ModelRecord]) -> ArchiveItems:
    """The observations of one modality, in the archive's order."""
    where = f"modality = '{modality}'"
    batches = list(archive.iter_batches(_COLUMNS, where=where, batch_rows=_BATCH))
    if not batches:
        return ArchiveItems((), modality, (), np.empty(0, np.int32), modality)
    columns = {
        name: pa.chunked_array([batch.column(name) for batch in batches]).combine_chunks()
        for name in _COLUMNS
    }
    items = columns["occurrenceID"].dictionary_encode()
    owners = items.indices.to_numpy().astype(np.int64)
    ids = columns["id"].to_pylist()
    times = [columns[name].to_numpy(zero_copy_only=False) for name in ("start_s", "end_s")]
    spans = np.stack(times, axis=1).astype(np.float32)
    stored = [
        _stored(archive, record, where, owners, spans)
        for record in records
        if modality in record.modalities
    ]
    firsts = np.unique(owners, return_index=True)[1]
    return ArchiveItems(
        ids=items.dictionary.to_pylist(),
        modality=modality,
        contents=_ArchiveMedia(archive.path, [ids[first] for first in firsts.tolist()]),
        classes=np.full(len(firsts), -1, np.int32),
        side=modality,
        stored=tuple(each for each in stored if len(each)),
        windows=dict(zip(ids, owners.tolist(), strict=True)),
    )


def _stored(
    archive: Archive,
    record: ModelRecord,
    where: str,
    owners: NDArray[np.int64],
    spans: NDArray[np.float32],
) -> StoredCodes:
    """The codes of one model; `owners` and `spans` are of all observations of the modality."""
    batches = archive.iter_batches(["id"], model=record.digest, where=where, batch_rows=_BATCH)
    columns = [batch.column("code") for batch in batches]
    coded = np.concatenate([np.asarray(column.is_valid()) for column in columns])
    if len(coded) != len(owners):
        raise PreconditionError(f"the archive at {archive.path} was changed while it was read")
    codes = np.concatenate(
        [np.frombuffer(b"".join(column.drop_null().to_pylist()), np.uint8) for column in columns]
    ).reshape(-1, record.bits // 8)
    order = np.argsort(owners[coded], kind="stable")  # windows may have been added apart
    mine = owners[coded][order]
    return StoredCodes(
        name=record.name,
        digest=record.digest,
        modalities=frozenset(map(str, record.modalities)),
        folder=archive.model_folder(record.digest),
        codes=codes[order],
        owners=mine,
        spans=spans[coded][order],
        uncoded=len(np.unique(owners)) - len(np.unique(mine)),
    )
