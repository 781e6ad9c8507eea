"""From an archive on disk to its first result, in a fresh process.

Loading Python and its libraries is not counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bittern.benchmarks.speed.process import in_fresh_process, resident_memory

_K = 100


@dataclass(frozen=True)
class Opened:
    """Seconds and bytes of one process.

    Attributes:
        opened: seconds to open the archive.
        first: seconds of the first search after that, asymmetric.
        second: seconds of the same search again.
        rows: observations of the archive.
        before: resident bytes with the libraries loaded.
        after: resident bytes at the end, after another search by Hamming distance.
    """

    opened: float
    first: float
    second: float
    rows: int
    before: int
    after: int

    @property
    def to_first_answer(self) -> float:
        """Seconds from loaded libraries to a result."""
        return self.opened + self.first


def opened_once(archive: Path, queries: Path) -> Opened:
    """Open and search an archive in a fresh process.

    Args:
        archive: its folder.
        queries: a numpy file, float32 [q, bits]; the first is searched.
    """
    return Opened(**in_fresh_process(__name__, archive, queries))


def main(archive: str, queries: str) -> None:
    """Open and search one archive; print times and memory."""
    import faiss  # noqa: F401
    import lance  # noqa: F401
    import numpy as np

    from bittern.benchmarks.speed.harness import seconds_of
    from bittern.index.archive import Archive

    logits = np.load(queries)[0]
    before = resident_memory()
    found: list[Archive] = []
    opened = seconds_of(lambda: found.append(Archive.open(archive)))
    with found[0] as it:
        model = it.model_records()[0].digest
        asymmetric = partial(it.search, logits, model=model, k=_K, metric="asymmetric")
        first, second = seconds_of(asymmetric), seconds_of(asymmetric)
        it.search(logits, model=model, k=_K, metric="hamming")
        after = resident_memory()
        rows = sum(it.stats().observations.values())
    print(json.dumps(vars(Opened(opened, first, second, rows, before, after))))
