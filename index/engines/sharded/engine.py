"""Search over shards: scatter the queries, gather what each shard found, merge it.

Shards compute the same distances from the same weights, bit for bit, and (distance, row) is a
total order. So the answer does not depend on how rows are spread, nor on which shard answers first.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
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
from bittern.index.engines.engine import Nearest, RowSet
from bittern.index.engines.queries import Queries
from bittern.index.engines.sharded.actors import Actors, Sharding, ShardStatus
from bittern.index.engines.sharded.cluster import ray_library
from bittern.index.engines.sharded.shard import GenerationGoneError, ShardRows, Source

_ATTEMPTS = 3
"""A search starts again when its generation is dropped meanwhile."""
_INLINE_BYTES = 64 << 10
"""Larger messages are put into shared memory once; smaller ones are sent faster without."""
_tokens = itertools.count()


@dataclass(frozen=True)
class Partial:
    """The hits of the shards that answered, and which rows were not searched.

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
        self._actors = Actors(source, self._sharding, version)
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
            ShardUnavailableError: a shard is lost, and not back yet.
            DeadlineExceededError: it takes longer than `Sharding.timeout_s`.
        """
        return self._complete(*self._scatter(queries, k, rows))

    def search_available(self, queries: Queries, k: int, rows: RowSet | None = None) -> Partial:
        """Like `search`, but over the shards that answer; names the rows that were left out."""
        nearest, missing = self._scatter(queries, k, rows)
        end = max((s.loaded.last_row + 1 for s in self.shards if s.loaded is not None), default=0)
        ranges = [np.empty((0, 2), np.int64), *(self._partitions.ranges(n, end) for n in missing)]
        joined = np.concatenate(ranges)
        return Partial(nearest, joined[np.argsort(joined[:, 0])])

    def refresh(self, version: int) -> None:
        """Let searches see another generation, all shards at once.

        Searches go on meanwhile, in the generation before; none ever sees two.

        Raises:
            ArchiveDamagedError: a shard cannot read it. In this and the other cases nothing has
                changed.
            ShardUnavailableError: a shard is lost.
            DeadlineExceededError: it takes longer than `Sharding.loading_s`.
        """
        with self._refreshing:
            if version == self.version:
                return
            handles = self._actors.handles()
            self._complete([], [number for number, handle in enumerate(handles) if handle is None])
            calls = {
                n: handle.load.remote(self._source, version, self.version)
                for n, handle in enumerate(handles)
            }
            found, missing = self._gather(calls, handles, self._sharding.loading_s)
            self._complete(
                [],
                missing or self._actors.switch(handles, [found[n] for n in sorted(found)]),
            )

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

    # Scatter, gather, merge

    def _scatter(
        self, queries: Queries, k: int, rows: RowSet | None
    ) -> tuple[list[Nearest], list[int]]:
        """What the shards found, merged; and the numbers of those that did not answer."""
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
        """Results by shard, and the shards that gave none; these are reported as lost."""
        until = monotonic() + timeout_s
        missing = [number for number, call in calls.items() if call is None]
        found: dict[int, Any] = {}
        errors = self._ray.exceptions
        for number, call in calls.items():
            if call is None:
                continue
            try:
                found[number] = self._ray.get(call, timeout=max(0.0, until - monotonic()))
            except errors.RayTaskError as error:
                _raise_cause(number, error)
            except errors.GetTimeoutError:
                if self._actors.is_alive(handles[number]):
                    raise DeadlineExceededError(
                        f"shard {number} is still at work; search with fewer queries at once, or "
                        "raise Sharding.timeout_s or loading_s"
                    ) from None
                self._actors.report(number, handles[number], "it did not answer in time")
                missing.append(number)
            except errors.RayError as error:
                problem = f"its process has ended ({type(error).__name__})"
                self._actors.report(number, handles[number], problem)
                missing.append(number)
        return found, sorted(missing)

    def _shard_rows(self, rows: RowSet) -> list[Any]:
        """Each shard's rows of a set, as it is sent; None where it has none."""
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
        """A message, put into shared memory where it is large."""
        return self._ray.put(value) if nbytes > _INLINE_BYTES else value

    def _complete(self, nearest: list[Nearest], missing: list[int]) -> list[Nearest]:
        """The hits, unless shards are missing."""
        if missing:
            raise _unavailable(missing, self.shards)
        return nearest


def _raise_cause(number: int, error: Any) -> None:
    cause = error.cause
    if isinstance(cause, BitternError | GenerationGoneError):
        raise cause from None
    raise InternalError(
        f"shard {number} failed: {type(cause).__name__}: {cause}; please report this"
    ) from error


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
