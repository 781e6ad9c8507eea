"""Embedded items into an archive: skip what is there, hash the rest, store it in one commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from time import perf_counter
from typing import TypeVar

from bittern.encoders.base import Modality
from bittern.errors import UnsupportedModalityError
from bittern.index.archive import Archive
from bittern.index.observation import CodedBefore, CodedObservation, Fingerprint
from bittern.service.ingest.items import Asked, Embedded, Entry, Recheck
from bittern.service.ingest.reading import another_file
from bittern.service.ingest.report import Stages, new_stages
from bittern.service.ingest.storing import COMMIT_ITEMS
from bittern.service.models.loaded import Model
from bittern.service.sources.base import other_id
from bittern.service.sources.ids import id_of_name
from bittern.types import AddResult, AddStatus, MediaItem, OnDuplicate

__all__ = [
    "COMMIT_ITEMS",
    "Commits",
    "batched",
    "check_towers",
    "without_untaken",
]

T = TypeVar("T")
_LOOKED_UP = 256
"""Items that the archive is asked about at once."""
_LOOKED_UP_BYTES = 32 << 20
_UNKNOWN = Fingerprint("", 0, None)
"""Of a file that was coded before fingerprints were kept: any content is another."""


@dataclass(frozen=True)
class Commits:
    """How items of one kind go into an archive.

    Attributes:
        archive: open for writing.
        model: what hashes them.
        on_duplicate: what to do with an `occurrenceID` that is there already.
        keep_embeddings: store float16 embeddings beside the codes.
        stages: filled in as work goes on.
        renew: under ``skip``, whether an item whose file has changed since takes the place of
            what is there. A job does that; a caller who adds items is taken at their word.
    """

    archive: Archive
    model: Model
    on_duplicate: OnDuplicate
    keep_embeddings: bool = False
    stages: Stages = field(default_factory=new_stages)
    renew: bool = False
    _taken_over: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def without_coded(self, entries: Iterable[Entry]) -> Iterator[Asked]:
        """Entries, those that would be skipped replaced by their result before any decoding.

        Items whose files may have changed since come as a `Recheck`. In a job, media are known
        by their names too: see `_under_its_id`.
        """
        if self.on_duplicate != "skip" and not self.renew:
            yield from entries
            return
        for batch in _some(entries):
            names: dict[str, str] = {}
            if self.renew:
                names = self._names(batch)
                batch = [self._under_its_id(entry, names) for entry in batch]
            if self.on_duplicate != "skip":
                yield from batch
                continue
            ids = [e.occurrence_id for e in batch if isinstance(e, MediaItem)]
            coded = self.archive.coded(ids, self.model.digest)
            for entry in batch:
                before = coded.get(entry.occurrence_id) if isinstance(entry, MediaItem) else None
                if isinstance(entry, MediaItem) and before is not None:
                    known = names.get(entry.occurrence_id, entry.media)
                    yield self._coded_before(entry, before, renamed=known != entry.media)
                else:
                    yield entry

    def _names(self, batch: Sequence[Entry]) -> dict[str, str]:
        """What the archive calls the media of these entries, by each id that they may have.

        Entries that are known by their path have no further media.
        """
        items = [e for e in batch if isinstance(e, MediaItem) and e.occurrence_id != e.media]
        ids = [name for item in items for name in (item.occurrence_id, other_id(item))]
        return self.archive.media_names(ids)

    def _under_its_id(self, entry: Entry, names: Mapping[str, str]) -> Entry:
        """The entry, under the id that its media have in the archive already.

        The first medium of an occurrence has the bare id, the others add their names. Once rows
        come in another order, another medium is the first: by ids alone it would take the place
        of the one that was first before, and be there twice. So the occurrence and the name of
        the media come first. Where only the bare id is there, with another medium, this one
        takes its place, and that one gets an id of its own if it is still listed.
        """
        if not isinstance(entry, MediaItem) or entry.occurrence_id == entry.media:
            return entry
        own, other = entry.occurrence_id, other_id(entry)
        if names.get(own) == entry.media and own not in self._taken_over:
            return entry
        if names.get(other) == entry.media and other not in self._taken_over:
            return replace(entry, occurrence_id=other)
        if own in names and self.on_duplicate != "error":
            self._taken_over.add(own)
        return entry

    def _coded_before(self, item: MediaItem, before: CodedBefore, renamed: bool) -> Asked:
        """Skipped, failed, or to be compared with what it was.

        An item without an `occurrenceID` of its own is known by its path below the folder that
        was indexed: below another folder that is another file, unless its content is the same.
        One whose occurrence has media of another name there is compared by content alone.
        """
        if renamed:
            return Recheck(item, before.fingerprint or _UNKNOWN, True, "renew")
        root = before.media_root
        moved = bool(root and item.media_root and root != item.media_root)
        unnamed = item.occurrence_id == id_of_name(item.media)
        if before.fingerprint is None or item.url is not None:
            return another_file(item, root) if moved and unnamed else _skipped(item)
        if moved and unnamed:
            return Recheck(item, before.fingerprint, moved, "refuse")
        if self.renew:
            return Recheck(item, before.fingerprint, moved, "renew")
        return _skipped(item)

    def commit(self, batch: Sequence[Embedded]) -> list[AddResult]:
        """Hash embedded items and store them in one atomic commit.

        Those that renew what is there are a commit of their own.

        Returns:
            What became of each, in order; every ``added`` and ``overwritten`` is durable.
        """
        begun = perf_counter()
        coded = {n: self._coded(e) for n, e in enumerate(batch) if e.result is None}
        hashed = perf_counter()
        rows = sum(map(len, coded.values()))
        self.stages["hash"].add(rows, busy_s=hashed - begun)
        results = {n: e.result for n, e in enumerate(batch) if e.result is not None}
        for renews, policy in ((False, self.on_duplicate), (True, "overwrite")):
            chosen = [n for n in coded if batch[n].renews is renews]
            if chosen:
                stored = self.archive.add(
                    [coded[n] for n in chosen],
                    model=self.model.digest,
                    on_duplicate=policy,
                )
                results.update(zip(chosen, stored, strict=True))
        if coded:
            self.stages["commit"].add(rows, busy_s=perf_counter() - hashed)
        return [results[number] for number in range(len(batch))]

    def _coded(self, embedded: Embedded) -> list[CodedObservation]:
        assert embedded.item is not None
        embeddings = embedded.stacked()
        codes = self.model.codes(Modality(embedded.item.modality), embeddings)
        kept = embeddings if self.keep_embeddings else [None] * len(codes)
        return [
            CodedObservation(seen, code, embedding, embedded.fingerprint)
            for seen, code, embedding in zip(embedded.observations(), codes, kept, strict=True)
        ]


def _skipped(item: MediaItem) -> AddResult:
    name = item.occurrence_id
    return AddResult(name, AddStatus.SKIPPED, message=f"'{name}' is in the archive already")


def _some(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Lists of entries, short ones where they bring their bytes along.

    Where the entries break off, those before come first, then whatever they raised.
    """
    some: list[Entry] = []
    size = 0
    broke_off: Exception | None = None
    source = iter(entries)
    while True:
        try:
            entry = next(source)
        except StopIteration:
            break
        except Exception as error:
            broke_off = error
            break
        some.append(entry)
        size += len(entry.data or b"") if isinstance(entry, MediaItem) else 0
        if len(some) >= _LOOKED_UP or size >= _LOOKED_UP_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some
    if broke_off is not None:
        raise broke_off


