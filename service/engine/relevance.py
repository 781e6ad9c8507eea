"""Asking an archive, and how near is near enough: `within`, `relevance`, and what comes closest.

A cut-off by relevance is calibrated by texts about something else altogether (`index.relevance`):
coded once per model, asked of a sample of the archive's codes once per generation.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Modality
from bittern.errors import UnsupportedModalityError
from bittern.hashing.codes import pack
from bittern.index.archive import Archive
from bittern.index.engines.queries import Queries
from bittern.index.observation import Answer
from bittern.index.relevance import Background, false_alarm_rate, sample_places
from bittern.service.engine.deadline import Deadline
from bittern.service.engine.reference_texts import REFERENCE_TEXTS
from bittern.service.limits import check_within
from bittern.service.models.loaded import Model
from bittern.types import Hit, Metric, Query

_TEXTS_AT_ONCE = 32
_Key = tuple[str, Modality, Metric]


@dataclass(frozen=True, slots=True)
class Vector:
    """A query as one model sees it.

    Attributes:
        model: the model.
        target: what is looked for.
        metric: how distance is measured.
        values: float32 [bits] logits, or uint8 [bits/8], a code.
    """

    model: Model
    target: Modality
    metric: Metric
    values: NDArray[Any]


class Nearness:
    """Answers questions from one archive's codes. Safe to use from several threads."""

    def __init__(self, archive: Archive) -> None:
        """Begin with nothing calibrated.

        Args:
            archive: open.
        """
        self._archive = archive
        self._references: dict[str, list[NDArray[np.float32]]] = {}
        self._backgrounds: dict[_Key, tuple[tuple[int, int], Background]] = {}
        self._calibrating = threading.Lock()

    def answer(
        self, query: Query, vector: Vector, deadline: Deadline | None = None
    ) -> tuple[Answer, Hit | None]:
        """The hits; and where none is near enough, the nearest beyond that.

        What an approximate index misses would be called irrelevant, or too far. So a search with
        `relevance` is exact whatever recall is wanted, one with `within` unless the query itself
        wants less, and what comes closest is always looked for exactly.

        Raises:
            UnsupportedModalityError: relevance is wanted of a model that takes no words.
            DeadlineExceededError: the caller's deadline passed while it was calibrated.
        """
        ask = partial(
            self._archive.ask,
            vector.values,
            model=vector.model.digest,
            metric=vector.metric,
            where=query.where,
            modality=str(vector.target),
        )
        radius = self._radius(query, vector, deadline)
        bounded_alone = query.within is not None and query.recall is None
        recall = 1.0 if query.relevance is not None or bounded_alone else query.recall
        answer = ask(k=query.k, within=radius, recall=recall)
        if answer.hits or radius is None:
            return answer, None
        # What a commit in between brought near enough belongs to the next answer, not to this.
        beyond = [hit for hit in ask(k=1, recall=1.0).hits if hit.distance > radius]
        return answer, beyond[0] if beyond else None

    def _radius(self, query: Query, vector: Vector, deadline: Deadline | None) -> float | None:
        """Largest distance of a hit, in bits; None where there is no limit."""
        radii = [] if query.within is None else [check_within(query.within)]
        if query.relevance is not None:
            rate = false_alarm_rate(query.relevance)
            background = self._background(vector, deadline)
            weights = _weights(vector.metric, vector.values[None])[0]
            threshold = background.threshold(weights, rate, self._rows(vector))
            # A threshold below 0 lets nothing through but what is the same to the bit.
            radii += [max(threshold, 0.0)] if threshold < np.inf else []
        return min(radii, default=None)

    def _rows(self, vector: Vector) -> int:
        """Codes of the model and the target: all of them, whatever the condition."""
        counts = {m.digest: m.rows for m in self._archive.stats().models}
        return counts.get(vector.model.digest, {}).get(str(vector.target), 0)

    def _background(self, vector: Vector, deadline: Deadline | None) -> Background:
        key = (vector.model.digest, vector.target, vector.metric)
        with self._calibrating:
            state = self._archive.state
            known = self._backgrounds.get(key)
            if known is not None and known[0] == state:
                return known[1]
            logits = self._reference(vector.model, deadline)
            queries = pack(logits) if vector.metric == "hamming" else logits
            codes = self._archive.sample_codes(
                vector.model.digest, str(vector.target), sample_places
            )
            background = Background.of(_weights(vector.metric, queries), codes)
            self._backgrounds[key] = (state, background)
            return background

    def _reference(self, model: Model, deadline: Deadline | None) -> NDArray[np.float32]:
        """Logits of the reference texts, float32 [256, bits].

        What is done when a deadline passes is kept, so that who asks again gets further.
        """
        if Modality.TEXT not in model.modalities:
            raise UnsupportedModalityError(
                f"model '{model.card.name}' takes no words, by which relevance is judged; "
                "ask with `within`, or without `relevance`",
                field="relevance",
            )
        parts = self._references.setdefault(model.digest, [])
        while texts := list(REFERENCE_TEXTS[len(parts) * _TEXTS_AT_ONCE :][:_TEXTS_AT_ONCE]):
            if deadline:
                deadline.check("finding out what is relevant")
            parts.append(model.logits(Modality.TEXT, model.embed(Modality.TEXT, texts)))
        return np.concatenate(parts)


def _weights(metric: Metric, queries: NDArray[Any]) -> NDArray[np.float64]:
    """A weight per bit, float64 [q, bits], of codes for ``hamming``, else of logits."""
    made = Queries.of_codes(queries) if metric == "hamming" else Queries.of_logits(queries)
    return made.weights
