"""A cache of codes on a graphics card, with a budget.

Several archives and models share a card. A block's codes are copied there when a search first
needs them. They stay until the block is deleted, or they are the least recently used and their
memory is needed. Blocks never change, so copies are never out of date, and generations that share a
block share its copy.

One search step uses the card at a time (two would not be faster). So no codes are evicted while
they are read, and working memory is needed only once.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bittern.errors import InvalidInputError, LimitExceededError, PreconditionError
from bittern.index.engines.blocks import Block

if TYPE_CHECKING:
    import torch

WORKSPACE = 256 << 20
"""About the most bytes of unpacked codes and products in a search step, and as many again of
candidates; not part of the budget."""
MOST_TILE_ROWS = 1 << 16
LEAST_TILE_ROWS = 1 << 10
_SHARE = 0.5
_WITHOUT_A_CARD = 1 << 30


def available_device() -> str | None:
    """``cuda`` if PyTorch can use a graphics card, else None."""
    import torch

    return "cuda" if torch.cuda.is_available() else None


@dataclass(frozen=True, slots=True)
class _Held:
    """One block's codes on the device."""

    block: weakref.ref[Block]
    codes: torch.Tensor


class DeviceMemory:
    """The codes on one device.

    Args:
        device: a PyTorch device, such as ``cuda``, ``cuda:1`` or ``cpu``.
        budget: most bytes of codes; None for half of the card's memory.

    Raises:
        PreconditionError: PyTorch cannot use the device.
        InvalidInputError: the budget is not above 0.
    """

    def __init__(self, device: str = "cuda", budget: int | None = None) -> None:
        self.device = _checked_device(device)
        self.budget = _checked_budget(
            _share_of(self.device) if budget is None else budget, self.device
        )
        self.tile_rows = MOST_TILE_ROWS
        self._lock = threading.Lock()
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._gone: deque[int] = deque()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of codes on the device."""
        return self._nbytes

    def __contains__(self, block: Block) -> bool:
        # A new block may have the id of a deleted one.
        held = self._held.get(id(block))
        return held is not None and held.block() is block

    def check_fits(self, nbytes: int) -> None:
        """Check that codes fit on the device together.

        Raises:
            LimitExceededError: they are larger than the budget (field ``device_memory``).
        """
        if nbytes > self.budget:
            raise LimitExceededError(
                f"{nbytes:,} bytes of codes do not fit in the {self.budget:,} bytes that codes "
                f"may take on {self.device}; raise the limit, or search on the CPU",
                field="device_memory",
                details={"nbytes": str(nbytes), "budget": str(self.budget)},
            )

    @contextmanager
    def using(self, block: Block) -> Iterator[torch.Tensor]:
        """A block's codes on the device, during the context; not to be nested.

        Other threads that need the device wait.

        Yields:
            uint8 [n, bits/8], not to be changed or stored.

        Raises:
            LimitExceededError: the block alone is larger than the budget.
            torch.OutOfMemoryError: the card has less memory than the budget.
        """
        self.check_fits(block.codes.nbytes)
        try:
            with self._lock:
                self._drop_gone()
                yield self._codes(block)
        finally:
            self._sweep()

    def smaller_tiles(self) -> int:
        """Halve the rows of one step, after the card ran out of memory.

        Returns:
            the number of rows from now on.
        """
        with self._lock:
            self.tile_rows = max(LEAST_TILE_ROWS, self.tile_rows // 2)
            return self.tile_rows

    def _codes(self, block: Block) -> torch.Tensor:
        if block in self:
            self._held.move_to_end(id(block))
            return self._held[id(block)].codes
        while self._held and self._nbytes + block.codes.nbytes > self.budget:
            self._drop(next(iter(self._held)))
        import torch

        # Copied, since PyTorch warns of read-only arrays.
        codes = torch.from_numpy(np.array(block.codes)).to(self.device)
        number = id(block)
        # The callback must not keep this object alive.
        made = weakref.ref(block, functools.partial(_block_deleted, weakref.ref(self), number))
        self._held[number] = _Held(made, codes)
        self._nbytes += block.codes.nbytes
        return codes

    def _drop(self, number: int) -> None:
        self._nbytes -= self._held.pop(number).codes.nbytes

    def _drop_gone(self) -> None:
        while self._gone:
            number = self._gone.popleft()
            if number in self._held:
                self._drop(number)

    def _sweep(self) -> None:
        """Free codes of deleted blocks, now or when the device is next released."""
        while self._gone and self._lock.acquire(blocking=False):
            try:
                self._drop_gone()
            finally:
                self._lock.release()


def _block_deleted(memory: weakref.ref[DeviceMemory], number: int, _: weakref.ref[Block]) -> None:
    """A block was deleted. Python may call this at any time, even while the lock is held."""
    cache = memory()
    if cache is not None:
        cache._gone.append(number)
        cache._sweep()


_shared: dict[str, DeviceMemory] = {}
_sharing = threading.Lock()


def shared_memory(device: str = "cuda", budget: int | None = None) -> DeviceMemory:
    """The memory of a device, shared by all archives of this process.

    Args:
        device: see `DeviceMemory`.
        budget: most bytes of codes; the last given one counts.

    Raises:
        PreconditionError: PyTorch cannot use the device.
        InvalidInputError: the budget is not above 0.
    """
    with _sharing:
        memory = _shared.get(device)
        if memory is None:
            fresh = DeviceMemory(device, budget)
            # "cuda" and "cuda:0" are one card.
            memory = _shared[device] = _shared.setdefault(str(fresh.device), fresh)
        if budget is not None:
            memory.budget = _checked_budget(budget, memory.device)
        return memory


def _checked_budget(budget: int, device: torch.device) -> int:
    if budget <= 0:
        raise InvalidInputError(
            f"the budget of codes on {device} must be above 0 bytes, not {budget}", field="budget"
        )
    return budget


def _checked_device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise PreconditionError(f"PyTorch knows no device '{name}'", field="device") from error
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise PreconditionError(
            f"there is no graphics card that PyTorch {torch.__version__} can use as '{name}'; "
            "search on the CPU, or check the driver",
            field="device",
        )
    number = torch.cuda.current_device() if device.index is None else device.index
    if number >= torch.cuda.device_count():
        raise PreconditionError(
            f"there is no device '{name}': there are {torch.cuda.device_count()} graphics cards",
            field="device",
        )
    return torch.device("cuda", number)


def _share_of(device: torch.device) -> int:
    if device.type != "cuda":
        return _WITHOUT_A_CARD
    import torch

    return int(_SHARE * torch.cuda.get_device_properties(device).total_memory)
