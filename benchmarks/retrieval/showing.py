"""Which queries a report shows with their hits: some of the best, of the middling, of the worst.

They are chosen by a rule, so that nobody can choose the flattering ones: in order of the main
measure under the first headline system, ties by place, evenly from both ends and the middle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval.aggregate import Line, Measured, named
from benchmarks.retrieval.cells import Ranked, Variant
from benchmarks.retrieval.embeddings.base import EmbeddedRows
from benchmarks.retrieval.results import ShownHit, ShownQuery
from benchmarks.retrieval.tasks import TEXT, Task
from service.requests import MediaItem

QUERIES = 6
HITS = 8
_CAPTION = ("vernacularName", "scientificName", "label")
_CREDIT = ("rightsHolder", "license")


def chosen(values: NDArray[np.float64], count: int = QUERIES) -> list[int]:
    """Places of the queries to show, best first.

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
    return [int(order[place]) for place in dict.fromkeys(picked)]


def shown_queries(measured: Measured, line: Line, rows: EmbeddedRows) -> list[ShownQuery]:
    """The chosen queries of a task with their top hits under one line's system."""
    task = measured.task
    variant = Variant(line.row.metric, line.row.rerank)
    ranked = measured.cell.variants[variant]
    place = {name: number for number, name in enumerate(line.queries)}
    values = np.array([line.values[place[name]] for name in task.asked.ids])
    return [
        _shown(task, query, float(values[query]), ranked, line, rows) for query in chosen(values)
    ]


def _shown(
    task: Task, query: int, value: float, ranked: Ranked, line: Line, rows: EmbeddedRows
) -> ShownQuery:
    content = task.asked.contents[query]
    words = "" if isinstance(content, MediaItem) else " / ".join(content)
    right = set(task.relevance.of(query).tolist())
    hits = [
        _hit(task, rank, int(item), int(item) in right, ranked, query, rows)
        for rank, item in enumerate(ranked.hits[query, :HITS].tolist(), start=1)
        if item >= 0
    ]
    return ShownQuery(
        task=task.name,
        query=task.asked.ids[query],
        text=words or _caption(content),
        media=_path(content),
        label=named(line.row),
        value=value,
        relevant=len(right),
        hits=hits,
    )


def _hit(
    task: Task,
    rank: int,
    item: int,
    relevant: bool,
    ranked: Ranked,
    query: int,
    rows: EmbeddedRows,
) -> ShownHit:
    content = task.items.contents[item]
    row = int(ranked.rows[query, rank - 1])
    start, end = (float(value) for value in rows.spans[row]) if row >= 0 else (np.nan, np.nan)
    return ShownHit(
        rank=rank,
        id=task.items.ids[item],
        relevant=relevant,
        distance=float(ranked.distances[query, rank - 1]),
        modality=task.items.modality,
        media=_path(content),
        text=content if task.items.modality == TEXT and isinstance(content, str) else "",
        start_s=None if np.isnan(start) else start,
        end_s=None if np.isnan(end) else end,
        caption=_caption(content),
        credit=_credit(content),
    )


def _path(content: Any) -> str:
    return str(content.path) if isinstance(content, MediaItem) and content.path else ""


def _metadata(content: Any) -> Mapping[str, Any]:
    return content.metadata if isinstance(content, MediaItem) else {}


def _joined(metadata: Mapping[str, Any], names: Sequence[str]) -> str:
    told = [str(metadata[name]) for name in names if metadata.get(name)]
    return " · ".join(dict.fromkeys(told))


def _caption(content: Any) -> str:
    return _joined(_metadata(content), _CAPTION)


def _credit(content: Any) -> str:
    return _joined(_metadata(content), _CREDIT)
