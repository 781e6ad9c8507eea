"""Queries of one's own: `queries.csv`.

    query_id,text,media,target,group
    q1,an owl at night,,image,birds
    q2,,sounds/hoot.wav,image,

A query is a text, or a picture or recording (its path, from the data folder on); `target` says
what it asks for, ``image`` or ``audio``. `type` may say what a file is (``image``, ``audio``) where
its suffix does not, and queries of one `group` get figures of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bittern.benchmarks.eval.layouts import Missing, table_rows
from bittern.benchmarks.eval.tasks import AUDIO, IMAGE, TEXT
from bittern.errors import LayoutError, LimitExceededError
from bittern.service.sources.base import modality_of_suffix
from bittern.text import agreeing, counted
from bittern.types import MAX_TEXT_CHARS, MediaItem

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
    told = f"{counted(len(gone), 'query', 'queries')} {are} not asked ({_first(gone)})"
    return found, [told] if gone else []


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
    told = row.get("type", "")
    modality = _KINDS.get(told.lower()) if told else modality_of_suffix(Path(media))
    if modality is None:
        raise LayoutError(
            f"{where}: '{media[:200]}' is of no kind that {'type' if told else 'its suffix'} "
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
