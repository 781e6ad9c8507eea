"""The actors as the driver sees them: started, watched, and replaced when they are lost.

One thread, the keeper, does all replacing. It is told when a process ends (each actor has a
call that never returns, whose failure says so at once), when a shard has read its codes, and
when a search waited for a shard in vain.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import Any

from bittern.errors import BitternError, PreconditionError
from bittern.index.engines.blocks import BLOCK_ROWS
from bittern.index.engines.sharded.cluster import ray_library
from bittern.index.engines.sharded.partitions import Stripes
from bittern.index.engines.sharded.shard import Loaded, Shard
from bittern.index.engines.sharded.sources import Source

_CALLS_AT_ONCE = 16
"""Of one actor: searches, and a load."""
_CONTROL = "control"
"""Calls of this group are answered however many searches there are."""
_PROBE_S = 5.0
"""A process that says nothing for so long is taken for dead."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sharding:
    """How the codes are spread.

    Attributes:
        shards: number of actors.
        threads: cores of each; Ray is asked for as many.
        stripe_rows: rows of one range, as many as a block has at most unless told otherwise;
            ranges are dealt out to the shards in turn.
        timeout_s: the longest that a search may take. A shard that does not answer then is
            replaced, unless it says that it is still at work.
        loading_s: the longest that reading the codes may take.
    """

    shards: int = 2
    threads: int = 1
    stripe_rows: int = BLOCK_ROWS
    timeout_s: float = 30.0
    loading_s: float = 3600.0

    @property
    def stripes(self) -> Stripes:
        """Which rows belong to which shard."""
        return Stripes(self.shards, self.stripe_rows)


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One shard as the driver sees it.

    Attributes:
        number: which one.
        ready: whether it can be searched.
        problem: why not, if there is more to say than that it reads its codes.
        restarts: how often it had to be replaced.
        loaded: what it holds, or held before it was lost; None before it was ever ready.
    """

    number: int
    ready: bool
    problem: str
    restarts: int
    loaded: Loaded | None


def check_room(ray: Any, sharding: Sharding) -> None:
    """Check that a cluster has the cores for all shards; Ray would wait for them forever.

    Raises:
        PreconditionError: it has not.
    """
    cores = int(ray.cluster_resources().get("CPU", 0))
    if cores < sharding.shards * sharding.threads:
        raise PreconditionError(
            f"{sharding.shards} shards of {sharding.threads} threads need "
            f"{sharding.shards * sharding.threads} cores, the Ray cluster has {cores}; "
            "ask for fewer shards or threads, or add machines"
        )


class Member:
    """One shard: its actor, and whether that can be asked. Guarded by its `Members`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.actor: Any = None
        self.ready = False
        self.loading = False
        self.failed = False
        self.problem = ""
        self.restarts = 0
        self.loaded: Loaded | None = None

    @property
    def status(self) -> ShardStatus:
        """For people."""
        return ShardStatus(self.number, self.ready, self.problem, self.restarts, self.loaded)


