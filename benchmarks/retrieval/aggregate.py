"""From per-query values to the rows, comparisons and classes of the results.

A figure is the mean over queries of the mean over draws (seeds, random splits). Its interval is
a bootstrap over queries, which is what would differ in another collection of questions; the
deviation over draws is told beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval.cells import Cell, Ranked, Variant
from benchmarks.retrieval.results import TIES, Comparison, Figure, Row
from benchmarks.retrieval.statistics import holm, interval, paired
from benchmarks.retrieval.tasks import Task

ALL = "all"
REFERENCE = "Hashing-Baseline"
"""What codes of the same length are compared with."""
FLOAT = "float32"
"""What the longest codes are compared with."""
_EXPECTED = TIES.index("expected")


@dataclass(frozen=True)
class Line:
    """One row of the results with what it was averaged from.

    Attributes:
        row: the row.
        queries: ids of the queries.
        values: of the main measure, expected over ties, mean over draws: float64 [queries].
    """

    row: Row
    queries: tuple[str, ...]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A cell beside its task."""

    task: Task
    cell: Cell


def lines_of(measured: Sequence[Measured], measures: Sequence[str], seed: int) -> list[Line]:
    """The rows of one system at one length on one task, random splits put together.

    Args:
        measured: one per repeat of the task.
        measures: names; the first is the main one.
        seed: of the bootstrap.
    """
    first = measured[0]
    found = []
    for group in groups_of([m.task for m in measured]):
        for variant in first.cell.variants:
            values = [_grouped(m, variant, group) for m in measured]
            ids = [_ids(m.task, group) for m in measured]
            found.append(_line(first, variant, group, values, ids, measures, seed))
    return found


def groups_of(tasks: Iterable[Task]) -> list[str]:
    """``all``, and the named parts of the queries."""
    named = dict.fromkeys(name for task in tasks for name in task.groups)
    return [ALL, *named]


def _chosen(task: Task, group: str) -> NDArray[np.bool_]:
    everyone = np.ones(len(task.asked), dtype=np.bool_)
    return everyone if group == ALL else task.groups.get(group, ~everyone)


def _ids(task: Task, group: str) -> list[str]:
    return [task.asked.ids[int(i)] for i in np.flatnonzero(_chosen(task, group))]


def _grouped(measured: Measured, variant: Variant, group: str) -> Ranked:
    ranked, chosen = measured.cell.variants[variant], _chosen(measured.task, group)
    values = {name: array[:, :, chosen] for name, array in ranked.values.items()}
    return Ranked(
        values, ranked.hits, ranked.distances, ranked.rows, ranked.seconds, ranked.bytes_per_item
    )


def _line(
    first: Measured,
    variant: Variant,
    group: str,
    repeats: Sequence[Ranked],
    ids: Sequence[Sequence[str]],
    measures: Sequence[str],
    seed: int,
) -> Line:
    figures = {}
    main: NDArray[np.float64] = np.empty(0)
    queries = tuple(dict.fromkeys(name for names in ids for name in names))
    for measure in measures:
        arrays = [ranked.values[measure] for ranked in repeats if measure in ranked.values]
        if len(arrays) < len(repeats):
            continue
        by_query = _by_query(arrays, ids, queries)
        if measure == measures[0]:
            main = by_query[_EXPECTED]
        if by_query.size and not np.isnan(by_query).all():
            figures[measure] = _figure(arrays, by_query, seed)
    about = first.cell.about
    row = Row(
        task=first.task.name,
        group=group,
        model=str(about["model"]),
        system=str(about["system"]),
        metric=variant.metric,
        bits=None if about["bits"] is None else int(about["bits"]),
        bytes_per_item=float(np.mean([ranked.bytes_per_item for ranked in repeats])),
        rerank=variant.rerank,
        draws=sum(next(iter(ranked.values.values())).shape[1] for ranked in repeats),
        queries=len(queries),
        ms_per_query=float(np.mean([ranked.seconds for ranked in repeats])) * 1e3,
        figures=figures,
    )
    return Line(row, queries, main)


def _by_query(
    arrays: Sequence[NDArray[np.float64]],
    ids: Sequence[Sequence[str]],
    queries: Sequence[str],
) -> NDArray[np.float64]:
    """Means over draws and splits of each query: float64 [ties, queries]."""
    if len(arrays) == 1:
        alone: NDArray[np.float64] = arrays[0].mean(axis=1)
        return alone
    place = {name: number for number, name in enumerate(queries)}
    sums = np.zeros((len(TIES), len(queries)))
    counts = np.zeros(len(queries))
    for array, names in zip(arrays, ids, strict=True):
        where = np.array([place[name] for name in names], dtype=np.int64)
        sums[:, where] += array.mean(axis=1)
        counts[where] += 1
    return sums / counts


