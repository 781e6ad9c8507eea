"""Exact search over shards that are Ray actors: scatter the queries, gather the hits, merge them.

Shards compute the same distances from the same weights, bit for bit, and (distance, row) is a
total order. So the hits do not depend on how rows are spread, nor on which shard is the fastest.

One thread, the supervisor, replaces actors. It is notified when a process ends (each actor has a
call that never returns, and fails at once then), when a shard has read its codes, and when a search
got no result from a shard in time.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
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
"""Calls of this group are answered however many searches there are."""
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
        self._partitions = self._sharding.partitions
        self._refreshing = threading.Lock()
        self._actors = _Actors(source, self._sharding, version)
        if not self._actors.wait(self._sharding.loading_s):
            statuses = self.shards
            self.close()
            raise _unavailable([s.number for s in statuses if not s.ready], statuses)

    @property
    def version(self) -> int:
        """The generation that searches see."""
        return self._actors.version

    @property
    def bits(self) -> int:
        """Code length."""
        return next(s.loaded.bits for s in self.shards if s.loaded is not None)

    @property
    def shards(self) -> list[ShardStatus]:
        """The state of each shard."""
        return self._actors.statuses

    def __len__(self) -> int:
        return sum(s.loaded.codes for s in self.shards if s.loaded is not None)

    @property
    def nbytes(self) -> int:
        """Bytes besides the codes, of the shards that answer."""
        handles = self._actors.handles()
        calls = {n: h and h.nbytes.remote(self.version) for n, h in enumerate(handles)}
        found, _ = self._gather(calls, handles, self._sharding.timeout_s)
        return sum(found.values())

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.search`.

        Raises:
            CodeError: the queries are of another code length.
            ShardUnavailableError: a shard is lost and not replaced yet.
            DeadlineExceededError: it takes longer than `Sharding.timeout_s`.
        """
        nearest, missing = self._scatter(queries, k, rows)
        self._check_none_missing(missing)
        return nearest

    def search_available(self, queries: Queries, k: int, rows: RowSet | None = None) -> Partial:
        """Like `search`, but over the shards that answer; names the rows that were left out."""
        nearest, missing = self._scatter(queries, k, rows)
        end = max((s.loaded.last_row + 1 for s in self.shards if s.loaded is not None), default=0)
        ranges = [np.empty((0, 2), np.int64), *(self._partitions.ranges(n, end) for n in missing)]
        joined = np.concatenate(ranges)
        return Partial(nearest, joined[np.argsort(joined[:, 0])])

    def refresh(self, version: int) -> None:
        """Let searches see another generation, all shards at once.

        Meanwhile searches use the previous generation; no search sees two.

        Raises:
            ArchiveDamagedError: a shard cannot read it. Nothing has changed, as with the others.
            ShardUnavailableError: a shard is lost.
            DeadlineExceededError: it takes longer than `Sharding.loading_s`.
        """
        with self._refreshing:
            if version == self.version:
                return
            handles = self._actors.handles()
            self._check_none_missing([n for n, handle in enumerate(handles) if handle is None])
            calls = {
                n: handle.load.remote(self._source, version, self.version)
                for n, handle in enumerate(handles)
            }
            found, missing = self._gather(calls, handles, self._sharding.loading_s)
            self._check_none_missing(missing)
            self._check_none_missing(self._actors.switch(handles, [found[n] for n in calls]))

    def wait(self, timeout_s: float) -> bool:
        """Wait until all shards can be searched; returns whether they can."""
        return self._actors.wait(timeout_s)

    def close(self) -> None:
        """End the shards; the engine cannot be used afterwards."""
        self._actors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _scatter(
        self, queries: Queries, k: int, rows: RowSet | None
    ) -> tuple[list[Nearest], list[int]]:
        """The merged hits, and the numbers of the shards that did not answer."""
        queries.check_fits(self.bits)
        limits = None if rows is None else self._shard_rows(rows)
        shared = self._shared(queries, queries.weights.nbytes)
        for _ in range(_ATTEMPTS):
            version, handles, calls = self.version, self._actors.handles(), {}
            for number, handle in enumerate(handles):
                limit = None if limits is None else limits[number]
                if limits is None or limit is not None:  # else it has none of the allowed rows
                    calls[number] = handle and handle.search.remote(version, shared, k, limit)
            try:
                found, missing = self._gather(calls, handles, self._sharding.timeout_s)
            except GenerationGoneError:
                continue
            results = [found[number] for number in sorted(found)]
            return [
                Nearest.merged([one[query] for one in results], k) for query in range(len(queries))
            ], missing
        raise InternalError(f"the archive changed {_ATTEMPTS} times during one search; try again")

    def _gather(
        self, calls: dict[int, Any], handles: Sequence[Any], timeout_s: float
    ) -> tuple[dict[int, Any], list[int]]:
        """Results by shard, and the shards without one; these are reported as lost."""
        until = monotonic() + timeout_s
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
                if self._actors.is_alive(handles[number]):
                    raise DeadlineExceededError(
                        f"shard {number} is still at work; search with fewer queries at once, or "
                        "raise Sharding.timeout_s or loading_s"
                    ) from None
                problem = "it did not answer in time"
            except errors.RayError as error:
                problem = f"its process has ended ({type(error).__name__})"
            self._actors.report(number, handles[number], problem)
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


