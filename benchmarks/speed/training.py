"""Cost of training: an epoch of heads from disk, beside the same work in memory; adapters.

Contestants do the same number of steps at the same shapes:

- ``heads``: heads forward and backward, and AdamW, on batches in memory, with a constant gradient
  instead of the loss.
- ``steps``: the same with the loss, the coding rate's log-determinant included.
- ``epoch``: an epoch of `bittern.hashing.training.loop.train` from disk, with validation and
  statistics of the bits. A scan of the whole set comes before it, once per training.
- ``reading``: the batches of an epoch, only read from disk.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bittern.benchmarks.speed.harness import (
    Options,
    Report,
    Rounds,
    Table,
    interleaved,
    say,
    seconds_of,
)
from bittern.benchmarks.speed.process import MIB, drop_cache, own_memory, peak_memory
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_sets import EmbeddingSet, EmbeddingWriter, View
from bittern.hashing.training.heads import HeadBatch, HeadsObjective, objective_for
from bittern.hashing.training.loop import train
from bittern.hashing.training.optimiser import Optimiser, placement
from bittern.hashing.training.records import EpochRecord
from bittern.hashing.training.sampling import BUFFER_ROWS, EmbeddingBatch
from bittern.hashing.training.validation import MOST_HELD_OUT

ROWS = 100_000
DIM = 768
ROUNDS = 3
TARGET = 1.5
CONFIG = TrainingConfig(epochs=1)
SCHEDULE_STEPS = 1 << 20
"""Schedule length for steps in memory: longer than any run."""
_BYTES = 2
_BATCHES_IN_MEMORY = 8
_MOST_BARE_STEPS = 400
"""Of a longer epoch only so many steps in memory are timed; the time is scaled up."""
_DRAWN_ROWS = 2048
_BUFFERS = 3
"""The buffer in use, the one being read, the file's pages behind it: see
`bittern.hashing.training.sampling`."""
_WARM_UP_BATCHES = 4
_BARE = ("steps", "heads")

Work = Callable[[int], None]
"""Runs a number of steps."""


@dataclass(frozen=True)
class Heads:
    """Size of the set, and settings of the training.

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

    @property
    def memory_bound(self) -> int:
        """Bytes of embeddings that `bittern.hashing.training.sampling` holds at most."""
        return _BUFFERS * min(BUFFER_ROWS, self.rows) * self.dim * _BYTES * 2


@dataclass
class _Turns:
    """Measurements of the turns of ``epoch`` and ``reading``; growth of memory in bytes."""

    records: list[EpochRecord] = field(default_factory=list)
    scans: list[float] = field(default_factory=list)
    training_growth: list[int] = field(default_factory=list)
    reading_growth: list[int] = field(default_factory=list)
    reading_own_growth: list[int] = field(default_factory=list)


def run(options: Options) -> Report:
    """Measure training; nothing is downloaded, and all files are temporary.

    `rows` are items with two embeddings each; a quick run trains heads only.
    """
    plan = Heads(rows=options.rows or ROWS, rounds=options.rounds or ROUNDS)
    report = Report(
        "training",
        f"{plan.rows:,} items with two float16 embeddings of {plan.dim} dimensions, "
        f"{plan.config.bits} bits, batches of {plan.config.batch_size}, {plan.rounds} rounds",
    )
    measure_heads(plan, report)
    if not options.quick:
        from bittern.benchmarks.speed.training_adapters import measure_adapters

        measure_adapters(report, rounds=plan.rounds)
    return report


