"""Queries and judgements of one's own, over an archive or over media.

    DATA/
    ├── queries.csv     query_id,text,media,target,group
    ├── qrels.txt       TREC's: query 0 item grade
    └── archive/        a Bittern archive, whose stored codes are ranked; or
        manifest.csv    or items/: whatever `bittern index` takes, ranked by embeddings

A query is a text, or a picture or recording (its path, relative to the data folder); `target` is
the modality of its answers, ``image`` or ``audio``. `type` names the modality of a file (``image``,
``audio``) where its suffix does not; each `group` of queries gets figures of its own.

Items go by their `occurrenceID`. A judgement may also name a window of a recording as archives
do, ``crow-1#t=3,6``: it counts for the recording, with the highest grade of its windows. Where
windows are items (`--windows separate`), it counts for that window, and one that names the
recording counts for all of its windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites import base as layouts
from bittern.benchmarks.eval.suites.base import (
    RECORDING_QUERIES,
    DataFile,
    Missing,
    Suite,
    check_options,
    table_rows,
)
from bittern.benchmarks.eval.suites.custom_archive import ArchiveItems, read_archive
from bittern.benchmarks.eval.suites.field import listed_media
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    IMAGE,
    TEXT,
    Classes,
    Items,
    Protocol,
    QuerySet,
    Relevance,
    Task,
)
from bittern.benchmarks.eval.tasks.prompts import fill, prompts_note
from bittern.benchmarks.eval.tasks.qrels import PositionsOf, escaped, read_qrels
from bittern.benchmarks.eval.tasks.splits import Chosen, leave_out_unanswerable
from bittern.benchmarks.eval.tasks.windows import window_ids
from bittern.errors import LayoutError, LimitExceededError
from bittern.service.sources.base import modality_of_suffix
from bittern.text import agreeing, counted
from bittern.types import MAX_TEXT_CHARS, MediaItem

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
        self._relevance, sentences = self._read(items, part_of)
        self._left_out = (*left_out, *sentences)

    def task(self, by: str, target: str) -> Task:
        """The queries of one modality for items of another."""
        pair = (by, target)
        mine = [q for q, one in enumerate(self._queries) if (one.modality, one.target) == pair]
        questions, search = _asked([self._queries[q] for q in mine], by, self._protocol)
        queries = np.array(mine, np.int64)[search]
        relevance, sentences = self._among(self._relevance, self._items, target, queries)
        task = Task(
            name=f"{by}→{target}",
            queries=questions,
            items=self._items[target],
            relevance=relevance,
            classes=Classes(()),
            groups=_groups([self._queries[q].group for q in queries]),
            left_out=(*self._left_out, *sentences),
            notes=(
                "What is right is what qrels.txt says; what it does not name is wrong.",
                *self._put(by),
            ),
        )
        answered = leave_out_unanswerable(task)
        if self._protocol.windows != "separate" or target != AUDIO:
            return answered
        kept = queries[relevance.counts > 0]
        return replace(answered, by_window=partial(self._over_windows, answered, kept))

    def _put(self, by: str) -> list[str]:
        """How queries of a modality are put, in sentences."""
        if by == TEXT:
            return [prompts_note(self._protocol, _AS_IT_IS, "query")]
        return [RECORDING_QUERIES] if by == AUDIO else []

    def _over_windows(
        self,
        task: Task,
        queries: NDArray[np.int64],
        owners: NDArray[np.int64],
        spans: NDArray[np.float32],
    ) -> Task:
        """The task with windows for items; `queries` are those that it asks, by place."""
        items, windows = _windows_of(task.items, owners, spans)
        of_all = {**self._items, AUDIO: items}
        found, sentences = self._read(of_all, lambda name: windows.get(name, ()))
        relevance, more = self._among(found, of_all, AUDIO, queries)
        whole = replace(
            task,
            items=items,
            relevance=relevance,
            left_out=tuple(dict.fromkeys((*task.left_out, *sentences, *more))),
            notes=(*task.notes, "Every window is an item."),
            by_window=None,
        )
        return leave_out_unanswerable(whole)

    def _read(self, items: Mapping[str, Items], of: PositionsOf) -> tuple[Relevance, list[str]]:
        """Judgements of pictures and, behind them, recordings.

        Args:
            items: by modality.
            of: places of recordings, or windows, that a name stands for.
        """
        first = len(items[IMAGE]) if IMAGE in items else 0
        ids = [name for m in (IMAGE, AUDIO) if m in items for name in items[m].ids]
        names = [query.id for query in self._queries]

        def also(name: str) -> list[int]:
            return [first + position for position in of(name)]

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
        sentences = []
        if not inside.all():
            others = int((~inside).sum())
            of = agreeing(
                others,
                "is of an item of another modality than its query asks",
                "are of items of another modality than their queries ask",
            )
            sentences.append(f"qrels: {counted(others, 'judgement')} {of} for ({target}); left out")
        before = np.concatenate([[0], np.cumsum(inside)]).astype(np.int64)
        offsets = before[mine.offsets]
        return Relevance(offsets, mine.items[inside] - begin, mine.grades[inside]), sentences


def _nothing(name: str) -> Sequence[int]:
    return ()


def _recording_of(recordings: Items) -> PositionsOf:
    """From the name of a window to the place of its recording."""
    if isinstance(recordings, ArchiveItems):  # which windows there are is known
        known = {escaped(name): (position,) for name, position in recordings.windows.items()}
        return lambda name: known.get(name, ())
    positions = {escaped(name): (position,) for position, name in enumerate(recordings.ids)}
    return lambda name: positions.get(name.rpartition(_WINDOW)[0], ())


def _windows_of(
    recordings: Items, owners: NDArray[np.int64], spans: NDArray[np.float32]
) -> tuple[Items, dict[str, list[int]]]:
    """Windows as items, and those that each name stands for which is no window's own.

    As in an archive, the only window of a recording goes by the recording's id.
    """
    several = np.bincount(owners, minlength=len(recordings))[owners] > 1
    full = window_ids(recordings.ids, owners, spans)
    windows: dict[str, list[int]] = {}
    ids = []
    for row, (owner, is_one_of_several) in enumerate(zip(owners.tolist(), several, strict=True)):
        name = recordings.ids[owner]
        ids.append(full[row] if is_one_of_several else name)
        windows.setdefault(escaped(name), []).append(row)
        windows.setdefault(escaped(full[row]), [row])
    items = Items(
        ids=ids,
        modality=AUDIO,
        contents=Chosen(recordings.contents, owners),
        classes=np.full(len(owners), -1, np.int32),
        side=recordings.side,
    )
    return items, windows


def _asked(
    queries: Sequence[OwnQuery], modality: str, protocol: Protocol
) -> tuple[QuerySet, NDArray[np.int64]]:
    """The queries as they are asked (prompts make several of one), and which each of them is."""
    ids: list[str] = []
    contents: list[tuple[str, ...] | MediaItem] = []
    search: list[int] = []
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
        search += [number] * len(each)
    none = np.full(len(ids), -1, np.int32)
    return QuerySet(ids, modality, contents, none, side=modality), np.array(search, np.int64)


def _groups(names: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Queries by the group that they name."""
    of_query = np.array(names, np.str_)
    return {name: of_query == name for name in sorted({*names} - {""})}


