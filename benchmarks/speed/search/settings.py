"""How much is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bittern.errors import InvalidInputError

K = 100
"""Rows that are asked for."""
PARTS = ("exact", "filters", "curves", "grid", "memory", "disk")
QUICK_ROWS = 100_000
GRAPH_ROWS = 1_000_000
"""Graphs take minutes per million rows to build: no larger ones are."""

GRAPH_MEMORY_ROWS = 200_000
"""What a graph takes per row does not depend on how many there are."""


@dataclass(frozen=True)
class Settings:
    """Sizes of one run.

    Attributes:
        rows: sizes of the grid of exact searches.
        bits: code lengths of the grid.
        batches: queries that are handed over at once.
        rounds: timed turns of each contestant.
        ratio_rows: size at which ratios to faiss, LanceDB and usearch are taken.
        ratio_bits: its code length.
        curve_rows: size of the curves that graphs take part in.
        list_rows: size of the curves of what has inverted lists alone; 0 for none.
        curve_bits: code lengths of the curves.
        archive_rows: the smaller and the larger archive.
        real_rows: size of the curves over real codes, graphs among them.
        real: codes of the words benchmark beside the drawn ones.
        parts: which tables.
    """

    rows: tuple[int, ...] = (100_000, 1_000_000, 2_000_000, 10_000_000)
    bits: tuple[int, ...] = (64, 256)
    batches: tuple[int, ...] = (1, 8, 64)
    rounds: int = 7
    ratio_rows: int = 2_000_000
    ratio_bits: int = 256
    curve_rows: int = 500_000
    list_rows: int = 2_000_000
    curve_bits: tuple[int, ...] = (256,)
    archive_rows: tuple[int, int] = (100_000, 10_000_000)
    real_rows: int = 200_000
    real: bool = True
    parts: tuple[str, ...] = PARTS

    @classmethod
    def quick(cls) -> Settings:
        """One round over small archives: whether everything works, not how fast it is."""
        return cls(
            rows=(QUICK_ROWS,),
            bits=(256,),
            batches=(1, 8),
            rounds=1,
            ratio_rows=QUICK_ROWS,
            curve_rows=QUICK_ROWS // 5,
            list_rows=0,
            archive_rows=(QUICK_ROWS // 10, QUICK_ROWS),
            real=False,
        )

    @classmethod
    def full(cls) -> Settings:
        """Both code lengths and ten million rows wherever they fit."""
        return cls(
            curve_rows=GRAPH_ROWS, list_rows=10_000_000, curve_bits=(64, 256), real_rows=500_000
        )

    @classmethod
    def among_others(cls) -> Settings:
        """What is measured when other benchmarks are, too: exact search of a million codes."""
        return cls(rounds=5, ratio_rows=1_000_000, real=False, parts=("exact", "filters"))

    def but(
        self,
        *,
        bits: Sequence[int] = (),
        rounds: int | None = None,
        parts: Sequence[str] = (),
    ) -> Settings:
        """The same with other code lengths, rounds or tables.

        Raises:
            InvalidInputError: there is no such table.
        """
        for part in parts:
            if part not in PARTS:
                raise InvalidInputError(
                    f"there is no table '{part}' of search; there are {', '.join(PARTS)}"
                )
        found = replace(self, rounds=rounds or self.rounds, parts=tuple(parts) or self.parts)
        if not bits:
            return found
        return replace(found, bits=tuple(bits), ratio_bits=max(bits), curve_bits=tuple(bits))

    @classmethod
    def of_rows(cls, rows: int) -> Settings:
        """Everything at one size and no real codes."""
        return cls(
            rows=(rows,),
            bits=(256,),
            ratio_rows=rows,
            curve_rows=min(rows, GRAPH_ROWS),
            list_rows=rows if rows > GRAPH_ROWS else 0,
            archive_rows=(max(1, rows // 100), rows),
            real=False,
        )
