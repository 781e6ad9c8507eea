"""Cost of training: heads on embeddings from disk, and adapters on towers of full size."""

from __future__ import annotations

from bittern.benchmarks.speed import training_adapters, training_heads
from bittern.benchmarks.speed.harness import Options, Report
from bittern.benchmarks.speed.training_adapters import measure_adapters
from bittern.benchmarks.speed.training_heads import Heads, measure_heads


def run(options: Options) -> Report:
    """Measure training; nothing is downloaded, and all files are temporary.

    `rows` are items with two embeddings each; a quick run trains heads only.
    """
    plan = Heads(
        rows=options.rows or training_heads.ROWS, rounds=options.rounds or training_heads.ROUNDS
    )
    tables, values = measure_heads(plan)
    size = (
        f"{plan.rows:,} items with two float16 embeddings of {plan.dim} dimensions "
        f"({values['bytes'] / 1e6:,.0f} MB), {plan.config.bits} bits, batches of "
        f"{plan.config.batch_size}, {plan.rounds} rounds"
    )
    report = Report("training", size, tables, {"heads": values})
    if not options.quick:
        rounds = options.rounds or training_adapters.ROUNDS
        more, report.values["adapters"] = measure_adapters(rounds=rounds)
        report.tables += more
    return report