def measure_heads(plan: Heads, report: Report) -> None:
    """Write a set of random embeddings to a temporary folder, and train on it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("warming up on a small set")
        small = write_set(folder / "small", _WARM_UP_BATCHES * plan.config.batch_size, plan.dim)
        _train(small, plan.config, folder / "small-run", _Turns())
        say(f"writing {plan.rows:,} items in two views")
        source = write_set(folder / "set", plan.rows, plan.dim)
        objective = objective_for(source, plan.config)
        steps = objective.steps_per_epoch
        say(f"timing epochs of {steps:,} steps in {plan.rounds} rounds")
        times, turns = _timed(source, objective, plan, folder)
    tables = _speed_table(times), _memory_table(turns, plan)
    report.add("heads", *tables, steps=steps, config=plan.config.to_dict(), seconds=times)


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
    source: EmbeddingSet, objective: HeadsObjective, plan: Heads, folder: Path
) -> tuple[Rounds, _Turns]:
    steps = objective.steps_per_epoch
    some = min(steps, _MOST_BARE_STEPS)
    batches = list(itertools.islice(objective.batches(1), _BATCHES_IN_MEMORY))
    bare = {name: bare_work(objective, batches, loss=name == "steps") for name in _BARE}
    turns = _Turns()
    _read(objective, turns)  # first: memory freed by other work would hide growth
    run_numbers = itertools.count()

    def epoch() -> None:
        _train(source, plan.config, folder / f"run-{next(run_numbers)}", turns)

    for work in bare.values():
        work(_WARM_UP_BATCHES)
    times = interleaved(
        {
            "epoch": epoch,
            "reading": partial(_read, objective, turns),
            **{name: partial(work, some) for name, work in bare.items()},
        },
        rounds=plan.rounds,
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


def bare_work(objective: HeadsObjective, batches: Sequence[HeadBatch], *, loss: bool) -> Work:
    """Training steps on batches in memory, with the loss or with a constant gradient."""
    placed = placement(objective.config)
    objective.module.to(placed.device).train()
    groups = objective.parameter_groups()
    optimiser = Optimiser(groups, objective.config, placed, SCHEDULE_STEPS)
    ready = [
        HeadBatch(0, EmbeddingBatch(one.rows, [view.to(placed.device) for view in one.views]))
        for one in (batch.batch for batch in batches)
    ]
    modalities = [view.modality for view in objective.sets[0].source.views.values()]
    shape = (objective.config.batch_size, objective.config.bits)
    gradient = torch.randn(shape, device=placed.device)

    def given(batch: HeadBatch) -> torch.Tensor:
        logits = [
            objective.module(x, m) for x, m in zip(batch.batch.views, modalities, strict=True)
        ]
        # A scalar like a loss, so that half precision is scaled as in training.
        return torch.stack([(z * gradient).sum() for z in logits]).sum()

    def work(steps: int) -> None:
        for batch in itertools.islice(itertools.cycle(ready), steps):
            with placed.autocast:
                total = objective.loss(batch).total if loss else given(batch)
            optimiser.backward(total)
            optimiser.step()
        synchronise(placed.device)

    return work


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _train(source: EmbeddingSet, config: TrainingConfig, run_folder: Path, turns: _Turns) -> None:
    """From an unread set to trained heads, as `bittern train` does it."""
    drop_cache(source.folder)
    objectives: list[HeadsObjective] = []
    with peak_memory() as peak:
        # Opened again: a set caches the result of its scan.
        turns.scans.append(
            seconds_of(
                lambda: objectives.append(objective_for(EmbeddingSet.open(source.folder), config))
            )
        )
        drop_cache(source.folder)
        result = train(objectives[0], config, run_folder)
    turns.records.extend(result.history)
    turns.training_growth.append(peak.growth)


def _read(objective: HeadsObjective, turns: _Turns) -> None:
    # Drop the cache: of new files, systems map far more than is read.
    drop_cache(objective.sets[0].source.folder)
    before = most = own_memory()
    with peak_memory() as peak:
        for _ in objective.batches(1):
            most = max(most, own_memory())
    turns.reading_growth.append(peak.growth)
    turns.reading_own_growth.append(most - before)


def _speed_table(times: Rounds) -> Table:
    rows = {
        "heads": "heads in memory",
        "steps": "steps in memory",
        "epoch": "epoch, from disk",
        "reading": "reading alone",
        "scan": "scan, once a training",
        "training": "training, all of it",
    }
    return Table(
        f"Training heads for an epoch (target: {TARGET} times the bare work, or less)",
        {"": "", "seconds": ".1f", **{f"to {to}": ".2f" for to in _BARE}},
        [
            [what, times.time(name), *(times.ratio(name, to) for to in _BARE)]
            for name, what in rows.items()
        ],
        [
            "heads: forward and backward, and AdamW. steps: the same with the loss, its",
            "log-determinant included. epoch: the same from disk in the training loop, with",
            "validation and statistics of the bits. training: scan, epoch, checkpoint, plot. Files",
            "are dropped from the system's cache before scan, epoch and reading.",
        ],
    )


def _memory_table(turns: _Turns, plan: Heads) -> Table:
    return Table(
        "Resident memory: most by which it grew",
        {"": "", "MiB": ".0f"},
        [
            ["reading an epoch", max(turns.reading_growth) / MIB],
            ["of it, less mapped pages of files", max(turns.reading_own_growth) / MIB],
            ["the most that it may hold", plan.memory_bound / MIB],
            ["a training: heads, optimiser, validation too", max(turns.training_growth) / MIB],
        ],
        [
            "Mapped pages are cache, which the system takes back when it is short of memory; of",
            "files that were just written it may map far more than is read. Validation embeds",
            f"{MOST_HELD_OUT:,} items at most: only a few numbers per item grow with the set.",
        ],
    )
