"""The tasks of a run, embedded by one model after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.encoding import embed_items, embed_queries
from bittern.benchmarks.eval.embeddings.precomputed import PrecomputedRows
from bittern.benchmarks.eval.embeddings.rows import EmbeddedRows, with_windows
from bittern.benchmarks.eval.request import DEFAULT_BITS, EvalRequest
from bittern.benchmarks.eval.spaces import Space, spaces_for
from bittern.benchmarks.eval.suites import Suite
from bittern.benchmarks.eval.suites.custom import ARCHIVE
from bittern.benchmarks.eval.suites.custom_archive import ArchiveItems, StoredCodes
from bittern.benchmarks.eval.systems.base import System, Training
from bittern.benchmarks.eval.systems.codes import FittedCodes
from bittern.benchmarks.eval.systems.learned import SavedHasher
from bittern.benchmarks.eval.systems.selection import systems_for
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    IMAGE,
    TEXT,
    Protocol,
    Task,
    TrainingSplit,
)
from bittern.encoders.base import Modality
from bittern.errors import InvalidInputError
from bittern.service.ingest.precomputed import Precomputed
from bittern.service.models.model import Embedders, Model, catalogue_encoder
from bittern.service.models.saved import load_saved
from bittern.text import agreeing, counted

NOVEL = "novel"
"""The group of queries whose classes nothing is fitted on."""
OnItems = Callable[[int], None]
"""Called with how many items are embedded."""


@dataclass(frozen=True)
class Vectors:
    """A task in one embedding space.

    Attributes:
        rows: of the items.
        queries: float32 [q, dim], the queries.
        training: what may be fitted on.
        left_out: sentences on embeddings that were not used.
    """

    rows: EmbeddedRows
    queries: NDArray[np.float32]
    training: Training
    left_out: Sequence[str] = ()

    def without_training(self) -> Vectors:
        """The same, with nothing to fit on."""
        none = np.empty((0, self.training.items.shape[1]), dtype=np.float32)
        sides = self.training.item_side, self.training.query_side
        return replace(self, training=Training(none, sides[0], none, sides[1]))


class Screen(Interface):
    """Shows how far a run is."""

    def stage(self, what: str, total: int | None) -> None:
        """Something begins that has so many steps."""
        ...

    def advance(self, done: int | None = None) -> None:
        """One more step is done, or so many in all."""
        ...


@dataclass(frozen=True)
class Job:
    """A task in a space, embedded.

    Attributes:
        space: whose towers.
        task: queries and items.
        vectors: queries, items, and what may be fitted on.
        systems: what is compared.
        digest: hex SHA-256 of queries, items, relevance, and what is fitted on.
    """

    space: Space
    task: Task
    vectors: Vectors
    systems: Sequence[System]
    digest: str

    @property
    def name(self) -> str:
        """Of the task, with the number of its random split."""
        split = self.task.repeat + 1
        return f"{self.task.name}, split {split}" if split > 1 else self.task.name


def vectors_of(
    task: Task, space: Space, request: EvalRequest, cache: Path, on_items: OnItems
) -> Vectors:
    """Embed what has not been embedded before, and draw what systems are fitted on.

    Raises:
        BitternError: items or queries cannot be embedded.
    """
    protocol = request.protocol
    if task.training is None and protocol.fit_on == "training":
        raise InvalidInputError(
            f"{task.name} has no training split that systems could be fitted on; leave "
            "--fit-on items",
            field="fit_on",
        )
    rows: EmbeddedRows
    unlisted: Sequence[str] = ()
    if request.embeddings is None:
        missing = protocol.missing
        rows = embed_items(space.towers, task.items, cache, on_items=on_items, missing=missing)
    else:
        stored = Precomputed.open(request.embeddings)
        stored.check_encoder(space.towers, [task.items.modality])
        rows = PrecomputedRows(stored, task.items.ids, missing=protocol.missing)
        unlisted = [sentence] if (sentence := stored.unlisted()) else []
    if not len(rows):
        raise InvalidInputError(
            f"none of the {len(task.items)} items of {task.name} could be embedded, the first: "
            f"{rows.failed[0][1] if rows.failed else 'it has no items'}"
        )
    queries = embed_queries(space.towers, task.queries, cache)
    if task.training is not None:
        split = _training_rows(task.training, space, protocol, cache, on_items)
        return Vectors(rows, queries, split, unlisted)
    items = rows.read(drawn_rows(rows_to_fit_on(task, rows), protocol))
    side, query_side = task.items.side, task.queries.side
    return Vectors(rows, queries, Training(items, side, queries, query_side), unlisted)


def fitted_on(task: Task, vectors: Vectors) -> str:
    """The sentence for the report on the rows that systems are fitted on."""
    split = vectors.training
    rows = len(split.items)
    if task.training is None:
        which = "all" if rows == len(vectors.rows) else f"{rows:,} of the"
        without = " (none of novel classes)" if NOVEL in task.groups else ""
        return (
            f"Training-free systems are fitted on {which} {len(vectors.rows):,} rows that are "
            f"searched{without}, without labels; queries are centred on their own mean, over all "
            f"{len(split.queries)}"
        )
    known = "with their classes" if split.labels is not None else "without labels"
    return (
        f"Systems are fitted on {rows:,} rows of a training split that is not searched, {known}; "
        f"queries are centred on the mean of its {len(split.queries):,} queries"
    )


def rows_to_fit_on(task: Task, rows: EmbeddedRows) -> NDArray[np.int64]:
    """Rows of the items that are searched, without those of novel classes."""
    novel = task.groups.get(NOVEL)
    if novel is None:
        return np.arange(len(rows))
    kept = ~np.isin(task.items.classes, task.queries.classes[novel])
    return np.flatnonzero(kept[rows.owners])


def drawn_rows(possible: NDArray[np.int64], protocol: Protocol) -> NDArray[np.int64]:
    """Rows to fit on, ascending: all, or as many as the protocol allows, drawn at random."""
    if len(possible) <= protocol.fit_rows:
        return possible
    rng = np.random.default_rng(protocol.seed)
    return np.sort(rng.choice(possible, protocol.fit_rows, replace=False)).astype(np.int64)


def _training_rows(
    split: TrainingSplit, space: Space, protocol: Protocol, cache: Path, on_items: OnItems
) -> Training:
    missing = protocol.missing
    rows = embed_items(space.towers, split.items, cache, on_items=on_items, missing=missing)
    if not len(rows):
        raise InvalidInputError("nothing of the training split could be embedded")
    chosen = drawn_rows(np.arange(len(rows)), protocol)
    classes = split.items.classes[rows.owners[chosen]]
    return Training(
        items=rows.read(chosen),
        item_side=split.items.side,
        queries=embed_queries(space.towers, split.queries, cache),
        query_side=split.queries.side,
        labels=_labels(classes, split.queries.classes),
    )


def _labels(classes: NDArray[np.int32], queries: NDArray[np.int32]) -> NDArray[np.int64] | None:
    """Which query names each item's class; None where an item's class has no query."""
    order = np.argsort(queries, kind="stable")
    position = np.searchsorted(queries, classes, sorter=order)
    position = order[np.minimum(position, len(order) - 1)]
    if (queries[position] != classes).any() or (classes < 0).any():
        return None
    return position.astype(np.int64)


def jobs_of(suite: Suite, request: EvalRequest, screen: Screen) -> Iterator[Job]:
    """Every task in every space, embedded one after the other."""
    if suite.name == "custom" and request.data and (request.data / ARCHIVE).is_dir():
        yield from _stored_jobs(suite, request, screen)
        return
    for space in spaces_for(suite.name, request.models, request.bits):
        tasks = suite.tasks(request.data, request.protocol, space.modalities)
        if not tasks:
            raise InvalidInputError(
                f"{space.name} has towers for {' and '.join(sorted(space.modalities))}, and no "
                f"task of {suite.name} takes those; name another --model",
                field="model",
            )
        for task in tasks:
            yield _job(task, space, request, screen)


def _stored_jobs(suite: Suite, request: EvalRequest, screen: Screen) -> Iterator[Job]:
    """Tasks over an archive, once for each of its models that takes their queries.

    The space is that of the model's logits: queries are logits, rows are stored bits.
    """
    if request.systems or tuple(request.bits) != DEFAULT_BITS or request.embeddings:
        raise InvalidInputError(
            "over an archive the stored codes are ranked as they are: leave --systems, --bits and "
            "--embeddings out, or give the media instead of the archive to compare systems",
            field="systems",
        )
    embedders = Embedders(catalogue_encoder)
    screen.stage("reading the archive", None)
    for task in suite.tasks(request.data, request.protocol, frozenset((TEXT, IMAGE, AUDIO))):
        for stored in _models_of(task, request.models):
            yield _stored_job(task, stored, embedders, request)


def _models_of(task: Task, models: Sequence[str]) -> list[StoredCodes]:
    """The models of an archive, or those named, that take a task's queries."""
    assert isinstance(task.items, ArchiveItems)
    known = [each.name for each in task.items.stored]
    unknown = [name for name in models if name not in known]
    if unknown:
        raise InvalidInputError(
            f"the archive has no codes by {', '.join(unknown)} for {task.name}; it has codes by "
            f"{', '.join(known)}",
            field="model",
        )
    found = [
        each
        for each in task.items.stored
        if task.queries.modality in each.modalities and (not models or each.name in models)
    ]
    if not found:
        raise InvalidInputError(
            f"no model of the archive takes {task.queries.modality} queries; it has codes by "
            f"{', '.join(known)}",
            field="model",
        )
    return found