MAX_QUERIES = 1_000_000
"""Most queries: they are kept in memory."""
MAX_GROUPS = 50
OWN = (
    "write it yourself, with the columns query_id, text or media, and target; for example, below "
    "the header query_id,text,media,target: q1,an owl,,image"
)
_KINDS = {"image": IMAGE, "stillimage": IMAGE, "audio": AUDIO, "sound": AUDIO}
_NAMED = 3


@dataclass(frozen=True)
class OwnQuery:
    """One row.

    Attributes:
        id: its name in qrels.
        modality: ``text``, ``image`` or ``audio``.
        content: the words, or the file.
        target: ``image`` or ``audio``.
        group: what it belongs to; empty for nothing.
    """

    id: str
    modality: str
    content: str | MediaItem
    target: str
    group: str = ""


def read_queries(path: Path, missing: Missing) -> tuple[list[OwnQuery], list[str]]:
    """The queries in the order of the file, and sentences on what was left out.

    Args:
        path: `queries.csv`; files are looked for beside it.
        missing: whether a query whose file is not there ends it.

    Raises:
        LayoutError: a row is of no use, an id stands twice, or files are missing.
        LimitExceededError: more than 1,000,000 queries.
    """
    found: list[OwnQuery] = []
    gone: list[str] = []
    lines: dict[str, int] = {}
    groups: set[str] = set()
    for number, row in table_rows(path, ("query_id", "target"), "", own=OWN):
        where = f"{path}, line {number}"
        if len(lines) >= MAX_QUERIES:
            raise LimitExceededError(
                f"{path} has more than {MAX_QUERIES:,} queries, which is the limit; ask them in "
                "several runs",
                field="data",
            )
        before = lines.setdefault(row["query_id"], number)
        if before != number:
            raise LayoutError(
                f"{where}: the query '{row['query_id'][:100]}' stands in line {before} already; "
                "give each its own query_id",
                field="data",
            )
        query = _query(where, path.parent, row)
        groups.add(query.group)
        if isinstance(query.content, MediaItem) and query.content.path is None:
            gone.append(f"{query.content.media[:200]} (line {number})")
        else:
            found.append(query)
    _check(path, found, gone, groups, missing)
    are = agreeing(len(gone), "has no file and is", "have no file and are")
    sentences = f"{counted(len(gone), 'query', 'queries')} {are} not asked ({_first(gone)})"
    return found, [sentences] if gone else []


