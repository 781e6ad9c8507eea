"""A process that adds, overwrites and deletes until it is killed; says what is acknowledged.

    python -m tests.index.committing ARCHIVE FIRST_ITEM

Each line of its output names what one finished call has done.
"""

from __future__ import annotations

import sys
from itertools import count

from index.archive import Archive
from tests.index.samples import OWL, recording

BATCH = 5
WINDOWS = 4


def main(path: str, first: int) -> None:
    with Archive.open(path, write=True) as archive:
        print("ready", flush=True)
        for batch in count(first):
            names = [f"b{batch}-{i}" for i in range(BATCH)]
            items = [recording(name, WINDOWS, {"batch": batch, "turn": 0}) for name in names]
            archive.add(items, model=OWL.digest)
            print("added", batch, flush=True)
            again = [recording(name, WINDOWS - 1, {"batch": batch, "turn": 1}) for name in names]
            archive.add(again, model=OWL.digest, on_duplicate="overwrite")
            print("overwritten", batch, flush=True)
            if batch % 3 == 0:
                archive.delete(names)
                print("deleted", batch, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
