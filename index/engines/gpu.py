"""Exact search on a graphics card.

The card finds candidates by matrix products with a bounded error. The CPU scores them exactly and
proves that none is missing, as in `flat`. So the card changes the speed, not the hits.

The inner products of all queries with a tile of unpacked codes are one matrix product. It is
exact: a query's weights become whole numbers of at most 255, so every partial sum is a whole number
below 2**24, which single precision represents. The products are equal to the last bit in any order
of summation, and in TF32 or bfloat16 (both represent 255); PyTorch's precision settings do not
matter. The only error is the rounding of the weights, which is bounded.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bittern.errors import LimitExceededError
from bittern.index.engines.blocks import BlockSelection, CodeBlocks
from bittern.index.engines.device_memory import (
    LEAST_TILE_ROWS,
    WORKSPACE,
    DeviceMemory,
    shared_memory,
)
from bittern.index.engines.flat import Bound, FlatEngine, scan, search_selection
from bittern.index.engines.queries import Queries
from bittern.index.engines.scans import Candidates
from bittern.index.engines.search_engine import Nearest, RowSet

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

LEAST_ROWS = 2_048
"""Fewer allowed rows of a block are faster to scan on the CPU."""
_STEPS = 255
"""Largest whole number for a weight: bfloat16 has eight binary digits."""
_GATHER_SHARE = 0.25
"""Up to this share of a block, the allowed rows are gathered, and only they are scanned."""
_HALF_MOST_BITS = 2_048
"""Half precision represents whole numbers up to this, so sums of 1 and -1 over as many bits."""
MOST_NEAREST = 16_384
"""Largest k: the card holds the nearest of all queries of a step."""
_QUERIES_AT_ONCE = 512
"""Queries that are scanned together share the unpacking of the codes."""
_BYTES_PER_NEAREST = 96
"""Per nearest row on the card: about three candidates, their positions, and copies."""


class GpuEngine:
    """Exact nearest neighbours on a graphics card, the same to the last bit as `FlatEngine`'s.

    Args:
        blocks: the codes of one generation.
        device: a PyTorch device.
        budget: most bytes of codes on it, including those of other archives; None for the last
            given budget, or half of the card's memory.
        memory: holds the codes; None for the one that this process shares.
        threads: the most threads that score candidates; None for one per usable core.
        least_rows: fewer rows of a block are scanned on the CPU.

    Raises:
        PreconditionError: PyTorch cannot use the device.
        LimitExceededError: the codes are larger than the budget (field ``device_memory``).
    """

    kind = "gpu"
    exact = True

    def __init__(
        self,
        blocks: CodeBlocks,
        device: str = "cuda",
        *,
        budget: int | None = None,
        memory: DeviceMemory | None = None,
        threads: int | None = None,
        least_rows: int = LEAST_ROWS,
    ) -> None:
        self.blocks = blocks
        self.memory = memory or shared_memory(device, budget)
        self.memory.check_fits(blocks.nbytes)
        self._threads = threads
        self._flat = FlatEngine(blocks, threads)
        self._scan = DeviceScan(self.memory, least_rows)

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.search`.

        If the device runs out of memory, the search runs on the CPU.

        Raises:
            CodeError: the queries are of another code length.
            LimitExceededError: k is above `MOST_NEAREST`.
        """
        import torch

        queries.check_fits(self.blocks.bits)
        if k > MOST_NEAREST:
            raise LimitExceededError(
                f"a graphics card finds up to {MOST_NEAREST:,} nearest, not {k:,}; "
                "search for fewer, or on the CPU",
                field="k",
                details={"k": str(k), "limit": str(MOST_NEAREST)},
            )
        selection = self.blocks.selection(rows)
        try:
            return search_selection(
                queries, k, selection, self._scan, self._threads, at_once=_at_once(k)
            )
        except torch.OutOfMemoryError as error:
            _log.warning(
                "%s is out of memory, so this search runs on the CPU; tiles of %d rows from now "
                "on (%s)",
                self.memory.device,
                self.memory.smaller_tiles(),
                str(error).partition("\n")[0],
            )
        # Not in the handler, in which the error still holds memory of the device.
        return self._flat.search(queries, k, rows)


