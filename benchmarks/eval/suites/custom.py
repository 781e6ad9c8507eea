"""Queries and judgements of one's own, over an archive or over media.

    DATA/
    ├── queries.csv     query_id,text,media,target,group
    ├── qrels.txt       TREC's: query 0 item grade
    └── archive/        a Bittern archive, whose stored codes are ranked; or
        manifest.csv    or items/: whatever `bittern index` takes, ranked by embeddings

A query is a text, or a picture or recording (its path, relative to the data folder); `target` is
the modality of its items, ``image`` or ``audio``. `type` names the modality of a file (``image``,
``audio``) where its suffix does not; each `group` of queries gets figures of its own.

The id of an item is its `occurrenceID`. A judgement may also name a window of a recording as
archives do, ``crow-1#t=3,6``: it counts for the recording, with the highest grade of its windows.
Where windows are items (`--windows separate`), it counts for that window, and a judgement of the
recording counts for all of its windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import (
    DataFile,
    Limit,
    Missing,
    Pair,
    Suite,
    found,
    path_of,
)
from bittern.benchmarks.eval.suites.custom_archive import ArchiveItems, read_archive
from bittern.benchmarks.eval.suites.field import listed_media, media_items
from bittern.benchmarks.eval.suites.readers import SuiteFile
from bittern.benchmarks.eval.suites.species import RECORDING_QUERIES
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    IMAGE,
    TEXT,
    Classes,
    Items,
    Protocol,
    Relevance,
    Task,
)
from bittern.benchmarks.eval.tasks.prompts import VERBATIM, free_queries, prompts_note
from bittern.benchmarks.eval.tasks.qrels import PositionsOf, escaped, read_qrels
from bittern.benchmarks.eval.tasks.splits import leave_out_unanswerable
from bittern.errors import LayoutError, LimitExceededError
from bittern.query import MAX_TEXT_CHARS
from bittern.service.sources.base import modality_of_suffix
from bittern.text import agreeing, counted, first_few
from bittern.types import MediaItem

_WINDOW = "#t="
ARCHIVE = "archive/"
_OWN = "you, who write it"
_QUERIES = DataFile(
    "queries.csv",
    "columns query_id, text or media, target (image or audio), and group if wanted; for example, "
    "below the header query_id,text,media,target: q1,an owl,,image",
    _OWN,
    "one line per query",
)
_QRELS = DataFile(
    "qrels.txt",
    "judgements as TREC has them, query 0 item grade; for example: q1 0 tawny-owl-1 1",
    _OWN,
    "one line per judgement",
)
_ITEMS = DataFile(
    "archive/|manifest.csv|manifest.tsv|manifest.parquet|items/|items.csv|items.json|items.tar",
    "a Bittern archive, or media as bittern index takes them",
    "you, or bittern index for an archive",
    "of any size",
)


MAX_QUERIES = 1_000_000
"""Most queries: they are kept in memory."""
MAX_GROUPS = 50
_OWN_TABLE = (
    "write it yourself, with the columns query_id, text or media, and target; for example, below "
    "the header query_id,text,media,target: q1,an owl,,image"
)
_KINDS = {"image": IMAGE, "stillimage": IMAGE, "audio": AUDIO, "sound": AUDIO}
_COLUMNS = ("query_id", "text", "media", "type", "target", "group")
_QRELS_DECIDE = "qrels.txt decides what is relevant, of all items"


class CustomSuite(Suite):
    """Any archive, or any media, with queries and judgements."""

    name = "custom"
    about = "queries and judgements (TREC qrels) of your own, over an archive or over media"
    layout = (_QUERIES, _QRELS, _ITEMS)
    limits = tuple(
        Limit(name, _QRELS_DECIDE) for name in ("level", "novel", "database", "soundscapes")
    )
    measures = ("AP", "nDCG@10", "P@10", "Recall@100", "MRR")
    pairs = tuple((by, target) for by in (TEXT, IMAGE, AUDIO) for target in (IMAGE, AUDIO))

    def folder(self, data: Path | None, protocol: Protocol) -> Path:
        """The data folder, with either an archive or media."""
        root = super().folder(data, protocol)
        kinds = (path.strip() for path in _ITEMS.path.split("|"))
        several = [path for path in kinds if found(root, replace(_ITEMS, path=path))]
        if len(several) > 1:
            raise LayoutError(
                f"{root} holds {' and '.join(several)}; leave only the one that is meant",
                field="data",
            )
        return root

    def make(self, root: Path, protocol: Protocol, pairs: Sequence[Pair]) -> list[Task]:
        """One task for each pair of modalities that the queries have.

        Items of an archive are `ArchiveItems`, with their stored codes.
        """
        queries, sentences = read_queries(root / _QUERIES.path, protocol.missing)
        items, more = _items_of(path_of(root, _ITEMS), protocol)
        lacking = sorted({query.target for query in queries} - items.keys())
        judged = _Judged(root / _QRELS.path, queries, items, (*sentences, *more), protocol)
        if lacking:
            raise LayoutError(
                f"{root / _QUERIES.path} has queries for {' and '.join(lacking)}, and {root} holds "
                "none; add some, or leave these queries out",
                field="data",
            )
        present = {(query.modality, query.target) for query in queries}
        return [judged.task(by, target) for by, target in pairs if (by, target) in present]


def _items_of(path: Path, protocol: Protocol) -> tuple[Mapping[str, Items], list[str]]:
    """Pictures and recordings, as far as there are any, and sentences on skipped entries."""
    if path.name == ARCHIVE.rstrip("/"):
        return dict(read_archive(path)), []
    media, sentences = listed_media(path, protocol.missing)
    by_modality = {m: [item for item in media if item.modality == m] for m in (IMAGE, AUDIO)}
    return {m: media_items(chosen) for m, chosen in by_modality.items() if chosen}, sentences


# Judgements


class _Judged:
    """Queries, items, and their judgements.

    Positions of items in judgements count the pictures first, then the recordings.

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
        of_windows = _recording_of(recordings) if recordings else lambda name: ()
        self._relevance, sentences = self._read(items, of_windows)
        self._left_out = (*left_out, *sentences)

    def task(self, by: str, target: str) -> Task:
        """The queries of one modality for items of another."""
        pair = (by, target)
        mine = [q for q, one in enumerate(self._queries) if (one.modality, one.target) == pair]
        ids = [self._queries[q].id for q in mine]
        contents = [self._queries[q].content for q in mine]
        query_set, chosen = free_queries(ids, contents, by, self._protocol)
        queries = np.array(mine, np.int64)[chosen]
        relevance, sentences = _of_target(self._relevance, self._items, target, queries)
        groups = np.array([self._queries[q].group for q in queries], np.str_)
        task = Task(
            name=f"{by}→{target}",
            queries=query_set,
            items=self._items[target],
            relevance=relevance,
            classes=Classes(()),
            groups={name: groups == name for name in np.unique(groups).tolist() if name},
            left_out=(*self._left_out, *sentences),
            notes=(
                "The judgements of qrels.txt decide what is relevant; all other items are not.",
                *([prompts_note(self._protocol, VERBATIM, "query")] if by == TEXT else []),
                *([RECORDING_QUERIES] if by == AUDIO else []),
            ),
        )
        answered = leave_out_unanswerable(task)
        if self._protocol.windows != "separate" or target != AUDIO:
            return answered
        kept = queries[relevance.counts > 0]
        return replace(answered, by_window=partial(self._over_windows, answered, kept))

    def _over_windows(
        self,
        task: Task,
        queries: NDArray[np.int64],
        owners: NDArray[np.int64],
        spans: NDArray[np.float32],
    ) -> Task:
        """The task with windows as items; `queries` are the positions of its queries."""
        windows, named = _named_windows(task.items, owners, spans)
        items = {**self._items, AUDIO: windows}
        judged, sentences = self._read(items, lambda name: named.get(name, ()))
        relevance, more = _of_target(judged, items, AUDIO, queries)
        whole = replace(
            task,
            items=windows,
            relevance=relevance,
            left_out=tuple(dict.fromkeys((*task.left_out, *sentences, *more))),
            notes=(*task.notes, "Every window is an item."),
            by_window=None,
        )
        return leave_out_unanswerable(whole)

    def _read(self, items: Mapping[str, Items], of: PositionsOf) -> tuple[Relevance, list[str]]:
        """Judgements of all items.

        Args:
            items: by modality.
            of: positions of the recordings, or windows, that a name stands for.
        """
        first = len(items.get(IMAGE, ()))
        ids = [name for modality in (IMAGE, AUDIO) for name in _ids(items, modality)]
        names = [query.id for query in self._queries]

        def also(name: str) -> list[int]:
            return [first + position for position in of(name)]

        return read_qrels(self._qrels, names, ids, self._protocol.unknown, also)