def _check(
    path: Path, found: Sequence[OwnQuery], gone: Sequence[str], groups: set[str], missing: Missing
) -> None:
    if gone and (missing == "error" or not found):
        raise LayoutError(
            f"{path}: {counted(len(gone), 'query names a file', 'queries name files')} that "
            f"{agreeing(len(gone), 'is', 'are')} not there: {_first(gone)}; put "
            f"{agreeing(len(gone), 'it', 'them')} below {path.parent}, or leave such queries out "
            "with --missing skip",
            field="data",
        )
    if not found:
        raise LayoutError(f"{path} has a header and no queries; write one per line", field="data")
    if len(groups) > MAX_GROUPS or "all" in groups:
        raise LayoutError(
            f"{path} has {counted(len(groups), 'group')} of queries; there may be {MAX_GROUPS}, "
            "and none called 'all'",
            field="data",
        )


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
    """The file of a query; without a path where there is none."""
    media = row["media"]
    kind = row.get("type", "")
    modality = _KINDS.get(kind.lower()) if kind else modality_of_suffix(Path(media))
    if modality is None:
        raise LayoutError(
            f"{where}: '{media[:200]}' is of no kind that {'type' if kind else 'its suffix'} "
            "tells; add a column type that says image or audio",
            field="data",
        )
    path = folder / media
    try:
        there = "\0" not in media and path.is_file()
    except OSError:  # a name longer than the file system allows
        there = False
    known = ("query_id", "text", "media", "type", "target", "group")
    return MediaItem(
        occurrence_id=row["query_id"],
        media=media,
        modality=modality,
        path=path if there else None,
        media_root=str(folder),
        metadata={column: value for column, value in row.items() if column not in known},
    )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


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


class CustomSuite(Suite):
    """Any archive, or any media, with queries and judgements."""

    name = "custom"
    about = "queries and judgements (TREC qrels) of your own, over an archive or over media"
    layout: Sequence[DataFile] = (_QUERIES, _QRELS, _ITEMS)
    needs_data = True
    measures: Sequence[str] = ("AP", "nDCG@10", "P@10", "Recall@100", "MRR")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Check the layout and the options before anything is read.

        Raises:
            LayoutError: files are missing, or both an archive and media are there.
            InvalidInputError: the protocol has an option that this suite does not have.
        """
        _check_protocol(protocol)
        root = layouts.check(data, self.layout, self.name)
        kinds = (path.strip() for path in _ITEMS.path.split("|"))
        there = [path for path in kinds if layouts.found(root, replace(_ITEMS, path=path))]
        if len(there) > 1:
            raise LayoutError(
                f"{root} holds {' and '.join(there)}; which of them is meant cannot be told: leave "
                "one of them there",
                field="data",
            )

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """One task for each pair of modalities that is asked for and that the towers allow.

        Items of an archive are `ArchiveItems`: the codes that are stored come with them.

        Raises:
            LayoutError: files are missing or cannot be read, a query is of no use.
            QrelsError: judgements that cannot be used.
            LimitExceededError: too many queries, media, or judgements.
            InvalidInputError: the protocol has an option that this suite does not have.
        """
        self.check(data, protocol)
        root = layouts.check(data, self.layout, self.name)
        queries, sentences = read_queries(root / _QUERIES.path, protocol.missing)
        items, more = _items_of(layouts.path_of(root, _ITEMS), protocol)
        judged = Judged(root / _QRELS.path, queries, items, (*sentences, *more), protocol)
        pairs = sorted({(q.modality, q.target) for q in queries}, key=_in_order)
        lacking = sorted({target for _, target in pairs if target not in items})
        if lacking:
            raise LayoutError(
                f"{root / _QUERIES.path} asks for {' and '.join(lacking)}, and {root} holds none; "
                "add some, or leave these queries out",
                field="data",
            )
        possible = [pair for pair in pairs if {*pair} <= towers]
        return [judged.task(by, target) for by, target in possible]


def _in_order(pair: tuple[str, str]) -> tuple[int, int]:
    order = (TEXT, IMAGE, AUDIO)
    return order.index(pair[0]), order.index(pair[1])


def _check_protocol(protocol: Protocol) -> None:
    check_options(
        "custom",
        "what is right is what qrels.txt says, of all items",
        protocol,
        {
            "level": protocol.level != "species",
            "novel": protocol.novel != "none",
            "database": bool(protocol.database),
            "soundscapes": bool(protocol.soundscapes),
        },
    )


def _items_of(path: Path, protocol: Protocol) -> tuple[dict[str, Items], list[str]]:
    """Pictures and recordings, whichever there are, and what was left out."""
    if path.name == ARCHIVE.rstrip("/"):
        return dict(read_archive(path)), []
    media, sentences = listed_media(path, protocol.missing)
    found = {}
    for modality in (IMAGE, AUDIO):
        chosen = [item for item in media if item.modality == modality]
        if chosen:
            ids = [item.occurrence_id for item in chosen]
            none = np.full(len(chosen), -1, np.int32)
            found[modality] = Items(ids, modality, chosen, none, side=modality)
    return found, sentences
