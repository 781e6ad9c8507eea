"""Options that papers differ in, and what a suite returns: queries, items, and relevance.

Everything is addressed by its position: query 0 to q - 1, item 0 to n - 1. Nothing here holds
media or embeddings, so five million items fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from bittern.types import MediaItem

Windows = Literal["max", "mean", "separate"]
Level = Literal["species", "genus", "family", "order", "class"]
Novel = Literal["none", "random", "taxonomy"]
Candidates = Literal["full", "rerank", "both"]


@dataclass(frozen=True)
class Protocol:
    """How a suite is run.

    Attributes:
        prompts: templates of queries for classes, with ``{common}``, ``{scientific}``,
            ``{taxonomy}`` and ``{name}``; empty for the suite's own. One query each, unless
            averaged.
        average_prompts: one query per class, the mean of its prompts' embeddings.
        database: name of the published split that is ranked; empty for the suite's own.
        windows: a recording counts by its nearest window (``max``), by the mean distance of its
            windows (``mean``), or each window is an item (``separate``).
        level: rank of the classes.
        novel: how classes are split into seen and novel: not at all, at random, or so that novel
            ones share no genus (or higher taxon) with seen ones (cf. arXiv 2208.08217).
        novel_share: share of the classes that is novel.
        soundscapes: folder of annotated soundscapes to search as well; empty for none.
        candidates: INQUIRE: full ranking, the given 100 candidates per query, or both.
        fit_on: unlabelled items that training-free systems look at: those that are searched, or
            the published training split.
        fit_rows: at most so many rows are fitted on, drawn at random.
        depth: rank so deep; 0 for everything.
        missing: whether items without a file are left out (``skip``) or end the run (``error``).
        unknown: the same for judgements of unknown items or queries.
        repeats: random splits of suites that have them.
        seed: of everything that is drawn.
    """

    prompts: Sequence[str] = ()
    average_prompts: bool = False
    database: str = ""
    windows: Windows = "max"
    level: Level = "species"
    novel: Novel = "none"
    novel_share: float = 0.2
    soundscapes: str = ""
    candidates: Candidates = "both"
    fit_on: Literal["items", "training"] = "items"
    fit_rows: int = 100_000
    depth: int | None = None
    missing: Literal["error", "skip"] = "error"
    unknown: Literal["error", "skip"] = "error"
    repeats: int = 3
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


TEXT, IMAGE, AUDIO = "text", "image", "audio"


class Contents(Interface):
    """Media or texts by position, made when they are needed."""

    def __len__(self) -> int:
        """Number of contents."""
        ...

    def __getitem__(self, position: int, /) -> MediaItem | str:
        """A photograph or recording, or a text."""
        ...


class Selection(Sequence[Any]):
    """Some elements of a sequence, looked up when they are needed.

    Args:
        whole: the sequence.
        positions: int [n], which of its elements, in order.
    """

    def __init__(self, whole: Sequence[Any] | Contents, positions: NDArray[np.integer]) -> None:
        self._whole, self._positions = whole, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, position: Any, /) -> Any:
        """One element, or a list of those in a slice."""
        if isinstance(position, slice):
            return [self._whole[i] for i in self._positions[position].tolist()]
        return self._whole[int(self._positions[position])]


@dataclass(frozen=True)
class Items:
    """What is ranked.

    Attributes:
        ids: one per item, unique; what runs and qrels call it.
        modality: ``image``, ``audio`` or ``text``.
        contents: one per item.
        classes: int32 [n], each item's class among `Task.classes`, -1 for none.
        side: what a hasher calls this side: it has a centre (and perhaps a head) of its own.
    """

    ids: Sequence[str]
    modality: str
    contents: Contents
    classes: NDArray[np.int32]
    side: str

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, positions: NDArray[np.integer]) -> Items:
        """Some of the items, numbered anew; their media are still made when they are needed."""
        return replace(
            self,
            ids=Selection(self.ids, positions),
            contents=Selection(self.contents, positions),
            classes=self.classes[positions],
        )

    def over_windows(self, owners: NDArray[np.int64], spans: NDArray[np.float32]) -> Items:
        """The windows of recordings as items, with the classes of their recordings.

        Their ids are the recordings' with a W3C media fragment, ``crow-1#t=0,3``; where the span
        is not known (embeddings of another program), with the number of the row.

        Args:
            owners: int64 [rows], the recording of each window.
            spans: float32 [rows, 2], start and end in seconds.
        """
        ids = [
            f"{self.ids[owner]}#"
            + (f"window={row}" if np.isnan(start) else f"t={_seconds(start)},{_seconds(end)}")
            for row, (owner, (start, end)) in enumerate(
                zip(owners.tolist(), spans.tolist(), strict=True)
            )
        ]
        contents = Selection(self.contents, owners)
        return Items(ids, self.modality, contents, self.classes[owners], self.side)


def _seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class QuerySet:
    """The queries.

    Attributes:
        ids: one per query, unique.
        modality: ``text``, ``image`` or ``audio``.
        contents: of a query in words a tuple of prompts (their embeddings are averaged where there
            are several), of another a `MediaItem`.
        classes: int32 [q], the class of each query, -1 for none.
        side: what a hasher calls this side.
    """

    ids: Sequence[str]
    modality: str
    contents: Sequence[tuple[str, ...] | MediaItem]
    classes: NDArray[np.int32]
    side: str

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, positions: NDArray[np.integer]) -> QuerySet:
        """Some of the queries, numbered anew."""
        return replace(
            self,
            ids=[self.ids[i] for i in positions.tolist()],
            contents=[self.contents[i] for i in positions.tolist()],
            classes=self.classes[positions],
        )


def ranges(starts: NDArray[np.integer], sizes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Runs of whole numbers one after the other: of each start, so many from it on."""
    before = np.cumsum(sizes) - sizes
    found: NDArray[np.int64] = np.arange(sizes.sum()) + np.repeat(starts - before, sizes)
    return found