def _ids(items: Mapping[str, Items], modality: str) -> Sequence[str]:
    return items[modality].ids if modality in items else ()


def _of_target(
    judged: Relevance, items: Mapping[str, Items], target: str, queries: NDArray[np.int64]
) -> tuple[Relevance, list[str]]:
    """The relevant items of one modality for some queries (the same one may come twice)."""
    number = np.full(sum(map(len, items.values())), -1, np.int64)
    first = len(items.get(IMAGE, ())) if target == AUDIO else 0
    number[first : first + len(items[target])] = np.arange(len(items[target]))
    mine = judged.only(queries)
    relevance = mine.renumbered(number)
    others = len(mine.items) - len(relevance.items)
    are = agreeing(
        others,
        "is of an item of another modality than the query's target",
        "are of items of another modality than the queries' target",
    )
    sentence = f"qrels: {counted(others, 'judgement')} {are} ({target}); left out"
    return relevance, [sentence] if others else []


def _recording_of(recordings: Items) -> PositionsOf:
    """From the name of a window to the position of its recording."""
    if isinstance(recordings, ArchiveItems):  # its windows are known
        known = {escaped(name): (position,) for name, position in recordings.windows.items()}
        return lambda name: known.get(name, ())
    positions = {escaped(name): (position,) for position, name in enumerate(recordings.ids)}
    return lambda name: positions.get(name.rpartition(_WINDOW)[0], ())


