"""An epoch of training heads on embeddings from disk, against the matrix work it consists of.

Contestants do the same number of steps at the same shapes; the first three on batches that
are in memory:

- ``matrices``: the products of the heads' linear layers, forward and backward. No bias, batch
  norm, loss or optimiser.
- ``heads``: heads forward and backward, and AdamW. A given gradient takes the place of the loss.
- ``steps``: the same with the loss, the coding rate's log-determinant included.
- ``epoch``: what `hashing.training.loop.train` does, read from disk, validation and statistics
  of the bits included; before it, once per training, comes a scan of the whole set.
- ``reading``: the batches of an epoch from disk, and nothing done with them.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bittern.benchmarks.speed.bare_work import head_work, matrix_work, step_work
from bittern.benchmarks.speed.memory import MIB, own_memory, peak_memory
from bittern.benchmarks.speed.report import Table, say
from bittern.benchmarks.speed.timing import Rounds, interleaved
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_writer import EmbeddingWriter
from bittern.hashing.training.embeddings import EmbeddingSet, View
from bittern.hashing.training.heads import MOST_HELD_OUT, PairsObjective
from bittern.hashing.training.loop import train
from bittern.hashing.training.records import EpochRecord
from bittern.hashing.training.sampling import BUFFER_ROWS

ROWS = 100_000
DIM = 768
ROUNDS = 3
TARGET = 1.5
CONFIG = TrainingConfig(epochs=1)
_BYTES = 2
_BATCHES_IN_MEMORY = 8
_MOST_BARE_STEPS = 400
"""Steps in memory are all alike: of a longer epoch so many are timed, and multiplied."""
_DRAWN_ROWS = 2048
_BUFFERS = 3
"""The buffer in use, the one being read, the file's pages behind it: see
`bittern.hashing.training.streaming`."""
_WARM_UP_BATCHES = 4
_BARE = ("steps", "heads", "matrices")


@dataclass(frozen=True)
class Probing:
    """How large a set, and how it is trained on.

    Attributes:
        rows: items, each with an embedding of its picture and one of its words.
        dim: length of an embedding.
        rounds: timed turns of each contestant.
        config: the settings of the training.
    """

    rows: int = ROWS
    dim: int = DIM
    rounds: int = ROUNDS
    config: TrainingConfig = CONFIG


@dataclass
class _Turns:
    """What the turns of ``epoch`` and ``reading`` reported; growth of memory in bytes."""

    records: list[EpochRecord] = field(default_factory=list)
    scans: list[float] = field(default_factory=list)
    training_growth: list[int] = field(default_factory=list)
    reading_growth: list[int] = field(default_factory=list)
    reading_own_growth: list[int] = field(default_factory=list)


def measure(probing: Probing) -> tuple[list[Table], dict[str, Any]]:
    """Write a set of random embeddings to a temporary folder, and train on it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("warming up on a small set")
        small = _WARM_UP_BATCHES * probing.config.batch_size
        source = write_set(folder / "small", small, probing.dim)
        _train(source, probing.config, folder / "small-run", _Turns())
        say(f"writing {probing.rows:,} items in two views")
        source = write_set(folder / "set", probing.rows, probing.dim)
        objective = PairsObjective(source, probing.config)
        steps = objective.steps_per_epoch
        say(f"timing epochs of {steps:,} steps in {probing.rounds} rounds")
        times, turns = _timed(source, objective, probing, folder)
        size = sum(path.stat().st_size for path in source.folder.glob("*.npy"))
    return _tables(times, turns, probing), _values(times, turns, probing, steps, size)


def write_set(folder: Path, rows: int, dim: int) -> EmbeddingSet:
    """Random unit embeddings, float16; a picture's and its words' are alike."""
    rng = np.random.default_rng(0)
    views = {"text": View("text", dim), "image": View("image", dim)}
    with EmbeddingWriter(folder, views, encoder="random") as writer:
        for start in range(0, rows, _DRAWN_ROWS):
            shape = (min(_DRAWN_ROWS, rows - start), dim)
            words = rng.standard_normal(shape, dtype=np.float32) / np.float32(dim**0.5)
            noise = rng.standard_normal(shape, dtype=np.float32) / np.float32(dim**0.5)
            writer.append({"text": words, "image": 0.8 * words + 0.6 * noise})
    return EmbeddingSet.open(folder)


