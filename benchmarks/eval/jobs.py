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

from bittern.benchmarks.eval.archive_codes import stored_parts
from bittern.benchmarks.eval.embeddings.encoding import embed_items, embed_queries
from bittern.benchmarks.eval.embeddings.precomputed import PrecomputedRows
from bittern.benchmarks.eval.embeddings.rows import EmbeddedRows
from bittern.benchmarks.eval.embeddings.windows import with_windows
from bittern.benchmarks.eval.measuring import Vectors
from bittern.benchmarks.eval.request import DEFAULT_BITS, EvalRequest
from bittern.benchmarks.eval.spaces import Space, spaces_for
from bittern.benchmarks.eval.suites import Suite
from bittern.benchmarks.eval.suites.custom import ARCHIVE
from bittern.benchmarks.eval.systems.base import System, Training
from bittern.benchmarks.eval.systems.learned import SavedHasher
from bittern.benchmarks.eval.systems.selection import named, systems_for
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    IMAGE,
    TEXT,
    Items,
    Protocol,
    Task,
    TrainingSplit,
)
from bittern.errors import InvalidInputError
from bittern.service.models.loaded import Embedders, catalogue_encoder

NOVEL = "novel"
"""The group of queries whose classes nothing is fitted on."""
OnItems = Callable[[int], None]
"""Called with how many items are embedded."""


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
    if request.embeddings is None:
        rows = _embedded(task.items, space, protocol, cache, on_items)
    else:
        dim = space.towers.encoder().dim
        rows = PrecomputedRows.open(
            request.embeddings, task.items.ids, dim=dim, missing=protocol.missing
        )
    if not len(rows):
        raise InvalidInputError(
            f"none of the {len(task.items)} items of {task.name} could be embedded, the first: "
            f"{rows.failed[0][1] if rows.failed else 'there are none'}"
        )
    queries = embed_queries(space.towers, task.queries, cache)
    if task.training is not None:
        split = _training_rows(task.training, space, protocol, cache, on_items)
        return Vectors(rows, queries, split)
    items = rows.read(drawn_rows(rows_to_fit_on(task, rows), protocol))
    side, query_side = task.items.side, task.queries.side
    return Vectors(rows, queries, Training(items, side, queries, query_side))


def _embedded(
    items: Items, space: Space, protocol: Protocol, cache: Path, on_items: OnItems
) -> EmbeddedRows:
    return embed_items(
        space.towers,
        items,
        cache,
        missing=protocol.missing,
        on_items=on_items,
    )


def fitted_on(task: Task, vectors: Vectors) -> str:
    """What systems are fitted on, in a sentence for the report."""
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
        f"Systems are fitted on {rows:,} rows of a training part that is not searched, {known}; "
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
    rows = _embedded(split.items, space, protocol, cache, on_items)
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
    """Which query names each item's class; None where an item's class is not asked for."""
    order = np.argsort(queries, kind="stable")
    position = np.searchsorted(queries, classes, sorter=order)
    position = order[np.minimum(position, len(order) - 1)]
    if (queries[position] != classes).any() or (classes < 0).any():
        return None
    return position.astype(np.int64)


class Screen(Interface):
    """Who is told how far a run is."""

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
        task: what is asked of what.
        vectors: queries, items, and what may be fitted on.
        systems: what is compared.
        digest: hex SHA-256 of everything that is ranked, asked, right, and fitted on.
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


def jobs_of(suite: Suite, request: EvalRequest, screen: Screen) -> Iterator[Job]:
    """Every task in every space, embedded one after the other."""
    if suite.name == "custom" and _is_over_archive(request):
        yield from _stored_jobs(suite, request, screen)
        return
    for space in spaces_for(suite.name, request.models, request.bits):
        tasks = suite.tasks(request.data, request.protocol, space.modalities)
        if not tasks:
            raise InvalidInputError(
                f"{space.name} has towers for {' and '.join(sorted(space.modalities))}, and no "
                f"task of {suite.name} can be asked with those; name another --model",
                field="model",
            )
        for task in tasks:
            yield _job(task, space, request, screen)


def _is_over_archive(request: EvalRequest) -> bool:
    return request.data is not None and (request.data / ARCHIVE).is_dir()


def _stored_jobs(suite: Suite, request: EvalRequest, screen: Screen) -> Iterator[Job]:
    """Tasks over an archive, once for each of its models."""
    if request.systems or tuple(request.bits) != DEFAULT_BITS or request.embeddings:
        raise InvalidInputError(
            "over an archive the stored codes are ranked as they are: leave --systems, --bits and "
            "--embeddings out, or give the media in place of the archive to compare systems",
            field="systems",
        )
    embedders = Embedders(catalogue_encoder)
    screen.stage("reading the archive", None)
    for task in suite.tasks(request.data, request.protocol, frozenset((TEXT, IMAGE, AUDIO))):
        for split in stored_parts(task, request.models, cache_of(request), embedders):
            rows, system = split.vectors.rows, split.system
            windowed, rows = with_windows(split.task, rows, request.protocol)
            vectors = _of_the_asked(replace(split.vectors, rows=rows), split.task, windowed)
            digest = digest_of(windowed, vectors)
            yield Job(split.space, windowed, vectors, [system], digest)


def _of_the_asked(vectors: Vectors, before: Task, after: Task) -> Vectors:
    """The queries that are left where windows are items: those that no window answers are not."""
    if list(before.queries.ids) == list(after.queries.ids):
        return vectors
    position = {name: number for number, name in enumerate(before.queries.ids)}
    return replace(vectors, queries=vectors.queries[[position[name] for name in after.queries.ids]])


def _systems(space: Space, vectors: Vectors, request: EvalRequest) -> Sequence[System]:
    labelled = vectors.training.labels is not None
    names = request.systems
    found = named(names, labelled, space.saved) if names else systems_for(labelled, space.saved)
    kinds = [(system.name, _own_bits(system)) for system in found]
    for system, one in zip(found, kinds, strict=True):
        if isinstance(system, SavedHasher) and kinds.count(one) > 1:
            system.name += f" {system.saved.card.digest[:8]}"
    return found


def _own_bits(system: System) -> int | None:
    return system.saved.card.bits if isinstance(system, SavedHasher) else None


def _job(task: Task, space: Space, request: EvalRequest, screen: Screen) -> Job:
    screen.stage(f"{space.name}: embedding {task.name}", len(task.items))
    vectors = vectors_of(task, space, request, cache_of(request), screen.advance)
    windowed, rows = with_windows(task, vectors.rows, request.protocol)
    vectors = _of_the_asked(replace(vectors, rows=rows), task, windowed)
    windowed = replace(windowed, notes=(*windowed.notes, fitted_on(task, vectors)))
    systems = _systems(space, vectors, request)
    return Job(space, windowed, vectors, systems, digest_of(windowed, vectors))


def digest_of(task: Task, vectors: Vectors) -> str:
    """Of everything that is ranked, asked and right."""
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
