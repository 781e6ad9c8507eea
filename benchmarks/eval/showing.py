"""Some queries of a task with their hits.

They are chosen by a rule, so that nobody can choose the flattering ones: in order of the main
measure under the first headline system, ties by position, evenly from both ends and the middle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.aggregate import Line, Measured
from bittern.benchmarks.eval.cells import Ranked, Variant
from bittern.benchmarks.eval.embeddings.rows import EmbeddedRows
from bittern.benchmarks.eval.results import ShownHit, ShownQuery
from bittern.benchmarks.eval.tasks import TEXT, Task
from bittern.files import replace_file
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
    return [scene.shown(query, float(values[query]), line.row.name) for query in chosen(values)]


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


def _joined(content: Any, names: Sequence[str]) -> str:
    metadata = content.metadata if isinstance(content, MediaItem) else {}
    words = [str(metadata[name]) for name in names if metadata.get(name)]
    return " · ".join(dict.fromkeys(words))


def _caption(content: Any) -> str:
    return _joined(content, _CAPTION)


def _credit(content: Any) -> str:
    return _joined(content, _CREDIT)
