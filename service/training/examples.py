"""Training examples: media with captions or labels, and what could not become one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Example:
    """One photograph or recording to train on.

    Attributes:
        id: identifier, unique among the examples.
        path: the file; nothing has decoded it yet.
        modality: ``image`` or ``audio``.
        captions: all variants of its caption, templates filled; empty without captions.
        labels: its classes; empty without labels.
        group: what items share that say the same (the species, else the name, the caption or
            the labels). A batch should hold a group once only: a caption that stands in it
            twice makes one of its two pictures a wrong answer.
    """

    id: str
    path: Path
    modality: str
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row or file that cannot be trained on, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Examples:
    """Examples in the order of their source.

    Attributes:
        source: the manifest or folder.
        items: the examples.
        skipped: what is not among them.
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
        """The examples of one modality; what was skipped stays with the whole."""
        return replace(self, items=_only(self.items, modality), skipped=())

    def digest(self) -> str:
        """Hex SHA-256 of what the examples say, in order; not of the files' contents."""
        digest = hashlib.sha256()
        for item in self.items:
            for text in (item.id, item.modality, item.group, *item.captions, "", *item.labels):
                digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
            digest.update(b"\n")
        return digest.hexdigest()


def _only(items: Iterable[Example], modality: str) -> tuple[Example, ...]:
    return tuple(item for item in items if item.modality == modality)