def _figure(
    arrays: Sequence[NDArray[np.float64]], by_query: NDArray[np.float64], seed: int
) -> Figure:
    # A split with a group of no queries, or undefined values, has no mean of its own.
    drawn = [
        float(np.nanmean(draw))
        for array in arrays
        for draw in array[_EXPECTED]
        if draw.size and not np.isnan(draw).all()
    ]
    means = {tie: float(np.nanmean(by_query[number])) for number, tie in enumerate(TIES)}
    low, high = interval(by_query[_EXPECTED], seed)
    deviation = float(np.std(drawn, ddof=1)) if len(drawn) > 1 else None
    return Figure(low=low, high=high, deviation=deviation, **means)


def comparisons_of(lines: Sequence[Line], measure: str, seed: int) -> list[Comparison]:
    """Paired tests within each task and group.

    Codes are compared with Hashing-Baseline of the same length, the longest codes of each system
    with the float vectors, and a system's asymmetric distance with its symmetric one at the
    longest length. Holm's correction is over all pairs of a task and group.
    """
    found = []
    for task, group in dict.fromkeys((line.row.task, line.row.group) for line in lines):
        here = [line for line in lines if (line.row.task, line.row.group) == (task, group)]
        pairs = [pair for pair in _pairs(here) if _comparable(*pair)]
        tests = [paired(a.values, b.values, seed) for a, b in pairs]
        adjusted = holm([test.p for test in tests])
        for (a, b), test, p in zip(pairs, tests, adjusted, strict=True):
            found.append(
                Comparison(
                    task=task,
                    group=group,
                    measure=measure,
                    a=named(a.row),
                    b=named(b.row),
                    difference=test.difference,
                    low=test.low,
                    high=test.high,
                    p=test.p,
                    p_adjusted=p,
                )
            )
    return found


def named(row: Row) -> str:
    """A row's label with its model."""
    return f"{row.model}: {row.label}"


def _comparable(one: Line, other: Line) -> bool:
    """Whether some query is defined for both."""
    return one.queries == other.queries and not np.isnan(one.values + other.values).all()


def _pairs(lines: Sequence[Line]) -> list[tuple[Line, Line]]:
    """Which two are compared; re-ranked variants are not."""
    plain = [line for line in lines if not line.row.rerank and line.values.size]
    pairs = []
    for line in plain:
        row = line.row
        if row.bits is None or row.metric != "asymmetric":
            continue
        longest = max(
            other.row.bits or 0
            for other in plain
            if (other.row.model, other.row.system) == (row.model, row.system)
        )
        same = [other for other in plain if other.row.model == row.model and other is not line]
        for other in same:
            reference = (REFERENCE, row.bits, "asymmetric")
            own = (row.system, row.bits, "symmetric")
            theirs = (other.row.system, other.row.bits, other.row.metric)
            is_reference = theirs == reference
            is_float = other.row.system == FLOAT and row.bits == longest
            is_own = theirs == own and row.bits == longest
            if is_reference or is_float or is_own:
                pairs.append((line, other))
    return pairs


def headline(lines: Sequence[Line], task: str) -> list[Line]:
    """The few lines of a task that plots of single classes and shown hits are about.

    The float vectors, Hashing-Baseline and the best other system by the main measure, at the
    longest length, asymmetric.
    """
    here = [
        line
        for line in lines
        if line.row.task == task and line.row.group == ALL and not line.row.rerank
    ]
    floats = [line for line in here if line.row.system == FLOAT]
    coded = [line for line in here if line.row.bits and line.row.metric == "asymmetric"]
    longest = max((line.row.bits or 0 for line in coded), default=0)
    coded = [line for line in coded if line.row.bits == longest]
    baseline = [line for line in coded if line.row.system == REFERENCE]
    others = sorted(
        (line for line in coded if line.row.system != REFERENCE),
        key=lambda line: -float(np.nanmean(line.values)),
    )
    return [*others[:1], *baseline[:1], *floats[:1]]


def by_class(line: Line, task: Task) -> Mapping[int, float]:
    """Mean of the main measure over the queries of each class that is asked for."""
    place = {name: number for number, name in enumerate(line.queries)}
    found: dict[int, list[float]] = {}
    for query, number in zip(task.asked.ids, task.asked.classes.tolist(), strict=True):
        if number >= 0 and query in place:
            found.setdefault(number, []).append(float(line.values[place[query]]))
    return {number: float(np.nanmean(values)) for number, values in found.items()}
