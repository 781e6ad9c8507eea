"""Species retrieval tasks: names, photographs or recordings find media of the same species."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import Missing, check_files, skipped_files
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    TEXT,
    Classes,
    Items,
    Protocol,
    QuerySet,
    Relevance,
    Selection,
    Task,
    TrainingSplit,
)
from bittern.benchmarks.eval.tasks.prompts import (
    AUDIO_PROMPTS,
    IMAGE_PROMPTS,
    prompts_note,
    text_queries,
    with_fallbacks,
)
from bittern.benchmarks.eval.tasks.splits import by_protocol
from bittern.types import MediaItem

RECORDING_QUERIES = (
    "A recording that is a query is the mean of its windows' embeddings; --windows is about the "
    "recordings that are searched"
)
"""For `Task.notes`, where recordings are queries."""


@dataclass(frozen=True)
class SpeciesMedia(Sequence[Any]):
    """Photographs or recordings below a folder, as columns; a `MediaItem` is made when needed.

    Attributes:
        root: the folder that the files are relative to.
        modality: ``image`` or ``audio``.
        ids: one per file, unique.
        files: paths below `root`, with ``/``.
        classes: int32 [n], the species of each, -1 for none.
        taxa: per species its Darwin Core ranks and names.
        columns: further metadata, one text per file; empty texts are left out.
        splits: the published split of each; None where there is none.
        left_out: sentences on what was skipped, with counts.
    """

    root: Path
    modality: str
    ids: Sequence[str]
    files: Sequence[str]
    classes: NDArray[np.int32]
    taxa: Sequence[Mapping[str, str]] = ()
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    splits: Sequence[str] | None = None
    left_out: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, position: Any, /) -> Any:
        """One item, or a list of those in a slice."""
        if isinstance(position, slice):
            return [self[each] for each in range(*position.indices(len(self)))]
        number = int(self.classes[position])
        metadata = dict(self.taxa[number]) if number >= 0 else {}
        metadata |= {name: column[position] for name, column in self.columns.items()}
        return MediaItem(
            occurrence_id=self.ids[position],
            media=self.files[position],
            modality=self.modality,
            path=self.root / self.files[position],
            media_root=str(self.root),
            metadata={name: value for name, value in metadata.items() if value},
        )

    def only(self, positions: NDArray[np.integer]) -> SpeciesMedia:
        """Some of them."""
        return replace(
            self,
            ids=Selection(self.ids, positions),
            files=Selection(self.files, positions),
            classes=self.classes[positions],
            columns={name: Selection(column, positions) for name, column in self.columns.items()},
            splits=None if self.splits is None else Selection(self.splits, positions),
        )

    def of_split(self, split: str) -> SpeciesMedia:
        """Those of one published split."""
        return self.only(np.flatnonzero([each == split for each in self.splits or ()]))

    def present(self, missing: Missing, what: str) -> SpeciesMedia:
        """Those whose files exist.

        Args:
            missing: whether missing files end the run.
            what: for messages, in the plural: ``images that train.json lists``.

        Raises:
            LayoutError: files are missing and may not; all are missing.
        """
        exist = check_files(self.root, self.files, missing, what)
        kept = self if exist.all() else self.only(np.flatnonzero(exist))
        return replace(kept, left_out=(*self.left_out, *skipped_files(exist, what)))

    @property
    def items(self) -> Items:
        """As what is ranked."""
        return Items(self.ids, self.modality, self, self.classes, self.modality)


def as_queries(items: Items) -> QuerySet:
    """Photographs or recordings as queries."""
    contents: Any = items.contents
    return QuerySet(items.ids, items.modality, contents, items.classes, items.side)


@dataclass(frozen=True)
class SpeciesTask:
    """A task whose relevance, levels, seen and novel queries follow from classes.

    Attributes:
        classes: the species.
        items: the ranked items.
        protocol: how it is run.
        queries: media that are queries; None to search by names.
        names: int [c], classes whose names are queries; None for all.
        prompts: templates where the protocol has none; empty for those of the items' modality.
        training: items that systems may be fitted on.
        training_queries: queries of the training split; None for the names of its classes.
        left_out: sentences on what was skipped.
        notes: what one must know to read the figures.
        more_notes: the same, behind the note on prompts.
    """

    classes: Classes
    items: Items
    protocol: Protocol
    queries: QuerySet | None = None
    names: NDArray[np.integer] | None = None
    prompts: Sequence[str] = ()
    training: Items | None = None
    training_queries: QuerySet | None = None
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()
    more_notes: Sequence[str] = ()

    def task(self, name: str = "") -> Task:
        """The task, at the level and with the groups of the protocol.

        Args:
            name: empty for ``text→image`` and the like.

        Raises:
            InvalidInputError: the classes lack the level, or cannot be split.
            QrelsError: no query has a relevant item.
        """
        prompts = self.prompts or (AUDIO_PROMPTS if self.items.modality == AUDIO else IMAGE_PROMPTS)
        queries = self.queries
        if queries is None:
            every = np.arange(len(self.classes)) if self.names is None else self.names
            queries = text_queries(self.classes, every, self.protocol, prompts)
        by_name = queries.modality == TEXT
        notes = [prompts_note(self.protocol, prompts)] if by_name else []
        notes += [RECORDING_QUERIES] if queries.modality == AUDIO else []
        task = Task(
            name=name or f"{queries.modality}→{self.items.modality}",
            queries=queries,
            items=self.items,
            relevance=Relevance.by_class(queries.classes, self.items.classes),
            classes=self.classes,
            training=self._training(prompts),
            left_out=self.left_out,
            notes=(*self.notes, *notes, *self.more_notes),
        )
        task = by_protocol(task, self.protocol, prompts)
        return with_fallbacks(task, self.protocol, prompts) if by_name else task

    def _training(self, prompts: Sequence[str]) -> TrainingSplit | None:
        if self.training is None:
            return None
        queries = self.training_queries
        if queries is None:
            classes = np.unique(self.training.classes)
            queries = text_queries(self.classes, classes, self.protocol, prompts)
        return TrainingSplit(self.training, queries)
