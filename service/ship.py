"""Builds the models that ship with the package: ``python -m bittern.service.ship``.

`field` has hybrid codes at 64, 128 and 256 bits: training-free bits, and learned ones that were
trained on no media (docs/background/learned-codes.md). They are made once, so that codes mean the
same in every archive and on every machine (docs/decisions/0003). Takes some minutes.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from bittern.service.models.fitting import SHIPPED
from bittern.service.training.field_heads import (
    LEARNED_BITS,
    described,
    simulated_set,
    train_hybrid,
)


def main() -> None:
    """Train the models and write a folder for each."""
    parser = argparse.ArgumentParser(prog="python -m bittern.service.ship", description=__doc__)
    known = sorted(LEARNED_BITS)
    parser.add_argument("--bits", type=int, nargs="+", default=known, choices=known)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the folders go")
    asked = parser.parse_args()
    source = simulated_set()
    for bits in asked.bits:
        with tempfile.TemporaryDirectory() as run:
            hasher = train_hybrid(source, bits, asked.seed, Path(run) / "run")
        saved = described(hasher, source, asked.seed)
        folder = asked.out / saved.card.name
        shutil.rmtree(folder, ignore_errors=True)
        saved.save(folder)
        print(f"{folder}: {saved.card.digest}")


if __name__ == "__main__":
    main()
