"""The choice of the search engine: by size, wanted recall and hardware, with the reason.

Measured (docs/decisions/0009-search-engine.md): the exact engine takes 2 to 4 ns per row of 256
bits and core, inverted lists 0.2 to 0.5 ms at any size; below 200,000 rows the difference is not
worth an index.

An approximate index is built or updated in the background; until it is ready, search is exact.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError, LimitExceededError, PreconditionError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.inverted_lists import InvertedLists
from bittern.index.engines.ivf import Coverage, IvfEngine
from bittern.index.engines.search_engine import SearchEngine
from bittern.index.engines.threads import usable_cores
from bittern.query import SearchOptions
from bittern.types import EngineStats

APPROXIMATE_FROM = 200_000
"""Fewer rows are always searched exactly: it takes no longer."""
GPU_FROM = 1_000_000
"""From this many rows on, a graphics card is used if there is one."""
_MOST_UNKNOWN = 0.1
_MOST_DEAD = 0.3
_MOST_GROWN = 2.0
_MOST_BITS = 1_024
_RETRY_AFTER_S = 600.0
_log = logging.getLogger(__name__)


class Storage(Protocol):
    """Stores derived arrays permanently."""

    def read(self, name: str) -> Mapping[str, NDArray[Any]] | None:
        """The arrays of that name; None if there are no usable ones."""
        ...

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store arrays under a name; a failure costs speed only."""
        ...


@dataclass
class _Index:
    """The index over the codes of one model and modality, and its state.

    Attributes:
        lists: the index, once it is built.
        coverage: the rows of the newest generation in it.
        building: describes a running build, or empty.
        failed: why the last build failed, or empty.
        failed_at: when that was, by the monotonic clock.
        live: allowed rows when the index was built.
        no_gpu: why the graphics card is not used, or empty.
        looked_up: whether a stored index was looked for.
    """

    lists: InvertedLists | None = None
    coverage: Coverage | None = None
    building: str = ""
    failed: str = ""
    failed_at: float = 0.0
    live: int = 0
    no_gpu: str = ""
    looked_up: bool = False


