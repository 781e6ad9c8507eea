"""What training costs: heads on embeddings from disk, and adapters on towers of full size."""

from __future__ import annotations

from collections.abc import Sequence

from bittern.benchmarks.speed import lora, probing
from bittern.benchmarks.speed.lora import SUBJECTS, Subject
from bittern.benchmarks.speed.probing import Probing
from bittern.benchmarks.speed.report import Report
from bittern.hashing.training.config import TrainingConfig


def run(
    *,
    rows: int | None = None,
    rounds: int | None = None,
    towers: bool = True,
    dim: int = probing.DIM,
    config: TrainingConfig = probing.CONFIG,
    subjects: Sequence[Subject] = SUBJECTS,
) -> Report:
    """Measure training; nothing is downloaded, and what is written is deleted.

    Args:
        rows: items with two embeddings each; 4 * dim bytes per row on disk.
        rounds: timed turns of each contestant.
        towers: whether adapters are trained too.
        dim: length of an embedding.
        config: the settings of the heads' training.
        subjects: the encoders that adapters are trained on.
    """
    plan = Probing(rows or probing.ROWS, dim, rounds or probing.ROUNDS, config)
    tables, values = probing.measure(plan)
    size = (
        f"{plan.rows:,} items with two float16 embeddings of {dim} dimensions "
        f"({values['bytes'] / 1e6:,.0f} MB), {config.bits} bits, batches of {config.batch_size}, "
        f"{plan.rounds} rounds"
    )
    found = {"probing": values}
    if towers:
        more, found["lora"] = lora.measure(subjects, rounds=rounds or lora.ROUNDS)
        tables = [*tables, *more]
    return Report("training", size, tables, found)