def _stored_job(task: Task, stored: StoredCodes, embedders: Embedders, request: EvalRequest) -> Job:
    saved = load_saved(stored.folder)
    model = Model(saved, embedders.of(saved))
    modality = Modality(task.queries.modality)
    model.check_tower(modality)
    queries = embed_queries(model.embedder, task.queries, cache_of(request))
    none = np.empty((0, stored.bits), dtype=np.float32)
    training = Training(none, task.items.side, none, task.queries.side)
    if stored.uncoded:
        have = agreeing(stored.uncoded, "has", "have")
        what = counted(stored.uncoded, "item")
        sentence = f"{what} {have} no code by {stored.name}, and can never be found"
        task = replace(task, left_out=(*task.left_out, sentence))
    space = Space(stored.name, model.embedder, saved.card.licence, (saved,))
    vectors = Vectors(stored, model.logits(modality, queries), training)
    task, vectors = _with_windows(task, vectors, request.protocol)
    return Job(space, task, vectors, [StoredModel(stored)], digest_of(task, vectors))


class _Logits:
    """The hasher of logits: it gives them back."""

    kind = "stored"

    def __init__(self, bits: int) -> None:
        self.dim = self.bits = bits

    def logits(self, embeddings: NDArray[np.floating], modality: str) -> NDArray[np.float32]:
        """The same."""
        del modality
        return embeddings.astype(np.float32)


