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
from numpy.typing import NDArray

from bittern.benchmarks.speed.codes import METRICS, Collection, clustered
from bittern.benchmarks.speed.harness import (
    Contestants,
    Options,
    Report,
    Rounds,
    Table,
    interleaved,
    say,
    seconds_of,
)
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.device_memory import DeviceMemory, available_device
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.gpu import DeviceScan, GpuEngine

ROWS = (1_000_000, 10_000_000)
BITS = (64, 256)
BATCHES = (1, 8, 64, 512)
K = 100
_ROUNDS = 7
_CHECKED = 8
FaissSearch = Callable[[NDArray[np.uint8]], object]
_HEADS = ("", "ms per batch", "queries/s", "codes/s", "of memory", "of matrices")


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
        values={"card": vars(card), "k": K},
    )
    for rows in sizes:
        for length in bits:
            say(f"{rows:,} codes of {length} bits")
            codes = clustered(rows, length, max(batches))
            report.add("sizes", *_measured(codes, device, card, batches, rounds))
    return report


def best_of(device: str) -> Card:
    """Measure the peak speed of a device."""
    import torch

    chosen = torch.device(device)
    is_card = chosen.type == "cuda"
    much = torch.ones((1 << 26) if is_card else (1 << 22), device=chosen)
    side = 8_192 if is_card else 512
    square = torch.ones((side, side), device=chosen)
    copy = _seconds(much.clone, chosen)
    product = _seconds(lambda: square @ square, chosen)
    return Card(
        torch.cuda.get_device_name(chosen) if is_card else device,
        2 * much.numel() * 4 / copy,
        2 * side**3 / product,
    )


def _seconds(work: Callable[[], object], device: Any, times: int = 10) -> float:
    import torch

    def finished() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return float(np.median([seconds_of(finished) for _ in range(times)]))


def _measured(
    codes: Collection, device: str, card: Card, batches: Sequence[int], rounds: int
) -> tuple[Table, dict[str, Any]]:
    blocks = CodeBlocks.of(codes.rows, codes.codes)
    memory = DeviceMemory(device, max(codes.codes.nbytes, 1))
    engine = GpuEngine(blocks, memory=memory)
    right = _is_right(codes, engine, FlatEngine(blocks))
    faiss_search = _faiss_search(codes, device)
    cells: list[list[str]] = []
    raw: dict[str, Any] = {}
    for batch in batches:
        contestants = _contestants(codes, engine, batch, faiss_search)
        timed = interleaved(contestants, rounds=rounds)
        cells += [[f"{batch} queries"], *_cells(timed, codes, batch, card), []]
        raw[str(batch)] = timed.to_json()
    table = Table(
        f"{len(codes.codes):,} codes of {codes.bits} bits",
        _HEADS,
        [row + [""] * (len(_HEADS) - len(row)) if row else row for row in cells[:-1]],
        [
            f"{right} of {2 * min(_CHECKED, len(codes.logits))} results equal the CPU's bit "
            + ("for bit" if faiss_search else "for bit; Faiss finds no GPU"),
            "of memory, of matrices: share of the peak, as if codes were only read or multiplied",
        ],
    )
    return table, {"rows": len(codes.codes), "bits": codes.bits, "right": right, "seconds": raw}


def _contestants(
    codes: Collection, engine: GpuEngine, batch: int, faiss_search: FaissSearch | None
) -> Contestants:
    soft, hard = codes.queries("asymmetric", batch), codes.queries("hamming", batch)
    scan = DeviceScan(engine.memory)
    blocks = engine.blocks.selection().blocks
    contestants: dict[str, Callable[[], object]] = {
        "asymmetric": lambda: engine.search(soft, K),
        "asymmetric, candidates only": lambda: [scan(one, soft, 3 * K, True) for one in blocks],
        "hamming": lambda: engine.search(hard, K),
    }
    if faiss_search is not None:
        contestants["hamming, Faiss"] = lambda: faiss_search(hard.codes)
    return contestants


def _cells(timed: Rounds, codes: Collection, batch: int, card: Card) -> list[list[str]]:
    rows = []
    for name, seconds in timed.seconds.items():
        took = float(np.median(seconds))
        compared = batch * len(codes.codes)
        rows.append(
            [
                f"  {name}",
                timed.time(name, 1e3).text(),
                f"{batch / took:,.0f}",
                f"{compared / took / 1e9:,.2f} G",
                f"{codes.codes.nbytes / took / card.bytes_per_s:.1%}",
                f"{2 * compared * codes.bits / took / card.operations_per_s:.1%}",
            ]
        )
    return rows


def _is_right(codes: Collection, engine: GpuEngine, flat: FlatEngine) -> int:
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


def _faiss_search(collection: Collection, device: str) -> FaissSearch | None:
    """Search by Faiss's exact binary index on the same GPU; None if Faiss finds none."""
    import faiss

    if not device.startswith("cuda") or faiss.get_num_gpus() == 0:
        return None
    resources: Any = faiss.StandardGpuResources()
    index: Any = faiss.GpuIndexBinaryFlat(resources, collection.bits)
    index.add(collection.codes)

    def search(codes: NDArray[np.uint8]) -> object:
        # Keep a reference to the resources: the index has none.
        return index.search(codes, K), resources

    return search
