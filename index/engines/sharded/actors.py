"""The shards as Ray actors: started, watched, and replaced when they are lost.

One thread, the supervisor, replaces actors. It is notified when a process ends (each actor has a
call that never returns, and fails at once then), when a shard has read its codes, and when a search
waited for a shard in vain.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

from bittern.errors import BitternError, PreconditionError
from bittern.index.engines.blocks import BLOCK_ROWS
from bittern.index.engines.sharded.cluster import ray_library
from bittern.index.engines.sharded.shard import Loaded, Partitions, Shard, Source

_CALLS_AT_ONCE = 16
"""Of one actor: searches, and a load."""
_CONTROL = "control"
"""Calls of this group are answered however many searches there are."""
_PROBE_S = 5.0
"""A process that does not answer for this long counts as dead."""
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
        problem: why not, if there is more to say than that it reads its codes.
        restarts: how often it was replaced.
        loaded: what it holds, or held before it was lost; None before it was ever ready.
    """

    number: int
    ready: bool = False
    problem: str = ""
    restarts: int = 0
    loaded: Loaded | None = None


class _Actor:
    """One shard's actor and its state. Guarded by its `Actors`."""

    def __init__(self, number: int) -> None:
        self.status = ShardStatus(number)
        self.handle: Any = None
        self.loading = False
        self.failed = False


class Actors:
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
        self._check_cores(sharding)
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

    def _check_cores(self, sharding: Sharding) -> None:
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        if cores < sharding.shards * sharding.threads:
            raise PreconditionError(
                f"{sharding.shards} shards of {sharding.threads} threads need "
                f"{sharding.shards * sharding.threads} cores, the Ray cluster has {cores}; "
                "use fewer shards or threads, or add machines"
            )

    @property
    def statuses(self) -> list[ShardStatus]:
        """The state of each shard."""
        with self._changed:
            return [replace(actor.status) for actor in self._actors]

    def handles(self) -> list[Any]:
        """Ray's handle of each actor; None where it cannot be searched now.

        An actor whose last attempt to read its codes failed tries again.
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
        """Whether an actor answers at all, even if it is busy with a search."""
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
        with self._changed:
            self._changed.wait_for(
                lambda: self._all_ready or any(actor.failed for actor in self._actors),
                max(0.0, timeout_s),
            )
            return self._all_ready

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

    @property
    def _all_ready(self) -> bool:
        return all(actor.status.ready for actor in self._actors)

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
                message = cause.message if isinstance(cause, BitternError) else _short(cause)
                actor.failed, status.problem = True, f"its codes cannot be read: {message}"
                _log.error("shard %d: %s", status.number, status.problem)
            self._changed.notify_all()

    def _ended(self, actor: _Actor, handle: Any) -> None:
        """A process has ended.

        If it was reading its codes, it is replaced only when the next search needs it: the next
        process may end in the same way.
        """
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


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
