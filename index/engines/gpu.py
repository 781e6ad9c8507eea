"""Exact search on a graphics card.

The card names candidates by matrix products whose error is known (`device_scans`); they are
scored exactly on the CPU, and proven to be all that matter as `flat` does it. So the card
decides how fast an answer comes, never what it is.
"""

from __future__ import annotations

import logging

from bittern.errors import BitternError, LimitExceededError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.device_memory import WORKSPACE, DeviceMemory, shared_memory
from bittern.index.engines.device_scans import LEAST_ROWS, DeviceScan
from bittern.index.engines.flat import FlatEngine, search_selection
from bittern.index.engines.nearest import Nearest
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowSet

_log = logging.getLogger(__name__)

MOST_NEAREST = 16_384
"""Largest k: the nearest are kept on the card, for all queries of a step together."""
_QUERIES_AT_ONCE = 512
"""Queries that are scanned together share the unpacking of the codes."""
_BYTES_PER_NEAREST = 96
"""What keeping one nearest takes on the card: some three candidates, their places, and copies."""
_told: set[str] = set()


def unavailable(blocks: CodeBlocks, budget: int | None = None, device: str = "cuda") -> str:
    """Why these codes cannot be searched on a graphics card; empty where they can.

    Logged when it is first found out.

    Args:
        blocks: the codes of one generation.
        budget: see `GpuEngine`.
        device: a PyTorch device.
    """
    try:
        shared_memory(device, budget).check_fits(blocks.nbytes)
    except BitternError as error:
        if error.reason not in _told:
            _told.add(error.reason)
            _log.warning("searching on the CPU: %s", error.message)
        return error.message
    return ""


class GpuEngine:
    """Exact nearest neighbours on a graphics card, the same to the last bit as `FlatEngine`'s.

    Args:
        blocks: the codes of one generation.
        device: a PyTorch device.
        budget: most bytes that codes may take there, those of other archives included; None
            for what was stated before, or half of the card's memory.
        memory: where the codes are put; None for the one that this process shares.
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

    @property
    def nbytes(self) -> int:
        """Bytes that it holds besides the codes, those on the device included."""
        there = (block.codes.nbytes for block in self.blocks.blocks if block in self.memory)
        return self._flat.nbytes + sum(there)

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.search`.

        A search for which the device runs out of memory is answered on the CPU.

        Raises:
            CodeError: the queries are of another code length.
            LimitExceededError: k is above `MOST_NEAREST`.
        """
        import torch

        queries.check_fits(self.blocks.bits)
        if k > MOST_NEAREST:
            raise LimitExceededError(
                f"a graphics card finds up to {MOST_NEAREST:,} nearest, not {k:,}; "
                "ask for fewer, or search on the CPU",
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
        # Not inside the handler: until that is left, the error keeps the device's memory in use.
        return self._flat.search(queries, k, rows)

    def within(self, queries: Queries, radius: float, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.within`; done on the CPU."""
        return self._flat.within(queries, radius, rows)


def _at_once(k: int) -> int:
    """How many queries are scanned together: as many as the workspace has room for."""
    return max(1, min(_QUERIES_AT_ONCE, WORKSPACE // (_BYTES_PER_NEAREST * max(k, 1))))