class Members:
    """All shards of an engine.

    Args:
        source: where they read their codes.
        sharding: how many there are.
        version: the generation that they are to hold.
    """

    def __init__(self, source: Source, sharding: Sharding, version: int) -> None:
        self._ray = ray_library()
        check_room(self._ray, sharding)
        self._source = source
        self._sharding = sharding
        self._version = version
        self._members = [Member(number) for number in range(sharding.shards)]
        self._changed = threading.Condition()
        self._events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        self._keeper = threading.Thread(target=self._keep, name="bittern-shards", daemon=True)
        self._keeper.start()
        for member in self._members:
            self._start(member)

    @property
    def version(self) -> int:
        """The generation that searches are to name."""
        return self._version

    @property
    def statuses(self) -> list[ShardStatus]:
        """How each shard is."""
        with self._changed:
            return [member.status for member in self._members]

    def actors(self) -> list[Any]:
        """Each shard's actor; None where it cannot be searched now.

        One whose last attempt to read its codes has failed is told to try again.
        """
        with self._changed:
            for member in self._members:
                if member.failed and not self._closed:
                    member.failed = False
                    self._post(self._replace, member, member.actor, member.problem)
            return [member.actor if member.ready else None for member in self._members]

    def report(self, number: int, actor: Any, problem: str) -> None:
        """Say that an actor does not answer: it is replaced, unless it has been already."""
        with self._changed:
            member = self._members[number]
            if member.actor is actor and not self._closed:
                # From now on nobody waits for it.
                member.ready, member.problem = False, problem
                self._post(self._replace, member, actor, problem)

    def answers(self, actor: Any) -> bool:
        """Whether an actor says anything at all, if not what it was asked."""
        call = actor.process.options(concurrency_group=_CONTROL).remote()
        try:
            self._ray.get(call, timeout=min(_PROBE_S, self._sharding.timeout_s))
        except self._ray.exceptions.RayError:
            return False
        return True

    def switch(self, actors: Sequence[Any], loaded: Sequence[Loaded]) -> list[int]:
        """Let searches name the generation that these actors have taken up.

        Returns:
            shards whose actor was replaced meanwhile; where there are any, nothing has changed.
        """
        with self._changed:
            pairs = list(zip(self._members, actors, strict=True))
            replaced = [member.number for member, actor in pairs if member.actor is not actor]
            if not replaced:
                self._version = loaded[0].version
                for member, one in zip(self._members, loaded, strict=True):
                    member.loaded = one
            return replaced

    def wait(self, timeout_s: float) -> bool:
        """Wait until every shard can be searched, or one has failed to read its codes.

        Returns:
            whether every shard can be searched.
        """
        until = monotonic() + timeout_s
        with self._changed:
            self._changed.wait_for(self._settled, max(0.0, until - monotonic()))
            return all(member.ready for member in self._members)

    def close(self) -> None:
        """End all actors."""
        with self._changed:
            self._closed = True
            actors = [member.actor for member in self._members]
            for member in self._members:
                member.ready, member.problem = False, "the engine is closed"
        self._events.put(None)
        self._keeper.join()
        if self._ray.is_initialized():
            for actor in actors:
                self._ray.kill(actor)

    def _settled(self) -> bool:
        return all(m.ready for m in self._members) or any(m.failed for m in self._members)

    # The keeper's thread

    def _post(self, act: Callable[..., None], *arguments: Any) -> None:
        self._events.put(lambda: act(*arguments))

    def _keep(self) -> None:
        while (act := self._events.get()) is not None:
            try:
                act()
            except Exception:
                # Ray itself is gone, perhaps; the next search says so.
                _log.exception("a shard could not be looked after")

    def _start(self, member: Member) -> None:
        """Give a shard a fresh actor, which begins to read its codes."""
        number, sharding = member.number, self._sharding
        as_actor = self._ray.remote(
            num_cpus=sharding.threads,
            max_concurrency=_CALLS_AT_ONCE,
            concurrency_groups={_CONTROL: 2},
            scheduling_strategy="SPREAD",
        )
        actor = as_actor(Shard).remote(number, sharding.stripes, sharding.threads)
        with self._changed:
            member.actor, member.ready, member.failed = actor, False, False
            member.loading, version = True, self._version
        # These run on Ray's own thread, which must not wait: they leave word and return.
        actor.watch.options(concurrency_group=_CONTROL).remote().future().add_done_callback(
            lambda ended: self._post(self._ended, member, actor)
        )
        actor.load.remote(self._source, version, version).future().add_done_callback(
            lambda done: self._post(self._loaded, member, actor, done)
        )

    def _loaded(self, member: Member, actor: Any, done: Any) -> None:
        error = done.exception()
        with self._changed:
            if member.actor is not actor or self._closed:
                return
            member.loading = False
            if error is None:
                member.loaded, member.ready, member.problem = done.result(), True, ""
            else:
                cause = getattr(error, "cause", None) or error
                told = cause.message if isinstance(cause, BitternError) else _short(cause)
                member.failed, member.problem = True, f"its codes cannot be read: {told}"
                _log.error("shard %d: %s", member.number, member.problem)
            self._changed.notify_all()

    def _ended(self, member: Member, actor: Any) -> None:
        """A process has ended. If it did so while reading its codes, it is not replaced before
        it is needed: the next one may do the same.
        """
        with self._changed:
            if member.actor is not actor or self._closed:
                return
            member.ready, member.problem = False, "its process has ended"
            if member.loading:
                member.loading, member.failed = False, True
                self._changed.notify_all()
                return
        self._replace(member, actor, member.problem)

    def _replace(self, member: Member, actor: Any, problem: str) -> None:
        with self._changed:
            if member.actor is not actor or self._closed:
                return
            member.ready, member.problem = False, problem
            member.restarts += 1
        _log.warning("shard %d is replaced: %s", member.number, problem)
        self._ray.kill(actor)
        self._start(member)


def _short(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else ''}"
