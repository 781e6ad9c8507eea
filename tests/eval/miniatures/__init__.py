"""Benchmark data in miniature: the published layouts, filled with the sample media.

Each module has a `build(folder)` that fills a folder and returns it. What is in it is written
out as constants, so that tests can say by hand what has to be found.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import bittern

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