def _at_once(k: int) -> int:
    """Number of queries to scan together: as many as fit in the workspace."""
    return max(1, min(_QUERIES_AT_ONCE, WORKSPACE // (_BYTES_PER_NEAREST * max(k, 1))))


# Scanning on the device


@dataclass(frozen=True, slots=True)
class WholeWeights:
    """Weights of queries as whole numbers.

    A distance is ``base - scale * product``, up to `error`, with the product of the whole numbers
    and a code's bits. The rounding errors of the weights, summed over a code's bits, lie between
    the sum of the negative and that of the positive ones: the middle of this interval is added to
    the base, and half of its width is the error.

    Attributes:
        numbers: float32 [q, bits], whole numbers from -255 to 255.
        scales: float64 [q].
        bases: float64 [q].
        errors: float64 [q], bound of the error of a distance, in bits.
    """

    numbers: NDArray[np.float32]
    scales: NDArray[np.float64]
    bases: NDArray[np.float64]
    errors: NDArray[np.float64]

    @classmethod
    def of(cls, queries: Queries) -> WholeWeights:
        """Of queries with at least one weight that is not zero."""
        w = queries.weights
        bases = ((1.0 + w) / 2.0).sum(axis=1)
        if queries.metric == "hamming":
            return cls(w.astype(np.float32), np.ones(len(w)), bases, np.zeros(len(w)))
        largest = np.abs(w).max(axis=1)
        numbers = np.rint(w / largest[:, None] * _STEPS)
        scales = largest / _STEPS
        left = w - numbers * scales[:, None]
        # Rounding of sums in double precision, here and in the exact distance.
        slack = np.finfo(np.float64).eps * (queries.bits + 16)
        slack = slack * (queries.bits + np.abs(w).sum(axis=1))
        return cls(
            numbers.astype(np.float32),
            scales,
            bases - left.sum(axis=1) / 2.0,
            np.abs(left).sum(axis=1) / 2.0 + slack,
        )

    def candidates(
        self,
        query: int,
        products: NDArray[np.float64],
        positions: NDArray[np.int64],
        complete: bool,
    ) -> Candidates:
        """One query's candidates from the largest products; `complete` if these are all."""
        distances = self.bases[query] - self.scales[query] * products
        error = float(self.errors[query])
        floor = np.inf if complete else float(distances.max()) - error
        return Candidates(positions, distances, error, floor)


class DeviceScan:
    """Finds candidates of a block by a scan on the device.

    Args:
        memory: holds the codes.
        least_rows: fewer allowed rows are scanned on the CPU.
    """

    def __init__(self, memory: DeviceMemory, least_rows: int = LEAST_ROWS) -> None:
        self._memory = memory
        self._least_rows = least_rows

    def __call__(
        self, selected: BlockSelection, queries: Queries, count: int, bound: Bound | None
    ) -> list[Candidates]:
        """See `flat.scan`."""
        if selected.count < self._least_rows:
            return scan(selected, queries, count, bound)
        whole = WholeWeights.of(queries)
        count = min(count, selected.count)
        products, positions = self._on_device(selected, whole.numbers, _halves_do(queries), count)
        complete = count == selected.count
        return [
            whole.candidates(query, products[query], positions[query], complete)
            for query in range(len(queries))
        ]

    def _on_device(
        self, selected: BlockSelection, numbers: NDArray[np.float32], halves_do: bool, count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The `count` largest products of each query, and their positions in the block."""
        import torch

        device = self._memory.device
        half = halves_do and device.type == "cuda"
        with (
            self._memory.using(selected.block) as codes,
            torch.autocast(device.type, enabled=False),
        ):
            weights = torch.from_numpy(numbers).to(device, torch.float16 if half else torch.float32)
            products, positions = _largest(codes, selected, weights, count, self._memory.tile_rows)
            # Copying to the CPU waits until the device is done.
            return products.cpu().double().numpy(), positions.cpu().numpy()


def _halves_do(queries: Queries) -> bool:
    """Whether half precision adds up the products exactly, in any order."""
    return queries.metric == "hamming" and queries.bits <= _HALF_MOST_BITS


def _largest(
    codes: torch.Tensor, selected: BlockSelection, numbers: torch.Tensor, count: int, tile_rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest products among the allowed rows and their positions: [q, count] each."""
    import torch

    chosen, allowed = None, None
    if selected.mask is not None and selected.count <= _GATHER_SHARE * len(codes):
        chosen = torch.from_numpy(selected.positions).to(codes.device)
        codes = codes.index_select(0, chosen)
    elif selected.bitmap is not None:
        allowed = torch.from_numpy(selected.bitmap).to(codes.device)
    bits_of, flags_of = _bits_of_bytes(numbers.dtype, codes.device)
    rows = _tile_rows(tile_rows, numbers)
    products = numbers.new_empty((len(numbers), 0))
    positions = torch.empty((len(numbers), 0), dtype=torch.int64, device=codes.device)
    for start in range(0, len(codes), rows):
        tile = codes[start : start + rows]
        bits = bits_of.index_select(0, tile.reshape(-1).int()).view(len(tile), -1)
        tile_products = numbers @ bits.T
        if allowed is not None:
            # A tile begins at a whole byte of the bitmap.
            bytes_ = allowed[start // 8 : -(-(start + len(tile)) // 8)]
            flags = flags_of.index_select(0, bytes_.int()).view(-1)[: len(tile)]
            tile_products.masked_fill_(~flags, -torch.inf)
        tile_products, at = tile_products.topk(min(count, len(tile)), sorted=False)
        products, positions = (
            torch.cat([products, tile_products], 1),
            torch.cat([positions, at + start], 1),
        )
        if products.shape[1] > count:
            products, kept = products.topk(count, sorted=False)
            positions = positions.gather(1, kept)
    return products, positions if chosen is None else chosen[positions]


def _tile_rows(most: int, numbers: torch.Tensor) -> int:
    """As many rows as fit in the workspace, a power of two."""
    queries, bits = numbers.shape
    # Bytes as indices, bits, products; and what choosing among the products takes.
    per_row = bits // 2 + bits * numbers.element_size() + queries * (numbers.element_size() + 24)
    fit = 1 << ((WORKSPACE // per_row).bit_length() - 1)
    return max(LEAST_TILE_ROWS, min(most, fit))


def _bits_of_bytes(dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Every byte's bits, low bit first: [256, 8] as numbers and as truth values."""
    import torch

    table = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    flags = torch.from_numpy(table).to(device)
    return flags.to(dtype), flags.bool()