# The actors: started, watched, replaced


class _Actor:
    """One shard's actor and its state, guarded by `_Actors`."""

    def __init__(self, number: int) -> None:
        self.status = ShardStatus(number)
        self.handle: Any = None
        self.loading = False
        self.failed = False


class _Actors:
    """The actors of all shards.

    Args:
        source: reads their codes.
        sharding: how many there are.
        version: the generation that they load.

    Raises:
        PreconditionError: the cluster has too few cores; Ray would wait for them forever.
    """

    def __init__(self, source: Source, sharding: Sharding, version: int) -> None:
        self._ray = ray_library()
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        if cores < sharding.shards * sharding.threads:
            raise PreconditionError(
                f"{sharding.shards} shards of {sharding.threads} threads need "
                f"{sharding.shards * sharding.threads} cores, the Ray cluster has {cores}; "
                "use fewer shards or threads, or add machines"
            )
        self._source = source
        self._sharding = sharding
        self.version = version
        self._actors = [_Actor(number) for number in range(sharding.shards)]
        self._changed = threading.Condition()
        self._events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        self._supervisor = threading.Thread(
            target=self._supervise, name="bittern-shards", daemon=True
        )
        self._supervisor.start()
        for actor in self._actors:
            self._start(actor)

    @property
    def statuses(self) -> list[ShardStatus]:
        """The state of each shard."""
        with self._changed:
            return [replace(actor.status) for actor in self._actors]

    def handles(self) -> list[Any]:
        """Ray's handle of each actor; None where it cannot be searched now.

        An actor that could not read its codes tries again.
        """
        with self._changed:
            for actor in self._actors:
                if actor.failed and not self._closed:
                    actor.failed = False
                    self._post(self._replace, actor, actor.handle, actor.status.problem)
            return [actor.handle if actor.status.ready else None for actor in self._actors]

    def report(self, number: int, handle: Any, problem: str) -> None:
        """Replace an actor that does not answer, unless it was replaced already."""
        with self._changed:
            actor = self._actors[number]
            if actor.handle is handle and not self._closed:
                # From now on no search waits for it.
                actor.status.ready, actor.status.problem = False, problem
                self._post(self._replace, actor, handle, problem)

    def is_alive(self, handle: Any) -> bool:
        """Whether an actor responds, even while it is busy with a search."""
        call = handle.process.options(concurrency_group=_CONTROL).remote()
        try:
            self._ray.get(call, timeout=min(_PROBE_S, self._sharding.timeout_s))
        except self._ray.exceptions.RayError:
            return False
        return True

    def switch(self, handles: Sequence[Any], loaded: Sequence[Loaded]) -> list[int]:
        """Let searches name the generation that these actors have loaded.

        Returns:
            shards whose actor was replaced meanwhile; if there are any, nothing has changed.
        """
        with self._changed:
            pairs = list(zip(self._actors, handles, strict=True))
            replaced = [a.status.number for a, handle in pairs if a.handle is not handle]
            if not replaced:
                self.version = loaded[0].version
                for actor, one in zip(self._actors, loaded, strict=True):
                    actor.status.loaded = one
            return replaced

    def wait(self, timeout_s: float) -> bool:
        """Wait until every shard can be searched, or one has failed to read its codes.

        Returns:
            whether every shard can be searched.
        """

        def all_ready() -> bool:
            return all(actor.status.ready for actor in self._actors)

        with self._changed:
            self._changed.wait_for(
                lambda: all_ready() or any(actor.failed for actor in self._actors),
                max(0.0, timeout_s),
            )
            return all_ready()

    def close(self) -> None:
        """End all actors."""
        with self._changed:
            self._closed = True
            handles = [actor.handle for actor in self._actors]
            for actor in self._actors:
                actor.status.ready, actor.status.problem = False, "the engine is closed"
        self._events.put(None)
        self._supervisor.join()
        if self._ray.is_initialized():
            for handle in handles:
                self._ray.kill(handle)

    # The supervisor's thread

    def _post(self, act: Callable[..., None], *arguments: Any) -> None:
        self._events.put(lambda: act(*arguments))

    def _supervise(self) -> None:
        while (act := self._events.get()) is not None:
            try:
                act()
            except Exception:
                # Perhaps Ray itself has ended; the next search reports it.
                _log.exception("a shard could not be replaced")

    def _start(self, actor: _Actor) -> None:
        """Give a shard a fresh actor, which begins to read its codes."""
        number, sharding = actor.status.number, self._sharding
        as_actor = self._ray.remote(
            num_cpus=sharding.threads,
            max_concurrency=_CALLS_AT_ONCE,
            concurrency_groups={_CONTROL: 2},
            scheduling_strategy="SPREAD",
        )
        handle = as_actor(Shard).remote(number, sharding.partitions, sharding.threads)
        with self._changed:
            actor.handle, actor.status.ready, actor.failed = handle, False, False
            actor.loading, version = True, self.version
        # These run on Ray's own thread, which must not wait: they post an event and return.
        handle.watch.options(concurrency_group=_CONTROL).remote().future().add_done_callback(
            lambda ended: self._post(self._ended, actor, handle)
        )
        handle.load.remote(self._source, version, version).future().add_done_callback(
            lambda done: self._post(self._loaded, actor, handle, done)
        )

    def _loaded(self, actor: _Actor, handle: Any, done: Any) -> None:
        error = done.exception()
        with self._changed:
            if actor.handle is not handle or self._closed:
                return
            actor.loading, status = False, actor.status
            if error is None:
                status.loaded, status.ready, status.problem = done.result(), True, ""
            else:
                cause = getattr(error, "cause", None) or error
                lines = str(cause).strip().splitlines() or [""]
                short = f"{type(cause).__name__}: {lines[0][:300]}"
                message = cause.message if isinstance(cause, BitternError) else short
                actor.failed, status.problem = True, f"its codes cannot be read: {message}"
                _log.error("shard %d: %s", status.number, status.problem)
            self._changed.notify_all()

    def _ended(self, actor: _Actor, handle: Any) -> None:
        """Replace an ended process; if it was reading its codes, only at the next search."""
        with self._changed:
            if actor.handle is not handle or self._closed:
                return
            actor.status.ready, actor.status.problem = False, "its process has ended"
            if actor.loading:
                actor.loading, actor.failed = False, True
                self._changed.notify_all()
                return
        self._replace(actor, handle, actor.status.problem)

    def _replace(self, actor: _Actor, handle: Any, problem: str) -> None:
        with self._changed:
            if actor.handle is not handle or self._closed:
                return
            actor.status.ready, actor.status.problem = False, problem
            actor.status.restarts += 1
        _log.warning("shard %d is replaced: %s", actor.status.number, problem)
        self._ray.kill(handle)
        self._start(actor)
