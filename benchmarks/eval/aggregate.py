"""From per-query values to the rows of the results.

A figure is the mean over queries of the mean over draws (seeds, random splits). Its interval is
a bootstrap over queries, which is what would differ in another collection of questions (over
classes, where several queries ask for one); deviations over seeds and splits are given beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.cells import Cell, Variant
from bittern.benchmarks.eval.measures import TIES
from bittern.benchmarks.eval.results import Row, Score
from bittern.benchmarks.eval.statistics import intervals
from bittern.benchmarks.eval.tasks import Task

ALL = "all"
REFERENCE = "Hashing-Baseline"
"""What codes of the same length are compared with."""
FLOAT = "float32"
"""What all codes are compared with."""
_EXPECTED = TIES.index("expected")


@dataclass(frozen=True)
class Line:
    """One row of the results with what it was averaged from.

    Attributes:
        row: the row.
        main: name of the main measure.
        queries: ids of the queries.
        clusters: int64 [queries]; queries for the same class share a number.
        values: of the main measure, expected over ties, mean over draws: float64 [queries].
    """

    row: Row
    main: str
    queries: tuple[str, ...]
    clusters: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A cell beside its task."""

    task: Task
    cell: Cell


@dataclass(frozen=True)
class _Group:
    """The queries of a group over all random splits.

    Attributes:
        name: of the group.
        ids: of each split.
        clusters: by id, over all splits.
    """

    name: str
    ids: Sequence[Sequence[str]]
    clusters: Mapping[str, int]

    @classmethod
    def of(cls, name: str, tasks: Sequence[Task]) -> _Group:
        splits = [clusters_of(task, name) for task in tasks]
        together = {query: cluster for each in splits for query, cluster in each.items()}
        return cls(name, [list(each) for each in splits], together)


def lines_of(measured: Sequence[Measured], measures: Sequence[str], seed: int) -> list[Line]:
    """The rows of one system at one length on one task, random splits put together.

    Args:
        measured: one per repeat of the task.
        measures: names; the first is the main one.
        seed: of the bootstrap.
    """
    tasks = [m.task for m in measured]
    groups = [_Group.of(name, tasks) for name in groups_of(tasks)]
    return [
        _line(measured, variant, group, measures, seed)
        for group in groups
        if group.clusters
        for variant in measured[0].cell.variants
    ]


def groups_of(tasks: Iterable[Task]) -> list[str]:
    """``all``, and the named groups of the queries."""
    named = dict.fromkeys(name for task in tasks for name in task.groups)
    return [ALL, *named]


def chosen(task: Task, group: str) -> NDArray[np.bool_]:
    """The queries of a group, bool [q]."""
    everyone = np.ones(len(task.queries), dtype=np.bool_)
    return everyone if group == ALL else task.groups.get(group, ~everyone)


def clusters_of(task: Task, group: str) -> dict[str, int]:
    """The queries of a group by id, and their cluster: their class, or themselves."""
    classes = task.queries.classes
    return {
        task.queries.ids[i]: int(classes[i]) if classes[i] >= 0 else -1 - i
        for i in np.flatnonzero(chosen(task, group)).tolist()
    }


def _line(
    measured: Sequence[Measured],
    variant: Variant,
    group: _Group,
    measures: Sequence[str],
    seed: int,
) -> Line:
    ranked = [one.cell.variants[variant] for one in measured]
    inside = [chosen(one.task, group.name) for one in measured]
    clusters = np.array(list(group.clusters.values()), dtype=np.int64)
    # A measure that one split does not have is left out of all.
    drawn = {
        measure: [r.values[measure][:, :, own] for r, own in zip(ranked, inside, strict=True)]
        for measure in measures
        if all(measure in r.values for r in ranked)
    }
    by_query = {measure: _by_query(arrays, group) for measure, arrays in drawn.items()}
    defined = [m for m, values in by_query.items() if values.size and not np.isnan(values).all()]
    figures = {}
    if defined:
        expected = np.stack([by_query[measure][_EXPECTED] for measure in defined])
        bounds = intervals(expected, seed, clusters=clusters)
        figures = {
            measure: _figure(drawn[measure], by_query[measure], (float(low), float(high)))
            for measure, (low, high) in zip(defined, bounds, strict=True)
        }
    main = by_query[measures[0]][_EXPECTED] if measures[0] in defined else np.empty(0)
    about = measured[0].cell.about
    row = Row(
        task=measured[0].task.name,
        group=group.name,
        model=str(about["model"]),
        system=str(about["system"]),
        metric=variant.metric,
        bits=None if about["bits"] is None else int(about["bits"]),
        bytes_per_item=float(np.mean([each.bytes_per_item for each in ranked])),
        rerank=variant.rerank,
        draws=sum(next(iter(each.values.values())).shape[1] for each in ranked),
        queries=len(group.clusters),
        clusters=len(set(group.clusters.values())),
        search_ms=_mean([each.search_ms for each in ranked]),
        figures=figures,
    )
    return Line(row, measures[0], tuple(group.clusters), clusters, main)


