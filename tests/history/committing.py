"""Adds and deletes until it is killed: `python -m tests.history.committing ARCHIVE`."""

from __future__ import annotations

import sys
from itertools import count

from bittern.index.archive import Archive
from tests.index.samples import OWL, photo

if __name__ == "__main__":
    with Archive.open(sys.argv[1], write=True) as archive:
        for number in count():
            batch = [photo(f"n{number}-{i}", {"fieldNumber": str(number)}) for i in range(4)]
            archive.add(batch, model=OWL.digest)
            if number % 5 == 4:
                archive.delete([f"n{number - 2}-1"])
            if number % 8 == 7:
                archive._writer._store.compact()  # type: ignore[union-attr]
            print(archive.generation, flush=True)
