"""What a run comes to: its results, from what was measured of each task."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.retrieval import aggregate
from benchmarks.retrieval.aggregate import Line, Measured
from benchmarks.retrieval.cells import CELLS, Cell, read_cell
from benchmarks.retrieval.jobs import Job
from benchmarks.retrieval.measures import chance, measure
from benchmarks.retrieval.measuring import depth_of
from benchmarks.retrieval.request import EvalRequest
from benchmarks.retrieval.results import ClassFigure, Results, ShownQuery, TaskSummary
from benchmarks.retrieval.showing import shown_queries
from benchmarks.retrieval.spaces import Space
from benchmarks.retrieval.suites import Suite
from benchmarks.retrieval.tasks import Task

MEDIA = "media"
"""Folder of a run for media that are in no file of their own, and are shown."""


@dataclass(frozen=True)
class Begun:
    """When a run began, and how.

    Attributes:
        command: as it was given.
        at: seconds since the epoch.
        load: load average of the machine; None where it cannot be told.
    """

    command: str
    at: float
    load: float | None

    @classmethod
    def now(cls, command: str) -> Begun:
        """It begins."""
        return cls(command, time.time(), machine.load_average())


@dataclass(frozen=True)
class Kept:
    """A cell without its hits, and the key that finds them."""

    key: str
    cell: Cell


@dataclass(frozen=True)
class LeftOut:
    """A system that a task is not measured with."""

    task: str
    system: str
    bits: int | None
    reason: str


@dataclass(frozen=True)
class Done:
    """What was measured of a task in a space.

    Attributes:
        job: the task; without what was fitted on.
        kept: one per system and length.
        left_out: systems that it is not measured with.
    """

    job: Job
    kept: Sequence[Kept]
    left_out: Sequence[LeftOut]


def results_of(
    suite: Suite,
    request: EvalRequest,
    measures: Sequence[str],
    done: Sequence[Done],
    begun: Begun,
) -> Results:
    """The results of a run.

    Args:
        suite: what was run.
        request: what was asked for.
        measures: names; the first is the main one.
        done: all that was measured; each task's random splits in order.
        begun: when and how it began.
    """
    lines = _lines(done, measures, request.protocol.seed)
    jobs = [one.job for one in done]
    return Results(
        suite=suite.name,
        about=suite.about,
        command=begun.command,
        protocol=_protocol(request, measures),
        measures=measures,
        models=[about for space in _spaces(jobs) for about in _about(space)],
        digests={f"{job.space.name}: {job.name}": job.digest for job in jobs},
        machine=_machine(begun),
        tasks=_summaries(jobs, measures, request),
        rows=[line.row for line in lines],
        comparisons=aggregate.comparisons_of(lines, measures[0], request.protocol.seed),
        classes=_classes(lines, jobs),
        shown=_shown(lines, done, request.out),
        notes=_told([one for each in done for one in each.left_out]),
    )


def _told(left_out: Sequence[LeftOut]) -> list[str]:
    """One sentence per system: at which lengths it is left out, in which tasks, and why."""
    by_system: dict[str, list[LeftOut]] = {}
    for one in left_out:
        by_system.setdefault(one.system, []).append(one)
    told = []
    for system, all_of_it in by_system.items():
        lengths = ", ".join(str(n) for n in sorted({one.bits for one in all_of_it if one.bits}))
        tasks = ", ".join(dict.fromkeys(one.task for one in all_of_it))
        at = f" at {lengths} bits" if lengths else ""
        told.append(f"{system} is left out{at} ({tasks}): {all_of_it[0].reason}")
    return told


def _lines(done: Sequence[Done], measures: Sequence[str], seed: int) -> list[Line]:
    together: dict[tuple[Any, ...], list[Measured]] = {}
    for one in done:
        for kept in one.kept:
            about = kept.cell.about
            key = (one.job.task.name, one.job.space.name, about["system"], about["bits"])
            together.setdefault(key, []).append(Measured(one.job.task, kept.cell))
    return [
        line for parts in together.values() for line in aggregate.lines_of(parts, measures, seed)
    ]


def _classes(lines: Sequence[Line], jobs: Sequence[Job]) -> list[ClassFigure]:
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


def _shown(lines: Sequence[Line], done: Sequence[Done], run: Path) -> list[ShownQuery]:
    """Some queries of each task with their hits, under the first headline system."""
    found = []
    for name in dict.fromkeys(one.job.task.name for one in done):
        for line in aggregate.headline(lines, name)[:1]:
            one, kept = _behind(line, done)
            cell = read_cell(run / CELLS, kept.key)
            if cell is not None:
                here = Measured(one.job.task, cell)
                found += shown_queries(here, line, one.job.vectors.rows, run / MEDIA)
    return found


def _behind(line: Line, done: Sequence[Done]) -> tuple[Done, Kept]:
    """What a line was measured on first."""
    wanted = (line.row.task, line.row.model, line.row.system, line.row.bits)
    return next(
        (one, kept)
        for one in done
        for kept in one.kept
        if wanted
        == (
            one.job.task.name,
            one.job.space.name,
            kept.cell.about["system"],
            kept.cell.about["bits"],
        )
    )


def _first_of_each(jobs: Sequence[Job]) -> Iterator[Task]:
    yield from {job.task.name: job.task for job in reversed(jobs)}.values()


def _spaces(jobs: Sequence[Job]) -> Iterator[Space]:
    yield from {job.space.name: job.space for job in jobs}.values()


def _summaries(
    jobs: Sequence[Job], measures: Sequence[str], request: EvalRequest
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


def _protocol(request: EvalRequest, measures: Sequence[str]) -> dict[str, Any]:
    asked = request.asked_for()
    told = {name: asked[name] for name in ("models", "bits", "systems", "rerank")}
    return {**told, "measures": list(measures), **request.protocol.to_json()}


def _machine(begun: Begun) -> dict[str, Any]:
    date = time.strftime("%Y-%m-%d", time.gmtime(begun.at))
    seconds = round(time.time() - begun.at, 1)
    return {
        "date": date,
        "seconds": seconds,
        "revision": machine.revision(),
        **machine.describe(begun.load),
    }
