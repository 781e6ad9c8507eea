"""Benchmark data in miniature: the published layouts, filled with the sample media.

Each module has a `build(folder)` that fills a folder and returns it. What is in it is written
out as constants, so that tests can say by hand what has to be found.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import bittern
from bittern.benchmarks.eval.tasks import Task

SAMPLE = Path(bittern.__file__).parent / "sample"


def photograph(occurrence_id: str, to: Path) -> None:
    """A photograph of the sample archive as a small JPEG file.

    Args:
        occurrence_id: which.
        to: the new file; its folder is made.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(SAMPLE / "images" / f"{occurrence_id}.webp") as picture:
        small = picture.convert("RGB")
        small.thumbnail((96, 96))
        small.save(to, "JPEG", quality=85)


def relevant(task: Task) -> dict[str, list[str]]:
    """Ids of the relevant items of each query."""
    ids = task.items.ids
    return {name: [ids[i] for i in task.relevance.of(q)] for q, name in enumerate(task.queries.ids)}


def replace_text(path: Path, old: str, new: str) -> None:
    """Replace a text in a file, once."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
