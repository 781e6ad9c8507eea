"""The choice of the search engine: by size, wanted recall and hardware, with the reason.

Measured (docs/decisions/0009-search-engine.md): the exact engine takes 2 to 4 ns per row of 256
bits and core, inverted lists 0.2 to 0.5 ms at any size; below 200,000 rows the difference is not
worth an index.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref

from bittern.errors import LimitExceededError, PreconditionError
from bittern.index.engines.background_index import BackgroundIndex, Storage
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.search_engine import SearchEngine
from bittern.query import SearchOptions
from bittern.types import EngineStats

APPROXIMATE_FROM = 200_000
"""Fewer rows are always searched exactly: it takes no longer."""
GPU_FROM = 1_000_000
"""From this many rows on, a graphics card is used if there is one."""
_MOST_BITS = 1_024
_log = logging.getLogger(__name__)


class EngineChooser:
    """Chooses the engine of each search of an archive.

    Args:
        options: search options of the archive.
        storage: stores indexes; None for none.
    """

    def __init__(
        self, options: SearchOptions | None = None, storage: Storage | None = None
    ) -> None:
        self.options = options or SearchOptions()
        self._storage = storage
        self._indexes: dict[str, BackgroundIndex] = {}
        self._no_gpu: dict[str, str] = {}
        self._build_turn = threading.Lock()
        self._closed = False
        _open.add(self)

    def engine(self, name: str, blocks: CodeBlocks, recall: float | None = None) -> SearchEngine:
        """The engine for a search.

        Args:
            name: of these codes, the same in all generations.
            blocks: the codes of the generation to search.
            recall: wanted share of the true nearest; None for that of the options.
        """
        recall = self.options.recall if recall is None else recall
        if self._approximates(recall) and not self._why_exact(blocks) and not self._closed:
            self._index(name).bring_up_to_date(blocks)
        kind, _ = self._choice(name, blocks, recall)
        engine: SearchEngine | None = None
        if kind == "gpu":
            engine = self._on_gpu(name, blocks)
        elif kind == "ivf":
            engine = self._index(name).engine(blocks, recall)
        return engine or FlatEngine(blocks, self.options.threads)

    def stats(self, name: str, blocks: CodeBlocks) -> EngineStats:
        """The engine that searches these codes, and the reason."""
        kind, reason = self._choice(name, blocks, self.options.recall)
        index = self._index(name)
        return EngineStats(
            kind=kind,
            exact=kind in ("flat", "gpu"),
            reason=reason,
            rows=len(blocks),
            code_bytes=blocks.nbytes,
            other_bytes=blocks.nbytes_besides + index.nbytes,
            building=index.building,
        )

    def close(self) -> None:
        """Stop running builds, within a second or so, and start no new ones."""
        self._closed = True
        indexes = list(self._indexes.values())
        # All of them first: a build may be waiting for another one.
        for index in indexes:
            index.cancel()
        for index in indexes:
            index.close()

    @property
    def _may_approximate(self) -> bool:
        return self.options.engine in ("auto", "ivf")

    def _approximates(self, recall: float) -> bool:
        return recall < 1.0 and self._may_approximate

    def _choice(self, name: str, blocks: CodeBlocks, recall: float) -> tuple[str, str]:
        """The kind of engine, and the reason."""
        if not self._approximates(recall):
            return self._exact_choice(name, blocks)
        if why_exact := self._why_exact(blocks):
            return "flat", why_exact
        index = self._index(name)
        if not index.ready:
            return "flat", f"exact until there is an index: {index.why_none}"
        return "ivf", f"a recall of {recall:g} is wanted of {len(blocks):,} rows"

    def _why_exact(self, blocks: CodeBlocks) -> str:
        """Why an index is useless for these codes; empty if it is not."""
        if not len(blocks):
            return "there is nothing to search"
        if len(blocks) < APPROXIMATE_FROM and self.options.engine == "auto":
            return f"{len(blocks):,} rows are searched as fast without an index"
        if blocks.bits > _MOST_BITS:
            return f"an index takes codes of at most {_MOST_BITS} bits, not {blocks.bits}"
        return ""

    def _exact_choice(self, name: str, blocks: CodeBlocks) -> tuple[str, str]:
        exact = "exact: every code is compared"
        large = self.options.engine == "auto" and len(blocks) >= GPU_FROM
        if self.options.engine != "gpu" and not (large and _has_gpu()):
            return "flat", exact
        from bittern.index.engines.device_memory import available_device

        if available_device() is None:
            required = self.options.engine == "gpu"
            return "flat", f"{exact}; no graphics card can be used" if required else exact
        if no_gpu := self._no_gpu.get(name):
            return "flat", f"{exact}, on the CPU: {no_gpu}"
        return "gpu", f"{exact}, on the graphics card"

    def _on_gpu(self, name: str, blocks: CodeBlocks) -> SearchEngine | None:
        from bittern.index.engines.device_memory import available_device
        from bittern.index.engines.gpu import GpuEngine

        try:
            return GpuEngine(
                blocks,
                available_device() or "cuda",
                budget=self.options.gpu_memory,
                threads=self.options.threads,
            )
        except (PreconditionError, LimitExceededError) as error:
            self._no_gpu[name] = error.message
            _log.warning("%s is searched on the CPU: %s", name, error.message)
            return None

    def _index(self, name: str) -> BackgroundIndex:
        if name not in self._indexes:
            fresh = BackgroundIndex(name, self.options, self._storage, self._build_turn)
            self._indexes.setdefault(name, fresh)
        return self._indexes[name]


def _has_gpu() -> bool:
    """Whether Faiss finds a graphics card; PyTorch takes seconds to load."""
    import faiss

    return bool(faiss.get_num_gpus())


_open: weakref.WeakSet[EngineChooser] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End running builds: a thread inside Faiss must not outlive the interpreter."""
    for chooser in list(_open):
        chooser.close()
