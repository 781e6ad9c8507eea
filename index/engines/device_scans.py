"""Scans of one block of codes on a device: matrix products that are exact in any order.

The inner products of all queries with a tile of unpacked codes are one matrix product. It is
made exact rather than precise: a query's weights become whole numbers of at most 255, so
that every partial sum is a whole number below 2**24, which single precision holds exactly.
Whatever order a library adds in, and whether it shortens the factors to TF32 or bfloat16
(both hold 255), the products are the same to the last bit; PyTorch's settings for precision
need not be touched. What is lost is the rounding of the weights, and that is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines import planning
from bittern.index.engines.blocks import BlockSelection
from bittern.index.engines.device_memory import LEAST_TILE_ROWS, WORKSPACE, DeviceMemory
from bittern.index.engines.queries import Queries
from bittern.index.engines.scans import Candidates

if TYPE_CHECKING:
    import torch

LEAST_ROWS = 2_048
"""So few rows that may be found in a block are sooner scanned on the CPU."""
_STEPS = 255
"""Largest whole number in place of a weight: bfloat16 holds eight binary digits."""
_GATHER_SHARE = 0.25
"""Up to this share of a block, the rows that may be found are gathered, and only they scanned."""
_HALF_MOST_BITS = 2_048
"""Half precision holds whole numbers up to this: enough for sums of 1 and -1 over so many bits."""


@dataclass(frozen=True, slots=True)
class WholeWeights:
    """Weights of queries as whole numbers.

    A distance is ``base - scale * product`` with the product of the whole numbers and a code's
    bits, up to `error`. What rounding leaves of the weights adds up, over the bits of a code,
    to something between the sum of its negative and that of its positive parts: its middle
    belongs to the base, and half of its width is the error.

    Attributes:
        numbers: float32 [q, bits], whole numbers from -255 to 255.
        scales: float64 [q].
        bases: float64 [q].
        errors: float64 [q], most that a distance is off, in bits.
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
            # All of it is whole already.
            nothing = np.zeros(len(w))
            return cls(w.astype(np.float32), np.ones(len(w)), bases, nothing)
        largest = np.abs(w).max(axis=1)
        numbers = np.rint(w / largest[:, None] * _STEPS)
        scales = largest / _STEPS
        left = w - numbers * scales[:, None]
        # Double precision adds in some order, here and in the exact distance.
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
        places: NDArray[np.int64],
        complete: bool,
    ) -> Candidates:
        """One query's candidates from the largest products; `complete` if there are no others."""
        distances = self.bases[query] - self.scales[query] * products
        error = float(self.errors[query])
        floor = np.inf if complete else float(distances.max()) - error
        return Candidates(places, distances, error, floor)


class DeviceScan:
    """Names the nearest codes of a block by a scan on the device.

    Args:
        memory: where the codes are put.
        least_rows: fewer rows that may be found are scanned on the CPU.
    """

    def __init__(self, memory: DeviceMemory, least_rows: int = LEAST_ROWS) -> None:
        self._memory = memory
        self._least_rows = least_rows

    def __call__(
        self, part: BlockSelection, queries: Queries, count: int, hopeful: bool
    ) -> list[Candidates]:
        """See `planning.scan`."""
        if part.count < self._least_rows:
            return planning.scan(part, queries, count, hopeful)
        whole = WholeWeights.of(queries)
        count = min(count, part.count)
        products, places = self._on_device(part, whole.numbers, _halves_do(queries), count)
        complete = count == part.count
        return [
            whole.candidates(query, products[query], places[query], complete)
            for query in range(len(queries))
        ]

    def _on_device(
        self, part: BlockSelection, numbers: NDArray[np.float32], halves_do: bool, count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The `count` largest products of each query, and their places in the block."""
        import torch

        device = self._memory.device
        half = halves_do and device.type == "cuda"
        with self._memory.using(part.block) as codes, torch.autocast(device.type, enabled=False):
            there = torch.from_numpy(numbers).to(device, torch.float16 if half else torch.float32)
            products, places = _largest(codes, part, there, count, self._memory.tile_rows)
            # Fetching waits for the device: the next one finds it idle, and its memory free.
            return products.cpu().double().numpy(), places.cpu().numpy()


def _halves_do(queries: Queries) -> bool:
    """Whether half precision adds up the products exactly, in any order."""
    return queries.metric == "hamming" and queries.bits <= _HALF_MOST_BITS


def _largest(
    codes: torch.Tensor, part: BlockSelection, numbers: torch.Tensor, count: int, tile_rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest products among what may be found, in any order.

    Args:
        codes: the block's, uint8 [n, bits/8] on the device.
        part: what may be found of it.
        numbers: whole weights, [q, bits] on the device.
        count: how many products per query, at most as many as may be found.
        tile_rows: most rows that are looked at together.

    Returns:
        products [q, count] in the precision of `numbers`, and places int64 [q, count].
    """
    import torch

    chosen, allowed = None, None
    if part.mask is not None and part.count <= _GATHER_SHARE * len(codes):
        chosen = torch.from_numpy(part.places).to(codes.device)
        codes = codes.index_select(0, chosen)
    elif part.bitmap is not None:
        allowed = torch.from_numpy(part.bitmap).to(codes.device)
    bits_of, flags_of = _bits_of_bytes(numbers.dtype, codes.device)
    rows = _tile_rows(tile_rows, numbers)
    products = numbers.new_empty((len(numbers), 0))
    places = torch.empty((len(numbers), 0), dtype=torch.int64, device=codes.device)
    for start in range(0, len(codes), rows):
        tile = codes[start : start + rows]
        bits = bits_of.index_select(0, tile.reshape(-1).int()).view(len(tile), -1)
        here = numbers @ bits.T
        if allowed is not None:
            # A tile begins at a whole byte of the bitmap.
            some = allowed[start // 8 : -(-(start + len(tile)) // 8)]
            flags = flags_of.index_select(0, some.int()).view(-1)[: len(tile)]
            here.masked_fill_(~flags, -torch.inf)
        here, at = here.topk(min(count, len(tile)), sorted=False)
        products, places = torch.cat([products, here], 1), torch.cat([places, at + start], 1)
        if products.shape[1] > count:
            products, kept = products.topk(count, sorted=False)
            places = places.gather(1, kept)
    return products, places if chosen is None else chosen[places]


def _tile_rows(most: int, numbers: torch.Tensor) -> int:
    """As many rows as the workspace holds, a power of two."""
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