def _named_windows(
    recordings: Items, owners: NDArray[np.int64], spans: NDArray[np.float32]
) -> tuple[Items, dict[str, list[int]]]:
    """Windows as items, and the windows that each name stands for beside their own ids.

    As in an archive, the only window of a recording has the recording's id.
    """
    several = np.bincount(owners, minlength=len(recordings))[owners] > 1
    items = recordings.over_windows(owners, spans)
    windows: dict[str, list[int]] = {}
    ids = []
    for row, (owner, is_one_of_several) in enumerate(zip(owners.tolist(), several, strict=True)):
        name = recordings.ids[owner]
        ids.append(items.ids[row] if is_one_of_several else name)
        windows.setdefault(escaped(name), []).append(row)
        windows.setdefault(escaped(items.ids[row]), [row])
    return replace(items, ids=ids), windows


# Queries


@dataclass(frozen=True)
class OwnQuery:
    """One row.

    Attributes:
        id: its name in qrels.
        modality: ``text``, ``image`` or ``audio``.
        content: the words, or the file.
        target: ``image`` or ``audio``.
        group: of queries with figures of their own; empty for none.
    """

    id: str
    modality: str
    content: str | MediaItem
    target: str
    group: str = ""

    @property
    def lacks_file(self) -> bool:
        """Whether it is of a file that does not exist."""
        return isinstance(self.content, MediaItem) and self.content.path is None


