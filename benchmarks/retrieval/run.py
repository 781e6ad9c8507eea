"""A whole run: tasks, embeddings, cells, and what they come to.

Everything that takes long is kept as it is made (embeddings in the cache, cells in the run's
folder), so the same request goes on where it was interrupted.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np

from benchmarks import machine
from benchmarks.retrieval import aggregate
from benchmarks.retrieval.aggregate import Line, Measured
from benchmarks.retrieval.archive_codes import StoredModel, stored_parts
from benchmarks.retrieval.cells import Cell, key_of, read_cell, write_cell
from benchmarks.retrieval.fitting import vectors_of
from benchmarks.retrieval.measures import chance, measure
from benchmarks.retrieval.measuring import (
    CellWork,
    NotFittedError,
    Vectors,
    depth_of,
    measured_cell,
)
from benchmarks.retrieval.request import EvalRequest, claim
from benchmarks.retrieval.results import ClassFigure, Results, ShownQuery, TaskSummary
from benchmarks.retrieval.showing import shown_queries
from benchmarks.retrieval.spaces import Space, spaces_for
from benchmarks.retrieval.suites import Suite, suite_named
from benchmarks.retrieval.suites.custom import ARCHIVE
from benchmarks.retrieval.systems.base import System
from benchmarks.retrieval.systems.learned import SavedHasher
from benchmarks.retrieval.systems.selection import named, systems_for
from benchmarks.retrieval.tasks import AUDIO, IMAGE, TEXT, Task
from benchmarks.retrieval.trec_files import write_trec
from benchmarks.retrieval.windows import with_windows
from bittern.errors import InvalidInputError
from service.embedders import Embedders
from service.engine import catalogue_encoder

MEASURING = 1
"""Version of how cells are measured; part of their keys."""


MEDIA = "media"
"""Folder of a run for media that are in no file of their own, and are shown."""


class Screen(Interface):
    """Who is told how far a run is."""

    def stage(self, what: str, total: int | None) -> None:
        """Something begins that has so many steps."""
        ...

    def advance(self, done: int | None = None) -> None:
        """One more step is done, or so many in all."""
        ...


@dataclass(frozen=True)
class _Job:
    """A task in a space, embedded."""

    space: Space
    task: Task
    vectors: Vectors
    systems: Sequence[System]
    digest: str


@dataclass(frozen=True)
class _LeftOut:
    """A system that a task is not measured with."""

    task: str
    system: str
    bits: int | None
    reason: str


def evaluate(request: EvalRequest, screen: Screen, command: str = "") -> Results:
    """Run, or go on with, what is asked for; the report is not written.

    Args:
        request: what is asked for.
        screen: is told how far it is.
        command: as it was given, for the report.

    Raises:
        BitternError: it cannot be run; what was measured is kept.
    """
    began, load = time.time(), machine.load_average()
    request = request.checked()
    suite = suite_named(request.suite)
    suite.check(request.data, request.protocol)
    claim(request)
    measures = list(request.measures or suite.measures)
    jobs, measured, left_out = [], [], []
    for job in _jobs(suite, request, screen):
        jobs.append(job)
        cells, unfit = _cells(job, request, measures, screen)
        measured += [(job, cell) for cell in cells]
        left_out += unfit
    screen.stage("putting together", None)
    lines = _lines(measured, measures, request.protocol.seed)
    if request.trec:
        for job, cell in measured:
            write_trec(request.out / "trec", job.task, cell, job.space.name)
    return Results(
        suite=suite.name,
        about=suite.about,
        command=command,
        protocol=_protocol(request, measures),
        measures=measures,
        models=[about for space in _spaces(jobs) for about in _about(space)],
        digests=_digests(jobs),
        machine=_machine(began, load),
        tasks=_summaries(jobs, measures, request),
        rows=[line.row for line in lines],
        comparisons=aggregate.comparisons_of(lines, measures[0], request.protocol.seed),
        classes=_classes(lines, jobs),
        shown=_shown(lines, measured, request.out / MEDIA),
        notes=_told(left_out),
    )


def _jobs(suite: Suite, request: EvalRequest, screen: Screen) -> Iterator[_Job]:
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


def _stored_jobs(suite: Suite, request: EvalRequest, screen: Screen) -> Iterator[_Job]:
    """Tasks over an archive, once for each of its models."""
    embedders = Embedders(catalogue_encoder)
    screen.stage("reading the archive", None)
    for task in suite.tasks(request.data, request.protocol, frozenset((TEXT, IMAGE, AUDIO))):
        for part in stored_parts(task, request.models, _cache(request), embedders):
            rows, system = part.vectors.rows, part.system
            windowed, rows = with_windows(part.task, rows, request.protocol)
            vectors = _of_the_asked(replace(part.vectors, rows=rows), part.task, windowed)
            digest = _digest(windowed, vectors)
            yield _Job(part.space, windowed, vectors, [system], digest)


def _of_the_asked(vectors: Vectors, before: Task, after: Task) -> Vectors:
    """The queries that are left where windows are items: those that no window answers are not."""
    if list(before.asked.ids) == list(after.asked.ids):
        return vectors
    place = {name: number for number, name in enumerate(before.asked.ids)}
    return replace(vectors, asked=vectors.asked[[place[name] for name in after.asked.ids]])


def _systems(space: Space, vectors: Vectors, request: EvalRequest) -> Sequence[System]:
    labelled = vectors.training.labels is not None
    names = request.systems
    if names:
        return named(names, labelled, space.saved)
    return systems_for(labelled, space.saved)


def _embedded(task: Task, space: Space, request: EvalRequest, screen: Screen) -> _Job:
    screen.stage(f"{space.name}: embedding {task.name}", len(task.items))
    vectors = vectors_of(task, space, request, _cache(request), screen.advance)
    windowed, rows = with_windows(task, vectors.rows, request.protocol)
    vectors = _of_the_asked(replace(vectors, rows=rows), task, windowed)
    systems = _systems(space, vectors, request)
    return _Job(space, windowed, vectors, systems, _digest(windowed, vectors))


def _cells(
    job: _Job, request: EvalRequest, measures: Sequence[str], screen: Screen
) -> tuple[list[Cell], list[_LeftOut]]:
    """What is measured of a task, from the run's folder where it is there already."""
    work, left_out = _work(job, request)
    screen.stage(f"{job.space.name}: {_name(job.task)}", sum(w.system.draws for w in work))
    done, found = 0, []
    for one in work:
        key = key_of(_decides(job, one, request, measures))
        cell = read_cell(request.out / "cells", key)
        if cell is None:
            try:
                cell = measured_cell(one, request, measures, screen.advance)
            except NotFittedError as error:
                left_out.append(_LeftOut(job.task.name, one.system.name, one.bits, error.message))
                continue
            write_cell(request.out / "cells", key, cell)
        done += one.system.draws
        screen.advance(done)
        found.append(cell)
    return found, left_out


