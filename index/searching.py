"""One search of one generation, and pages of a listing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError, QueryError
from bittern.hashing.codes import pack
from bittern.index.engines.choosing import Engines
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest, RowSet
from bittern.index.generation import MODALITIES, Generation
from bittern.index.models import ModelRecord
from bittern.index.observation import Answer
from bittern.types import Hit, Metric, Page

_TOKEN = re.compile(rb"([0-9]{1,19})\.([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Search:
    """A search for one query, validated by the caller.

    Attributes:
        query: logits, float [bits]; for ``hamming`` also a code, uint8 [bits/8].
        record: the model that made it.
        k: number of hits.
        metric: ``asymmetric`` or ``hamming``.
        modality: ``image`` or ``audio``; None for both.
        within: largest distance of a hit, in bits; None for any.
        recall: wanted share of the true nearest; None for the archive's option.
    """

    query: NDArray[Any]
    record: ModelRecord
    k: int
    metric: Metric
    modality: str | None = None
    within: float | None = None
    recall: float | None = None

    def queries(self) -> Queries:
        """The query for the engines.

        Raises:
            CodeError: it has the wrong length or dtype, or is not finite.
        """
        query = np.asarray(self.query)[None]
        if query.dtype == np.uint8:
            if self.metric == "asymmetric":
                raise CodeError(
                    "the asymmetric metric needs logits; use 'hamming' to search with a code",
                    field="metric",
                )
            return Queries.of_codes(query).check_fits(self.record.bits)
        soft = Queries.of_logits(query).check_fits(self.record.bits)
        return soft if self.metric == "asymmetric" else Queries.of_codes(pack(query))


def engine_name(record: ModelRecord, modality: str) -> str:
    """The name of one model's codes of one modality, for the engines."""
    return f"{record.code_column}-{modality}"


def answer(
    search: Search, generation: Generation, matching: RowSet | None, engines: Engines
) -> Answer:
    """The nearest observations, in the total order (distance, row).

    Args:
        search: what to search for.
        generation: the generation to search.
        matching: only these rows may be returned; None for all.
        engines: of the archive.
    """
    queries = search.queries()
    blocks = generation.codes(search.record)
    used = [
        engines.engine(engine_name(search.record, modality), blocks[modality], search.recall)
        for modality in ((search.modality,) if search.modality else MODALITIES)
        if len(blocks[modality])
    ]
    found = [engine.search(queries, search.k, matching)[0] for engine in used]
    best = Nearest.merged(found, search.k)
    if search.within is not None:
        near = best.distances <= search.within
        best = Nearest(best.distances[near], best.rows[near])
    observations = generation.observations(best.rows)
    return Answer(
        hits=[
            Hit(rank, float(distance), observation)
            for rank, (distance, observation) in enumerate(
                zip(best.distances, observations, strict=True), start=1
            )
        ],
        engine="+".join(sorted({engine.kind for engine in used})) or "flat",
        exact=all(engine.exact for engine in used),
        cutoff=search.within,
    )


# Pages of a listing: stable while others add and delete, since a token names a row


def page_of(
    generation: Generation, rows: NDArray[np.int64], page_size: int, token: str, where: str
) -> Page:
    """One page of a listing.

    Args:
        generation: the generation to read from.
        rows: int64, ascending: the whole listing.
        page_size: most observations of the page.
        token: `next_token` of the previous page; empty for the first.
        where: the listing's condition, which the token must share.

    Raises:
        QueryError: the token is invalid, or belongs to another condition.
    """
    last = min(_decoded_token(token, where), np.iinfo(np.int64).max)
    start = int(np.searchsorted(rows, last, side="right"))
    page = rows[start : start + page_size]
    more = start + page_size < len(rows)
    return Page(
        observations=generation.observations(page),
        next_token=_encoded_token(int(page[-1]), where) if more else "",
    )


def _encoded_token(last_row: int, where: str) -> str:
    """The token of the page that follows a row, in a listing with this condition."""
    return base64.urlsafe_b64encode(f"{last_row}.{_fingerprint(where)}".encode()).decode()


def _decoded_token(token: str, where: str) -> int:
    """The last row of the previous page; -1 for an empty token."""
    if not token:
        return -1
    try:
        match = _TOKEN.fullmatch(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        match = None
    if match is None:
        raise QueryError(
            f"{token[:60]!r} is not a valid page token; start again without one", field="page_token"
        )
    if match[2].decode() != _fingerprint(where):
        raise QueryError(
            "this page token belongs to a listing with another condition; start again without one",
            field="page_token",
        )
    return int(match[1])


def _fingerprint(where: str) -> str:
    return hashlib.sha256(where.encode("utf-8", "surrogatepass")).hexdigest()[:8]
