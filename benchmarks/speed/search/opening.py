"""From an archive on disk to its first answer, in a process of its own.

    python -m bittern.benchmarks.speed.search.opening ARCHIVE QUERIES.npy

Loading Python and its libraries is timed apart: it is the same for an archive of any size.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from time import perf_counter

from bittern.benchmarks.speed.memory import resident_memory


@dataclass(frozen=True)
class Opened:
    """Seconds and bytes of one process.

    Attributes:
        imports: seconds to load the libraries.
        opened: seconds to open the archive.
        first: seconds of the first search after that, asymmetric.
        second: seconds of the same search again.
        hamming: seconds of a first search by Hamming distance.
        rows: observations found to be there.
        before: resident bytes with the libraries loaded.
        after: resident bytes at the end.
    """

    imports: float
    opened: float
    first: float
    second: float
    hamming: float
    rows: int
    before: int
    after: int

    @property
    def to_first_answer(self) -> float:
        """Seconds from a loaded library to an answer."""
        return self.opened + self.first


def main(archive: str, queries: str) -> None:
    """Open and search one archive; print what it took."""
    begun = perf_counter()
    import faiss  # noqa: F401
    import lancedb  # noqa: F401
    import numpy as np

    from bittern.benchmarks.speed.search.settings import K
    from bittern.index.archive import Archive

    logits = np.load(queries)
    imported = perf_counter()
    before = resident_memory()
    start = perf_counter()
    with Archive.open(archive) as opened:
        model = opened.models()[0].digest
        ready = perf_counter()
        opened.search(logits[0], model=model, k=K, metric="asymmetric")
        first = perf_counter()
        opened.search(logits[0], model=model, k=K, metric="asymmetric")
        second = perf_counter()
        opened.search(logits[0], model=model, k=K, metric="hamming")
        third = perf_counter()
        after = resident_memory()
        rows = sum(opened.stats().observations.values())
    found = Opened(
        imported - begun,
        ready - start,
        first - ready,
        second - first,
        third - second,
        rows,
        before,
        after,
    )
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
