"""Searching a million codes: Bittern's index against raw Faiss and LanceDB's own scan.

Codes are random but clustered, as those of species are: each row is one of some centres with
a share of its bits flipped. Queries are centres too, softened into logits. Every answer is
checked against brute force.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import contestants
from benchmarks.contestants import Question, Search
from benchmarks.exactness import Exactness, brute_force, exactness
from benchmarks.machine import usable_cores
from benchmarks.report import Report, Table, say
from benchmarks.timing import Rounds, interleaved
from hashing.codes import pack, unpack
from index.flat import FlatCodes

ROWS = 1_000_000
BITS = 256
K = 100
CENTRES = 2_000
NOISE = 0.1
"""Share of a row's bits that differ from its centre's."""
QUERIES = 5
ROUNDS = 7
SEED = 0
REFERENCE = "faiss flat, 1 thread"
_BLOCK_ROWS = 1 << 16


def run(*, rows: int = ROWS, rounds: int | None = None) -> Report:
    """Measure `rows` codes of 256 bits, top 100, one query at a time."""
    rounds = rounds or ROUNDS
    say(f"drawing {rows:,} codes")
    centres, codes = clustered_codes(rows)
    questions = soft_questions(centres)
    with tempfile.TemporaryDirectory() as folder:
        say("building the indexes")
        searches = _searches(codes, Path(folder))
        say(f"timing {len(searches)} contestants in {rounds} rounds")
        times = interleaved(
            {name: _ask_all(search, questions) for name, search in searches.items()},
            rounds=rounds,
        )
        say("checking the answers")
        right = _checked(searches, questions, codes)
    values = {
        "rows": rows,
        "bits": BITS,
        "k": K,
        "queries": len(questions),
        "seconds_per_round": times.to_json(),
        "ratios": {n: times.ratio(n, REFERENCE).to_json() for n in searches},
        "exactness": {name: asdict(found) for name, found in right.items()},
    }
    size = (
        f"{rows:,} codes of {BITS} bits around {CENTRES:,} centres, {NOISE:.0%} of the bits "
        f"flipped; top {K}, {len(questions)} queries one at a time, {rounds} rounds"
    )
    return Report("search", size, [_table(times, right, len(questions))], values)


def clustered_codes(rows: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Centres and codes around them: uint8 [centres, bits/8] and uint8 [rows, bits/8]."""
    rng = np.random.default_rng(SEED)
    centres = rng.integers(0, 256, (CENTRES, BITS // 8), dtype=np.uint8)
    blocks = []
    for start in range(0, rows, _BLOCK_ROWS):
        size = min(_BLOCK_ROWS, rows - start)
        noise = rng.random((size, BITS), dtype=np.float32) < NOISE
        flips = np.packbits(noise, axis=1, bitorder="little")
        blocks.append(centres[rng.integers(0, CENTRES, size)] ^ flips)
    return centres, np.concatenate(blocks)


def soft_questions(centres: NDArray[np.uint8]) -> list[Question]:
    """Queries: the bits of some centres, with logits of varying certainty."""
    rng = np.random.default_rng(SEED + 1)
    signs = 2.0 * unpack(centres[:QUERIES]) - 1.0
    logits = (signs + 0.8 * rng.standard_normal(signs.shape)).astype(np.float32)
    return [Question(z, pack(z[None])[0], K) for z in logits]


def _searches(codes: NDArray[np.uint8], folder: Path) -> dict[str, Search]:
    index = FlatCodes(np.arange(len(codes)), codes)
    cores = usable_cores()
    return {
        REFERENCE: contestants.faiss_flat(codes, 1),
        "bittern, hamming": contestants.bittern_symmetric(index),
        "bittern, asymmetric": contestants.bittern_asymmetric(index),
        # Idle OpenMP threads spin for a while: what follows must be too slow to notice.
        f"faiss flat, {cores} threads": contestants.faiss_flat(codes, cores),
        "lancedb scan, hamming": contestants.lancedb_scan(codes, folder),
    }


def _ask_all(search: Search, questions: Sequence[Question]) -> Callable[[], object]:
    return lambda: [search(question) for question in questions]


def _checked(
    searches: Mapping[str, Search], questions: Sequence[Question], codes: NDArray[np.uint8]
) -> dict[str, Exactness]:
    truths = {
        metric: [brute_force(question, codes, metric) for question in questions]
        for metric in ("hamming", "asymmetric")
    }
    return {
        name: exactness(
            [search(question) for question in questions],
            truths["asymmetric" if "asymmetric" in name else "hamming"],
        )
        for name, search in searches.items()
    }


def _table(times: Rounds, right: Mapping[str, Exactness], queries: int) -> Table:
    rows: list[list[str]] = []
    for name, found in right.items():
        rows.append(
            [
                name,
                times.time(name, 1e3 / queries).text(),
                times.ratio(name, REFERENCE).text(),
                *_shares(found),
            ]
        )
    return Table(
        f"One query, top {K}: milliseconds, and times as long as {REFERENCE}",
        ["", "ms", "ratio", "distances", "rows", "order"],
        rows,
        [
            "Medians over the rounds, with quartiles. Then, against brute force:",
            "distances: queries whose k distances are right; rows: share found of the first k by",
            "(distance, row), where others at the same distance do not count; order: queries that",
            "got just those rows in just that order.",
        ],
    )


def _shares(found: Exactness) -> list[Any]:
    return [f"{share:.0%}" for share in (found.distances, found.rows, found.order)]
