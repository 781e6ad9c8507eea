"""Three annotated soundscapes of 12 seconds, in the layout of the published collections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile as sf

from tests.eval.miniatures.inatsounds import clip
from tests.eval.miniatures.ssw60 import write

RATE = 32_000
SECONDS = 12
SPECIES: tuple[tuple[str, str, str], ...] = (
    ("mallar3", "Anas platyrhynchos", "Mallard"),
    ("tawowl1", "Strix aluco", "Tawny Owl"),
    ("gragoo", "Anser anser", "Graylag Goose"),
    ("ameroc1", "Corvus brachyrhynchos", "American Crow"),
)
"""The crow is on the list and in no recording."""
HEARD: dict[str, tuple[tuple[str, float, float, str], ...]] = {
    "MINI_001_20230501_050000Z.flac": (
        ("tawny-owl-1", 1.0, 3.5, "tawowl1"),
        ("ducks-1", 2.5, 4.5, "mallar3"),
        ("ducks-1", 8.0, 8.4, "mallar3"),
        ("bird-1", 10.0, 10.3, "????"),
    ),
    "MINI_002_20230501_060000Z.flac": (
        ("goose-1", 5.9, 6.2, "gragoo"),
        ("ducks-1", 6.2, 7.2, "mallar3"),
    ),
    "MINI_003_20230501_070000Z.flac": (),
}
"""Per recording: clip of the sample archive, start, end, code."""
ANNOTATION_HEADINGS = (
    "Filename,Start Time (s),End Time (s),Low Freq (Hz),High Freq (Hz),Species eBird Code"
)


def build(folder: Path) -> Path:
    """Write it, and return the folder."""
    (folder / "soundscape_data").mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1)
    rows = []
    for name, calls in HEARD.items():
        samples = noise.normal(0, 0.003, RATE * SECONDS).astype(np.float32)
        for stem, start, end, code in calls:
            call = np.resize(clip(stem, RATE), round((end - start) * RATE))
            first = round(start * RATE)
            samples[first : first + len(call)] += 0.5 * call
            rows.append((name, start, end, 300, 8000, code))
        sf.write(folder / "soundscape_data" / name, np.clip(samples, -1, 1), RATE)
    write(folder / "annotations.csv", ANNOTATION_HEADINGS, rows)
    write(folder / "species.csv", "Species eBird Code,Scientific Name,Common Name", SPECIES)
    return folder
