"""The last stages: hash and commit, in a separate thread beside the network.

`store_all` runs the thread. `ArchiveCommits` stores into an archive: it skips items that are
stored already, hashes the rest, and adds them in one atomic commit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic, perf_counter

from bittern.encoders.base import Modality
from bittern.errors import InvalidInputError, UnsupportedModalityError
from bittern.index.archive import Archive
from bittern.index.observation import CodedBefore, CodedObservation, Fingerprint
from bittern.service.ingest.items import Embedded, PipelineEntry, Recheck, another_file
from bittern.service.ingest.prefetch import close_stream
from bittern.service.ingest.report import JobReport, OnProgress, Stages, new_stages
from bittern.service.limits import check_names
from bittern.service.models.model import Model
from bittern.service.sources.base import Entry, id_of_name, other_id
from bittern.types import AddResult, AddStatus, MediaItem, OnDuplicate

COMMIT_ROWS = 16_384
"""Most rows per atomic commit (long recordings have many rows)."""
PROGRESS_S = 1.0
_POLL_S = 0.25
_LOOKUP_ITEMS = 256
"""Items that are looked up in the archive at once."""
_LOOKUP_BYTES = 32 << 20
_UNKNOWN = Fingerprint("", 0, None)
"""Of a file that was coded before fingerprints were stored; differs from any content."""

Commit = Callable[[Sequence[Embedded]], list[AddResult]]
"""Hashes embedded items and stores them atomically; returns their results, in order."""


@dataclass(frozen=True)
class CommitPolicy:
    """When to commit: after so many items or seconds, whichever comes first.

    Attributes:
        items: most items of one commit.
        seconds: most seconds that a coded item waits for its commit.
        clock: monotonic seconds.
    """

    items: int
    seconds: float
    clock: Callable[[], float] = monotonic


def store_all(
    stream: Iterator[Embedded],
    commit: Commit,
    report: JobReport,
    *,
    policy: CommitPolicy,
    on_progress: OnProgress = lambda report: None,
) -> None:
    """Commit all embedded items, in order, until the stream ends.

    If the stream raises, the items before are still committed.

    Args:
        stream: from `bittern.service.ingest.embedding.embed_items`.
        commit: stores a batch.
        report: updated after each commit.
        policy: when to commit.
        on_progress: called after each commit, and about once a second.

    Raises:
        BaseException: an error of the stream, or of a commit.
    """
    thread = _CommitThread(commit, report, policy, on_progress)
    try:
        for embedded in stream:
            thread.put(embedded)
    finally:
        try:
            close_stream(stream)
        finally:
            thread.close()
    thread.check()


class _CommitThread:
    """Commits in a thread; at most one more commit waits while one runs."""

    def __init__(
        self, commit: Commit, report: JobReport, policy: CommitPolicy, on_progress: OnProgress
    ) -> None:
        self._commit, self._report = commit, report
        self._policy, self._on_progress = policy, on_progress
        self._changed = threading.Condition()
        self._waiting: deque[Embedded] = deque()
        self._rows = 0
        self._oldest = 0.0
        self._reported = policy.clock()
        self._begun = policy.clock() - report.seconds
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="bittern-store")
        self._thread.start()

    def put(self, embedded: Embedded) -> None:
        """Add an item; waits while a commit is due, and raises errors of commits."""
        with self._changed:
            while self._failure is None and self._is_full():
                self._changed.wait()
            self.check()
            if not self._waiting:
                self._oldest = self._policy.clock()
            self._waiting.append(embedded)
            self._rows += len(embedded.embeddings)
            self._changed.notify_all()

    def close(self) -> None:
        """Commit the remaining items, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def check(self) -> None:
        """Raise the error of a commit."""
        if self._failure is not None:
            raise self._failure

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._policy.items or self._rows >= COMMIT_ROWS

    def _is_due(self) -> bool:
        waited = self._policy.clock() - self._oldest
        return bool(self._waiting) and (self._is_full() or waited >= self._policy.seconds)

    def _run(self) -> None:
        try:
            while True:
                batch = self._next_batch()
                if batch:
                    self._store(batch)
                elif self._closed:
                    return
                self._report_progress(after_commit=bool(batch))
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._waiting.clear()
                self._changed.notify_all()

    def _next_batch(self) -> list[Embedded]:
        """Items to commit now; empty if it is only time to report progress."""
        with self._changed:
            begun = self._policy.clock()
            while not self._is_due():
                if self._closed or self._policy.clock() - begun >= PROGRESS_S:
                    break
                self._changed.wait(_POLL_S)
            if not (self._is_due() or self._closed):
                return []
            batch: list[Embedded] = []
            rows = 0
            while self._waiting and len(batch) < self._policy.items and rows < COMMIT_ROWS:
                batch.append(self._waiting.popleft())
                rows += len(batch[-1].embeddings)
            self._rows -= rows
            self._oldest = self._policy.clock()
            self._changed.notify_all()
            return batch

    def _store(self, batch: list[Embedded]) -> None:
        results = self._commit(batch)
        stored = {AddStatus.ADDED, AddStatus.OVERWRITTEN}
        self._report.commits += any(result.status in stored for result in results)
        self._report.count(results)

    def _report_progress(self, after_commit: bool) -> None:
        now = self._policy.clock()
        self._report.seconds = now - self._begun
        self._report.listed = self._report.stages["list"].items
        if after_commit or now - self._reported >= PROGRESS_S:
            self._reported = now
            self._on_progress(self._report)


