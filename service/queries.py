"""Checking queries, and turning what they hold into something that a tower takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import QueryError
from encoders.base import AudioWindowing, Modality
from hashing.codes import check_codes
from index.archive import Archive
from service.models import Model
from service.pipeline import Piece, decode
from service.requests import MAX_K, MAX_TEXT_CHARS, MediaItem, Query

_METRICS = (None, "asymmetric", "hamming")
_TARGETS = (Modality.IMAGE, Modality.AUDIO)
MAX_QUERY_WINDOWS = 120
"""Windows that a sound query may have; their embeddings are averaged."""


def check(query: Query) -> Modality | None:
    """Check everything about a query that needs no archive.

    Returns:
        The modality of what was given; None for an id or a code.

    Raises:
        QueryError: what is wrong, with the values.
    """
    given = [f for f in ("text", "image", "audio", "id", "code") if getattr(query, f) is not None]
    if len(given) != 1:
        raise QueryError(
            "a query is exactly one of text, image, audio, id and code; "
            f"{', '.join(given) or 'none of them'} was given",
            field="query",
        )
    if isinstance(query.k, bool) or not isinstance(query.k, int) or not 1 <= query.k <= MAX_K:
        raise QueryError(f"k must be a whole number from 1 to {MAX_K}, not {query.k}", field="k")
    if query.metric not in _METRICS:
        raise QueryError(
            f"metric must be asymmetric or hamming, not '{query.metric}'", field="metric"
        )
    if given[0] in ("id", "code"):
        if query.metric == "asymmetric":
            raise QueryError(
                f"a query by {given[0]} has a code and no logits; ask for the hamming metric",
                field="metric",
            )
        return None
    if query.text is not None:
        _check_text(query.text)
    elif not (query.image if query.image is not None else query.audio):
        raise QueryError(f"the {given[0]} of the query is empty", field=given[0])
    return Modality(given[0])


def _check_text(text: str) -> None:
    if not text.strip():
        raise QueryError("the text of the query is empty; say what to look for", field="text")
    if len(text) > MAX_TEXT_CHARS:
        raise QueryError(
            f"the text of the query has {len(text)} characters, the limit is {MAX_TEXT_CHARS}",
            field="text",
            details={"length": str(len(text)), "limit": str(MAX_TEXT_CHARS)},
        )


def modality_of(name: str) -> Modality:
    """The modality of this name.

    Raises:
        QueryError: there is none.
    """
    try:
        return Modality(name)
    except ValueError:
        known = ", ".join(Modality)
        raise QueryError(
            f"there is no modality '{name}'; there are {known}", field="modality"
        ) from None


def target_of(query: Query, observations: Mapping[str, int]) -> Modality:
    """What the query looks for: as asked, else images where the archive has some.

    Raises:
        QueryError: not a modality that an archive can hold.
    """
    if query.target is None:
        only_sound = not observations.get(Modality.IMAGE) and observations.get(Modality.AUDIO)
        return Modality.AUDIO if only_sound else Modality.IMAGE
    target = modality_of(query.target)
    if target not in _TARGETS:
        raise QueryError(f"target must be image or audio, not '{target}'", field="target")
    return target


def query_for(modality: str, data: str | bytes) -> Query:
    """A query that holds nothing but this piece of media or text."""
    asked = modality_of(modality)
    if isinstance(data, str) != (asked == Modality.TEXT):
        wanted = "str" if asked == Modality.TEXT else "bytes"
        raise QueryError(f"{asked} is given as {wanted}, not {type(data).__name__}", field="data")
    if isinstance(data, str):
        return Query(text=data)
    return Query(image=data) if asked == Modality.IMAGE else Query(audio=data)


def pieces_of(query: Query, windowing: AudioWindowing | None, *, name: str = "") -> list[Piece]:
    """What the tower is to embed: one piece, or the windows of a recording.

    Raises:
        MediaError: the media cannot be used.
        QueryError: a recording longer than a query may be.
    """
    if query.text is not None:
        return [Piece(query.text.strip())]
    modality = Modality.IMAGE if query.image is not None else Modality.AUDIO
    data = query.image if query.image is not None else query.audio
    item = MediaItem("", name or f"the query's {modality}", str(modality), data=data)
    pieces: list[Piece] = []
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
