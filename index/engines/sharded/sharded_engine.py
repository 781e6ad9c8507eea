"""Exact search over shards that are Ray actors: scatter the queries, gather the hits, merge them.

Shards compute the same distances from the same weights, bit for bit, and (distance, row) is a
total order. So the hits do not depend on how rows are spread, nor on which shard is the fastest.

A lost actor is replaced by the search that notices it, which waits for the new one if there is
time. An actor that could not read its codes is replaced at the next search, so one without enough
memory is not restarted forever.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bittern.errors import (
    BitternError,
    DeadlineExceededError,
    InternalError,
    PreconditionError,
    ShardUnavailableError,
)
from bittern.index.engines.blocks import BLOCK_ROWS
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest, RowSet
from bittern.index.engines.sharded.cluster import ray_library
from bittern.index.engines.sharded.shard import (
    GenerationGoneError,
    Loaded,
    Partitions,
    Shard,
    ShardRows,
    Source,
)

_ATTEMPTS = 3
"""A search starts again when its generation is dropped meanwhile."""
_INLINE_BYTES = 64 << 10
"""Larger messages are put into shared memory once; smaller ones are sent faster without."""
_CALLS_AT_ONCE = 16
"""Of one actor: searches, and a load."""
_CONTROL = "control"
"""A call of this group is answered however many searches there are."""
_PROBE_S = 5.0
"""A process that does not answer for this long counts as dead."""
_tokens = itertools.count()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sharding:
    """How the codes are spread.

    Attributes:
        shards: number of actors.
        threads: cores of each, which Ray reserves.
        partition_rows: rows of one partition, by default those of a block.
        timeout_s: the longest that a search may take. A shard that does not answer in time is
            replaced, unless it reports that it still works.
        loading_s: the longest that reading the codes may take.
    """

    shards: int = 2
    threads: int = 1
    partition_rows: int = BLOCK_ROWS
    timeout_s: float = 30.0
    loading_s: float = 3600.0

    @property
    def partitions(self) -> Partitions:
        """Which rows belong to which shard."""
        return Partitions(self.shards, self.partition_rows)


@dataclass(slots=True)
class ShardStatus:
    """One shard as the driver sees it.

    Attributes:
        number: of the shard.
        ready: whether it can be searched.
        problem: why not; empty while it reads its codes.
        restarts: how often it was replaced.
        loaded: what it holds, or held before it was lost; None before it was ever ready.
    """

    number: int
    ready: bool = False
    problem: str = ""
    restarts: int = 0
    loaded: Loaded | None = None


@dataclass(frozen=True)
class Partial:
    """The hits of the available shards, and which rows were not searched.

    Attributes:
        nearest: for each query.
        missing: int64 [n, 2], the row ranges that were not searched, each as its first row and
            the one after its last; empty where everything was searched.
    """

    nearest: list[Nearest]
    missing: NDArray[np.int64]

    @property
    def complete(self) -> bool:
        """Whether everything was searched."""
        return not len(self.missing)


@dataclass(slots=True)
class _Actor:
    """One shard's actor; guarded by the engine's lock.

    Attributes:
        status: of the shard.
        handle: Ray's handle.
        loading: Ray's reference to its first load, while that runs.
    """

    status: ShardStatus
    handle: Any = None
    loading: Any = None


class ShardedEngine:
    """Exact search over rows that are spread over Ray actors. Safe to use from several threads.

    Ray must be running: `local_cluster` starts it on this machine, `ray.init` connects to a
    cluster. A shard that is lost is replaced and reads its codes again; until then searches
    raise, or leave it out (`search_available`).

    Args:
        source: reads the codes of shards.
        version: the generation to search first.
        sharding: how the rows are spread.

    Raises:
        PreconditionError: Ray is not installed, not running, or has too few cores.
        ShardUnavailableError: a shard cannot read its codes.
    """

    kind = "sharded"
    exact = True

    def __init__(self, source: Source, version: int, sharding: Sharding | None = None) -> None:
        self._ray = ray_library()
        if not self._ray.is_initialized():
            raise PreconditionError(
                "Ray is not running; connect with ray.init(address=...), or start it on this "
                "machine with bittern.index.engines.sharded.local_cluster"
            )
        self._source = source
        self._sharding = sharding or Sharding()
        self._check_cores()
        self._partitions = self._sharding.partitions
        self._version = version
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._closed = False
        self._actors = [_Actor(ShardStatus(number)) for number in range(self._sharding.shards)]
        for actor in self._actors:
            self._start(actor)
        if not self.wait(self._sharding.loading_s):
            statuses = self.shards
            self.close()
            raise _unavailable([s.number for s in statuses if not s.ready], statuses)

    @property
    def version(self) -> int:
        """The generation that searches see."""
        return self._version

    @property
    def bits(self) -> int:
        """Code length."""
        return next(s.loaded.bits for s in self.shards if s.loaded is not None)

    @property
    def shards(self) -> list[ShardStatus]:
        """The state of each shard."""
        with self._lock:
            return [replace(actor.status) for actor in self._actors]

    def __len__(self) -> int:
        return sum(s.loaded.codes for s in self.shards if s.loaded is not None)

    # Search

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.search`.

        Raises:
            CodeError: the queries are of another code length.
            ShardUnavailableError: a shard is lost, and its replacement is not ready in time.
            DeadlineExceededError: it takes longer than `Sharding.timeout_s`.
        """
        until = monotonic() + self._sharding.timeout_s
        nearest, missing = self._scatter(queries, k, rows, until)
        if missing and self.wait(until - monotonic()):
            nearest, missing = self._scatter(queries, k, rows, until)
        self._check_none_missing(missing)
        return nearest

    def search_available(self, queries: Queries, k: int, rows: RowSet | None = None) -> Partial:
        """Like `search`, but over the shards that answer; names the rows that were left out."""
        until = monotonic() + self._sharding.timeout_s
        nearest, missing = self._scatter(queries, k, rows, until)
        end = max((s.loaded.last_row + 1 for s in self.shards if s.loaded is not None), default=0)
        ranges = [np.empty((0, 2), np.int64), *(self._partitions.ranges(n, end) for n in missing)]
        joined = np.concatenate(ranges)
        return Partial(nearest, joined[np.argsort(joined[:, 0])])

    def _scatter(
        self, queries: Queries, k: int, rows: RowSet | None, until: float
    ) -> tuple[list[Nearest], list[int]]:
        """The merged hits, and the numbers of the shards that did not answer by then."""
        queries.check_fits(self.bits)
        limits = None if rows is None else self._shard_rows(rows)
        shared = self._shared(queries, queries.weights.nbytes)
        for _ in range(_ATTEMPTS):
            version, handles, calls = self._version, self._handles(), {}
            for number, handle in enumerate(handles):
                limit = None if limits is None else limits[number]
                if limits is None or limit is not None:  # else it has none of the allowed rows
                    calls[number] = handle and handle.search.remote(version, shared, k, limit)
            try:
                found, missing = self._gather(calls, handles, until)
            except GenerationGoneError:
                continue
            results = [found[number] for number in sorted(found)]
            return [
                Nearest.merged([one[query] for one in results], k) for query in range(len(queries))
            ], missing
        raise InternalError(f"the archive changed {_ATTEMPTS} times during one search; try again")

    def _gather(
        self, calls: dict[int, Any], handles: Sequence[Any], until: float
    ) -> tuple[dict[int, Any], list[int]]:
        """Results by shard, and the shards without one; lost actors are replaced."""
        missing: list[int] = []
        found: dict[int, Any] = {}
        errors = self._ray.exceptions
        for number, call in calls.items():
            if call is None:
                missing.append(number)
                continue
            try:
                found[number] = self._ray.get(call, timeout=max(0.0, until - monotonic()))
                continue
            except errors.RayTaskError as error:
                cause = error.cause
                if isinstance(cause, BitternError | GenerationGoneError):
                    raise cause from None
                raise InternalError(
                    f"shard {number} failed: {type(cause).__name__}: {cause}; please report this"
                ) from error
            except errors.GetTimeoutError:
                if self._is_alive(handles[number]):
                    raise DeadlineExceededError(
                        f"shard {number} is still at work; search with fewer queries at once, or "
                        "raise Sharding.timeout_s or loading_s"
                    ) from None
                problem = "it did not answer in time"
            except errors.RayError as error:
                problem = f"its process has ended ({type(error).__name__})"
            with self._lock:
                if self._actors[number].handle is handles[number]:
                    self._replace(self._actors[number], problem)
            missing.append(number)
        return found, missing

    def _shard_rows(self, rows: RowSet) -> list[Any]:
        """Each shard's rows of a set, as they are sent; None for a shard without any."""
        cached: list[Any] | None = rows.cache.get(self)
        if cached is None:
            token, cached = next(_tokens), []
            for one in self._partitions.split(rows.rows):
                packed = self._partitions.packed(one)
                size = packed.nbytes
                cached.append(self._shared(ShardRows(token, packed), size) if size else None)
            rows.cache[self] = cached
        return cached

    def _shared(self, value: Any, nbytes: int) -> Any:
        """A message, in shared memory if it is large."""
        return self._ray.put(value) if nbytes > _INLINE_BYTES else value

    def _check_none_missing(self, missing: Sequence[int]) -> None:
        if missing:
            raise _unavailable(missing, self.shards)

    # Generations

    def refresh(self, version: int) -> None:
        """Let searches see another generation, all shards at once.

        Meanwhile searches use the previous generation; no search sees two.

        Raises:
            ArchiveDamagedError: a shard cannot read it. Nothing has changed, as with the others.
            ShardUnavailableError: a shard is lost.
            DeadlineExceededError: it takes longer than `Sharding.loading_s`.
        """
        with self._refreshing:
            if version == self._version:
                return
            handles = self._handles()
            self._check_none_missing([n for n, handle in enumerate(handles) if handle is None])
            calls = {
                n: handle.load.remote(self._source, version, self._version)
                for n, handle in enumerate(handles)
            }
            found, missing = self._gather(calls, handles, monotonic() + self._sharding.loading_s)
            self._check_none_missing(missing)
            with self._lock:
                actors = list(zip(self._actors, handles, strict=True))
                replaced = [a.status.number for a, handle in actors if a.handle is not handle]
                if not replaced:
                    self._version = version
                    for actor in self._actors:
                        actor.status.loaded = found[actor.status.number]
            self._check_none_missing(replaced)

    # Actors

    def wait(self, timeout_s: float) -> bool:
        """Wait until every shard can be searched, or one has failed to read its codes.

        Returns:
            whether every shard can be searched.
        """
        until = monotonic() + timeout_s
        while True:
            with self._lock:
                self._settle()
                loading = [a.loading for a in self._actors if a.loading is not None]
                ready = [actor.status.ready for actor in self._actors]
            if not loading or len(loading) + sum(ready) < len(ready):
                return all(ready)
            if not self._ray.wait(loading, timeout=max(0.0, until - monotonic()))[0]:
                return False

    def close(self) -> None:
        """End the shards; the engine cannot be used afterwards."""
        with self._lock:
            self._closed = True
            for actor in self._actors:
                actor.status.ready, actor.status.problem = False, "the engine is closed"
                if self._ray.is_initialized():
                    self._ray.kill(actor.handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_cores(self) -> None:
        """Refuse a cluster with too few cores: Ray would wait for them forever."""
        shards, threads = self._sharding.shards, self._sharding.threads
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        if cores < shards * threads:
            raise PreconditionError(
                f"{shards} shards of {threads} threads need {shards * threads} cores, the Ray "
                f"cluster has {cores}; use fewer shards or threads, or add machines"
            )

    def _handles(self) -> list[Any]:
        """Ray's handle of each actor; None where it cannot be searched now.

        An actor that could not read its codes is replaced.
        """
        with self._lock:
            self._settle()
            handles = [actor.handle if actor.status.ready else None for actor in self._actors]
            for actor in self._actors:
                if not actor.status.ready and actor.loading is None:
                    self._replace(actor, actor.status.problem)
            return handles

    def _is_alive(self, handle: Any) -> bool:
        """Whether an actor responds, even while it is busy with a search."""
        call = handle.process.options(concurrency_group=_CONTROL).remote()
        try:
            self._ray.get(call, timeout=min(_PROBE_S, self._sharding.timeout_s))
        except self._ray.exceptions.RayError:
            return False
        return True

    # Called with the lock held

    def _start(self, actor: _Actor) -> None:
        """Give a shard a new actor, which begins to read its codes."""
        sharding = self._sharding
        as_actor = self._ray.remote(
            num_cpus=sharding.threads,
            max_concurrency=_CALLS_AT_ONCE,
            concurrency_groups={_CONTROL: 1},
            scheduling_strategy="SPREAD",
        )
        number = actor.status.number
        actor.handle = as_actor(Shard).remote(number, sharding.partitions, sharding.threads)
        actor.loading = actor.handle.load.remote(self._source, self._version, self._version)

    def _replace(self, actor: _Actor, problem: str) -> None:
        """Replace an actor; the shard keeps the problem until the new one is ready."""
        if self._closed:
            return
        status = actor.status
        status.ready, status.problem, status.restarts = False, problem, status.restarts + 1
        _log.warning("shard %d is replaced: %s", status.number, problem)
        self._ray.kill(actor.handle)
        self._start(actor)

    def _settle(self) -> None:
        """Note which first loads have ended."""
        for actor in self._actors:
            if actor.loading is None or not self._ray.wait([actor.loading], timeout=0)[0]:
                continue
            status, loading, actor.loading = actor.status, actor.loading, None
            try:
                status.loaded, status.ready, status.problem = self._ray.get(loading), True, ""
            except self._ray.exceptions.RayTaskError as error:
                status.problem = f"its codes cannot be read: {_short(error.cause)}"
                _log.error("shard %d: %s", status.number, status.problem)
            except self._ray.exceptions.RayError:
                status.problem = "its process has ended"


def _short(error: BaseException) -> str:
    """The message of an error; of an unexpected one, its type and first line."""
    if isinstance(error, BitternError):
        return error.message
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _unavailable(missing: Sequence[int], statuses: Sequence[ShardStatus]) -> ShardUnavailableError:
    """The error for missing shards."""
    problems = "; ".join(
        f"shard {number}: {statuses[number].problem or 'it reads its codes'}"
        for number in missing[:3]
    )
    more = " ..." if len(missing) > 3 else ""
    return ShardUnavailableError(
        f"{len(missing)} of {len(statuses)} shards cannot be searched ({problems}{more}); "
        "they are replaced and read their codes again: try again in a while",
        details={"shards": ",".join(map(str, missing)), "of": str(len(statuses))},
    )