def _timed(
    source: EmbeddingSet, objective: PairsObjective, probing: Probing, folder: Path
) -> tuple[Rounds, _Turns]:
    steps = objective.steps_per_epoch
    some = min(steps, _MOST_BARE_STEPS)
    batches = list(itertools.islice(objective.batches(1), _BATCHES_IN_MEMORY))
    work = {
        "steps": step_work(objective, batches),
        "heads": head_work(objective, batches),
        "matrices": matrix_work(objective, batches),
    }
    turns = _Turns()
    _read(objective, turns)  # before anything else was held and let go: it would hide growth
    run_numbers = itertools.count()

    def epoch() -> None:
        _train(source, probing.config, folder / f"run-{next(run_numbers)}", turns)

    for bare in work.values():
        bare(_WARM_UP_BATCHES)
    times = interleaved(
        {
            "epoch": epoch,
            "reading": partial(_read, objective, turns),
            **{name: partial(bare, some) for name, bare in work.items()},
        },
        rounds=probing.rounds,
        warmup=0,
    )
    seconds = {
        "training": times.seconds["epoch"],
        "reading": times.seconds["reading"],
        "scan": np.array(turns.scans),
        "epoch": np.array([record.seconds for record in turns.records]),
        **{name: times.seconds[name] * (steps / some) for name in _BARE},
    }
    return Rounds(seconds), turns


def _train(source: EmbeddingSet, config: TrainingConfig, run_folder: Path, turns: _Turns) -> None:
    """From an unread set to trained heads, as `bittern train` does it."""
    _evict(source)
    with peak_memory() as peak:
        begun = perf_counter()
        # Opened anew: a set remembers what its scan found.
        objective = PairsObjective(EmbeddingSet.open(source.folder), config)
        turns.scans.append(perf_counter() - begun)
        _evict(source)
        result = train(objective, config, run_folder)
    turns.records.extend(result.history)
    turns.training_growth.append(peak.growth)


def _read(objective: PairsObjective, turns: _Turns) -> None:
    # From disk: of files that were just written, systems map far more than is read.
    _evict(objective.source)
    before = most = own_memory()
    with peak_memory() as peak:
        for _ in objective.batches(1):
            most = max(most, own_memory())
    turns.reading_growth.append(peak.growth)
    turns.reading_own_growth.append(most - before)


def memory_bound(probing: Probing) -> int:
    """Bytes of embeddings that `bittern.hashing.training.streaming` promises to hold at most."""
    rows = min(BUFFER_ROWS, probing.rows)
    return _BUFFERS * rows * probing.dim * _BYTES * 2


def _evict(source: EmbeddingSet) -> None:
    """Ask the system to forget what it has cached of the files, so that they are read from disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in source.folder.glob("*.npy"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _values(
    times: Rounds, turns: _Turns, probing: Probing, steps: int, size: int
) -> dict[str, Any]:
    return {
        "rows": probing.rows,
        "dim": probing.dim,
        "bytes": size,
        "steps": steps,
        "config": probing.config.to_dict(),
        "seconds_per_round": times.to_json(),
        "ratios": {f"epoch / {to}": times.ratio("epoch", to).to_json() for to in _BARE},
        "items_per_second": steps * probing.config.batch_size / times.time("epoch").median,
        "reading_growth_bytes": max(turns.reading_growth),
        "reading_own_growth_bytes": max(turns.reading_own_growth),
        "reading_bound_bytes": memory_bound(probing),
        "training_growth_bytes": max(turns.training_growth),
    }


def _tables(times: Rounds, turns: _Turns, probing: Probing) -> list[Table]:
    def row(name: str, what: str) -> list[str]:
        ratios = [times.ratio(name, to).text() for to in _BARE]
        return [what, times.time(name).text(".1f"), *ratios]

    speed = Table(
        f"Training heads for an epoch (target: {TARGET} times the bare work, or less)",
        ["", "seconds", "to steps", "to heads", "to matrices"],
        [
            row("matrices", "matrices in memory"),
            row("heads", "heads in memory"),
            row("steps", "steps in memory"),
            row("epoch", "epoch, from disk"),
            row("reading", "reading alone"),
            row("scan", "scan, once a training"),
            row("training", "training, all of it"),
        ],
        [
            "matrices: products of the linear layers, forward and backward. heads: whole heads",
            "forward and backward, and AdamW. steps: the same with the loss, its log-determinant",
            "included. epoch: the same from disk in the training loop, with validation and",
            "statistics of the bits. training: scan, epoch, checkpoint, plot. Files are dropped",
            "from the system's cache before scan, epoch and reading.",
        ],
    )
    sizes = {
        "reading an epoch": max(turns.reading_growth),
        "of it, less mapped pages of files": max(turns.reading_own_growth),
        "what that may hold at most": memory_bound(probing),
        "a training: heads, optimiser, validation too": max(turns.training_growth),
    }
    memory = Table(
        "Resident memory: most by which it grew",
        ["", "MiB"],
        [[what, f"{size / MIB:.0f}"] for what, size in sizes.items()],
        [
            "Mapped pages are cache, which the system takes back when it is short of memory; of",
            "files that were just written it may map far more than is read. Validation embeds",
            f"{MOST_HELD_OUT:,} items at most: only a few numbers per item grow with the set.",
        ],
    )
    return [speed, memory]
