"""Which engine answers: chosen by size, wanted recall and what is at hand, and said why.

Measured (docs/decisions/0009-search-engine.md): the exact engine takes 2 to 4 ns per row
of 256 bits and core, inverted lists 0.2 to 0.5 ms whatever the size; below 200,000 rows the
difference is not worth an index. Graphs were never the faster of the two at equal recall,
so they answer only where they are asked for.

An approximate index is built, or brought up to date, in the background; until it is there
the exact engine answers. So an index never delays or changes a correct answer.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from numpy.typing import NDArray

from bittern.checks import check_recall
from bittern.errors import (
    ArchiveDamagedError,
    LimitExceededError,
    PreconditionError,
)
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.engine import SearchEngine
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.inverted_lists import InvertedLists
from bittern.index.engines.ivf import ApproximateEngine, Coverage, Structure
from bittern.index.engines.kept_indexes import restored, stored
from bittern.index.engines.threads import usable_cores
from bittern.types import EngineStats, SearchOptions

APPROXIMATE_FROM = 200_000
"""Fewer rows are searched exactly, whatever recall is wanted: it takes no longer."""
GPU_FROM = 1_000_000
"""From so many rows on, a graphics card answers where there is one."""
_MOST_UNKNOWN = 0.1
_MOST_DEAD = 0.3
_MOST_GROWN = 2.0
_FAST_MAX_BITS = 1_024
_RETRY_AFTER_S = 600.0
_log = logging.getLogger(__name__)


class Kept(Protocol):
    """Where derived arrays are kept between openings of an archive."""

    def read(self, name: str) -> Mapping[str, NDArray[Any]] | None:
        """The arrays of that name; None where there are none that can be trusted."""
        ...

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays under a name; a failure costs speed only."""
        ...


@dataclass
class _Held:
    """What is known of the index over the codes of one model and modality.

    Attributes:
        structure: the index, once it is built.
        coverage: what of the newest generation it knows.
        building: what is being built, or empty.
        failed: why the last building came to nothing, or empty.
        failed_at: when that was, by the monotonic clock.
        live: rows that could be found when the index was built.
        no_gpu: why the graphics card does not answer, or empty.
        looked: whether a kept one was looked for.
    """

    structure: Structure | None = None
    coverage: Coverage | None = None
    building: str = ""
    failed: str = ""
    failed_at: float = 0.0
    live: int = 0
    no_gpu: str = ""
    looked: bool = False


