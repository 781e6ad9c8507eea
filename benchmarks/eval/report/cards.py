"""Chosen queries and their hits as cards: what is shown, and within which limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bittern.benchmarks.eval.report import media
from bittern.benchmarks.eval.report.media import Shown
from bittern.benchmarks.eval.report.wording import plain, small, value
from bittern.benchmarks.eval.results import ShownHit, ShownQuery

MOST_QUERIES, MOST_HITS = 24, 12
MOST_MEDIA_BYTES = 8 * 2**20
"""Of all pictures of a page, as they are written into it."""
LONGEST_TEXT = 600
NO_CREDIT = "Rights holder and licence are not in the metadata."
_FULL = Shown(why_not="The page's room for pictures is used up.")


@dataclass(frozen=True)
class HitCard:
    """One hit.

    Attributes:
        rank: from 1.
        right: whether it is right.
        distance: as it is shown.
        id, caption, credit, text: words of others; `text` is empty for media.
        shown: its picture, or why there is none; None for a text.
    """

    rank: int
    right: bool
    distance: str
    id: str
    caption: str
    credit: str
    text: str
    shown: Shown | None


@dataclass(frozen=True)
class QueryCard:
    """A query with its hits.

    Attributes:
        anchor: its id on the page.
        task, title, label: of what, what was asked, by which system.
        measure: name of its task's main measure.
        value: that of this query.
        relevant: how many items are right.
        shown: the picture that was asked with; None for a text.
        hits: the nearest.
        hits_left: how many more hits the run gave.
    """

    anchor: str
    task: str
    title: str
    label: str
    measure: str
    value: str
    relevant: int
    shown: Shown | None
    hits: Sequence[HitCard]
    hits_left: int


def query_cards(
    queries: Sequence[ShownQuery], measures: Mapping[str, str]
) -> tuple[list[QueryCard], int]:
    """Cards of the first queries, and how many queries were left out.

    Args:
        queries: as they were chosen.
        measures: the main measure of each task.
    """
    room = _Room()
    cards = [
        _query(query, f"query-{n}", measures.get(query.task, ""), room)
        for n, query in enumerate(queries[:MOST_QUERIES], 1)
    ]
    return cards, max(0, len(queries) - MOST_QUERIES)


class _Room:
    """What pictures may still take."""

    def __init__(self) -> None:
        self._left = MOST_MEDIA_BYTES

    def shown(
        self, path: str, modality: str, name: str, start_s: float | None, end_s: float | None
    ) -> Shown:
        if self._left <= 0:
            return _FULL
        picture = media.shown(path, modality, name, start_s, end_s)
        if len(picture.source) > self._left:
            self._left = 0
            return _FULL
        self._left -= len(picture.source)
        return picture


def _query(query: ShownQuery, anchor: str, measure: str, room: _Room) -> QueryCard:
    shown = None
    if query.media:
        shown = room.shown(query.media, media.kind_of(query.media), query.query, None, None)
    return QueryCard(
        anchor,
        plain(query.task, 120),
        plain(query.text or query.query, 300),
        plain(query.label, 120),
        plain(measure, 40),
        value(query.value),
        query.relevant,
        shown,
        [_hit(hit, room) for hit in query.hits[:MOST_HITS]],
        max(0, len(query.hits) - MOST_HITS),
    )


def _hit(hit: ShownHit, room: _Room) -> HitCard:
    text = plain(hit.text, LONGEST_TEXT) if hit.modality == "text" else ""
    shown = None
    if hit.modality != "text":
        name = hit.caption or hit.id
        shown = room.shown(hit.media, hit.modality, name, hit.start_s, hit.end_s)
    credit = plain(hit.credit, 300)
    return HitCard(
        hit.rank,
        hit.relevant,
        small(hit.distance) if math.isfinite(hit.distance) else plain(hit.distance),
        plain(hit.id, 120),
        plain(hit.caption, 200),
        credit or ("" if hit.modality == "text" else NO_CREDIT),
        text,
        shown,
    )
