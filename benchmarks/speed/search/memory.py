"""Memory of codes, in a fresh process: before and after loading them.

    python -m bittern.benchmarks.speed.search.memory FILE BITS ENGINE

FILE holds the codes only. The libraries are loaded and used before the first measurement; the
second one comes after searches by both metrics. Resident pages are counted, mapped files included.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bittern.benchmarks.speed.codes import METRICS, Collection, clustered
from bittern.benchmarks.speed.harness import Ratio, Report, Table, say
from bittern.benchmarks.speed.process import MIB, in_fresh_process, resident_memory
from bittern.benchmarks.speed.search.engines import ENGINES, K, engine_of
from bittern.benchmarks.speed.search.exact import described

_FEW_ROWS = 5_000


def measure_memory(collection: Collection, report: Report) -> None:
    """Resident memory of every engine over a collection, each in a fresh process."""
    rows, code = len(collection.codes), collection.bits / 8
    target = 2 * code + 16
    lines, ratios, values = [], [], []
    with TemporaryDirectory() as folder:
        file = Path(folder) / "codes.bin"
        collection.codes.tofile(file)
        for kind in ENGINES:
            say(f"memory of {described(collection)}, {kind}")
            found = in_fresh_process(
                "bittern.benchmarks.speed.search.memory", file, collection.bits, kind
            )
            grown = found["after"] - found["before"]
            lines.append(
                [
                    kind,
                    f"{rows:,}",
                    f"{grown / rows:.1f}",
                    f"<= {target:g}",
                    f"{grown / MIB:.0f}",
                    f"{found['before'] / MIB:.0f}",
                ]
            )
            ratios.append(
                Ratio.once(
                    f"memory per row, {kind} engine",
                    "bits / 8",
                    grown / rows / code,
                    round(target / code, 2),
                )
            )
            values.append({"engine": kind, "rows": rows, "bits": collection.bits, **found})
    table = Table(
        f"Resident memory, {collection.bits} bits",
        ["engine", "rows", "bytes per row", "target", "MiB grown", "MiB before"],
        lines,
        [
            "Resident pages (VmRSS) of a fresh process: with the libraries loaded and used, before",
            "the codes were loaded; and after searches by both metrics. Target: twice the code and",
            "16 bytes.",
        ],
    )
    report.tables.append(table)
    report.values["memory"] = values
    report.add_targets(described(collection), ratios)


def main(file: str, bits: str, kind: str) -> None:
    """Build one engine over the codes in a file, and print its memory."""
    few = clustered(_FEW_ROWS, int(bits))
    engine_of(few, kind).search(few.queries("asymmetric"), K)
    gc.collect()
    before = resident_memory()
    codes = np.fromfile(file, dtype=np.uint8).reshape(-1, int(bits) // 8)
    collection = Collection("file", codes, few.logits)
    engine = engine_of(collection, kind)
    for metric in METRICS:
        engine.search(collection.queries(metric), K)
    del collection, codes
    gc.collect()
    found = {"before": before, "after": resident_memory()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
