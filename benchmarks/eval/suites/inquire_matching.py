"""Which query and which image a line of INQUIRE's files is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.protocol import Protocol
from bittern.benchmarks.eval.suites.inat24_files import Images
from bittern.benchmarks.eval.suites.inquire_files import Pair, Queries
from bittern.benchmarks.eval.tasks import Relevance
from bittern.errors import QrelsError
from bittern.text import agreeing

_NAMED = 3
_INT64_DIGITS = 18


@dataclass(frozen=True)
class Pairs:
    """Queries and images that belong together: int64 places, none twice, in order."""

    queries: NDArray[np.int64]
    images: NDArray[np.int64]

    def relevance(self, queries: int, kept: NDArray[np.int64], images: int) -> Relevance:
        """Over those images that are kept, numbered anew."""
        number = np.full(images, -1, np.int64)
        number[kept] = np.arange(len(kept))
        of, items = self.queries, number[self.images]
        of, items = of[items >= 0], items[items >= 0]
        offsets = np.searchsorted(of, np.arange(queries + 1)).astype(np.int64)
        return Relevance(offsets, items, np.ones(len(items), np.int32))

    def only(self, queries: NDArray[np.bool_]) -> Pairs:
        """Those of some queries, bool [q]."""
        kept = queries[self.queries]
        return Pairs(self.queries[kept], self.images[kept])

    def among(self, others: Pairs, images: int) -> Pairs:
        """Those that are among others as well."""
        own = self.queries * images + self.images
        kept = np.isin(own, others.queries * images + others.images)
        return Pairs(self.queries[kept], self.images[kept])


class Matching:
    """Looks up what lines name, and counts what there is not.

    Attributes:
        left_out: sentences on lines that were left out.
    """

    def __init__(self, queries: Queries, images: Images, protocol: Protocol) -> None:
        self._queries = {own: number for number, own in enumerate(queries.ids)}
        self._published = queries
        self._images = images
        self._unknown = protocol.unknown
        self.left_out: list[str] = []

    def pairs(self, lines: Iterable[Pair], what: str) -> Pairs:
        """The pairs of a file for queries that are asked, each once.

        Raises:
            QrelsError: lines name queries or images that there are not, unless these are skipped.
        """
        read = list(lines)
        if self._published.partial:
            read = self._of_known_queries(read, what)
        queries = np.array([self._queries.get(line.query, -1) for line in read], np.int64)
        images = self._found(read)
        lost = np.flatnonzero((queries < 0) | (images < 0))
        if len(lost):
            self._lose(read, queries, lost, what)
        known = (queries >= 0) & (images >= 0)
        both = np.unique(np.stack([queries[known], images[known]], 1), axis=0)
        again = int(known.sum()) - len(both)
        if again:
            stand = agreeing(again, "stands there twice and counts", "stand there twice and count")
            self.left_out.append(f"{again:,} of {len(read):,} {what} {stand} once")
        return Pairs(both[:, 0], both[:, 1]).only(self._published.are_asked)

    def _of_known_queries(self, read: Sequence[Pair], what: str) -> list[Pair]:
        known = [line for line in read if line.query in self._queries]
        if len(known) < len(read):
            self.left_out.append(other_queries(len(read) - len(known), len(read), what))
        return known

    def _found(self, read: Sequence[Pair]) -> NDArray[np.int64]:
        """Places of the lines' images; -1 where there is none of that id, or under another path."""
        paths = {line.path: -1 for line in read if not line.image}
        if paths:
            for number, path in enumerate(self._images.paths):
                if path in paths:
                    paths[path] = number
        ids = [line.image if _is_id(line.image) else "-1" for line in read]
        places = self._images.find(np.array(ids, np.int64))
        for number, line in enumerate(read):
            if not line.image:
                places[number] = paths[line.path]
            elif not _is_id(line.image) or (
                line.path and places[number] >= 0 and self._path(places[number]) != line.path
            ):
                places[number] = -1
        return places

    def _path(self, number: np.int64) -> str:
        return str(self._images.paths[int(number)])

    def _lose(
        self, read: Sequence[Pair], queries: NDArray[np.int64], lost: NDArray[np.int64], what: str
    ) -> None:
        first = "; ".join(
            f"{read[i].where}: "
            + (f"query '{read[i].query[:60]}'" if queries[i] < 0 else f"image {_named(read[i])}")
            for i in lost[:_NAMED].tolist()
        )
        name = agreeing(
            len(lost), "names an unknown query or image", "name unknown queries or images"
        )
        told = f"{len(lost):,} of {len(read):,} {what} {name} ({first})"
        if self._unknown == "error":
            raise QrelsError(
                f"{told}; queries, {what} and train.json have to be of the same release of "
                "INQUIRE; leave these lines out with --unknown skip"
            )
        self.left_out.append(told)


def other_queries(lost: int, lines: int, what: str) -> str:
    """The sentence on lines about queries whose file is not there, and need not be."""
    return (
        f"{lost:,} of {lines:,} {what} {agreeing(lost, 'is', 'are')} of queries of the split that "
        "is not asked, whose file is not there; left out"
    )


def _is_id(told: str) -> bool:
    return told.isascii() and told.isdigit() and len(told) <= _INT64_DIGITS


def _named(line: Pair) -> str:
    return " ".join(part[:200] for part in (line.image, line.path) if part)
