"""Options that papers differ in, and what a suite returns: queries, items, and relevance.

Everything is addressed by its position: query 0 to q - 1, item 0 to n - 1. Names are only looked
up at the edges. Nothing here holds media or embeddings, so five million items fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
        level: what counts as the same kind.
        novel: how classes are told into seen and novel: not at all, at random, or so that novel
            ones share no genus (or higher taxon) with seen ones (cf. arXiv 2208.08217).
        novel_share: of the classes, what part is novel.
        soundscapes: folder of annotated soundscapes to search as well; empty for none.
        candidates: INQUIRE: full ranking, the given 100 candidates per query, or both.
        fit_on: unlabelled items that training-free systems look at: those that are searched, or
            the published training split.
        fit_rows: at most so many rows are fitted on, drawn at random.
        depth: rank so deep; 0 for everything.
        missing: whether items without a file are left out (``skip``) or end the run (``error``).
        unknown: the same for qrels that name items or queries that there are not.
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
        """How many."""
        ...

    def __getitem__(self, position: int, /) -> MediaItem | str:
        """One of them: a photograph or recording, or a text."""
        ...


@dataclass(frozen=True)
class Items:
    """What is ranked.

    Attributes:
        ids: one per item, unique; what runs and qrels call it.
        modality: ``image``, ``audio`` or ``text``.
        contents: one per item.
        classes: int32 [n], each item's class among `Task.classes`, -1 for none.
        side: what a hasher calls this side: it has a centre (and perhaps a head) of its own.
        splits: per item the name of the published split it belongs to; None where there is none.
    """

    ids: Sequence[str]
    modality: str
    contents: Contents
    classes: NDArray[np.int32]
    side: str
    splits: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class QuerySet:
    """The queries.

    Attributes:
        ids: one per query, unique.
        modality: ``text``, ``image`` or ``audio``.
        contents: of a query in words a tuple of prompts (their embeddings are averaged where there
            are several), of another a `MediaItem`.
        classes: int32 [q], the class that is asked for, -1 for none.
        side: what a hasher calls this side.
    """

    ids: Sequence[str]
    modality: str
    contents: Sequence[tuple[str, ...] | MediaItem]
    classes: NDArray[np.int32]
    side: str

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Relevance:
    """Which items answer which query (compressed sparse rows).

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
        """Positions of the items that answer a query, ascending."""
        return self.items[self.offsets[query] : self.offsets[query + 1]]

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 [q], items that answer each query."""
        return np.diff(self.offsets)

    @classmethod
    def by_class(cls, queries: NDArray[np.int32], items: NDArray[np.int32]) -> Relevance:
        """Items of the class that is asked for; -1 is no class.

        Args:
            queries: int32 [q].
            items: int32 [n].
        """
        order = np.argsort(items, kind="stable").astype(np.int64)
        ordered = items[order]
        starts = np.searchsorted(ordered, queries, "left")
        ends = np.where(queries < 0, starts, np.searchsorted(ordered, queries, "right"))
        offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
        found = [order[a:b] for a, b in zip(starts, ends, strict=True)]
        positions = np.concatenate(found) if found else np.empty(0, np.int64)
        return cls(offsets, positions, np.ones(len(positions), np.int32))

    def only(self, queries: NDArray[np.int64]) -> Relevance:
        """The same for some queries, numbered anew."""
        parts = [np.arange(self.offsets[q], self.offsets[q + 1]) for q in queries]
        chosen = np.concatenate(parts) if parts else np.empty(0, np.int64)
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
        return Relevance(offsets, self.items[chosen], self.grades[chosen])


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
        relevance: which items answer which query; no query is without.
        classes: what classes there are.
        training: what may be fitted on, where the suite says so.
        candidates: for each query the only items that are ranked, where a suite gives them.
        groups: named parts of the queries that are reported apart, bool [q] each.
        left_out: sentences on what was not asked or ranked, with counts.
        notes: what one must know to read the numbers.
        measures: those that its paper reports, where they are not the suite's.
        by_window: makes the task over windows, once it is known where they are: from each row's
            item, int64 [rows], and its start and end in seconds, float32 [rows, 2]. None where
            recordings are items.
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
