"""Which items of one's own answer which queries: qrels over pictures, recordings and windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.prompts import fill, told_prompts
from bittern.benchmarks.eval.protocol import Protocol
from bittern.benchmarks.eval.splits import Chosen, leave_out_unanswerable
from bittern.benchmarks.eval.suites.custom_archive import ArchiveItems
from bittern.benchmarks.eval.suites.custom_queries import OwnQuery
from bittern.benchmarks.eval.suites.media_files import ASKED_BY_RECORDING
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    IMAGE,
    TEXT,
    Asked,
    Classes,
    Items,
    Relevance,
    Task,
)
from bittern.benchmarks.eval.trec import PlacesOf, escaped, read_qrels
from bittern.benchmarks.eval.windows import window_ids
from bittern.text import agreeing, counted
from bittern.types import MediaItem

_WINDOW = "#t="
_AS_IT_IS = ("{name}",)


class Judged:
    """Queries, items, and which of them answer which.

    Args:
        qrels: the judgements.
        queries: all of them.
        items: by modality.
        left_out: sentences on queries and items.
        protocol: how it is run.
    """

    def __init__(
        self,
        qrels: Path,
        queries: Sequence[OwnQuery],
        items: Mapping[str, Items],
        left_out: Sequence[str],
        protocol: Protocol,
    ) -> None:
        self._qrels, self._queries, self._items = qrels, queries, items
        self._protocol = protocol
        recordings = items.get(AUDIO)
        part_of = _recording_of(recordings) if recordings else _nothing
        self._relevance, told = self._read(items, part_of)
        self._left_out = (*left_out, *told)

    def task(self, asked: str, target: str) -> Task:
        """The queries of one modality for items of another."""
        pair = (asked, target)
        mine = [q for q, one in enumerate(self._queries) if (one.modality, one.target) == pair]
        questions, asking = _asked([self._queries[q] for q in mine], asked, self._protocol)
        queries = np.array(mine, np.int64)[asking]
        relevance, told = self._among(self._relevance, self._items, target, queries)
        task = Task(
            name=f"{asked}→{target}",
            asked=questions,
            items=self._items[target],
            relevance=relevance,
            classes=Classes(()),
            groups=_groups([self._queries[q].group for q in queries]),
            left_out=(*self._left_out, *told),
            notes=(
                "What is right is what qrels.txt says; what it does not name is wrong.",
                *self._put(asked),
            ),
        )
        answered = leave_out_unanswerable(task)
        if self._protocol.windows != "separate" or target != AUDIO:
            return answered
        kept = queries[relevance.counts > 0]
        return replace(answered, by_window=partial(self._over_windows, answered, kept))

    def _put(self, asked: str) -> list[str]:
        """How queries of a modality are put, in sentences."""
        if asked == TEXT:
            return [told_prompts(self._protocol, _AS_IT_IS, "query")]
        return [ASKED_BY_RECORDING] if asked == AUDIO else []

    def _over_windows(
        self,
        task: Task,
        queries: NDArray[np.int64],
        owners: NDArray[np.int64],
        spans: NDArray[np.float32],
    ) -> Task:
        """The task with windows for items; `queries` are those that it asks, by place."""
        items, parts = _windows_of(task.items, owners, spans)
        of_all = {**self._items, AUDIO: items}
        found, told = self._read(of_all, lambda name: parts.get(name, ()))
        relevance, also_told = self._among(found, of_all, AUDIO, queries)
        whole = replace(
            task,
            items=items,
            relevance=relevance,
            left_out=tuple(dict.fromkeys((*task.left_out, *told, *also_told))),
            notes=(*task.notes, "Every window is an item."),
            by_window=None,
        )
        return leave_out_unanswerable(whole)

    def _read(self, items: Mapping[str, Items], of: PlacesOf) -> tuple[Relevance, list[str]]:
        """Judgements of pictures and, behind them, recordings.

        Args:
            items: by modality.
            of: places of recordings, or windows, that a name stands for.
        """
        first = len(items[IMAGE]) if IMAGE in items else 0
        ids = [name for m in (IMAGE, AUDIO) if m in items for name in items[m].ids]
        names = [query.id for query in self._queries]

        def also(name: str) -> list[int]:
            return [first + place for place in of(name)]

        return read_qrels(self._qrels, names, ids, self._protocol.unknown, also)

    def _among(
        self,
        found: Relevance,
        items: Mapping[str, Items],
        target: str,
        queries: NDArray[np.int64],
    ) -> tuple[Relevance, list[str]]:
        """What answers some queries (the same one may come twice) among items of one modality."""
        mine = found.only(queries)
        begin = len(items[IMAGE]) if target == AUDIO and IMAGE in items else 0
        inside = (mine.items >= begin) & (mine.items < begin + len(items[target]))
        told = []
        if not inside.all():
            others = int((~inside).sum())
            of = agreeing(
                others,
                "is of an item of another modality than its query asks",
                "are of items of another modality than their queries ask",
            )
            told.append(f"qrels: {counted(others, 'judgement')} {of} for ({target}); left out")
        before = np.concatenate([[0], np.cumsum(inside)]).astype(np.int64)
        offsets = before[mine.offsets]
        return Relevance(offsets, mine.items[inside] - begin, mine.grades[inside]), told


def _nothing(name: str) -> Sequence[int]:
    return ()


def _recording_of(recordings: Items) -> PlacesOf:
    """From the name of a window to the place of its recording."""
    if isinstance(recordings, ArchiveItems):  # which windows there are is known
        known = {escaped(name): (place,) for name, place in recordings.windows.items()}
        return lambda name: known.get(name, ())
    places = {escaped(name): (place,) for place, name in enumerate(recordings.ids)}
    return lambda name: places.get(name.rpartition(_WINDOW)[0], ())


def _windows_of(
    recordings: Items, owners: NDArray[np.int64], spans: NDArray[np.float32]
) -> tuple[Items, dict[str, list[int]]]:
    """Windows as items, and those that each name stands for which is no window's own.

    As in an archive, the only window of a recording goes by the recording's id.
    """
    several = np.bincount(owners, minlength=len(recordings))[owners] > 1
    full = window_ids(recordings.ids, owners, spans)
    parts: dict[str, list[int]] = {}
    ids = []
    for row, (owner, is_one_of_several) in enumerate(zip(owners.tolist(), several, strict=True)):
        name = recordings.ids[owner]
        ids.append(full[row] if is_one_of_several else name)
        parts.setdefault(escaped(name), []).append(row)
        parts.setdefault(escaped(full[row]), [row])
    items = Items(
        ids=ids,
        modality=AUDIO,
        contents=Chosen(recordings.contents, owners),
        classes=np.full(len(owners), -1, np.int32),
        side=recordings.side,
    )
    return items, parts


def _asked(
    queries: Sequence[OwnQuery], modality: str, protocol: Protocol
) -> tuple[Asked, NDArray[np.int64]]:
    """The queries as they are asked (prompts make several of one), and which each of them is."""
    ids: list[str] = []
    contents: list[tuple[str, ...] | MediaItem] = []
    asking: list[int] = []
    templates = tuple(protocol.prompts or _AS_IT_IS)
    for number, query in enumerate(queries):
        if isinstance(query.content, MediaItem):
            each: list[tuple[str, ...] | MediaItem] = [query.content]
        else:
            texts = tuple(fill(template, {}, query.content) for template in templates)
            each = [texts] if protocol.average_prompts else [(text,) for text in texts]
        several = len(each) > 1
        ids += [f"{query.id}#{n}" if several else query.id for n in range(len(each))]
        contents += each
        asking += [number] * len(each)
    none = np.full(len(ids), -1, np.int32)
    return Asked(ids, modality, contents, none, side=modality), np.array(asking, np.int64)


def _groups(names: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Queries by the group that they name."""
    of_query = np.array(names, np.str_)
    return {name: of_query == name for name in sorted({*names} - {""})}