class Engines:
    """The engines of one archive.

    Args:
        options: what was decided when the archive was opened.
        kept: where indexes are kept between openings; None for nowhere.
    """

    def __init__(self, options: SearchOptions | None = None, kept: Kept | None = None) -> None:
        self.options = options or SearchOptions()
        self._kept = kept
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._builders: set[threading.Thread] = set()
        self._closed = False
        _open.add(self)

    def engine(self, name: str, blocks: CodeBlocks, recall: float | None = None) -> SearchEngine:
        """The engine that answers a search.

        Args:
            name: which codes of the archive these are, the same in all generations.
            blocks: the codes of the generation to search.
            recall: share of the true nearest that is wanted; None for what the options say.
        """
        recall = self.options.recall if recall is None else recall
        kind, _ = self._choice(name, blocks, check_recall(recall))
        threads = self.options.threads
        if kind == "gpu":
            return self._on_gpu(name, blocks) or FlatEngine(blocks, threads)
        held = self._of(name)
        with self._lock:
            if kind == "flat" or held.structure is None:
                return FlatEngine(blocks, threads)
            coverage = _coverage(held, held.structure, blocks)
            return ApproximateEngine(
                held.structure, blocks, recall=recall, threads=threads, coverage=coverage
            )

    def stats(self, name: str, blocks: CodeBlocks) -> EngineStats:
        """What answers searches of these codes, and why."""
        kind, reason = self._choice(name, blocks, self.options.recall, build=False)
        with self._lock:
            held = self._of(name)
            structure_bytes = held.structure.nbytes if held.structure else 0
            return EngineStats(
                kind=kind,
                exact=kind in ("flat", "gpu"),
                reason=reason,
                rows=len(blocks),
                code_bytes=blocks.nbytes,
                other_bytes=blocks.nbytes_besides + structure_bytes,
                building=held.building,
            )

    def prepare(self, name: str, blocks: CodeBlocks) -> None:
        """Build the approximate index of these codes now, if the options allow one.

        Raises:
            BitternError: it cannot be built.
        """
        kind = self._approximate_kind()
        if kind is None or self._why_not(kind, blocks):
            return
        held = self._of(name)
        with self._building:
            up_to_date = held.structure is not None and not _outdated(
                _coverage(held, held.structure, blocks), held.live
            )
        if not up_to_date:
            self._build(name, kind, blocks)
            if held.failed:
                raise ArchiveDamagedError(held.failed)

    def close(self) -> None:
        """Begin no more work, and end what is being built; that takes a second or so."""
        self._closed = True
        with self._lock:
            builders = list(self._builders)
        for builder in builders:
            builder.join()
        with self._lock:
            self._held.clear()

    # Choosing

    def _choice(
        self, name: str, blocks: CodeBlocks, recall: float, *, build: bool = True
    ) -> tuple[str, str]:
        """The kind of engine, and why it is this one."""
        wanted = self._approximate_kind()
        if recall >= 1.0 or wanted is None:
            return self._exact_choice(name, blocks)
        if why_not := self._why_not(wanted, blocks):
            return "flat", why_not
        held = self._of(name)
        if build:
            self._bring_up_to_date(name, wanted, blocks)
        if held.structure is None:
            return "flat", f"exact until there is an index: {self._why_none(held)}"
        return wanted, f"a recall of {recall:g} was wanted of {len(blocks):,} rows"

    def _why_none(self, held: _Held) -> str:
        """Why there is no index now."""
        if held.failed or held.building:
            return held.failed or "it is being built"
        if self.options.build:
            return "it is built when a search wants it"
        return "`bittern optimize` builds one"

    def _why_not(self, kind: str, blocks: CodeBlocks) -> str:
        """Why no index of this kind is of use for these codes, or nothing."""
        if not len(blocks):
            return "there is nothing to search"
        if len(blocks) < APPROXIMATE_FROM and self.options.engine == "auto":
            return f"{len(blocks):,} rows are searched exactly as fast as by an index"
        if kind == "ivf" and blocks.bits > _FAST_MAX_BITS:
            return f"no lists of codes of {blocks.bits} bits, {_FAST_MAX_BITS} at most"
        return ""

    def _exact_choice(self, name: str, blocks: CodeBlocks) -> tuple[str, str]:
        exact = "exact: every code is looked at"
        large = self.options.engine == "auto" and len(blocks) >= GPU_FROM
        if self.options.engine != "gpu" and not (large and _has_gpu()):
            return "flat", exact
        from bittern.index.engines.device_memory import available_device

        if available_device() is None:
            asked = self.options.engine == "gpu"
            return "flat", f"{exact}; no graphics card can be used" if asked else exact
        if no_gpu := self._of(name).no_gpu:
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
            self._of(name).no_gpu = error.message
            _log.warning("%s is searched on the CPU: %s", name, error.message)
            return None

    def _approximate_kind(self) -> str | None:
        return {"auto": "ivf", "ivf": "ivf", "graph": "graph"}.get(self.options.engine)

    def _of(self, name: str) -> _Held:
        return self._held.setdefault(name, _Held())

    # Building

    def _bring_up_to_date(self, name: str, kind: str, blocks: CodeBlocks) -> None:
        """See that an index is there or under way that knows most of these codes."""
        with self._lock:
            held = self._of(name)
            lately = held.failed and monotonic() - held.failed_at < _RETRY_AFTER_S
            if held.building or lately or self._closed:
                return
            if held.structure is not None:
                coverage = _coverage(held, held.structure, blocks)
                if not _outdated(coverage, held.live):
                    return
            elif not self.options.build and (held.looked or self._kept is None):
                return
            held.building = f"{kind} over {len(blocks):,} rows"
        if not self.options.build:
            self._build(name, kind, blocks, anew=False)
            return
        builder = threading.Thread(
            target=self._build, args=(name, kind, blocks), name="bittern-build", daemon=True
        )
        with self._lock:
            self._builders.add(builder)
        builder.start()

    def _build(self, name: str, kind: str, blocks: CodeBlocks, *, anew: bool = True) -> None:
        """Take up the index that is kept, or build one if `anew`; at most one at a time."""
        held = self._of(name)
        begun = monotonic()
        try:
            with self._building:
                self._check()
                structure = self._built(name, kind, blocks, held, anew)
                with self._lock:
                    held.structure, held.coverage, held.failed = structure, None, ""
                    held.live = _coverage(held, structure, blocks).of(None).known.count
            _log.info(
                "%s: %s over %d rows is there after %.1f s",
                name,
                kind,
                len(blocks),
                monotonic() - begun,
            )
        except _NotBuiltError as nothing:
            _log.debug("%s: %s", name, nothing)
        except Exception as error:  # whatever it is, searches go on without an index
            held.failed, held.failed_at = f"no {kind} could be built: {error}", monotonic()
            _log.warning("%s: %s; searches stay exact", name, held.failed)
        finally:
            with self._lock:
                held.building = ""
                self._builders.discard(threading.current_thread())

    def _check(self) -> None:
        """End what is being built once the archive is closed."""
        if self._closed:
            raise _NotBuiltError("the archive was closed")

    def _built(
        self, name: str, kind: str, blocks: CodeBlocks, held: _Held, anew: bool
    ) -> Structure:
        threads = max(1, (self.options.threads or usable_cores()) // 2)
        kept_name = f"{name}-{kind}"
        if held.structure is None and not held.looked:
            held.looked = True
            if (kept := self._read(kept_name, kind, blocks)) is not None:
                return kept
        if not anew:
            raise _NotBuiltError("no index is kept, and none is to be built")
        structure = _built_anew(kind, blocks, held.structure, threads, self._check)
        if self._kept is not None:
            self._kept.write(kept_name, stored(structure))
        return structure

    def _read(self, kept_name: str, kind: str, blocks: CodeBlocks) -> Structure | None:
        if self._kept is None or (arrays := self._kept.read(kept_name)) is None:
            return None
        try:
            return restored(kind, blocks, arrays)
        except ArchiveDamagedError as error:
            _log.warning("%s is built anew: %s", kept_name, error)
            return None


def _has_gpu() -> bool:
    """Whether Faiss sees a graphics card: asked before PyTorch, which takes seconds to load."""
    import faiss

    return bool(faiss.get_num_gpus())


def _coverage(held: _Held, structure: Structure, blocks: CodeBlocks) -> Coverage:
    """What of a generation the index knows; remembered for the newest."""
    if held.coverage is None or not held.coverage.is_of(structure, blocks):
        held.coverage = Coverage(structure.base, blocks)
    return held.coverage


def _built_anew(
    kind: str,
    blocks: CodeBlocks,
    before: Structure | None,
    threads: int,
    check: Callable[[], None],
) -> Structure:
    if kind == "graph":
        from bittern.index.engines.graph import Graph

        graph: Structure = Graph.build(blocks, threads=threads, check=check)
        return graph
    if isinstance(before, InvertedLists) and len(blocks) < _MOST_GROWN * len(before.base):
        return before.extended(blocks, threads=threads, check=check)
    return InvertedLists.build(blocks, threads=threads, check=check)


def _outdated(coverage: Coverage, live: int) -> bool:
    """Whether too much was added, overwritten or deleted since the index was built."""
    covered = coverage.of(None)
    unknown, known = covered.others.count, covered.known.count
    return unknown > _MOST_UNKNOWN * live or known < (1 - _MOST_DEAD) * live


class _NotBuiltError(Exception):
    """Nothing was built, and nothing is wrong."""


_open: weakref.WeakSet[Engines] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End what is being built: a thread inside Faiss must not outlive the interpreter."""
    for engines in list(_open):
        engines.close()