def read_queries(path: Path, missing: Missing) -> tuple[list[OwnQuery], list[str]]:
    """The queries in the order of the file, and sentences on what was skipped.

    Args:
        path: `queries.csv`; files are looked for beside it.
        missing: whether a query whose file is missing ends the run.

    Raises:
        LayoutError: a row is unusable, an id occurs twice, or files are missing.
        LimitExceededError: more than 1,000,000 queries.
    """
    queries: list[OwnQuery] = []
    gone: list[str] = []
    lines: dict[str, int] = {}
    table = SuiteFile(path, _OWN, own=_OWN_TABLE)
    for number, row in table.rows(("query_id", "target")):
        where = f"{path}, line {number}"
        if len(lines) >= MAX_QUERIES:
            raise LimitExceededError(
                f"{path} has more than {MAX_QUERIES:,} queries, which is the limit; use several "
                "runs",
                field="data",
            )
        before = lines.setdefault(row["query_id"], number)
        if before != number:
            raise LayoutError(
                f"{where}: the query '{row['query_id'][:100]}' is in line {before} already; "
                "give each its own query_id",
                field="data",
            )
        query = _query(where, path.parent, row)
        queries.append(query)
        if query.lacks_file:
            gone.append(f"{row['media'][:200]} (line {number})")
    groups = {query.group for query in queries}
    usable = [query for query in queries if not query.lacks_file]
    if gone and (missing == "error" or not usable):
        them = agreeing(len(gone), "it", "them")
        raise LayoutError(
            f"{path}: {counted(len(gone), 'query names a file', 'queries name files')} that "
            f"{agreeing(len(gone), 'does', 'do')} not exist: {first_few(gone)}; put {them} below "
            f"{path.parent}, or leave such queries out with --missing skip",
            field="data",
        )
    if not usable:
        raise LayoutError(f"{path} has a header and no queries; write one per line", field="data")
    if len(groups) > MAX_GROUPS or "all" in groups:
        raise LayoutError(
            f"{path} has {counted(len(groups), 'group')} of queries; there may be {MAX_GROUPS}, "
            "and none called 'all'",
            field="data",
        )
    are = agreeing(len(gone), "has no file and was", "have no file and were")
    sentence = f"{counted(len(gone), 'query', 'queries')} {are} left out ({first_few(gone)})"
    return usable, [sentence] if gone else []


def _query(where: str, folder: Path, row: Mapping[str, str]) -> OwnQuery:
    target = _KINDS.get(row["target"].lower(), "")
    if not target:
        raise LayoutError(
            f"{where}: the target is '{row['target'][:50]}'; it must be image or audio",
            field="data",
        )
    text, media = row.get("text", ""), row.get("media", "")
    if bool(text) == bool(media):
        both = "both a text and a medium" if text else "neither a text nor a medium"
        raise LayoutError(
            f"{where}: the query has {both}; fill in one of the columns text and media",
            field="data",
        )
    if len(text) > MAX_TEXT_CHARS:
        raise LayoutError(
            f"{where}: the text has {len(text):,} characters, the limit is {MAX_TEXT_CHARS:,}; "
            "shorten it",
            field="data",
        )
    group = row.get("group", "")
    if text:
        return OwnQuery(row["query_id"], TEXT, text, target, group)
    item = _medium(where, folder, row)
    return OwnQuery(row["query_id"], item.modality, item, target, group)


def _medium(where: str, folder: Path, row: Mapping[str, str]) -> MediaItem:
    """The file of a query; without a path where it does not exist."""
    media = row["media"]
    kind = row.get("type", "")
    modality = _KINDS.get(kind.lower()) if kind else modality_of_suffix(media)
    if modality is None:
        raise LayoutError(
            f"{where}: '{media[:200]}' is of no known kind by {'type' if kind else 'its suffix'}; "
            "add a column type that says image or audio",
            field="data",
        )
    path = folder / media
    try:
        exists = "\0" not in media and path.is_file()
    except OSError:  # a name longer than the file system allows
        exists = False
    return MediaItem(
        occurrence_id=row["query_id"],
        media=media,
        modality=modality,
        path=path if exists else None,
        media_root=str(folder),
        metadata={column: value for column, value in row.items() if column not in _COLUMNS},
    )
