"""What a measure is: a name, a cutoff, and a value per query for each way to treat ties."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from bittern.benchmarks.eval.measures.ties import (
    Floats,
    Groups,
    Ints,
    Order,
    Tie,
    groups_of,
    order_of,
)
from bittern.benchmarks.eval.places import Places
from bittern.errors import InvalidInputError

Cut = Literal["always", "optional", "never"]


@dataclass(frozen=True)
class Measure(ABC):
    """A retrieval measure.

    Attributes:
        cutoff: only ranks up to it count; None where the measure has none. Where the ranking is
            known to a depth only, a measure without cutoff is cut at that depth.
        stem: its name without the cutoff.
        about: what it is, in one line.
        citation: where it is defined.
        cut: whether it has a cutoff: ``always``, ``optional`` or ``never``.
    """

    cutoff: int | None = None

    stem: ClassVar[str]
    about: ClassVar[str]
    citation: ClassVar[str]
    cut: ClassVar[Cut]

    @property
    def name(self) -> str:
        """E.g. ``AP_minR@50``."""
        return self.stem if self.cutoff is None else f"{self.stem}@{self.cutoff}"

    def of(self, places: Places, tie: Tie) -> Floats:
        """Its value for each query.

        Args:
            places: where the relevant items stand.
            tie: ``ranked``, the order (distance, row); ``expected``, the mean over uniformly
                random orders inside every group of equal distance; ``best`` and ``worst``, the
                extremes over those orders, query by query.

        Returns:
            float64 [q].

        Raises:
            InvalidInputError: the cutoff is beyond the depth to which ranks are known, or `tie`
                is something else.
        """
        limit = self._limit(places)
        if tie == "expected":
            return self._expected(places, groups_of(places), limit)
        if tie == "ranked":
            return self._in_order(places, order_of(places, tie), limit)
        if tie in ("best", "worst"):
            return self._extreme(places, limit, tie)
        raise InvalidInputError(f"no such way to treat ties: {tie!r}; one of {get_args(Tie)}")

    @abstractmethod
    def _in_order(self, places: Places, order: Order, limit: Ints) -> Floats:
        """Its value in one order of the ties."""

    @abstractmethod
    def _expected(self, places: Places, groups: Groups, limit: Ints) -> Floats:
        """Its mean over random orders of the ties."""

    def _extreme(self, places: Places, limit: Ints, tie: Literal["best", "worst"]) -> Floats:
        """Its maximum or minimum; here for measures that only gain when a hit moves up."""
        return self._in_order(places, order_of(places, tie), limit)

    def _limit(self, places: Places) -> Ints:
        """int64 [q], the last rank that counts."""
        limit = places.ranked
        depth = places.depth
        if depth is not None and (limit > depth).any():
            if self.cutoff is not None and self.cutoff > depth:
                raise InvalidInputError(
                    f"{self.name} looks at {self.cutoff} ranks, and only {depth} are known: rank "
                    f"deeper, or ask for {self.stem}@{depth}"
                )
            limit = np.minimum(limit, depth)
        return limit if self.cutoff is None else np.minimum(limit, self.cutoff)
