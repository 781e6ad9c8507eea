"""Queries and judgements of one's own, over an archive or over media.

    DATA/
    ├── queries.csv     see `bittern.benchmarks.eval.suites.custom_queries`
    ├── qrels.txt       TREC's: query 0 item grade
    └── archive/        a Bittern archive, whose stored codes are ranked; or
        manifest.csv    or items/: whatever `bittern index` takes, ranked by embeddings

Items go by their `occurrenceID`. A judgement may also name a window of a recording as archives
do, ``crow-1#t=3,6``: it counts for the recording, the highest grade of its windows for all; where
windows are items (`--windows separate`), for that window, and one that names the recording for all
of its windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bittern.benchmarks.eval import layouts
from bittern.benchmarks.eval.prompts import check_templates
from bittern.benchmarks.eval.protocol import Protocol
from bittern.benchmarks.eval.suites.base import Piece, Suite
from bittern.benchmarks.eval.suites.custom_archive import read_archive
from bittern.benchmarks.eval.suites.custom_judged import Judged
from bittern.benchmarks.eval.suites.custom_queries import read_queries
from bittern.benchmarks.eval.suites.field_media import listed_media
from bittern.benchmarks.eval.tasks import AUDIO, IMAGE, TEXT, Items, Task
from bittern.errors import InvalidInputError, LayoutError

ARCHIVE = "archive/"
_OWN = "you, who write it"
_QUERIES = Piece(
    "queries.csv",
    "columns query_id, text or media, target (image or audio), and group if wanted; for example, "
    "below the header query_id,text,media,target: q1,an owl,,image",
    _OWN,
    "one line per query",
)
_QRELS = Piece(
    "qrels.txt",
    "judgements as TREC has them, query 0 item grade; for example: q1 0 tawny-owl-1 1",
    _OWN,
    "one line per judgement",
)
_ITEMS = Piece(
    "archive/|manifest.csv|manifest.tsv|manifest.parquet|items/|items.csv|items.json|items.tar",
    "a Bittern archive, or media as bittern index takes them",
    "you, or bittern index for an archive",
    "of any size",
)


class CustomSuite(Suite):
    """Any archive, or any media, with queries and judgements."""

    name = "custom"
    about = "queries and judgements (TREC qrels) of your own, over an archive or over media"
    pieces: Sequence[Piece] = (_QUERIES, _QRELS, _ITEMS)
    needs_data = True
    measures: Sequence[str] = ("AP", "nDCG@10", "P@10", "Recall@100", "MRR")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Refuse what cannot be run before anything is read.

        Raises:
            LayoutError: pieces are missing, or both an archive and media are there.
            InvalidInputError: the protocol asks for what this suite has not.
        """
        _check_protocol(protocol)
        root = layouts.check(data, self.pieces, self.name)
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
            LayoutError: pieces are missing or cannot be read, a query is of no use.
            QrelsError: judgements that cannot be used.
            LimitExceededError: too many queries, media, or judgements.
            InvalidInputError: the protocol asks for what this suite has not.
        """
        self.check(data, protocol)
        root = layouts.check(data, self.pieces, self.name)
        queries, told = read_queries(root / _QUERIES.path, protocol.missing)
        items, also_told = _items_of(layouts.place(root, _ITEMS), protocol)
        judged = Judged(root / _QRELS.path, queries, items, (*told, *also_told), protocol)
        pairs = sorted({(q.modality, q.target) for q in queries}, key=_in_order)
        lacking = sorted({target for _, target in pairs if target not in items})
        if lacking:
            raise LayoutError(
                f"{root / _QUERIES.path} asks for {' and '.join(lacking)}, and {root} holds none; "
                "add some, or leave these queries out",
                field="data",
            )
        possible = [pair for pair in pairs if {*pair} <= towers]
        return [judged.task(asked, target) for asked, target in possible]


def _in_order(pair: tuple[str, str]) -> tuple[int, int]:
    order = (TEXT, IMAGE, AUDIO)
    return order.index(pair[0]), order.index(pair[1])


def _check_protocol(protocol: Protocol) -> None:
    if protocol.prompts:
        check_templates(protocol.prompts)
    wrong = {
        "level": protocol.level != "species",
        "novel": protocol.novel != "none",
        "database": bool(protocol.database),
        "soundscapes": bool(protocol.soundscapes),
    }
    asked = [option for option, is_wrong in wrong.items() if is_wrong]
    if asked:
        raise InvalidInputError(
            f"custom has no {' and no '.join('--' + option for option in asked)} to choose: what "
            "is right is what qrels.txt says, of all items; leave the option out",
            field=asked[0],
        )


def _items_of(path: Path, protocol: Protocol) -> tuple[dict[str, Items], list[str]]:
    """Pictures and recordings, whichever there are, and what was left out."""
    if path.name == ARCHIVE.rstrip("/"):
        return dict(read_archive(path)), []
    media, told = listed_media(path, protocol.missing)
    found = {}
    for modality in (IMAGE, AUDIO):
        chosen = [item for item in media if item.modality == modality]
        if chosen:
            ids = [item.occurrence_id for item in chosen]
            none = np.full(len(chosen), -1, np.int32)
            found[modality] = Items(ids, modality, chosen, none, side=modality)
    return found, told
