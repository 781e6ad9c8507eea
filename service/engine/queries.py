"""Checking queries, and turning what they hold into something that a tower takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from sys import maxsize
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import AudioWindowing, Modality
from bittern.errors import QueryError
from bittern.hashing.codes import check_codes
from bittern.index.archive import Archive
from bittern.service.ingest.items import Decoded, decode
from bittern.service.limits import DEFAULT_LIMITS, INPUT_KINDS, check_input, check_query
from bittern.service.models.loaded import Model
from bittern.types import MediaItem, Query

_LIMITS = replace(DEFAULT_LIMITS, max_item_bytes=maxsize)
"""Files are not measured here: those who read them have limits of their own."""
MAX_QUERY_WINDOWS = 120
"""Windows that a sound query may have; their embeddings are averaged."""


def check(query: Query) -> Modality | None:
    """Check everything about a query that needs no archive.

    Returns:
        The modality of what was given; None for an id or a code.

    Raises:
        QueryError, CodeError, FilterError: what is wrong, with the values.
    """
    kind = check_query(query, _LIMITS)
    return Modality(kind) if kind in INPUT_KINDS else None


def target_of(query: Query, observations: Mapping[str, int]) -> Modality:
    """What a checked query looks for: as asked, else images where the archive has some."""
    if query.target is None:
        only_sound = not observations.get(Modality.IMAGE) and observations.get(Modality.AUDIO)
        return Modality.AUDIO if only_sound else Modality.IMAGE
    return Modality(query.target)


def query_for(modality: str, data: str | bytes) -> Query:
    """A query that holds nothing but this piece of media or text.

    Raises:
        QueryError: unknown modality, or not what goes with it.
    """
    check_input(modality, data, _LIMITS)
    if isinstance(data, str):
        return Query(text=data)
    return Query(image=data) if modality == Modality.IMAGE else Query(audio=data)


def pieces_of(query: Query, windowing: AudioWindowing | None, *, name: str = "") -> list[Decoded]:
    """What the tower is to embed: one piece, or the windows of a recording.

    Raises:
        MediaError: the media cannot be used.
        QueryError: a recording longer than a query may be.
    """
    if query.text is not None:
        return [Decoded(query.text.strip())]
    modality = Modality.IMAGE if query.image is not None else Modality.AUDIO
    data = query.image if query.image is not None else query.audio
    item = MediaItem("", name or f"the query's {modality}", str(modality), data=data)
    pieces: list[Decoded] = []
    for piece in decode(item, windowing):
        if len(pieces) == MAX_QUERY_WINDOWS:
            assert windowing is not None
            most = windowing.window_s + (MAX_QUERY_WINDOWS - 1) * windowing.hop_s
            raise QueryError(
                f"a sound query may be {most:g} s long at the most; cut out the part to look for",
                field="audio",
            )
        pieces.append(piece)
    return pieces


def given_code(query: Query, archive: Archive, model: Model) -> NDArray[Any]:
    """The code that a query by id or code stands for, uint8 [bits/8].

    Raises:
        ObservationNotFoundError: no such id.
        CodeError: a code of another length.
    """
    if query.id is not None:
        return archive.code(query.id, model.digest)
    assert query.code is not None
    code = np.frombuffer(query.code, dtype=np.uint8)[None]
    given: NDArray[np.uint8] = check_codes(code, model.card.bits)[0]
    return given