@dataclass(frozen=True)
class ArchiveCommits:
    """How items go into an archive.

    Attributes:
        archive: open for writing.
        model: hashes them.
        on_duplicate: what to do with an `occurrenceID` that is stored already.
        keep_embeddings: store float16 embeddings beside the codes.
        stages: counts the work.
        renew: under ``skip``, code changed files again. Jobs do; calls of Add do not.
    """

    archive: Archive
    model: Model
    on_duplicate: OnDuplicate
    keep_embeddings: bool = False
    stages: Stages = field(default_factory=new_stages)
    renew: bool = False
    _reassigned: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def without_stored(self, entries: Iterable[Entry]) -> Iterator[PipelineEntry]:
        """Entries; stored items are replaced by their result (``skipped``), before any decoding.

        Items whose files may have changed become a `Recheck`. Jobs recognise media by their names
        too: see `_under_stored_id`.
        """
        if self.on_duplicate != "skip" and not self.renew:
            yield from entries
            return
        for batch in _lookups(entries):
            names: dict[str, str] = {}
            if self.renew:
                names = self._stored_names(batch)
                batch = [self._under_stored_id(entry, names) for entry in batch]
            if self.on_duplicate != "skip":
                yield from batch
                continue
            ids = [e.occurrence_id for e in batch if isinstance(e, MediaItem)]
            coded = self.archive.coded(ids, self.model.digest)
            for entry in batch:
                before = coded.get(entry.occurrence_id) if isinstance(entry, MediaItem) else None
                if isinstance(entry, MediaItem) and before is not None:
                    known = names.get(entry.occurrence_id, entry.media)
                    yield self._compared(entry, before, renamed=known != entry.media)
                else:
                    yield entry

    def _stored_names(self, batch: Sequence[Entry]) -> dict[str, str]:
        """Stored media names, by each id that these entries may have."""
        items = [e for e in batch if isinstance(e, MediaItem) and e.occurrence_id != e.media]
        ids = [name for item in items for name in (item.occurrence_id, other_id(item))]
        return self.archive.media_names(ids)

    def _under_stored_id(self, entry: Entry, names: Mapping[str, str]) -> Entry:
        """The entry, under the id that its media have in the archive already.

        The first medium of an occurrence has the bare id, the others add their names. If rows
        come in another order, another medium is first; by id alone it would replace the former
        first one, and be stored twice. So the occurrence and the media name are compared first.
        If only the bare id is stored, with another medium, this one replaces it; the other one
        gets its own id if it is still listed.
        """
        if not isinstance(entry, MediaItem) or entry.occurrence_id == entry.media:
            return entry
        own, other = entry.occurrence_id, other_id(entry)
        if names.get(own) == entry.media and own not in self._reassigned:
            return entry
        if names.get(other) == entry.media and other not in self._reassigned:
            return replace(entry, occurrence_id=other)
        if own in names and self.on_duplicate != "error":
            self._reassigned.add(own)
        return entry

    def _compared(self, item: MediaItem, before: CodedBefore, renamed: bool) -> PipelineEntry:
        """A ``skipped`` or ``failed`` result, or the item with the fingerprint to compare.

        An item without an `occurrenceID` is identified by its path below the indexed folder. The
        same path below another folder is another file, unless its content is the same. If the
        stored media have another name, only the content counts.
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

        Items that replace stored ones are committed separately.

        Returns:
            Their results, in order; every ``added`` and ``overwritten`` is durable.
        """
        begun = perf_counter()
        coded = {n: self._coded(e) for n, e in enumerate(batch) if e.result is None}
        hashed = perf_counter()
        rows = sum(map(len, coded.values()))
        self.stages["hash"].add(rows, busy_s=hashed - begun)
        results = {n: e.result for n, e in enumerate(batch) if e.result is not None}
        policies: tuple[tuple[bool, OnDuplicate], ...] = (
            (False, self.on_duplicate),
            (True, "overwrite"),
        )
        for renews, policy in policies:
            chosen = [n for n in coded if batch[n].renews is renews]
            if chosen:
                stored = self.archive.add(
                    [coded[n] for n in chosen], model=self.model.digest, on_duplicate=policy
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


def _lookups(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Batches of entries, bounded by number and bytes; an error comes after all entries."""
    batch: list[Entry] = []
    size = 0
    error: Exception | None = None
    source = iter(entries)
    while True:
        try:
            entry = next(source)
        except StopIteration:
            break
        except Exception as raised:
            error = raised
            break
        batch.append(entry)
        size += len(entry.data or b"") if isinstance(entry, MediaItem) else 0
        if len(batch) >= _LOOKUP_ITEMS or size >= _LOOKUP_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
    if error is not None:
        raise error


def reject_unusable(model: Model, entries: Iterable[Entry]) -> Iterator[Entry]:
    """Entries; those that the model cannot code are replaced by a failure, before any decoding.

    So are those whose id or media name no archive takes.

    Items of an unknown modality stay: decoding fails them.

    Raises:
        WeightsMissingError, DigestMismatchError: as `Model.check_tower`, at the first entry
            that needs a tower.
    """
    for entry in entries:
        if isinstance(entry, MediaItem):
            known = entry.modality in set(Modality)
            try:
                check_names(entry)
                if known:
                    model.require(Modality(entry.modality))
            except (InvalidInputError, UnsupportedModalityError) as error:
                yield AddResult.failure(entry.occurrence_id, error)
                continue
            if known:
                model.check_tower(Modality(entry.modality))
        yield entry


def check_towers(model: Model, entries: Iterable[Entry]) -> None:
    """Check the weights of every tower that the entries need, before anything is decoded.

    Raises:
        WeightsMissingError: they are not on this machine.
        DigestMismatchError: they are not those that the model was made with.
    """
    needed = {e.modality for e in entries if isinstance(e, MediaItem)}
    for modality in sorted(model.modalities & needed):
        model.check_tower(modality)
