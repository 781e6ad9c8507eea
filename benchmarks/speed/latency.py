"""Latency around the scan: what a query costs beside the search itself, at a million rows.

One archive of drawn codes with the shipped model `field-256`; one caller, k = 5.
"""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path

import numpy as np

import bittern
from bittern.benchmarks.speed.harness import Options, Report, Rounds, Table, interleaved, say
from bittern.index.archive import Archive

ROWS = 1_000_000
QUICK_ROWS = 20_000
ROUNDS = 200
BARE = "bare text network"


def run(options: Options) -> Report:
    """Measure get, queries by id and by words, and the metadata of hits."""
    from bittern.benchmarks.speed.codes import real, write_archive
    from bittern.service.models.fitting import shipped_model

    rows = options.rows or (QUICK_ROWS if options.quick else ROWS)
    rounds = options.rounds or (5 if options.quick else ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        say(f"writing an archive of {rows:,} rows")
        path = Path(folder, "archive")
        write_archive(path, real(rows), shipped_model("field-256"))
        say(f"timing {rounds} rounds")
        times = measure(path, rows, rounds)
    report = Report("latency", f"{rows:,} codes of 256 bits, top 5; {rounds} rounds, one caller")
    report.add("latency", table(times), seconds=times)
    return report


def table(times: Rounds) -> Table:
    """Milliseconds and ratios to the bare text network."""
    return Table(
        "One call at a time, milliseconds",
        {"": "", "p50": ".2f", "p99": ".2f", "p50 / bare text network": ".2f"},
        [
            [name, *np.percentile(seconds * 1e3, [50, 99]).tolist(), times.ratio(name, BARE)]
            for name, seconds in times.seconds.items()
        ],
        ["Words and ids are new in each round, except for the same words again."],
    )


def measure(path: Path, rows: int, rounds: int) -> Rounds:
    """Time calls in turns.

    Args:
        path: an archive of `write_archive` with a model that reads words.
        rows: its observations.
        rounds: timed turns of each call.
    """
    from bittern.encoders.base import Modality
    from bittern.encoders.field import load

    rng = np.random.default_rng(0)
    network, words, turn = load(), count(), count()

    def new_id() -> str:
        return f"urn:benchmark:{rng.integers(rows)}"

    with bittern.open(path) as archive, Archive.open(path) as stored:

        def metadata() -> object:
            # Without a search.
            return stored._current().observations(rng.choice(rows, 5, replace=False))

        return interleaved(
            {
                BARE: lambda: network.encode(Modality.TEXT, [f"an owl, number {next(turn)}"]),
                "query by new words": lambda: archive.search(
                    f"an owl, number {next(words)}", k=5, target="image"
                ),
                "the same words again": lambda: archive.search("an owl", k=5, target="image"),
                "query by id": lambda: archive.search(id=new_id(), k=5, target="image"),
                "get": lambda: archive.get(new_id()),
                "metadata of 5 rows": metadata,
            },
            rounds=rounds,
            warmup=10,
        )