def _name(task: Task) -> str:
    return f"{task.name}, split {task.repeat + 1}" if task.repeat else task.name


def _work(job: _Job, request: EvalRequest) -> tuple[list[CellWork], list[_LeftOut]]:
    """Every system at every length that it can have; and why not, where it cannot."""
    work: list[CellWork] = []
    left_out: list[_LeftOut] = []
    for system in job.systems:
        for bits in _lengths(system, request):
            reason = system.fits(job.vectors.rows.dim, bits)
            if reason:
                left_out.append(_LeftOut(job.task.name, system.name, bits, reason))
                continue
            work.append(CellWork(job.task, job.space.name, system, bits, job.vectors))
    return work, left_out


def _told(left_out: Sequence[_LeftOut]) -> list[str]:
    """One sentence per system: at which lengths it is left out, in which tasks, and why."""
    by_system: dict[str, list[_LeftOut]] = {}
    for one in left_out:
        by_system.setdefault(one.system, []).append(one)
    told = []
    for system, all_of_it in by_system.items():
        lengths = ", ".join(str(n) for n in sorted({one.bits for one in all_of_it if one.bits}))
        tasks = ", ".join(dict.fromkeys(one.task for one in all_of_it))
        at = f" at {lengths} bits" if lengths else ""
        told.append(f"{system} is left out{at} ({tasks}): {all_of_it[0].reason}")
    return told


def _lengths(system: System, request: EvalRequest) -> Sequence[int | None]:
    if isinstance(system, SavedHasher):
        return (system.saved.card.bits,)
    if isinstance(system, StoredModel):
        return (system.stored.bits,)
    return sorted(set(request.bits)) if system.coded else (None,)


def _decides(
    job: _Job, work: CellWork, request: EvalRequest, measures: Sequence[str]
) -> dict[str, Any]:
    protocol = request.protocol
    return {
        "measuring": MEASURING,
        "data": job.digest,
        "model": job.space.name,
        "system": work.system.name,
        "identity": _identity(work.system),
        "bits": work.bits,
        "draws": work.system.draws,
        "seed": protocol.seed,
        "repeat": job.task.repeat,
        "windows": protocol.windows,
        "depth": depth_of(job.task, job.vectors.rows, request, measures, coded=work.system.coded),
        "fit_rows": protocol.fit_rows,
        "rerank": request.rerank,
        "measures": list(measures),
    }


def _identity(system: System) -> str:
    """What tells systems of one name apart."""
    if isinstance(system, SavedHasher):
        return system.saved.card.digest
    if isinstance(system, StoredModel):
        codes = np.ascontiguousarray(system.stored.codes).tobytes()
        return hashlib.sha256(system.stored.digest.encode() + codes).hexdigest()
    return system.name


