"""An archive without models or files: enough behaviour to see how the service uses one."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from bittern.errors import (
    CodeError,
    ModelNotFoundError,
    ObservationNotFoundError,
    UnreadableMediaError,
    UnsupportedModalityError,
)
from bittern.query import Query
from bittern.service.export.rows import ExportRows, rows_of_observations
from bittern.service.limits import Deadline
from bittern.service.local.archive import LocalArchive
from bittern.types import (
    AddResult,
    AddStatus,
    ArchiveStats,
    Encoded,
    EngineStats,
    Hit,
    MediaItem,
    ModelInfo,
    ModelStats,
    Observation,
    OnDuplicate,
    Page,
    SearchResult,
)

BITS = 64
MODEL = "fake-64"
DIGEST = "ab" * 32
ENGINE = EngineStats(
    kind="ivf",
    exact=False,
    reason="a recall of 0.95 is wanted of 15 rows",
    rows=15,
    code_bytes=120,
    other_bytes=2**40,
    building="ivf over 15 rows",
)


def heron(row: int = 0) -> Observation:
    """A photograph whose metadata hold every kind of value."""
    return Observation(
        id=f"obs-{row}",
        occurrence_id=f"obs-{row}",
        modality="image",
        media=f"heron-{row}.jpg",
        media_root="/secret/folder",
        metadata={
            "scientificName": "Ardea cinerea",
            "vernacularName": "Grey Heron <i>",
            "license": "CC-BY-4.0",
            "decimalLatitude": 0.1 + 0.2,
            "individualCount": 2**62 + 1,
            "captive": False,
            "sex": None,
        },
        row=row,
    )


def owl(row: int) -> Observation:
    """One window of a recording."""
    return Observation(
        id=f"owl#t={row},{row + 3}",
        occurrence_id="owl",
        modality="audio",
        media="owl.wav",
        start_s=float(row),
        end_s=row + 3.0,
        row=row,
    )


PATIENCE_S = 20
"""Seconds until a test gives up waiting for what should happen at once."""


class Hold:
    """Holds searches until it is released."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self, deadline: Deadline | None) -> None:
        self.begun.release()
        self.release.wait(PATIENCE_S)


