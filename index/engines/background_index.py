"""The inverted lists of one model's codes of one modality: stored, built or updated when needed.

They are built in the background; until they are ready, search is exact. When too many rows were
added, overwritten or deleted since, they are updated in the same way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any, Protocol

from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.inverted_lists import InvertedLists
from bittern.index.engines.ivf import Coverage, IvfEngine
from bittern.index.engines.threads import usable_cores
from bittern.query import SearchOptions

_MOST_UNKNOWN = 0.1
_MOST_DEAD = 0.3
_MOST_GROWN = 2.0
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


class BackgroundIndex:
    """Inverted lists over the codes of all generations.

    Args:
        name: of the codes, the same in all generations.
        options: search options of the archive.
        storage: stores the lists; None for none.
        turn: held while building: the builds of an archive, each on half of the cores, take turns.
    """

    def __init__(
        self, name: str, options: SearchOptions, storage: Storage | None, turn: threading.Lock
    ) -> None:
        self.building = ""
        """Describes a running build, or empty."""
        self._name = name
        self._options = options
        self._storage = storage
        self._turn = turn
        self._lists: InvertedLists | None = None
        self._coverage: Coverage | None = None
        self._live = 0
        self._failed = ""
        self._failed_at = 0.0
        self._looked_up = False
        self._closed = False
        self._builder: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether there are lists."""
        return self._lists is not None

    @property
    def nbytes(self) -> int:
        """Bytes of the lists in memory."""
        lists = self._lists
        return lists.nbytes if lists else 0

    @property
    def why_none(self) -> str:
        """Why there are no lists now."""
        if self._failed or self.building:
            return self._failed or "it is being built"
        if self._options.build:
            return "it is built at the first search that can use it"
        return "a server builds one (`bittern serve --recall 0.95`)"

    def engine(self, blocks: CodeBlocks, recall: float) -> IvfEngine | None:
        """An engine for one generation; None if there are no lists."""
        with self._lock:
            if self._lists is None:
                return None
            return IvfEngine(
                self._lists,
                blocks,
                recall=recall,
                threads=self._options.threads,
                coverage=self._covered(self._lists, blocks),
            )

    def bring_up_to_date(self, blocks: CodeBlocks) -> None:
        """Start to build, unless the lists are up to date or a build is running or has failed."""
        with self._lock:
            failed_recently = self._failed and monotonic() - self._failed_at < _RETRY_AFTER_S
            if self.building or failed_recently or self._closed or not self._outdated(blocks):
                return
            useless = self._looked_up or self._storage is None
            if self._lists is None and not self._options.build and useless:
                return
            self.building = f"ivf over {len(blocks):,} rows"
            if self._options.build:
                self._builder = threading.Thread(
                    target=self._build, args=(blocks,), name="bittern-build", daemon=True
                )
                self._builder.start()
                return
        self._build(blocks, rebuild=False)

    def cancel(self) -> None:
        """Stop a running build, within a second or so, and start no new one."""
        self._closed = True

    def close(self) -> None:
        """Wait for the end of a cancelled build, and drop the lists."""
        with self._lock:
            builder = self._builder
        if builder is not None:
            builder.join()
        self._lists = self._coverage = None

    def _outdated(self, blocks: CodeBlocks) -> bool:
        """Whether there are no lists, or too many rows have changed since they were built."""
        if self._lists is None:
            return True
        covered = self._covered(self._lists, blocks).of(None)
        return (
            covered.others.count > _MOST_UNKNOWN * self._live
            or covered.known.count < (1 - _MOST_DEAD) * self._live
        )

    def _covered(self, lists: InvertedLists, blocks: CodeBlocks) -> Coverage:
        """The rows of a generation in the lists; cached for the newest generation."""
        if self._coverage is None or not self._coverage.is_of(lists, blocks):
            self._coverage = Coverage(lists.base, blocks)
        return self._coverage

    def _build(self, blocks: CodeBlocks, *, rebuild: bool = True) -> None:
        """Use the stored lists, or build them if `rebuild`."""
        begun = monotonic()
        try:
            with self._turn:
                self._check()
                lists = self._stored(blocks) or self._built(blocks, rebuild)
                with self._lock:
                    self._lists, self._failed = lists, ""
                    self._live = self._covered(lists, blocks).of(None).known.count
            _log.info("%s: lists of %d rows: %.1f s", self._name, len(blocks), monotonic() - begun)
        except _NotBuiltError as reason:
            _log.debug("%s: %s", self._name, reason)
        except Exception as error:  # searches work without an index
            self._failed, self._failed_at = f"no index could be built: {error}", monotonic()
            _log.warning("%s: %s; searches stay exact", self._name, self._failed)
        finally:
            self.building = ""

    def _check(self) -> None:
        """Raise once the archive is closed."""
        if self._closed:
            raise _NotBuiltError("the archive was closed")

    def _stored(self, blocks: CodeBlocks) -> InvertedLists | None:
        """The stored lists, the first time that they are needed; None if there are none."""
        if self._lists is not None or self._looked_up or self._storage is None:
            return None
        self._looked_up = True
        arrays = self._storage.read(f"{self._name}-ivf")
        if arrays is None:
            return None
        try:
            return InvertedLists.restored(blocks, arrays)
        except ArchiveDamagedError as error:
            _log.warning("%s-ivf is built again: %s", self._name, error)
            return None

    def _built(self, blocks: CodeBlocks, rebuild: bool) -> InvertedLists:
        if not rebuild:
            raise _NotBuiltError("no index is stored, and the options allow no build")
        threads = max(1, (self._options.threads or usable_cores()) // 2)
        before = self._lists
        if before is not None and len(blocks) < _MOST_GROWN * len(before.base):
            lists = before.extended(blocks, threads=threads, check=self._check)
        else:
            lists = InvertedLists.build(blocks, threads=threads, check=self._check)
        if self._storage is not None:
            self._storage.write(f"{self._name}-ivf", lists.arrays())
        return lists


class _NotBuiltError(Exception):
    """No index was built, and that is no failure."""
