"""iNat24: names of species find photographs, 10,000 queries over 5,000,000 images.

The images are those of INQUIRE (arXiv 2411.02537); here they are asked for by what they are
labelled with. The data set has one published split, `train`, so all of it is ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bittern.benchmarks.eval.layouts import check, check_files, left_out_files, place
from bittern.benchmarks.eval.prompts import (
    IMAGE_PROMPTS,
    asked_in_words,
    check_templates,
    told_prompts,
    with_fallbacks,
)
from bittern.benchmarks.eval.protocol import Protocol
from bittern.benchmarks.eval.splits import by_protocol
from bittern.benchmarks.eval.suites.base import Piece, Suite
from bittern.benchmarks.eval.suites.inat24_columns import Numbers
from bittern.benchmarks.eval.suites.inat24_files import (
    IMAGES,
    LISTED,
    METADATA,
    Images,
    Photographs,
    read_images,
)
from bittern.benchmarks.eval.tasks import IMAGE, TEXT, Items, Relevance, Task
from bittern.errors import InvalidInputError

SPLIT = "train"


class INat24(Suite):
    """Names of species find photographs of iNaturalist 2024."""

    name = "inat24"
    about = "iNaturalist 2024: species names to 5,000,000 photographs (arXiv 2411.02537)"
    pieces: Sequence[Piece] = (METADATA, IMAGES)
    needs_data = True
    measures: Sequence[str] = ("AP_minR@50", "AP", "nDCG@50", "R-prec", "P@10", "MRR")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Refuse what cannot be run before anything is loaded. See `Suite.check`."""
        refuse_other_splits(protocol, self.name)
        check_templates(tuple(protocol.prompts or IMAGE_PROMPTS))
        check(data, self.pieces, self.name)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """One task, ``text→image``; none for a model without both towers. See `Suite.tasks`."""
        self.check(data, protocol)
        folder = check(data, self.pieces, self.name)
        if not {TEXT, IMAGE} <= towers:
            return []
        images, left_out = images_there(folder, protocol)
        every = np.arange(len(images.species))
        asked = asked_in_words(images.species, every, protocol, IMAGE_PROMPTS)
        task = Task(
            name=f"{TEXT}→{IMAGE}",
            asked=asked,
            items=items_of(images, folder),
            relevance=Relevance.by_class(asked.classes, images.classes),
            classes=images.species,
            left_out=left_out,
        )
        task = by_protocol(task, protocol, IMAGE_PROMPTS)
        task = replace(task, notes=(*task.notes, told_prompts(protocol, IMAGE_PROMPTS)))
        return [with_fallbacks(task, protocol, IMAGE_PROMPTS)]


def refuse_other_splits(protocol: Protocol, suite_name: str) -> None:
    """iNat24 has been published as one split.

    Raises:
        InvalidInputError: another one is asked for.
    """
    if protocol.database not in ("", SPLIT):
        raise InvalidInputError(
            f"{suite_name} has no split '{protocol.database}': iNat24 is published as '{SPLIT}' "
            "alone; leave --database out",
            field="database",
        )


def images_there(folder: Path, protocol: Protocol) -> tuple[Images, list[str]]:
    """The images of a data folder whose files are there, and sentences on the others.

    Raises:
        LayoutError: `train.json` cannot be used; files are missing that must not be.
        QrelsError: annotations of what there is not.
    """
    path = place(folder, METADATA)
    images = read_images(path, protocol.unknown)
    root = place(folder, IMAGES).parent
    there = check_files(root, images.paths, protocol.missing, LISTED)
    left_out = [*images.left_out, *left_out_files(there, LISTED)]
    return (images if there.all() else images.only(np.flatnonzero(there))), left_out


def items_of(images: Images, folder: Path) -> Items:
    """The images as what is ranked."""
    root = place(folder, IMAGES).parent
    return Items(Numbers(images.ids), IMAGE, Photographs(images, root), images.classes, IMAGE)
