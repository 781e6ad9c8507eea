"""What a run comes to: the results of all tasks, put together."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bittern.benchmarks import machine
from bittern.benchmarks.eval import aggregate
from bittern.benchmarks.eval.aggregate import Line, Measured
from bittern.benchmarks.eval.cells import CELLS, Cell, read_cell
from bittern.benchmarks.eval.comparisons import comparisons_of
from bittern.benchmarks.eval.jobs import Job
from bittern.benchmarks.eval.measures import Measure, chance, measure
from bittern.benchmarks.eval.measuring import depth_of
from bittern.benchmarks.eval.request import EvalRequest
from bittern.benchmarks.eval.results import (
    ClassScore,
    GroupSummary,
    Results,
    ShownQuery,
    TaskSummary,
)
from bittern.benchmarks.eval.showing import shown_queries
from bittern.benchmarks.eval.spaces import Space
from bittern.benchmarks.eval.suites import Suite
from bittern.text import agreeing, counted

UNKNOWN = (
    "What encoders and saved models were trained on is not known here: where they saw the items or "
    "classes that are searched, figures say less of new ones"
)
_NUMBER = re.compile(r"[0-9,]+")
MEDIA = "media"
"""Folder of a run for media that are in no file of their own, and are shown."""


@dataclass(frozen=True)
class Begun:
    """When a run began, and how.

    Attributes:
        command: as it was given.
        at: seconds since the epoch.
        load: load average of the machine; None where it is unknown.
    """

    command: str
    at: float
    load: float | None

    @classmethod
    def now(cls, command: str) -> Begun:
        """It begins."""
        return cls(command, time.time(), machine.load_average())


@dataclass(frozen=True)
class LeftOut:
    """A system that a task is not measured with, or of which something is to be said."""

    task: str
    system: str
    bits: int | None
    reason: str


@dataclass(frozen=True)
class Done:
    """What was measured of a task in a space.

    Attributes:
        job: the task; without what was fitted on.
        measures: names; the first is the main one.
        cells: by their keys, without their hits; one per system and length.
        left_out: systems that it is not measured with.
        remarks: on systems that it is measured with.
    """

    job: Job
    measures: Sequence[str]
    cells: Mapping[str, Cell]
    left_out: Sequence[LeftOut]
    remarks: Sequence[LeftOut] = ()


def results_of(
    suite: Suite,
    request: EvalRequest,
    done: Sequence[Done],
    begun: Begun,
) -> Results:
    """The results of a run.

    Args:
        suite: what was run.
        request: what was run.
        done: all that was measured; each task's random splits in order.
        begun: when and how it began.
    """
    repeats: dict[tuple[str, str], list[Done]] = {}
    for one in done:
        repeats.setdefault((one.job.task.name, one.job.space.name), []).append(one)
    lines = [line for splits in repeats.values() for line in _lines(splits, request.protocol.seed)]
    jobs = [one.job for one in done]
    spaces = {job.space.name: job.space for job in jobs}
    measures = list(dict.fromkeys(name for one in done for name in one.measures))
    return Results(
        suite=suite.name,
        about=suite.about,
        command=begun.command,
        protocol=_protocol(request, measures),
        measures=measures,
        models=[about for space in spaces.values() for about in _about(space)],
        digests={f"{job.space.name}: {job.name}": job.digest for job in jobs},
        machine=_machine(begun, done),
        tasks=[_summary(splits, request) for splits in repeats.values()],
        rows=[line.row for line in lines],
        comparisons=comparisons_of(lines, request.protocol.seed),
        classes=_classes(lines, jobs),
        shown=_shown(lines, done, request.out),
        notes=[
            *_sentences((one for each in done for one in each.left_out), "is left out"),
            *_sentences((one for each in done for one in each.remarks), "repeats components"),
            UNKNOWN,
        ],
    )


def _sentences(left_out: Iterable[LeftOut], what: str) -> list[str]:
    """Which systems are left out, at which lengths, in which tasks, and why."""
    by_system: dict[tuple[str, str], list[LeftOut]] = {}
    for one in left_out:
        by_system.setdefault((one.system, _NUMBER.sub("", one.reason)), []).append(one)
    sentences = []
    for (system, _), all_of_it in by_system.items():
        lengths = ", ".join(str(n) for n in sorted({one.bits for one in all_of_it if one.bits}))
        tasks = "; ".join(dict.fromkeys(one.task for one in all_of_it))
        at = f" at {lengths} bits" if lengths else ""
        sentences.append(f"{system} {what}{at} ({tasks}), for example: {all_of_it[0].reason}")
    return sentences


def _lines(splits: Sequence[Done], seed: int) -> list[Line]:
    """The lines of a task in a space, over its random splits."""
    together: dict[tuple[str, int | None], list[Measured]] = {}
    for one in splits:
        for cell in one.cells.values():
            key = (cell.about["system"], cell.about["bits"])
            together.setdefault(key, []).append(Measured(one.job.task, cell))
    return [
        line
        for measured in together.values()
        for line in aggregate.lines_of(measured, splits[0].measures, seed)
    ]


def _classes(lines: Sequence[Line], jobs: Sequence[Job]) -> list[ClassScore]:
    """Per class, over the random splits in which it is in a group."""
    found = []
    first_of_each = {job.task.name: job.task for job in reversed(jobs)}
    for task in first_of_each.values():
        groups = aggregate.groups_of([job.task for job in jobs if job.task.name == task.name])
        sizes = np.bincount(
            task.items.classes[task.items.classes >= 0], minlength=len(task.classes)
        )
        for group in groups[1:] or groups:
            shown = aggregate.headline(lines, task.name, group)
            values = {line.row.name: aggregate.by_class(line) for line in shown}
            found += [
                ClassScore(
                    task=task.name,
                    name=str(task.classes.names[number]),
                    group="" if group == aggregate.ALL else group,
                    relevant=int(sizes[number]),
                    values={label: by[number] for label, by in values.items() if number in by},
                )
                for number in sorted({n for by in values.values() for n in by})
            ]
    return found


def _shown(lines: Sequence[Line], done: Sequence[Done], run: Path) -> list[ShownQuery]:
    """Some queries of each task with their hits, under the first headline system."""
    found = []
    for name in dict.fromkeys(one.job.task.name for one in done):
        for line in aggregate.headline(lines, name)[:1]:
            row = line.row
            one, key = next(
                (one, key)
                for one in done
                if (one.job.task.name, one.job.space.name) == (row.task, row.model)
                for key, cell in one.cells.items()
                if (cell.about["system"], cell.about["bits"]) == (row.system, row.bits)
            )
            cell = read_cell(run / CELLS, key)
            if cell is not None:
                measured = Measured(one.job.task, cell)
                found += shown_queries(measured, line, one.job.vectors.rows, run / MEDIA)
    return found


def _summary(repeats: Sequence[Done], request: EvalRequest) -> TaskSummary:
    """Of a task in a space; of several random splits, that of the first."""
    first = repeats[0]
    task, rows = first.job.task, first.job.vectors.rows
    depth = depth_of(task, rows, request, first.measures)
    failed = {position for position, _ in rows.failed}
    sentences = list(dict.fromkeys(text for one in repeats for text in one.job.task.left_out))
    if failed:
        hit = int(np.isin(task.relevance.items, list(failed)).sum())
        sentences.append(
            f"{counted(len(failed), 'item')} could not be used and "
            f"{agreeing(len(failed), 'counts', 'count')} as not found; the right answer "
            f"{counted(hit, 'time')}"
        )
    return TaskSummary(
        name=task.name,
        model=first.job.space.name,
        measures=first.measures,
        splits=len(repeats),
        items=len(task.items),
        rows=len(rows),
        depth=depth,
        groups=[
            summary
            for group in aggregate.groups_of([one.job.task for one in repeats])
            if (summary := _group(repeats, group, depth)) is not None
        ],
        left_out=sentences,
        notes=list(task.notes),
    )


def _group(repeats: Sequence[Done], group: str, depth: int | None) -> GroupSummary | None:
    """A group of the queries over all random splits."""
    main = _cut(repeats[0].measures[0], depth)
    queries: dict[str, int] = {}
    counts, chances = [], []
    for task in (one.job.task for one in repeats):
        chosen = aggregate.chosen(task, group)
        if not chosen.any():
            continue
        ranked: Any = len(task.items)
        if task.candidates is not None:
            ranked = task.candidates.counts[chosen]
        relevant = task.relevance.counts[chosen]
        counts.append(relevant)
        graded = main.kind.stem == "nDCG" and (task.relevance.grades > 1).any()
        by_chance = chance(main, relevant, ranked)
        chances.append(np.full(len(relevant), np.nan) if graded else by_chance)
        queries |= aggregate.clusters_of(task, group)
    if not counts:
        return None
    known = np.concatenate(chances)
    return GroupSummary(
        name=group,
        queries=len(queries),
        clusters=len(set(queries.values())),
        relevant=float(np.concatenate(counts).mean()),
        chance=None if np.isnan(known).all() else float(np.nanmean(known)),
    )


def _cut(name: str, depth: int | None) -> Measure:
    """A measure as it is where nothing is ranked below a depth."""
    whole = measure(name)
    if depth is None or whole.cutoff is not None or whole.kind.stem not in ("AP", "nDCG", "MRR"):
        return whole
    return measure(f"{whole.kind.stem}@{depth}")


def _about(space: Space) -> list[dict[str, str]]:
    """The encoder of a space, and its saved models."""
    cut = space.towers.windowing
    windows = ""
    if cut is not None:
        windows = f"{cut.window_s:g} s every {cut.hop_s:g} s, {cut.sample_rate} Hz, {cut.padding}"
    encoder = {
        "name": space.name,
        "kind": "encoder",
        "digest": ", ".join(f"{name} {digest}" for name, digest in space.digests.items()),
        "licence": space.licence,
        "windows": windows,
    }
    return [encoder] + [
        {
            "name": model.card.name,
            "windows": "",
            "kind": f"codes, {model.card.hasher.get('kind')}",
            "digest": model.card.digest,
            "licence": model.card.licence,
        }
        for model in space.saved
    ]


def _protocol(request: EvalRequest, measures: Sequence[str]) -> dict[str, Any]:
    queries = request.identity()
    options = {name: queries[name] for name in ("models", "bits", "systems", "rerank")}
    return {**options, "measures": list(measures), **request.protocol.to_json()}


def _machine(begun: Begun, done: Sequence[Done]) -> dict[str, Any]:
    cells = [cell.about for one in done for cell in one.cells.values()]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime(begun.at)),
        "seconds": round(time.time() - begun.at, 1),
        "revisions": sorted({about["revision"] for about in cells}),
        "measured_on": sorted({about["cpu"] for about in cells}),
        **machine.describe(begun.load),
    }
