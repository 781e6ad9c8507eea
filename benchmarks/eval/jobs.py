"""The tasks of a run in their spaces, embedded one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np

from bittern.benchmarks.eval.archive_codes import stored_parts
from bittern.benchmarks.eval.fitting import fitted_on, vectors_of
from bittern.benchmarks.eval.measuring import Vectors
from bittern.benchmarks.eval.request import DEFAULT_BITS, EvalRequest
from bittern.benchmarks.eval.spaces import Space, spaces_for
from bittern.benchmarks.eval.suites import Suite
from bittern.benchmarks.eval.suites.custom import ARCHIVE
from bittern.benchmarks.eval.systems.base import System
from bittern.benchmarks.eval.systems.learned import SavedHasher
from bittern.benchmarks.eval.systems.selection import named, systems_for
from bittern.benchmarks.eval.tasks import AUDIO, IMAGE, TEXT, Task
from bittern.benchmarks.eval.windows import with_windows
from bittern.errors import InvalidInputError
from bittern.service.models.loaded import Embedders, catalogue_encoder


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
            yield _embedded(task, space, request, screen)


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
        for part in stored_parts(task, request.models, cache_of(request), embedders):
            rows, system = part.vectors.rows, part.system
            windowed, rows = with_windows(part.task, rows, request.protocol)
            vectors = _of_the_asked(replace(part.vectors, rows=rows), part.task, windowed)
            digest = digest_of(windowed, vectors)
            yield Job(part.space, windowed, vectors, [system], digest)


def _of_the_asked(vectors: Vectors, before: Task, after: Task) -> Vectors:
    """The queries that are left where windows are items: those that no window answers are not."""
    if list(before.asked.ids) == list(after.asked.ids):
        return vectors
    place = {name: number for number, name in enumerate(before.asked.ids)}
    return replace(vectors, asked=vectors.asked[[place[name] for name in after.asked.ids]])


def _systems(space: Space, vectors: Vectors, request: EvalRequest) -> Sequence[System]:
    labelled = vectors.training.labels is not None
    names = request.systems
    found = named(names, labelled, space.saved) if names else systems_for(labelled, space.saved)
    told = [(system.name, _own_bits(system)) for system in found]
    for system, one in zip(found, told, strict=True):
        if isinstance(system, SavedHasher) and told.count(one) > 1:
            system.name += f" {system.saved.card.digest[:8]}"
    return found


def _own_bits(system: System) -> int | None:
    return system.saved.card.bits if isinstance(system, SavedHasher) else None


def _embedded(task: Task, space: Space, request: EvalRequest, screen: Screen) -> Job:
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
    for ids in (task.asked.ids, task.items.ids):
        state.update(f"{len(ids)}\n".encode())
        for first in range(0, len(ids), 4096):
            state.update("\0".join(str(i) for i in ids[first : first + 4096]).encode())
    relevance = [task.relevance] + ([task.candidates] if task.candidates else [])
    arrays: list[Any] = [array for r in relevance for array in (r.offsets, r.items, r.grades)]
    training = vectors.training
    arrays += [vectors.asked, training.items, training.queries]
    arrays += [training.labels] if training.labels is not None else []
    for array in arrays:
        state.update(np.ascontiguousarray(array).tobytes())
    state.update(vectors.rows.digest.encode())
    return state.hexdigest()


def cache_of(request: EvalRequest) -> Path:
    """Where embeddings are kept."""
    from platformdirs import user_cache_path

    return request.cache or user_cache_path("bittern") / "embeddings"
