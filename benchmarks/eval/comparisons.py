"""Which systems are compared with which, by paired tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bittern.benchmarks.eval.aggregate import FLOAT, REFERENCE, Line
from bittern.benchmarks.eval.results import Comparison, Row
from bittern.benchmarks.eval.statistics import holm, paired

FAMILIES = {
    "baseline": "codes and Hashing-Baseline of the same length",
    "float": "codes and float vectors",
    "distance": "asymmetric and symmetric distance to the same codes",
    "model": "the same system over two models",
}
"""What each family of paired tests asks; see `comparisons_of`."""


def comparisons_of(lines: Sequence[Line], seed: int) -> list[Comparison]:
    """Paired tests within each task and group, by the main measure.

    Four questions, each a family of its own under Holm's correction: codes and Hashing-Baseline
    of the same length; codes and float vectors; the asymmetric and the symmetric distance of the
    longest codes of a system; the same system over two models. Codes are searched by the asymmetric
    distance, and re-ranked ones are left out.
    """
    found = []
    for task, group in dict.fromkeys((line.row.task, line.row.group) for line in lines):
        here = [line for line in lines if (line.row.task, line.row.group) == (task, group)]
        here = [line for line in here if not line.row.rerank and line.values.size]
        for family in FAMILIES:
            pairs = [pair for pair in _pairs(here, family) if _comparable(*pair)]
            found += _compared(pairs, family, seed)
    return found


def _compared(pairs: Sequence[tuple[Line, Line]], family: str, seed: int) -> list[Comparison]:
    tests = [paired(a.values, b.values, seed, clusters=a.clusters) for a, b in pairs]
    adjusted = holm([test.p for test in tests])
    return [
        Comparison(
            task=a.row.task,
            group=a.row.group,
            measure=a.main,
            family=family,
            a=a.row.name,
            b=b.row.name,
            difference=test.difference,
            low=test.low,
            high=test.high,
            p=test.p,
            p_adjusted=p,
        )
        for (a, b), test, p in zip(pairs, tests, adjusted, strict=True)
    ]


def _comparable(one: Line, other: Line) -> bool:
    """Whether some query is defined for both."""
    return one.queries == other.queries and not np.isnan(one.values + other.values).all()


def _pairs(lines: Sequence[Line], family: str) -> list[tuple[Line, Line]]:
    """Which two are compared, each pair once."""
    order = {id(line): number for number, line in enumerate(lines)}
    return [
        (one, other)
        for one in lines
        for other in lines
        if one.row.bits is not None
        and one.row.metric == "asymmetric"
        and one is not other
        and _is_pair(one.row, other.row, family, lines)
        and (family != "model" or order[id(one)] < order[id(other)])
    ]


def _is_pair(one: Row, other: Row, family: str, lines: Sequence[Line]) -> bool:
    if family == "model":
        mine = (one.system, one.bits, one.metric)
        return one.model != other.model and mine == (other.system, other.bits, other.metric)
    if one.model != other.model:
        return False
    if family == "baseline":
        return (other.system, other.bits, other.metric) == (REFERENCE, one.bits, "asymmetric")
    if family == "float":
        return other.system == FLOAT
    longest = max(
        line.row.bits or 0
        for line in lines
        if (line.row.model, line.row.system) == (one.model, one.system)
    )
    return one.bits == longest and (other.system, other.bits, other.metric) == (
        one.system,
        longest,
        "symmetric",
    )
