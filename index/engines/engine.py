"""The one interface of all search engines."""

from __future__ import annotations

from typing import Protocol

from bittern.index.engines.nearest import Nearest
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowSet


class SearchEngine(Protocol):
    """Finds the codes that are nearest to queries, among those of one generation.

    Attributes:
        kind: ``flat``, ``ivf``, ``graph``, ``gpu`` or ``sharded``.
        exact: whether it never misses a nearest row.
    """

    kind: str
    exact: bool

    @property
    def nbytes(self) -> int:
        """Bytes that it holds besides the codes."""
        ...

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        """The k nearest of each query, in the total order (distance, row).

        Args:
            queries: what to look for.
            k: at least 1.
            rows: what may be found; None for everything.

        Returns:
            for each query exactly min(k, rows that may be found), exact engine or not.

        Raises:
            CodeError: the queries are of another code length.
        """
        ...

    def within(self, queries: Queries, radius: float, rows: RowSet | None = None) -> list[Nearest]:
        """All rows no farther than `radius` from each query, in the total order.

        Args:
            queries: what to look for.
            radius: largest distance that counts, in bits.
            rows: what may be found; None for everything.

        Raises:
            CodeError: the queries are of another code length.
            QueryError: the radius is not a number.
        """
        ...