@dataclass(frozen=True)
class Relevance:
    """The relevant items of each query (compressed sparse rows).

    Attributes:
        offsets: int64 [q + 1], rising from 0; the items of query i are at offsets[i]:offsets[i+1].
        items: int64, positions of items, ascending within a query, none twice.
        grades: int32, at least 1; of each of `items`.
    """

    offsets: NDArray[np.int64]
    items: NDArray[np.int64]
    grades: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, query: int) -> NDArray[np.int64]:
        """Positions of the relevant items of a query, ascending."""
        return self.items[self.offsets[query] : self.offsets[query + 1]]

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 [q], relevant items of each query."""
        return np.diff(self.offsets)

    @property
    def queries(self) -> NDArray[np.int64]:
        """int64, the query of each of `items`."""
        return np.repeat(np.arange(len(self)), self.counts)

    @classmethod
    def by_class(cls, queries: NDArray[np.int32], items: NDArray[np.int32]) -> Relevance:
        """Items of the query's class; -1 is no class.

        Args:
            queries: int32 [q], the class of each query.
            items: int32 [n], the class of each item.
        """
        order = np.argsort(items, kind="stable").astype(np.int64)
        ordered = items[order]
        starts = np.searchsorted(ordered, queries, "left")
        ends = np.where(queries < 0, starts, np.searchsorted(ordered, queries, "right"))
        positions = order[ranges(starts, ends - starts)]
        return cls(_offsets(ends - starts), positions, np.ones(len(positions), np.int32))

    @classmethod
    def from_pairs(
        cls,
        queries: NDArray[np.integer],
        items: NDArray[np.integer],
        count: int,
        grades: NDArray[np.integer] | None = None,
    ) -> Relevance:
        """Relevance from pairs of a query and an item, in any order.

        Args:
            queries: int [pairs].
            items: int [pairs].
            count: number of queries.
            grades: int [pairs], 1 for all if not given. Of a pair that occurs several times the
                highest counts; a grade below 1 is not relevant.
        """
        grades = np.ones(len(items), np.int32) if grades is None else grades
        order = np.lexsort((-grades, items, queries))
        order = order[grades[order] > 0]
        queries, items = queries[order], items[order]
        first = np.ones(len(order), np.bool_)
        first[1:] = (np.diff(queries) != 0) | (np.diff(items) != 0)
        sizes = np.bincount(queries[first].astype(np.int64), minlength=count)
        kept = grades[order][first].astype(np.int32)
        return cls(_offsets(sizes), items[first].astype(np.int64), kept)

    def only(self, queries: NDArray[np.int64]) -> Relevance:
        """The same for some queries, numbered anew."""
        sizes = self.counts[queries]
        chosen = ranges(self.offsets[queries], sizes)
        return Relevance(_offsets(sizes), self.items[chosen], self.grades[chosen])

    def renumbered(self, positions: NDArray[np.int64]) -> Relevance:
        """The same with other positions of the items.

        Args:
            positions: int64 [items], the new position of each item, -1 to drop it.
        """
        items = positions[self.items]
        kept = items >= 0
        return Relevance.from_pairs(self.queries[kept], items[kept], len(self), self.grades[kept])


def _offsets(sizes: NDArray[np.integer]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@dataclass(frozen=True)
class Classes:
    """The classes of a task: species, genera, kinds.

    Attributes:
        names: one per class, as it is shown.
        taxa: per class its Darwin Core ranks (``kingdom`` to ``genus``, ``scientificName``,
            ``vernacularName``), as far as the data have them; may be empty.
    """

    names: Sequence[str]
    taxa: Sequence[Mapping[str, str]] = ()

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class TrainingSplit:
    """What systems may be fitted on, where a suite names it; else they see the items, unlabelled.

    Attributes:
        items: media or texts with the classes of `Task.classes`, labels and all.
        queries: texts of the classes that are seen in training, with those classes.
    """

    items: Items
    queries: QuerySet


@dataclass(frozen=True)
class Task:
    """One table of results: queries of one modality against items of another.

    Attributes:
        name: ``text→image`` and the like; tasks that only differ in a random split share it.
        repeat: number of the random split, from 0.
        queries: the queries.
        items: what is ranked.
        relevance: the relevant items of each query; no query is without.
        classes: the classes of queries and items.
        training: what may be fitted on, where the suite says so.
        candidates: for each query the only items that are ranked, where a suite gives them.
        groups: named subsets of the queries that are reported apart, bool [q] each.
        left_out: sentences on queries and items that were left out, with counts.
        notes: what one must know to read the numbers.
        measures: those that its paper reports, where they are not the suite's.
        by_window: makes the task over windows from each row's item, int64 [rows], and its start
            and end in seconds, float32 [rows, 2]. None where recordings are items.
    """

    name: str
    queries: QuerySet
    items: Items
    relevance: Relevance
    classes: Classes
    repeat: int = 0
    training: TrainingSplit | None = None
    candidates: Relevance | None = None
    groups: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()
    measures: Sequence[str] = ()
    by_window: Callable[[NDArray[np.int64], NDArray[np.float32]], Task] | None = None
