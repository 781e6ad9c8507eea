"""Search on a graphics card: time per batch, against Faiss's binary index on the same card.

Nothing is measured where there is no card. What a card could do at best is measured too: how
fast it copies memory, and how fast it multiplies matrices in single precision. A search that
did nothing but read the codes once, or nothing but multiply, would take a share of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.report import Report, Table, say
from bittern.benchmarks.speed.search.codes import METRICS, Collection, clustered
from bittern.benchmarks.speed.timing import Contestants, Rounds, interleaved
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.device_memory import DeviceMemory, available_device
from bittern.index.engines.device_scans import DeviceScan
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.gpu import GpuEngine

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
    """What a device does at best.

    Attributes:
        name: as its maker calls it.
        bytes_per_s: memory read and written by a copy.
        operations_per_s: multiplications and additions of a matrix product in float32.
    """

    name: str
    bytes_per_s: float
    operations_per_s: float


def run(
    rows: int | None = None,
    bits: Sequence[int] | None = None,
    rounds: int | None = None,
    *,
    batches: Sequence[int] = BATCHES,
    device: str | None = None,
) -> Report:
    """Measure, or say that there is no card.

    Args:
        rows: codes; None for two sizes.
        bits: code lengths; None for two.
        rounds: timed turns of each contestant.
        batches: queries that are asked together.
        device: a PyTorch device; None for the card, if there is one.
    """
    device = device or available_device()
    if device is None:
        return Report("gpu", "no GPU here: nothing was measured", [])
    card = best_of(device)
    tables, values = [], []
    for size in (rows,) if rows else ROWS:
        for length in bits or BITS:
            say(f"{size:,} codes of {length} bits")
            table, measured = _measured(
                clustered(size, length, max(batches)), device, card, batches, rounds or _ROUNDS
            )
            tables.append(table)
            values.append(measured)
    return Report(
        "gpu",
        f"{card.name}: copies {card.bytes_per_s / 1e9:,.0f} GB/s, multiplies "
        f"{card.operations_per_s / 1e12:,.1f} TFLOP/s (float32); the {K} nearest",
        tables,
        {"card": vars(card), "k": K, "sizes": values},
    )


def best_of(device: str) -> Card:
    """Measure what a device does at best."""
    import torch

    there = torch.device(device)
    is_card = there.type == "cuda"
    much = torch.ones((1 << 26) if is_card else (1 << 22), device=there)
    side = 8_192 if is_card else 512
    square = torch.ones((side, side), device=there)
    copy = _seconds(much.clone, there)
    product = _seconds(lambda: square @ square, there)
    return Card(
        torch.cuda.get_device_name(there) if is_card else device,
        2 * much.numel() * 4 / copy,
        2 * side**3 / product,
    )


def _seconds(work: Callable[[], object], device: Any, times: int = 10) -> float:
    import torch

    taken = []
    for _ in range(times):
        begun = perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(perf_counter() - begun)
    return float(np.median(taken))


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
            f"{right} of {2 * min(_CHECKED, len(codes.logits))} answers are the CPU's to the "
            + ("last bit" if faiss_search else "last bit; Faiss sees no card"),
            "of memory, of matrices: share of the best, as if codes were only read or multiplied",
        ],
    )
    return table, {"rows": len(codes.codes), "bits": codes.bits, "right": right, "seconds": raw}


def _contestants(
    codes: Collection, engine: GpuEngine, batch: int, faiss_search: FaissSearch | None
) -> Contestants:
    soft, hard = codes.queries("asymmetric", batch), codes.queries("hamming", batch)
    scan = DeviceScan(engine.memory)
    parts = engine.blocks.selection().blocks
    contestants: dict[str, Callable[[], object]] = {
        "asymmetric": lambda: engine.search(soft, K),
        "asymmetric, candidates only": lambda: [scan(part, soft, 3 * K, True) for part in parts],
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
    """How many of the first answers are those of the CPU, order and distances included."""
    right = 0
    for metric in METRICS:
        queries = codes.queries(metric, _CHECKED)
        for found, wanted in zip(engine.search(queries, K), flat.search(queries, K), strict=True):
            right += bool(
                np.array_equal(found.rows, wanted.rows)
                and np.array_equal(found.distances, wanted.distances)
            )
    return right


def _faiss_search(codes: Collection, device: str) -> FaissSearch | None:
    """Search by Faiss's exact binary index on the same card; None where Faiss sees none."""
    import faiss

    if not device.startswith("cuda") or faiss.get_num_gpus() == 0:
        return None
    resources: Any = faiss.StandardGpuResources()
    index: Any = faiss.GpuIndexBinaryFlat(resources, codes.bits)
    index.add(codes.codes)

    def search(asked: NDArray[np.uint8]) -> object:
        # The index does not keep its resources alive.
        return index.search(asked, K), resources

    return search