def _digest(task: Task, vectors: Vectors) -> str:
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


def _cache(request: EvalRequest) -> Path:
    from platformdirs import user_cache_path

    return request.cache or user_cache_path("bittern") / "embeddings"


# What it comes to


def _lines(measured: Sequence[tuple[_Job, Cell]], measures: Sequence[str], seed: int) -> list[Line]:
    together: dict[tuple[Any, ...], list[Measured]] = {}
    for job, cell in measured:
        key = (job.task.name, job.space.name, cell.about["system"], cell.about["bits"])
        together.setdefault(key, []).append(Measured(job.task, cell))
    return [
        line for parts in together.values() for line in aggregate.lines_of(parts, measures, seed)
    ]


def _classes(lines: Sequence[Line], jobs: Sequence[_Job]) -> list[ClassFigure]:
    found = []
    for task in _first_of_each(jobs):
        shown = aggregate.headline(lines, task.name)
        values = [(aggregate.named(line.row), aggregate.by_class(line, task)) for line in shown]
        sizes = np.bincount(
            task.items.classes[task.items.classes >= 0], minlength=len(task.classes)
        )
        for number in sorted({number for _, by_class in values for number in by_class}):
            found.append(
                ClassFigure(
                    task=task.name,
                    name=str(task.classes.names[number]),
                    group=_group_of(task, number),
                    relevant=int(sizes[number]),
                    values={label: by[number] for label, by in values if number in by},
                )
            )
    return found


def _group_of(task: Task, number: int) -> str:
    asked = task.asked.classes == number
    inside = [name for name, chosen in task.groups.items() if chosen[asked].all()]
    return inside[0] if len(inside) == 1 else ""


def _shown(
    lines: Sequence[Line], measured: Sequence[tuple[_Job, Cell]], folder: Path
) -> list[ShownQuery]:
    found = []
    for name in dict.fromkeys(job.task.name for job, _ in measured):
        for line in aggregate.headline(lines, name)[:1]:
            about = (name, line.row.model, line.row.system, line.row.bits)
            for job, cell in measured:
                told = cell.about
                if (job.task.name, job.space.name, told["system"], told["bits"]) == about:
                    here = Measured(job.task, cell)
                    found += shown_queries(here, line, job.vectors.rows, folder)
                    break
    return found


def _first_of_each(jobs: Sequence[_Job]) -> Iterator[Task]:
    yield from {job.task.name: job.task for job in reversed(jobs)}.values()


def _spaces(jobs: Sequence[_Job]) -> Iterator[Space]:
    yield from {job.space.name: job.space for job in jobs}.values()


def _summaries(
    jobs: Sequence[_Job], measures: Sequence[str], request: EvalRequest
) -> list[TaskSummary]:
    found: dict[str, TaskSummary] = {}
    for job in jobs:
        task, rows = job.task, job.vectors.rows
        counts = task.relevance.counts
        ranked: Any = task.candidates.counts if task.candidates else len(task.items)
        by_chance = chance(measure(measures[0]), counts, ranked)
        failed = [f"{len(rows.failed)} items could not be used"] if rows.failed else []
        summary = TaskSummary(
            name=task.name,
            queries=len(task.asked),
            items=len(task.items),
            rows=len(rows),
            relevant=float(counts.mean()),
            depth=depth_of(task, rows, request, measures, coded=True),
            chance=None if np.isnan(by_chance).all() else float(np.nanmean(by_chance)),
            left_out=[*task.left_out, *failed],
            notes=list(task.notes),
        )
        found.setdefault(task.name, summary)
    return list(found.values())


def _about(space: Space) -> list[dict[str, str]]:
    towers = ", ".join(f"{name} {digest[:12]}" for name, digest in space.digests.items())
    about = [{"name": space.name, "kind": "encoder", "digest": towers, "licence": space.licence}]
    return about + [
        {
            "name": model.card.name,
            "kind": f"codes, {model.card.hasher.get('kind')}",
            "digest": model.card.digest,
            "licence": model.card.licence,
        }
        for model in space.saved
    ]


def _digests(jobs: Sequence[_Job]) -> dict[str, str]:
    return {f"{job.space.name}: {_name(job.task)}": job.digest for job in jobs}


def _protocol(request: EvalRequest, measures: Sequence[str]) -> dict[str, Any]:
    asked = request.asked_for()
    told = {name: asked[name] for name in ("models", "bits", "systems", "rerank")}
    return {**told, "measures": list(measures), **request.protocol.to_json()}


def _machine(began: float, load: float | None) -> dict[str, Any]:
    date = time.strftime("%Y-%m-%d", time.gmtime(began))
    return {"date": date, "seconds": round(time.time() - began, 1), **machine.describe(load)}
