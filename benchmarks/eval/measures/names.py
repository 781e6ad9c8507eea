"""Measures by their names, and a list of all there are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bittern.benchmarks.eval.measures.average_precision import (
    AveragePrecision,
    AveragePrecisionOfCutoff,
)
from bittern.benchmarks.eval.measures.average_precision_of_hits import AveragePrecisionOfHits
from bittern.benchmarks.eval.measures.base import Measure
from bittern.benchmarks.eval.measures.first_hit import Hit, ReciprocalRank
from bittern.benchmarks.eval.measures.hamming_radius import PrecisionInRadius
from bittern.benchmarks.eval.measures.hits import Precision, Recall, RPrecision
from bittern.benchmarks.eval.measures.ndcg import NDCG
from bittern.errors import InvalidInputError

_KINDS: tuple[type[Measure], ...] = (
    AveragePrecisionOfHits,
    AveragePrecisionOfCutoff,
    AveragePrecision,
    NDCG,
    RPrecision,
    Recall,
    Precision,
    ReciprocalRank,
    Hit,
    PrecisionInRadius,
)
_BY_STEM = {kind.stem: kind for kind in _KINDS}
_NAME = re.compile(r"([A-Za-z_0-9-]+)(?:@([1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class Listed:
    """One line of the list of measures.

    Attributes:
        form: how it is asked for, k standing for a number: ``AP_hits@k``, or ``AP, AP@k``.
        about: what it is.
        citation: where it is defined.
    """

    form: str
    about: str
    citation: str


def _form(kind: type[Measure]) -> str:
    forms = {"always": f"{kind.stem}@k", "never": kind.stem}
    return forms.get(kind.cut, f"{kind.stem}, {kind.stem}@k")


MEASURES = tuple(Listed(_form(kind), kind.about, kind.citation) for kind in _KINDS)
"""All there are."""


def measure(name: str) -> Measure:
    """The measure of a name, e.g. ``AP_minR@50``. Case matters.

    Raises:
        InvalidInputError: there is none, or it lacks its cutoff, or has one too many.
    """
    match = _NAME.fullmatch(name)
    kind = _BY_STEM.get(match[1]) if match else None
    cutoff = int(match[2]) if match and match[2] else None
    if kind is None or kind.cut == ("always" if cutoff is None else "never"):
        raise InvalidInputError(
            f"no measure is called {name[:80]!r}; there are "
            f"{', '.join(listed.form for listed in MEASURES)}, with a whole number from 1 for k, "
            "e.g. AP_minR@50",
            field="measure",
        )
    return kind(cutoff)
