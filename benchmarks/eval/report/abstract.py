"""The few figures that stand at the top: float vectors and the main systems, task by task."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bittern.benchmarks.eval.report.wording import by_task_and_group
from bittern.benchmarks.eval.results import Results, Row, Score

WANTED_BITS = (64, 256)
MOST_LENGTHS, MOST_SYSTEMS, MOST_BLOCKS = 4, 12, 60
FLOATS = ("float32", "aligned float32")
"""The second is the fair comparison for codes behind an alignment."""
ASIDE = ("float16", "int8", "centred float32", "random projection", "Faiss PQ")
"""Beginnings of the names of systems that the details have, and the abstract leaves out."""


@dataclass(frozen=True)
class Block:
    """One task, model and group.

    Attributes:
        task, model, group, measure: of what.
        queries, clusters: how many, and how many of them are independent.
        chance: of a random order.
        floats: of float vectors by cosine, with their names.
        systems: names with their figures at the lengths of the abstract, by asymmetric distance.
    """

    task: str
    model: str
    group: str
    measure: str
    queries: int
    clusters: int
    chance: float | None
    floats: Sequence[tuple[str, Score]]
    systems: Sequence[tuple[str, Sequence[Score | None]]]


@dataclass(frozen=True)
class Abstract:
    """The table at the top.

    Attributes:
        lengths: bits of its columns.
        blocks: its blocks of rows.
        measures: main measures of its blocks.
        cut: how many blocks, and systems of a block, are left out.
    """

    lengths: Sequence[int]
    blocks: Sequence[Block]
    measures: Sequence[str]
    cut: tuple[int, int]


def abstract(results: Results) -> Abstract:
    """Codes by asymmetric distance near `WANTED_BITS`, without re-ranking."""
    kept = [row for row in results.rows if _is_kept(row)]
    lengths = _lengths(kept)
    found = list(_blocks(results, kept, lengths))
    drawn = found[:MOST_BLOCKS]
    return Abstract(
        lengths,
        [replace(block, systems=block.systems[:MOST_SYSTEMS]) for block in drawn],
        list(dict.fromkeys(block.measure for block in drawn)),
        (
            len(found) - len(drawn),
            max((len(block.systems) - MOST_SYSTEMS for block in drawn), default=0),
        ),
    )


def by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of one group by their model."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.model, []).append(row)
    return found


def _is_kept(row: Row) -> bool:
    if row.rerank or row.system.startswith(ASIDE):
        return False
    return row.system in FLOATS or (row.bits is not None and row.metric == "asymmetric")


def _lengths(rows: Sequence[Row]) -> list[int]:
    by_system: dict[str, set[int]] = {}
    for row in rows:
        if row.bits:
            by_system.setdefault(row.system, set()).add(row.bits)
    counts = Counter(bits for own in by_system.values() for bits in own)
    if not counts:
        return []
    common = {bits for bits, count in counts.items() if 2 * count >= max(counts.values())}
    lengths = {_nearest(common, bits) for bits in WANTED_BITS}
    for own in by_system.values():  # a saved model may have one length only
        if len(own) == 1 and not own & lengths and len(lengths) < MOST_LENGTHS:
            lengths.add(_nearest(own, WANTED_BITS[-1]))
    return sorted(lengths)


def _nearest(lengths: set[int], bits: int) -> int:
    return min(sorted(lengths), key=lambda length: abs(math.log2(length / bits)))


def _blocks(results: Results, kept: Sequence[Row], lengths: Sequence[int]) -> Iterator[Block]:
    for (task, group), rows in by_task_and_group(kept).items():
        names = results.measures_of(task)
        if not names:
            continue
        for model, own in by_model(rows).items():
            summary = results.group_of(task, model, group)
            floats = [row for row in own if row.bits is None and names[0] in row.figures]
            systems: dict[str, dict[int, Score]] = {}
            for row in own:
                if row.bits is not None and names[0] in row.figures:
                    systems.setdefault(row.system, {})[row.bits] = row.figures[names[0]]
            yield Block(
                task,
                model,
                group,
                names[0],
                max(row.queries for row in own),
                max(row.clusters for row in own),
                summary.chance if summary else None,
                [(row.system, row.figures[names[0]]) for row in floats],
                [
                    (name, [at.get(n) for n in lengths])
                    for name, at in systems.items()
                    if set(at) & set(lengths)
                ],
            )
