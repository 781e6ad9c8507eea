"""Search on a GPU: time per batch, compared with Faiss's binary index on the same GPU.

The GPU's peak speed is measured, too: copies of memory, and matrix products in single precision. A
search that only read the codes once, or only multiplied, would have a share of 1. Without a GPU
nothing is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bittern.benchmarks.speed.codes import METRICS, Collection, clustered
from bittern.benchmarks.speed.harness import (
    Cell,
    Options,
    Report,
    Table,
    interleaved,
    say,
    seconds_of,
)
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.device_memory import DeviceMemory, available_device
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.gpu import DeviceScan, GpuEngine
from bittern.index.engines.queries import Queries

ROWS = (1_000_000, 10_000_000)
BITS = (64, 256)
BATCHES = (1, 8, 64, 512)
K = 100
_ROUNDS = 7
_CHECKED = 8


@dataclass(frozen=True)
class Card:
    """Peak speed of a device.

    Attributes:
        name: of the device.
        bytes_per_s: memory read and written by a copy.
        operations_per_s: multiplications and additions of a matrix product in float32.
    """

    name: str
    bytes_per_s: float
    operations_per_s: float


def run(options: Options) -> Report:
    """Measure, or report that there is no GPU."""
    device = available_device()
    if device is None:
        return Report("gpu", "no GPU here: nothing was measured")
    sizes = (options.rows,) if options.rows else ROWS
    return measure_gpu(device, sizes, options.bits or BITS, options.rounds or _ROUNDS)


def measure_gpu(
    device: str,
    sizes: Sequence[int],
    bits: Sequence[int],
    rounds: int,
    batches: Sequence[int] = BATCHES,
) -> Report:
    """Measure on a device of PyTorch's.

    Args:
        device: its name.
        sizes: numbers of codes.
        bits: their lengths.
        rounds: timed turns of each contestant.
        batches: queries in one call.
    """
    card = best_of(device)
    report = Report(
        "gpu",
        f"{card.name}: copies {card.bytes_per_s / 1e9:,.0f} GB/s, multiplies "
        f"{card.operations_per_s / 1e12:,.1f} TFLOP/s (float32); the {K} nearest",
        values={"card": card},
    )
    for rows in sizes:
        for length in bits:
            say(f"{rows:,} codes of {length} bits")
            _measure(clustered(rows, length, max(batches)), device, card, batches, rounds, report)
    return report


def best_of(device: str) -> Card:
    """Measure the peak speed of a device."""
    import torch

    chosen = torch.device(device)
    is_card = chosen.type == "cuda"
    much = torch.ones((1 << 26) if is_card else (1 << 22), device=chosen)
    side = 8_192 if is_card else 512
    square = torch.ones((side, side), device=chosen)

    def seconds(work: Callable[[], object]) -> float:
        def finished() -> None:
            work()
            if is_card:
                torch.cuda.synchronize(chosen)

        return float(np.median([seconds_of(finished) for _ in range(10)]))

    return Card(
        torch.cuda.get_device_name(chosen) if is_card else device,
        2 * much.numel() * 4 / seconds(much.clone),
        2 * side**3 / seconds(lambda: square @ square),
    )


def _measure(
    codes: Collection,
    device: str,
    card: Card,
    batches: Sequence[int],
    rounds: int,
    report: Report,
) -> None:
    blocks = CodeBlocks.of(codes.rows, codes.codes)
    engine = GpuEngine(blocks, memory=DeviceMemory(device, max(codes.codes.nbytes, 1)))
    right = _count_right(codes, engine, FlatEngine(blocks))
    faiss_search = _faiss_search(codes, device)
    lines: list[list[Cell]] = []
    seconds = {}
    for batch in batches:
        contestants = _contestants(codes, engine, batch)
        if faiss_search is not None:
            hard = codes.queries("hamming", batch)
            contestants["hamming, Faiss"] = lambda hard=hard: faiss_search(hard)  # type: ignore[misc]
        seconds[batch] = timed = interleaved(contestants, rounds=rounds)
        compared = batch * len(codes.codes)
        lines.append([f"{batch} queries"])
        for name, times in timed.seconds.items():
            took = float(np.median(times))
            read = codes.codes.nbytes / took / card.bytes_per_s
            multiplied = 2 * compared * codes.bits / took / card.operations_per_s
            rates = [batch / took, compared / took / 1e9, read, multiplied]
            lines.append([f"  {name}", timed.time(name, 1e3), *rates])
    formats = {"ms per batch": ".2f", "queries/s": ",.0f", "10⁹ codes/s": ",.2f"}
    table = Table(
        f"{len(codes.codes):,} codes of {codes.bits} bits",
        {"": "", **formats, "of memory": ".1%", "of matrices": ".1%"},
        lines,
        [
            f"{right} of {2 * min(_CHECKED, len(codes.logits))} results equal the CPU's bit "
            + ("for bit" if faiss_search else "for bit; Faiss finds no GPU"),
            "of memory, of matrices: share of the peak, as if codes were only read or multiplied",
        ],
    )
    report.add("sizes", table, right=right, seconds=seconds)


def _contestants(
    codes: Collection, engine: GpuEngine, batch: int
) -> dict[str, Callable[[], object]]:
    soft, hard = codes.queries("asymmetric", batch), codes.queries("hamming", batch)
    scan = DeviceScan(engine.memory)
    blocks = engine.blocks.selection().blocks
    return {
        "asymmetric": lambda: engine.search(soft, K),
        "asymmetric, candidates only": lambda: [scan(one, soft, 3 * K, None) for one in blocks],
        "hamming": lambda: engine.search(hard, K),
    }


def _count_right(codes: Collection, engine: GpuEngine, flat: FlatEngine) -> int:
    """How many of the first results equal the CPU's in rows, order and distances."""
    right = 0
    for metric in METRICS:
        queries = codes.queries(metric, _CHECKED)
        for found, wanted in zip(engine.search(queries, K), flat.search(queries, K), strict=True):
            right += bool(
                np.array_equal(found.rows, wanted.rows)
                and np.array_equal(found.distances, wanted.distances)
            )
    return right


def _faiss_search(collection: Collection, device: str) -> Callable[[Queries], object] | None:
    """Search by Faiss's exact binary index on the same GPU; None if Faiss finds none."""
    import faiss

    if not device.startswith("cuda") or faiss.get_num_gpus() == 0:
        return None
    resources: Any = faiss.StandardGpuResources()
    index: Any = faiss.GpuIndexBinaryFlat(resources, collection.bits)
    index.add(collection.codes)

    def search(queries: Queries) -> object:
        # Keep a reference to the resources: the index has none.
        return index.search(queries.codes, K), resources

    return search