def batched(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size` entries; takes no more than it yields."""
    source = iter(entries)
    while batch := list(islice(source, size)):
        yield batch


def without_untaken(model: Model, entries: Iterable[Entry]) -> Iterator[Entry]:
    """Entries, those that the model cannot code replaced by the reason before any decoding.

    Items of no modality at all stay: they fail by themselves when they are decoded.

    Raises:
        WeightsMissingError, DigestMismatchError: as `Model.check_tower`, at the first entry
            that needs a tower.
    """
    for entry in entries:
        if isinstance(entry, MediaItem) and entry.modality in set(Modality):
            modality = Modality(entry.modality)
            try:
                model.require(modality)
            except UnsupportedModalityError as error:
                yield AddResult(
                    entry.occurrence_id,
                    AddStatus.FAILED,
                    reason=error.reason,
                    message=error.message,
                )
                continue
            model.check_tower(modality)
        yield entry


def check_towers(model: Model, entries: Iterable[Entry]) -> None:
    """Check the weights of every tower that the entries need, before anything is decoded.

    Raises:
        WeightsMissingError: they are not on this machine.
        DigestMismatchError: they are not those that the model was made with.
    """
    asked = {e.modality for e in entries if isinstance(e, MediaItem)}
    for modality in sorted(model.modalities & asked):
        model.check_tower(modality)