@dataclass
class StoredModel(System):
    """A model's codes as an archive has them; they cannot be re-ranked, for want of vectors."""

    stored: StoredCodes

    def __post_init__(self) -> None:
        self.name = f"{self.stored.name.removesuffix(f'-{self.stored.bits}')}, stored"
        self.own_bits = self.stored.bits

    @property
    def identity(self) -> str:
        """A digest of the model and its codes."""
        codes = np.ascontiguousarray(self.stored.codes).tobytes()
        return hashlib.sha256(self.stored.digest.encode() + codes).hexdigest()

    def fit(self, training: Training, bits: int | None, seed: int) -> FittedCodes:
        """Nothing is fitted."""
        hasher: Any = _Logits(self.stored.bits)
        return FittedCodes(hasher, training.item_side, training.query_side, self.stored.digest)


def _with_windows(task: Task, vectors: Vectors, protocol: Protocol) -> tuple[Task, Vectors]:
    """Windows as items, where the protocol wants that; queries without a right window go."""
    windowed, rows = with_windows(task, vectors.rows, protocol)
    queries = vectors.queries
    if list(task.queries.ids) != list(windowed.queries.ids):
        position = {name: number for number, name in enumerate(task.queries.ids)}
        queries = queries[[position[name] for name in windowed.queries.ids]]
    return windowed, replace(vectors, rows=rows, queries=queries)


def _systems(space: Space, vectors: Vectors, request: EvalRequest) -> Sequence[System]:
    """What is compared; saved models of one name and length get their digests into their names."""
    labelled = vectors.training.labels is not None
    found = systems_for(request.systems, labelled, space.saved)
    kinds = [(system.name, system.own_bits) for system in found]
    for system, one in zip(found, kinds, strict=True):
        if isinstance(system, SavedHasher) and kinds.count(one) > 1:
            system.name += f" {system.saved.card.digest[:8]}"
    return found


def _job(task: Task, space: Space, request: EvalRequest, screen: Screen) -> Job:
    screen.stage(f"{space.name}: embedding {task.name}", len(task.items))
    vectors = vectors_of(task, space, request, cache_of(request), screen.advance)
    windowed, vectors = _with_windows(task, vectors, request.protocol)
    windowed = replace(
        windowed,
        notes=(*windowed.notes, fitted_on(task, vectors)),
        left_out=(*windowed.left_out, *vectors.left_out),
    )
    systems = _systems(space, vectors, request)
    return Job(space, windowed, vectors, systems, digest_of(windowed, vectors))


def digest_of(task: Task, vectors: Vectors) -> str:
    """Of queries, items, relevance, and what is fitted on."""
    state = hashlib.sha256()
    for ids in (task.queries.ids, task.items.ids):
        state.update(f"{len(ids)}\n".encode())
        for first in range(0, len(ids), 4096):
            state.update("\0".join(str(i) for i in ids[first : first + 4096]).encode())
    relevance = [task.relevance] + ([task.candidates] if task.candidates else [])
    arrays: list[Any] = [array for r in relevance for array in (r.offsets, r.items, r.grades)]
    training = vectors.training
    arrays += [vectors.queries, training.items, training.queries]
    arrays += [training.labels] if training.labels is not None else []
    for array in arrays:
        state.update(np.ascontiguousarray(array).tobytes())
    state.update(vectors.rows.digest.encode())
    return state.hexdigest()


def cache_of(request: EvalRequest) -> Path:
    """Where embeddings are kept."""
    from platformdirs import user_cache_path

    return request.cache or user_cache_path("bittern") / "embeddings"
