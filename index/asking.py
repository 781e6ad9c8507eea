"""Searching an archive: the nearest observations, rows alone, all within a distance."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.nearest import Nearest
from bittern.index.observation import Answer
from bittern.index.reading import ReadableArchive
from bittern.index.searching import (
    Question,
    answer,
    check_modality,
    engine_name,
    engines_of,
    everything_within,
    nearest_rows,
)
from bittern.index.versions import retried
from bittern.types import Hit, Metric


class SearchableArchive(ReadableArchive):
    """What can be searched for in an archive that is open."""

    def search(
        self,
        query: NDArray[Any],
        *,
        model: str,
        k: int,
        metric: Metric,
        where: str | None = None,
        modality: str | None = None,
        within: float | None = None,
        recall: float | None = None,
    ) -> builtins.list[Hit]:
        """The nearest observations, in the total order (distance, row); see `ask`."""
        return self.ask(
            query,
            model=model,
            k=k,
            metric=metric,
            where=where,
            modality=modality,
            within=within,
            recall=recall,
        ).hits

    @retried
    def ask(
        self,
        query: NDArray[Any],
        *,
        model: str,
        k: int,
        metric: Metric,
        where: str | None = None,
        modality: str | None = None,
        within: float | None = None,
        recall: float | None = None,
    ) -> Answer:
        """The nearest observations, in the total order (distance, row), and how they were found.

        Args:
            query: logits, float [bits]; for ``hamming`` also a code, uint8 [bits/8].
            model: digest of the model that made the query.
            k: how many hits, 1 to 10,000; exactly min(k, matching rows) come back, less only
                those beyond `within`.
            metric: ``asymmetric`` or ``hamming``.
            where: SQL condition over metadata columns; None or blank for no condition.
            modality: ``image`` or ``audio``; None for both.
            within: largest distance of a hit, in bits; None for any.
            recall: share of the true nearest that is wanted, above 0 to 1; less than 1 allows
                an approximate index where it is faster. None for what the archive was opened
                with, which is 1 (exact) unless said otherwise.

        Raises:
            QueryError: k, metric, modality, within or recall is unusable.
            CodeError: the query has the wrong length or dtype.
            DigestMismatchError: the archive has no codes of this model.
            FilterError: `where` is no filter over the archive's columns.
        """
        record, snapshot = self._model(model), self._current()
        question = Question.checked(query, record, k, metric, modality, within, recall)
        return answer(question, snapshot, self._matching(snapshot, where), self._engines)

    @retried
    def nearest(
        self,
        queries: NDArray[Any],
        *,
        model: str,
        k: int,
        metric: Metric,
        where: str | None = None,
        modality: str | None = None,
        recall: float | None = None,
    ) -> builtins.list[Nearest]:
        """Rows and distances of the nearest to each of many queries, scanned together.

        Args:
            queries: logits, float [q, bits]; for ``hamming`` also codes, uint8 [q, bits/8].
            model: see `ask`.
            k: see `ask`.
            metric: see `ask`.
            where: see `ask`.
            modality: see `ask`.
            recall: see `ask`.

        Raises:
            QueryError, CodeError, DigestMismatchError, FilterError: see `ask`.
        """
        record, snapshot = self._model(model), self._current()
        question = Question.checked(queries, record, k, metric, modality, None, recall, batch=True)
        used = engines_of(question, snapshot, self._engines)
        return nearest_rows(question, self._matching(snapshot, where), used)

    @retried
    def within(
        self,
        query: NDArray[Any],
        distance: float,
        *,
        model: str,
        metric: Metric,
        where: str | None = None,
        modality: str | None = None,
    ) -> Nearest:
        """Rows and distances of all observations that are no farther than `distance`.

        Args:
            query: see `ask`.
            distance: in bits.
            model: see `ask`.
            metric: see `ask`.
            where: see `ask`.
            modality: see `ask`.

        Raises:
            QueryError, CodeError, DigestMismatchError, FilterError: see `ask`.
        """
        record, snapshot = self._model(model), self._current()
        question = Question.checked(query, record, 1, metric, modality, distance)
        return everything_within(question, snapshot, self._matching(snapshot, where), self._engines)

    @retried
    def sample_codes(
        self, model: str, modality: str, places: Callable[[int], NDArray[np.int64]]
    ) -> NDArray[np.uint8]:
        """The codes of some of a model's observations of one modality: uint8 [m, bits/8].

        Args:
            model: digest of the model.
            modality: ``image`` or ``audio``.
            places: from the number of codes to the positions of those that are wanted.
        """
        blocks = self._current().codes(self._model(model))[check_modality(modality)]
        return blocks.live_codes(places(len(blocks)))

    def build_index(self, model: str) -> None:
        """Build the approximate index of a model's codes now, rather than when it is first asked.

        Raises:
            DigestMismatchError: no such model in this archive.
            ArchiveDamagedError: it cannot be built.
        """
        record, snapshot = self._model(model), self._current()
        for modality, blocks in snapshot.codes(record).items():
            self._engines.prepare(engine_name(record, modality), blocks)