def _mean(times: Sequence[float | None]) -> float | None:
    known = [time for time in times if time is not None]
    return float(np.mean(known)) if known else None


def _by_query(arrays: Sequence[NDArray[np.float64]], group: _Group) -> NDArray[np.float64]:
    """Means over draws and splits of each query: float64 [ties, queries]."""
    if len(arrays) == 1:
        alone: NDArray[np.float64] = arrays[0].mean(axis=1)
        return alone
    position = {name: number for number, name in enumerate(group.clusters)}
    sums = np.zeros((len(TIES), len(position)))
    counts = np.zeros(len(position))
    for array, names in zip(arrays, group.ids, strict=True):
        where = np.array([position[name] for name in names], dtype=np.int64)
        sums[:, where] += array.mean(axis=1)
        counts[where] += 1
    return sums / counts


def _figure(
    arrays: Sequence[NDArray[np.float64]],
    by_query: NDArray[np.float64],
    bounds: tuple[float, float],
) -> Score:
    means = {tie: float(np.nanmean(by_query[number])) for number, tie in enumerate(TIES)}
    low, high = bounds
    # A split whose group is empty, or undefined, has no mean of its own.
    drawn = [
        np.nanmean(array[_EXPECTED], axis=1)
        for array in arrays
        if array.size and not np.isnan(array[_EXPECTED]).all()
    ]
    seeds = [
        float(np.var(means_of_split, ddof=1)) for means_of_split in drawn if len(means_of_split) > 1
    ]
    splits = [float(np.mean(means_of_split)) for means_of_split in drawn]
    return Score(
        low=low,
        high=high,
        deviation=float(np.sqrt(np.mean(seeds))) if seeds else None,
        deviation_splits=float(np.std(splits, ddof=1)) if len(splits) > 1 else None,
        **means,
    )


def headline(lines: Sequence[Line], task: str, group: str = ALL) -> list[Line]:
    """The few lines of a task that plots of single classes and shown hits are about.

    They are fixed, not chosen by their figures: of the first model, at the longest length it has,
    asymmetric, a learned system (the last that was measured), Hashing-Baseline, and the float
    vectors.
    """
    here = [
        line
        for line in lines
        if (line.row.task, line.row.group) == (task, group)
        and not line.row.rerank
        and line.values.size
    ]
    here = [line for line in here if line.row.model == here[0].row.model]
    coded = [line for line in here if line.row.bits and line.row.metric == "asymmetric"]
    names = list(dict.fromkeys(line.row.system for line in coded if line.row.system != REFERENCE))
    last = [line for line in coded if line.row.system in names[-1:]]
    baseline = [line for line in coded if line.row.system == REFERENCE]
    floats = [line for line in here if line.row.system == FLOAT]
    found = [max(each, key=_bits) for each in (last, baseline) if each] + floats[:1]
    return found or here[:1]


def _bits(line: Line) -> int:
    return line.row.bits or 0


def by_class(line: Line) -> Mapping[int, float]:
    """Mean of the main measure over the queries of each class."""
    found: dict[int, list[float]] = {}
    for number, value in zip(line.clusters.tolist(), line.values.tolist(), strict=True):
        if number >= 0 and not np.isnan(value):
            found.setdefault(number, []).append(value)
    return {number: float(np.mean(values)) for number, values in found.items()}