class FakeArchive(LocalArchive):
    """Hits are the rows of the target modality in row order; the distance is the row.

    Where less than everything has to be found, it claims to have searched approximately; as
    relevant counts what is within ten times the share that may get an answer.
    """

    def __init__(self, name: str = "herons", rows: int = 20) -> None:
        self.name = name
        self.observations = [heron(r) if r % 4 else owl(r) for r in range(rows)]
        self.on_search: Callable[[Deadline | None], None] = lambda deadline: None
        self.on_commit: Callable[[], None] = lambda: None
        self.failure: Exception | None = None
        self.names_itself: str | None = None
        self.seen: builtins.list[Query] = []
        self.added: builtins.list[MediaItem] = []
        self.commits: builtins.list[int] = []
        self.exported: builtins.list[tuple[str | None, bool]] = []
        self.lock = threading.Lock()

    def answer(self, query: Query, deadline: Deadline | None = None) -> SearchResult:
        self.seen.append(query)
        if self.failure is not None:
            raise self.failure
        self.on_search(deadline)
        self._check_model(query.model)
        for each in query.inputs:
            if each.kind == "id":
                self._get(str(each.value))
        code = query.inputs[0].value
        if query.inputs[0].kind == "code" and len(code) * 8 != BITS:
            raise CodeError(
                f"a code of {len(code) * 8} bits was given, {BITS} bits are needed",
                field="code",
                details={"needed_bits": str(BITS)},
            )
        target = query.target or "image"
        found = [o for o in self.observations if o.modality == target]
        hits = [Hit(rank, float(o.row), o) for rank, o in enumerate(found[: query.k], start=1)]
        cutoff = query.within if query.relevance is None else 10 * float(query.relevance)
        near = [h for h in hits if cutoff is None or h.distance <= cutoff]
        exact = query.recall in (None, 1.0)
        return SearchResult(
            MODEL,
            target,
            query.metric or "asymmetric",
            1.5,
            near,
            engine=("flat" if exact else "ivf") if self.names_itself is None else self.names_itself,
            exact=exact and self.names_itself is None,
            cutoff=cutoff,
            nearest=hits[0] if hits and not near else None,
        )

    def _add(
        self,
        items: Iterable[MediaItem],
        on_duplicate: OnDuplicate,
        model: str | None,
        batch_size: int,
    ) -> Iterator[builtins.list[AddResult]]:
        self._check_model(model)
        batch = list(items)
        assert len(batch) <= batch_size
        if self.failure is not None:
            raise self.failure
        self.on_commit()
        with self.lock:
            results = [self._add_one(item, on_duplicate) for item in batch]
            self.commits.append(len(batch))
        yield results

    def _add_one(self, item: MediaItem, on_duplicate: OnDuplicate) -> AddResult:
        known = {o.occurrence_id for o in self.observations}
        if not item.data:
            error = UnreadableMediaError(f"{item.media}: the file is empty")
            return AddResult(
                item.occurrence_id, AddStatus.FAILED, reason=error.reason, message=error.message
            )
        if item.occurrence_id in known and on_duplicate == "skip":
            return AddResult(item.occurrence_id, AddStatus.SKIPPED)
        if item.occurrence_id in known and on_duplicate == "error":
            return AddResult(
                item.occurrence_id, AddStatus.FAILED, reason="DUPLICATE_OBSERVATION", message="!"
            )
        self.added.append(item)
        self.observations.append(
            replace(
                heron(len(self.observations)),
                id=item.occurrence_id,
                occurrence_id=item.occurrence_id,
                modality=item.modality,
                media=item.media,
                metadata=item.metadata,
            )
        )
        status = AddStatus.OVERWRITTEN if item.occurrence_id in known else AddStatus.ADDED
        return AddResult(item.occurrence_id, status, observations=1)

    def _get(self, id: str) -> Observation:  # noqa: A002
        for observation in self.observations:
            if observation.id == id:
                return observation
        raise ObservationNotFoundError(f"no observation has the id {id!r}", field="id")

    def page(self, *, page_size: int, page_token: str = "", where: str | None = None) -> Page:
        start = int(page_token or 0)
        rows = self.observations[start : start + page_size]
        more = start + page_size < len(self.observations)
        return Page(rows, str(start + page_size) if more else "")

    def _delete(self, ids: Sequence[str]) -> builtins.list[str]:
        removed = [o.id for o in self.observations if {o.id, o.occurrence_id} & set(ids)]
        unknown = set(ids) - {i for o in self.observations for i in (o.id, o.occurrence_id)}
        if unknown:
            raise ObservationNotFoundError(f"unknown ids: {sorted(unknown)}", field="ids")
        self.observations = [o for o in self.observations if o.id not in set(removed)]
        return removed

    def encode_query(self, query: Query) -> builtins.list[Encoded]:
        self._check_model(query.model)
        [given] = query.inputs
        if given.kind == "image":
            raise UnsupportedModalityError(f"{given}: {MODEL} has no image tower", field="image")
        logits = tuple(0.1 * i - 3 for i in range(BITS))
        if given.kind == "text":
            return [Encoded(b"\x01" * 8, logits)]
        return [Encoded(b"\x02" * 8, logits, s, s + 3.0) for s in (0.0, 3.0)]

    def rows(
        self, where: str | None = None, *, codes: bool = False, paths: bool = False
    ) -> ExportRows:
        if self.failure is not None:
            raise self.failure
        self.exported.append((where, codes))
        return rows_of_observations(self.observations)

    def stats(self) -> ArchiveStats:
        return ArchiveStats(
            name=self.name,
            observations={"image": 15, "audio": 5},
            recordings=1,
            models=[ModelStats(MODEL, DIGEST, BITS, {"image": 15}, {"image": ENGINE})],
            generation=7,
            code_bytes=160,
            columns={"license": "string"},
        )

    def models(self) -> builtins.list[ModelInfo]:
        return [ModelInfo(MODEL, DIGEST, BITS, "fake", ("text", "audio"), {"image": 15})]

    def _check_model(self, model: str | None) -> None:
        if model not in (None, MODEL):
            raise ModelNotFoundError(f"no model is called {model!r}; there is {MODEL}")
