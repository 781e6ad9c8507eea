"""Training examples: media with captions or labels, and skipped entries."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Example:
    """One photograph or recording to train on.

    Attributes:
        id: identifier, unique among the examples.
        path: the file, not decoded yet.
        modality: ``image`` or ``audio``.
        captions: all variants of its caption; empty without captions.
        labels: its classes; empty without labels.
        group: equal for items with the same species, else name, caption or labels. A batch
            should have each group once: if two of its items share a caption, each becomes a
            wrong answer for the other.
    """

    id: str
    path: Path
    modality: str
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row or file that cannot be trained on, with the reason."""

    where: str
    reason: str


@dataclass(frozen=True)
class Examples:
    """Examples in the order of their source.

    Attributes:
        source: the manifest or folder.
        items: the examples.
        skipped: unusable entries.
    """

    source: Path
    items: tuple[Example, ...]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Example:
        return self.items[index]

    @cached_property
    def groups(self) -> Counter[str]:
        """How many items each group has."""
        return Counter(item.group for item in self.items)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """All labels, sorted."""
        return tuple(sorted({label for item in self.items for label in item.labels}))

    @cached_property
    def modalities(self) -> Counter[str]:
        """How many items each modality has."""
        return Counter(item.modality for item in self.items)

    def of(self, modality: str) -> Examples:
        """The examples of one modality, without `skipped`."""
        return replace(
            self, items=tuple(i for i in self.items if i.modality == modality), skipped=()
        )

    def digest(self) -> str:
        """Hex SHA-256 of the examples in order, without the files' contents."""
        digest = hashlib.sha256()
        for item in self.items:
            for text in (item.id, item.modality, item.group, *item.captions, "", *item.labels):
                digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
            digest.update(b"\n")
        return digest.hexdigest()