class Engines:
    """The engines of one archive.

    Args:
        options: search options of the archive.
        storage: stores indexes; None for none.
    """

    def __init__(
        self, options: SearchOptions | None = None, storage: Storage | None = None
    ) -> None:
        self.options = options or SearchOptions()
        self._storage = storage
        self._indexes: dict[str, _Index] = {}
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._builders: set[threading.Thread] = set()
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
        kind, _ = self._choice(name, blocks, recall)
        threads = self.options.threads
        if kind == "gpu":
            return self._on_gpu(name, blocks) or FlatEngine(blocks, threads)
        index = self._index(name)
        with self._lock:
            if kind == "flat" or index.lists is None:
                return FlatEngine(blocks, threads)
            coverage = _coverage(index, index.lists, blocks)
            return IvfEngine(index.lists, blocks, recall=recall, threads=threads, coverage=coverage)

    def stats(self, name: str, blocks: CodeBlocks) -> EngineStats:
        """The engine that searches these codes, and the reason."""
        kind, reason = self._choice(name, blocks, self.options.recall, build=False)
        with self._lock:
            index = self._index(name)
            index_bytes = index.lists.nbytes if index.lists else 0
            return EngineStats(
                kind=kind,
                exact=kind in ("flat", "gpu"),
                reason=reason,
                rows=len(blocks),
                code_bytes=blocks.nbytes,
                other_bytes=blocks.nbytes_besides + index_bytes,
                building=index.building,
            )

    def prepare(self, name: str, blocks: CodeBlocks) -> None:
        """Build the approximate index of these codes now, if the options allow one.

        Raises:
            BitternError: it cannot be built.
        """
        if not self._may_approximate or self._why_exact(blocks):
            return
        index = self._index(name)
        with self._building:
            up_to_date = index.lists is not None and not _outdated(
                _coverage(index, index.lists, blocks), index.live
            )
        if not up_to_date:
            self._build(name, blocks)
            if index.failed:
                raise ArchiveDamagedError(index.failed)

    def close(self) -> None:
        """Stop running builds, within a second or so, and start no new ones."""
        self._closed = True
        with self._lock:
            builders = list(self._builders)
        for builder in builders:
            builder.join()
        with self._lock:
            self._indexes.clear()

    # Choosing

    @property
    def _may_approximate(self) -> bool:
        return self.options.engine in ("auto", "ivf")

    def _choice(
        self, name: str, blocks: CodeBlocks, recall: float, *, build: bool = True
    ) -> tuple[str, str]:
        """The kind of engine, and the reason."""
        if recall >= 1.0 or not self._may_approximate:
            return self._exact_choice(name, blocks)
        if why_exact := self._why_exact(blocks):
            return "flat", why_exact
        index = self._index(name)
        if build:
            self._bring_up_to_date(name, blocks)
        if index.lists is None:
            return "flat", f"exact until there is an index: {self._why_none(index)}"
        return "ivf", f"a recall of {recall:g} is wanted of {len(blocks):,} rows"

    def _why_none(self, index: _Index) -> str:
        """Why there is no index now."""
        if index.failed or index.building:
            return index.failed or "it is being built"
        if self.options.build:
            return "it is built at the first search that can use it"
        return "a server builds one (`bittern serve --recall 0.95`)"

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
        if no_gpu := self._index(name).no_gpu:
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
            self._index(name).no_gpu = error.message
            _log.warning("%s is searched on the CPU: %s", name, error.message)
            return None

    def _index(self, name: str) -> _Index:
        return self._indexes.setdefault(name, _Index())

    # Building

    def _bring_up_to_date(self, name: str, blocks: CodeBlocks) -> None:
        """Start to build an index, unless the current one is up to date or one is being built."""
        with self._lock:
            index = self._index(name)
            failed_recently = index.failed and monotonic() - index.failed_at < _RETRY_AFTER_S
            if index.building or failed_recently or self._closed:
                return
            if index.lists is not None:
                if not _outdated(_coverage(index, index.lists, blocks), index.live):
                    return
            elif not self.options.build and (index.looked_up or self._storage is None):
                return
            index.building = f"ivf over {len(blocks):,} rows"
        if not self.options.build:
            self._build(name, blocks, rebuild=False)
            return
        builder = threading.Thread(
            target=self._build, args=(name, blocks), name="bittern-build", daemon=True
        )
        with self._lock:
            self._builders.add(builder)
        builder.start()

    def _build(self, name: str, blocks: CodeBlocks, *, rebuild: bool = True) -> None:
        """Use the stored index, or build one if `rebuild`; one at a time."""
        index = self._index(name)
        begun = monotonic()
        try:
            with self._building:
                self._check()
                lists = self._built(name, blocks, index, rebuild)
                with self._lock:
                    index.lists, index.coverage, index.failed = lists, None, ""
                    index.live = _coverage(index, lists, blocks).of(None).known.count
            _log.info("%s: lists of %d rows after %.1f s", name, len(blocks), monotonic() - begun)
        except _NotBuiltError as reason:
            _log.debug("%s: %s", name, reason)
        except Exception as error:  # searches work without an index
            index.failed, index.failed_at = f"no index could be built: {error}", monotonic()
            _log.warning("%s: %s; searches stay exact", name, index.failed)
        finally:
            with self._lock:
                index.building = ""
                self._builders.discard(threading.current_thread())

    def _check(self) -> None:
        """Raise once the archive is closed."""
        if self._closed:
            raise _NotBuiltError("the archive was closed")

    def _built(self, name: str, blocks: CodeBlocks, index: _Index, rebuild: bool) -> InvertedLists:
        stored_name = f"{name}-ivf"
        if index.lists is None and not index.looked_up:
            index.looked_up = True
            if (stored := self._read(stored_name, blocks)) is not None:
                return stored
        if not rebuild:
            raise _NotBuiltError("no index is stored, and the options allow no build")
        threads = max(1, (self.options.threads or usable_cores()) // 2)
        before = index.lists
        if before is not None and len(blocks) < _MOST_GROWN * len(before.base):
            lists = before.extended(blocks, threads=threads, check=self._check)
        else:
            lists = InvertedLists.build(blocks, threads=threads, check=self._check)
        if self._storage is not None:
            self._storage.write(stored_name, lists.arrays())
        return lists

    def _read(self, stored_name: str, blocks: CodeBlocks) -> InvertedLists | None:
        if self._storage is None or (arrays := self._storage.read(stored_name)) is None:
            return None
        try:
            return InvertedLists.restored(blocks, arrays)
        except ArchiveDamagedError as error:
            _log.warning("%s is built again: %s", stored_name, error)
            return None


def _has_gpu() -> bool:
    """Whether Faiss finds a graphics card; PyTorch takes seconds to load."""
    import faiss

    return bool(faiss.get_num_gpus())


def _coverage(index: _Index, lists: InvertedLists, blocks: CodeBlocks) -> Coverage:
    """The rows of a generation in the index; cached for the newest generation."""
    if index.coverage is None or not index.coverage.is_of(lists, blocks):
        index.coverage = Coverage(lists.base, blocks)
    return index.coverage


def _outdated(coverage: Coverage, live: int) -> bool:
    """Whether too many rows were added, overwritten or deleted since the index was built."""
    covered = coverage.of(None)
    unknown, known = covered.others.count, covered.known.count
    return unknown > _MOST_UNKNOWN * live or known < (1 - _MOST_DEAD) * live


class _NotBuiltError(Exception):
    """No index was built, and that is no failure."""


_open: weakref.WeakSet[Engines] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End running builds: a thread inside Faiss must not outlive the interpreter."""
    for engines in list(_open):
        engines.close()
