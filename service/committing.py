"""From embedded items to commits: skip what is there, hash the rest, store it batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import TypeVar

from bittern.errors import DuplicateObservationError, UnsupportedModalityError
from encoders.base import Modality
from index.archive import Archive
from index.observation import AddResult, AddStatus, CodedObservation, OnDuplicate
from service.models import Model
from service.pipeline import Embedded, Entry, StageTimes
from service.requests import MediaItem

T = TypeVar("T")
COMMIT_ITEMS = 64
"""Items per atomic commit."""


@dataclass(frozen=True)
class Commits:
    """How items of one kind go into an archive.

    Attributes:
        archive: open for writing.
        model: what hashes them.
        on_duplicate: what to do with an `occurrenceID` that is there already.
        keep_embeddings: store float16 embeddings beside the codes.
        times: filled in as work goes on.
    """

    archive: Archive
    model: Model
    on_duplicate: OnDuplicate
    keep_embeddings: bool = False
    times: StageTimes | None = None

    def without_coded(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Entries, those that would be skipped replaced by their result before any decoding."""
        if self.on_duplicate != "skip":
            yield from entries
            return
        for batch in batched(entries, COMMIT_ITEMS):
            ids = [e.occurrence_id for e in batch if isinstance(e, MediaItem)]
            coded = self.archive.coded(ids, self.model.digest)
            for entry in batch:
                if isinstance(entry, MediaItem) and entry.occurrence_id in coded:
                    yield _there_already(entry, coded[entry.occurrence_id].media_root)
                else:
                    yield entry

    def commit(self, batch: Sequence[Embedded]) -> list[AddResult]:
        """Hash embedded items and store them in one atomic commit.

        Returns:
            What became of each, in order; every ``added`` and ``overwritten`` is durable.
        """
        times = self.times or StageTimes()
        begun = perf_counter()
        coded = [self._coded(e) for e in batch if e.result is None]
        hashed = perf_counter()
        stored: Iterator[AddResult] = iter(())
        if coded:
            digest, policy = self.model.digest, self.on_duplicate
            stored = iter(self.archive.add(coded, model=digest, on_duplicate=policy))
        times.hash_s += hashed - begun
        times.commit_s += perf_counter() - hashed
        return [e.result if e.result is not None else next(stored) for e in batch]

    def _coded(self, embedded: Embedded) -> list[CodedObservation]:
        assert embedded.item is not None
        embeddings = embedded.stacked()
        codes = self.model.codes(Modality(embedded.item.modality), embeddings)
        kept = embeddings if self.keep_embeddings else [None] * len(codes)
        return [
            CodedObservation(seen, code, embedding)
            for seen, code, embedding in zip(embedded.observations(), codes, kept, strict=True)
        ]


def _there_already(item: MediaItem, root: str) -> AddResult:
    """Skipped; or failed, where only the name of the file is the same.

    An item without an `occurrenceID` of its own is known by its path below the folder that was
    indexed. Below another folder that is another file, which must not be lost in silence.
    """
    name = item.occurrence_id
    if name != item.media or not root or not item.media_root or root == item.media_root:
        message = f"'{name}' is in the archive already"
        return AddResult(name, AddStatus.SKIPPED, message=message)
    return AddResult(
        name,
        AddStatus.FAILED,
        reason=DuplicateObservationError("").reason,
        message=(
            f"a file named '{name}' is in the archive already, from {root}. If this is another "
            "one, index the folder above both, or a manifest with an occurrenceID each; if the "
            "folder was moved, choose to overwrite"
        ),
    )


def batched(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size` entries; takes no more than it yields."""
    source = iter(entries)
    while batch := list(islice(source, size)):
        yield batch


def without_untaken(model: Model, entries: Iterable[Entry]) -> Iterator[Entry]:
    """Entries, those that the model cannot code replaced by the reason before any decoding.

    Items of no modality at all stay: they fail by themselves when they are decoded.
    """
    for entry in entries:
        if isinstance(entry, MediaItem) and entry.modality in set(Modality):
            try:
                model.require(Modality(entry.modality))
            except UnsupportedModalityError as error:
                yield AddResult(
                    entry.occurrence_id,
                    AddStatus.FAILED,
                    reason=error.reason,
                    message=error.message,
                )
                continue
        yield entry


def check_towers(model: Model, entries: Sequence[Entry]) -> None:
    """Check the weights of every tower that the entries need, before anything is decoded.

    Raises:
        WeightsMissingError: they are not on this machine.
        DigestMismatchError: they are not those that the model was made with.
    """
    asked = {e.modality for e in entries if isinstance(e, MediaItem)}
    for modality in sorted(model.modalities & asked):
        model.check_tower(modality)
