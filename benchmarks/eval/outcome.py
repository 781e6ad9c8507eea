"""What a run comes to: results, with some queries shown with their hits.

The shown queries are chosen by a rule, so that nobody can choose the flattering ones: in order of
the main measure under the first headline system, ties by position, evenly from both ends and the
middle.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks import machine
from bittern.benchmarks.eval import aggregate
from bittern.benchmarks.eval.aggregate import Line, Measured, named
from bittern.benchmarks.eval.cells import CELLS, Cell, Ranked, Variant, read_cell
from bittern.benchmarks.eval.embeddings.rows import EmbeddedRows
from bittern.benchmarks.eval.jobs import Job
from bittern.benchmarks.eval.measures import Measure, chance, measure
from bittern.benchmarks.eval.measuring import depth_of
from bittern.benchmarks.eval.request import EvalRequest
from bittern.benchmarks.eval.results import (
    ClassScore,
    GroupSummary,
    Results,
    ShownHit,
    ShownQuery,
    TaskSummary,
)
from bittern.benchmarks.eval.spaces import Space
from bittern.benchmarks.eval.suites import Suite
from bittern.benchmarks.eval.tasks import TEXT, Task
from bittern.files import replace_file
from bittern.text import agreeing, counted
from bittern.types import MediaItem

QUERIES = 6
HITS = 8
_CAPTION = ("vernacularName", "scientificName", "label")
_CREDIT = ("rightsHolder", "license")


def chosen(values: NDArray[np.float64], count: int = QUERIES) -> list[int]:
    """Numbers of the queries to show, best first.

    Args:
        values: float64 [q], of the main measure; NaN where it is undefined.
        count: how many.
    """
    order = np.argsort(np.where(np.isnan(values), np.inf, -values), kind="stable")
    if len(order) <= count:
        return [int(q) for q in order]
    third = count // 3
    middle = len(order) // 2 - third // 2
    picked = [*range(third), *range(middle, middle + third)]
    picked += range(len(order) - (count - 2 * third), len(order))
    return [int(order[position]) for position in dict.fromkeys(picked)]


def shown_queries(
    measured: Measured, line: Line, rows: EmbeddedRows, folder: Path
) -> list[ShownQuery]:
    """The chosen queries of a task with their top hits under one line's system.

    Args:
        measured: the task and its cell.
        line: of the system.
        rows: of the items.
        folder: where media that are in no file of their own are put.
    """
    ranked = measured.cell.variants[Variant(line.row.metric, line.row.rerank)]
    scene = _Scene(measured.task, ranked, rows, folder)
    position = {name: number for number, name in enumerate(line.queries)}
    values = np.array([line.values[position[name]] for name in measured.task.queries.ids])
    return [scene.shown(query, float(values[query]), named(line.row)) for query in chosen(values)]


@dataclass(frozen=True)
class _Scene:
    """A task as one system ranks it."""

    task: Task
    ranked: Ranked
    rows: EmbeddedRows
    folder: Path

    def shown(self, query: int, value: float, label: str) -> ShownQuery:
        """One query with its hits."""
        content = self.task.queries.contents[query]
        words = "" if isinstance(content, MediaItem) else " / ".join(content)
        right = set(self.task.relevance.of(query).tolist())
        items = self.ranked.hits[query, :HITS].tolist()
        return ShownQuery(
            task=self.task.name,
            query=self.task.queries.ids[query],
            text=words or _caption(content),
            media=_path(content, self.folder),
            label=label,
            value=value,
            relevant=len(right),
            hits=[
                self._hit(query, rank, item, item in right)
                for rank, item in enumerate(items, start=1)
                if item >= 0
            ],
        )

    def _hit(self, query: int, rank: int, item: int, relevant: bool) -> ShownHit:
        items = self.task.items
        content = items.contents[item]
        row = int(self.ranked.rows[query, rank - 1])
        start, end = self.rows.spans[row].tolist() if row >= 0 else (np.nan, np.nan)
        return ShownHit(
            rank=rank,
            id=items.ids[item],
            relevant=relevant,
            distance=float(self.ranked.distances[query, rank - 1]),
            modality=items.modality,
            media=_path(content, self.folder),
            text=content if items.modality == TEXT and isinstance(content, str) else "",
            start_s=None if np.isnan(start) else start,
            end_s=None if np.isnan(end) else end,
            caption=_caption(content),
            credit=_credit(content),
        )


def _path(content: Any, folder: Path) -> str:
    """The file of a photograph or recording; of one in memory, a file that is made of it."""
    if not isinstance(content, MediaItem):
        return ""
    if content.path or content.data is None:
        return str(content.path or "")
    name = hashlib.sha256(content.data).hexdigest()[:16] + Path(content.media).suffix[:8]
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / name, content.data)
    return str(folder / name)


def _metadata(content: Any) -> Mapping[str, Any]:
    return content.metadata if isinstance(content, MediaItem) else {}


def _joined(metadata: Mapping[str, Any], names: Sequence[str]) -> str:
    words = [str(metadata[name]) for name in names if metadata.get(name)]
    return " · ".join(dict.fromkeys(words))


def _caption(content: Any) -> str:
    return _joined(_metadata(content), _CAPTION)


def _credit(content: Any) -> str:
    return _joined(_metadata(content), _CREDIT)


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
    lines = _lines(done, request.protocol.seed)
    jobs = [one.job for one in done]
    measures = list(dict.fromkeys(name for one in done for name in one.measures))
    return Results(
        suite=suite.name,
        about=suite.about,
        command=begun.command,
        protocol=_protocol(request, measures),
        measures=measures,
        models=[about for space in _spaces(jobs) for about in _about(space)],
        digests={f"{job.space.name}: {job.name}": job.digest for job in jobs},
        machine=_machine(begun, done),
        tasks=_summaries(done, request),
        rows=[line.row for line in lines],
        comparisons=aggregate.comparisons_of(lines, request.protocol.seed),
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


def _lines(done: Sequence[Done], seed: int) -> list[Line]:
    together: dict[tuple[Any, ...], list[Measured]] = {}
    measures = {one.job.task.name: one.measures for one in done}
    for one in done:
        for cell in one.cells.values():
            key = (one.job.task.name, one.job.space.name, cell.about["system"], cell.about["bits"])
            together.setdefault(key, []).append(Measured(one.job.task, cell))
    return [
        line
        for (task, *_), repeats in together.items()
        for line in aggregate.lines_of(repeats, measures[task], seed)
    ]


def _classes(lines: Sequence[Line], jobs: Sequence[Job]) -> list[ClassScore]:
    """Per class, over the random splits in which it is in a group."""
    found = []
    for task in _first_of_each(jobs):
        groups = aggregate.groups_of([job.task for job in jobs if job.task.name == task.name])
        sizes = np.bincount(
            task.items.classes[task.items.classes >= 0], minlength=len(task.classes)
        )
        for group in groups[1:] or groups:
            shown = aggregate.headline(lines, task.name, group)
            values = {aggregate.named(line.row): aggregate.by_class(line) for line in shown}
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
            one, key = _behind(line, done)
            cell = read_cell(run / CELLS, key)
            if cell is not None:
                measured = Measured(one.job.task, cell)
                found += shown_queries(measured, line, one.job.vectors.rows, run / MEDIA)
    return found


def _behind(line: Line, done: Sequence[Done]) -> tuple[Done, str]:
    """What a line was measured on first, and the key of its cell."""
    row = line.row
    return next(
        (one, key)
        for one in done
        if (one.job.task.name, one.job.space.name) == (row.task, row.model)
        for key, cell in one.cells.items()
        if (cell.about["system"], cell.about["bits"]) == (row.system, row.bits)
    )


def _first_of_each(jobs: Sequence[Job]) -> Iterator[Task]:
    yield from {job.task.name: job.task for job in reversed(jobs)}.values()


def _spaces(jobs: Sequence[Job]) -> Iterator[Space]:
    yield from {job.space.name: job.space for job in jobs}.values()


def _summaries(done: Sequence[Done], request: EvalRequest) -> list[TaskSummary]:
    """One per task and model; of several random splits, that of the first."""
    together: dict[tuple[str, str], list[Done]] = {}
    for one in done:
        together.setdefault((one.job.task.name, one.job.space.name), []).append(one)
    return [_summary(repeats, request) for repeats in together.values()]


def _summary(repeats: Sequence[Done], request: EvalRequest) -> TaskSummary:
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
    """A part of the queries over all random splits."""
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


def _windows(space: Space) -> str:
    """How recordings are cut for an encoder."""
    cut = space.towers.windowing
    if cut is None:
        return ""
    return f"{cut.window_s:g} s every {cut.hop_s:g} s, {cut.sample_rate} Hz, {cut.padding}"


def _about(space: Space) -> list[dict[str, str]]:
    encoder = {
        "name": space.name,
        "kind": "encoder",
        "digest": ", ".join(f"{name} {digest}" for name, digest in space.digests.items()),
        "licence": space.licence,
        "windows": _windows(space),
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
    date = time.strftime("%Y-%m-%d", time.gmtime(begun.at))
    seconds = round(time.time() - begun.at, 1)
    return {
        "date": date,
        "seconds": seconds,
        "revisions": sorted(
            {cell.about["revision"] for one in done for cell in one.cells.values()}
        ),
        "measured_on": sorted({cell.about["cpu"] for one in done for cell in one.cells.values()}),
        **machine.describe(begun.load),
    }
