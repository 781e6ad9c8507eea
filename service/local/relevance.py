"""Searches with a largest distance of a hit: the query's `within`, its `relevance`, or both.

The relevance cut-off is calibrated with unrelated texts (`index.relevance`). They are coded once
per model, and searched in a sample of the archive's codes once per generation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Modality
from bittern.errors import UnsupportedModalityError
from bittern.hashing.codes import pack
from bittern.index.archive import Archive
from bittern.index.engines.queries import Queries
from bittern.index.observation import Answer
from bittern.index.relevance import Background, sample_positions
from bittern.query import Query
from bittern.service.limits import Deadline
from bittern.service.models.model import Model
from bittern.types import Hit, Metric

_TEXTS_AT_ONCE = 32
_Key = tuple[str, Modality, Metric]


@dataclass(frozen=True, slots=True)
class QueryVector:
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


class Relevance:
    """Finds the hits of one archive that are near enough. Thread-safe."""

    def __init__(self, archive: Archive) -> None:
        """Calibrates at the first search that needs it; `archive` is open."""
        self._archive = archive
        self._references: dict[str, list[NDArray[np.float32]]] = {}
        self._backgrounds: dict[_Key, tuple[tuple[int, int], Background]] = {}
        self._calibrating = threading.Lock()

    def search(
        self, search: Callable[..., Answer], query: Query, vector: QueryVector, deadline: Deadline
    ) -> tuple[Answer, Hit | None]:
        """The hits; without hits, the nearest observation beyond the limit.

        An approximate index would report what it misses as irrelevant or too far away. So a search
        with `relevance` is always exact, one with `within` unless the query has a `recall`, and the
        search for the nearest observation is always exact.

        Args:
            search: `Archive.search` for the query; takes `k`, `recall` and `within`.
            query: has a `within` or a `relevance`.
            vector: the query, as its model sees it.
            deadline: of the query.

        Raises:
            UnsupportedModalityError: `relevance` with a model that has no text tower.
            DeadlineExceededError: the deadline passed during calibration.
        """
        radius = self._radius(query, vector, deadline)
        exact = query.relevance is not None or query.recall is None
        answer = search(k=query.k, within=radius, recall=1.0 if exact else query.recall)
        if answer.hits or radius is None:
            return answer, None
        # A commit in between may have added a nearer one, which belongs to the next search.
        beyond = [hit for hit in search(k=1, recall=1.0).hits if hit.distance > radius]
        return answer, beyond[0] if beyond else None

    def _radius(self, query: Query, vector: QueryVector, deadline: Deadline) -> float | None:
        """Largest distance of a hit, in bits; None where there is no limit."""
        radii = [] if query.within is None else [query.within]
        if query.relevance is not None:
            rate = float(query.relevance)
            background = self._background(vector, deadline)
            weights = _weights(vector.metric, vector.values[None])[0]
            threshold = background.threshold(weights, rate, self._rows(vector))
            # With a threshold below 0 only equal codes pass.
            radii += [max(threshold, 0.0)] if threshold < np.inf else []
        return min(radii, default=None)

    def _rows(self, vector: QueryVector) -> int:
        """Number of codes of the model and the target, without the filter."""
        return self._archive.code_counts(vector.model.digest)[str(vector.target)]

    def _background(self, vector: QueryVector, deadline: Deadline) -> Background:
        key = (vector.model.digest, vector.target, vector.metric)
        with self._calibrating:
            state = self._archive.state
            known = self._backgrounds.get(key)
            if known is not None and known[0] == state:
                return known[1]
            logits = self._reference(vector.model, deadline)
            queries = pack(logits) if vector.metric == "hamming" else logits
            codes = self._archive.sample_codes(
                vector.model.digest, str(vector.target), sample_positions
            )
            background = Background.of(_weights(vector.metric, queries), codes)
            self._backgrounds[key] = (state, background)
            return background

    def _reference(self, model: Model, deadline: Deadline) -> NDArray[np.float32]:
        """Logits of the reference texts, float32 [256, bits]; finished ones survive a deadline."""
        if Modality.TEXT not in model.modalities:
            raise UnsupportedModalityError(
                f"model '{model.card.name}' takes no words, which judging relevance needs; "
                "search with `within` (--max-distance), or without `relevance`",
                field="relevance",
            )
        batches = self._references.setdefault(model.digest, [])
        while texts := list(REFERENCE_TEXTS[len(batches) * _TEXTS_AT_ONCE :][:_TEXTS_AT_ONCE]):
            deadline.check("calibrating relevance")
            batches.append(model.logits(Modality.TEXT, model.embed(Modality.TEXT, texts)))
        return np.concatenate(batches)


def _weights(metric: Metric, queries: NDArray[Any]) -> NDArray[np.float64]:
    """A weight per bit, float64 [q, bits], of codes for ``hamming``, else of logits."""
    made = Queries.of_codes(queries) if metric == "hamming" else Queries.of_logits(queries)
    return made.weights


# Everyday things, trades, institutions and ideas: nothing that lives, grows or is eaten, and no
# habitat. Which they are matters little (docs/decisions/0011); a change changes every cut-off.
_TEXTS = """
accordion; airport; algebra; ambulance; armchair; arithmetic; atom; auction; ballet; bank
account; barometer; baseball game; bathtub; battery; bedroom; bell tower; billiards; birthday
party; blanket; blueprint; bookshelf; bottle opener; brass band; brick wall; broadcast; budget;
calculator; calendar; candle; car park; cash register; castle; ceiling; cello; chair; chapel;
chimney; choir; city skyline; clarinet; clock; coal mine; comedy; committee; concert; concrete;
contract; copper wire; court of law; credit card; curtain; dance floor; democracy; dentist;
diamond ring; dictionary; dishwasher; doctor; drawing; dress; economics; education; electricity;
elevator; emperor; engineer; escalator; evening news; exhibition; eyeglasses; fashion show; fax
machine; film star; fire engine; flag; football team; fountain pen; friendship; furnace;
furniture; gas station; geometry; goalkeeper; gold medal; grammar; grandmother; guitar; gun;
hammer; handbag; happiness; headline; heating bill; helicopter; highway; hip hop; honesty;
hospital bed; ice rink; income; inflation; insurance; invention; iron gate; jealousy; jewellery;
journalist; judge; kettle; keyboard; knife; knitting; ladder; lamp; laptop; laundry; lawyer;
lecture; lift shaft; light bulb; limousine; lipstick; locomotive; logic; loudspeaker; luggage;
magician; magnet; mathematics; meeting; memory; microphone; microscope; military parade; mirror;
monument; moon landing; motorcycle; motorway; music; necklace; nuclear power; nurse; opera;
orchestra; paint brush; palace; parachute; parliament; pavement; pencil; philosophy; photograph;
piano; pillow; pistol; plastic bag; plumber; poetry; politics; post office; poverty; power
station; president; prison; prize; profit; propeller; psychology; puzzle; pyramid; radio;
railway station; receipt; recording studio; refrigerator; religion; revolution; rifle; rocket;
roof; rugby; salary; satellite; saucepan; scaffolding; school; screwdriver; sculpture; shipyard;
shirt; shop window; shower; silver; sink; ski lift; skyscraper; slot machine; sock; software;
soldier; spacecraft; spoon; staircase; statue; steel; stethoscope; strike; student; suburb;
subway; sunglasses; surgery; swimming pool; sword; synagogue; table tennis; taxi; teacher;
telephone; telescope; temple; tennis court; theory; thermometer; ticket; timetable; tool box;
toothbrush; towel; toy; trade union; traffic jam; train; tram; treaty; trial; trumpet; tunnel;
tyre; umbrella; university; vacuum cleaner; victory; video game; volleyball; vote; wallet; war;
washing machine; wedding; wheel; wheelchair; window; witness; wrestling
"""

REFERENCE_TEXTS: tuple[str, ...] = tuple(" ".join(_TEXTS.split()).split("; "))
"""256 short English texts, each given once."""
