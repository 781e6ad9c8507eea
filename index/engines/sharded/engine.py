"""Search over shards: scatter the queries, gather what each shard found, merge it.

Shards compute the same distances from the same weights, bit for bit, and (distance, row) is a
total order; so the answer does not depend on how the rows are spread, nor on who answers first.
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
    QueryError,
    ShardUnavailableError,
)
from bittern.index.engines.nearest import Nearest
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowSet
from bittern.index.engines.sharded.actors import Members, Sharding, ShardStatus
from bittern.index.engines.sharded.cluster import ray_library
from bittern.index.engines.sharded.shard import Asked, Found, GenerationGoneError, Limits
from bittern.index.engines.sharded.sources import Source

_ATTEMPTS = 3
"""A search starts again when the generation that it named is let go meanwhile."""
_INLINE_BYTES = 64 << 10
"""What is larger is put into shared memory once; what is smaller is sent faster without."""
_tokens = itertools.count()


@dataclass(frozen=True)
class Partial:
    """What could be found, and where nobody looked.

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


@dataclass(frozen=True)
class _Call:
    """One search as every shard is asked it."""

    method: str
    asked: Asked
    bound: int | float


class ShardedEngine:
    """Exact search over rows that are spread over Ray actors. Safe to use from several threads.

    Ray must be running: `local_cluster` starts it on this machine, `ray.init` connects to a
    cluster. A shard that is lost is replaced and reads its codes again; until then searches
    raise, or leave it out if that is asked for (`search_available`).

    Args:
        source: where shards read their codes.
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
                "machine with index.engines.sharded.local_cluster"
            )
        self._source = source
        self._sharding = sharding or Sharding()
        self._stripes = self._sharding.stripes
        self._refreshing = threading.Lock()
        self._members = Members(source, self._sharding, version)
        if not self._members.wait(self._sharding.loading_s):
            statuses = self.shards
            self.close()
            raise self._unavailable([s.number for s in statuses if not s.ready], statuses)

    @property
    def version(self) -> int:
        """The generation that searches see."""
        return self._members.version

    @property
    def bits(self) -> int:
        """Code length."""
        return next(s.loaded.bits for s in self.shards if s.loaded is not None)

    @property
    def shards(self) -> list[ShardStatus]:
        """How each shard is."""
        return self._members.statuses

    def __len__(self) -> int:
        return sum(s.loaded.codes for s in self.shards if s.loaded is not None)

    @property
    def nbytes(self) -> int:
        """Bytes that the shards hold besides the codes; of those that answer."""
        actors = [actor for actor in self._members.actors() if actor is not None]
        calls = [actor.nbytes.remote(self.version) for actor in actors]
        until = monotonic() + self._sharding.timeout_s
        total = 0
        for call in calls:
            try:
                total += self._ray.get(call, timeout=max(0.0, until - monotonic()))
            except self._ray.exceptions.RayError:
                continue
        return total

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.search`.

        Raises:
            CodeError: the queries are of another code length.
            ShardUnavailableError: a shard is lost, and not back yet.
            DeadlineExceededError: it takes longer than `Sharding.timeout_s`.
        """
        return self._whole(*self._search(queries, k, rows))

    def within(self, queries: Queries, radius: float, rows: RowSet | None = None) -> list[Nearest]:
        """See `SearchEngine.within`.

        Raises:
            CodeError: the queries are of another code length.
            QueryError: the radius is not a number.
            ShardUnavailableError: a shard is lost, and not back yet.
            DeadlineExceededError: it takes longer than `Sharding.timeout_s`.
        """
        return self._whole(*self._within(queries, radius, rows))

    def search_available(self, queries: Queries, k: int, rows: RowSet | None = None) -> Partial:
        """Like `search`, but over those shards that answer; says what was left out."""
        return self._partial(*self._search(queries, k, rows))

    def within_available(
        self, queries: Queries, radius: float, rows: RowSet | None = None
    ) -> Partial:
        """Like `within`, but over those shards that answer; says what was left out."""
        return self._partial(*self._within(queries, radius, rows))

    def refresh(self, version: int) -> None:
        """Let searches see another generation, all shards at once.

        Searches go on meanwhile, in the generation before; none ever sees two.

        Raises:
            ArchiveDamagedError: a shard cannot read it. Here and below nothing has changed.
            ShardUnavailableError: a shard is lost.
            DeadlineExceededError: it takes longer than `Sharding.loading_s`.
        """
        with self._refreshing:
            if version == self.version:
                return
            actors = self._members.actors()
            lost = [number for number, actor in enumerate(actors) if actor is None]
            if lost:
                raise self._unavailable(lost, self.shards)
            calls = [a.load.remote(self._source, version, self.version) for a in actors]
            found, missing = self._gather(
                dict(enumerate(calls)), actors, monotonic() + self._sharding.loading_s
            )
            missing = missing or self._members.switch(actors, [found[n] for n in sorted(found)])
            if missing:
                raise self._unavailable(missing, self.shards)

    def wait(self, timeout_s: float) -> bool:
        """Wait until all shards can be searched; returns whether they can."""
        return self._members.wait(timeout_s)

    def close(self) -> None:
        """End the shards; the engine cannot be used afterwards."""
        self._members.close()

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

    def _search(
        self, queries: Queries, k: int, rows: RowSet | None
    ) -> tuple[list[Nearest], list[int]]:
        queries.check_fits(self.bits)
        return self._ask(_Call("search", Asked.of(queries), k), k, rows)

    def _within(
        self, queries: Queries, radius: float, rows: RowSet | None
    ) -> tuple[list[Nearest], list[int]]:
        queries.check_fits(self.bits)
        if not radius >= 0:
            raise QueryError(f"a distance must be 0 or more, not {radius!r}", field="within")
        return self._ask(_Call("within", Asked.of(queries), float(radius)), None, rows)

    def _ask(
        self, call: _Call, k: int | None, rows: RowSet | None
    ) -> tuple[list[Nearest], list[int]]:
        """What the shards found, merged; and the numbers of those that did not answer."""
        limits = None if rows is None else self._limits(rows)
        for _ in range(_ATTEMPTS):
            try:
                found, missing = self._ask_version(self.version, call, limits)
            except GenerationGoneError:
                continue
            parts = [found[number].nearest() for number in sorted(found)]
            return [
                Nearest.best_of([part[query] for part in parts], k)
                for query in range(len(call.asked.values))
            ], missing
        raise InternalError(f"the archive changed {_ATTEMPTS} times during one search; ask again")

    def _ask_version(
        self, version: int, call: _Call, limits: Sequence[Any] | None
    ) -> tuple[dict[int, Found], list[int]]:
        actors = self._members.actors()
        asked = self._shared(call.asked, call.asked.values.nbytes)
        calls: dict[int, Any] = {}
        for number, actor in enumerate(actors):
            if limits is not None and limits[number] is None:
                continue  # none of its rows may be found
            limit = None if limits is None else limits[number]
            if actor is not None:
                method = getattr(actor, call.method)
                calls[number] = method.remote(version, asked, call.bound, limit)
            else:
                calls[number] = None
        return self._gather(calls, actors, monotonic() + self._sharding.timeout_s)

    def _gather(
        self, calls: dict[int, Any], actors: Sequence[Any], until: float
    ) -> tuple[dict[int, Any], list[int]]:
        """Results by shard, and the shards that gave none; those are reported as lost."""
        sent = {number: call for number, call in calls.items() if call is not None}
        missing = [number for number, call in calls.items() if call is None]
        found: dict[int, Any] = {}
        errors = self._ray.exceptions
        for number, call in sent.items():
            try:
                found[number] = self._ray.get(call, timeout=max(0.0, until - monotonic()))
            except errors.RayTaskError as error:
                self._raise_cause(number, error)
            except errors.GetTimeoutError:
                if self._members.answers(actors[number]):
                    raise DeadlineExceededError(
                        f"shard {number} is still at work on what it was asked; ask for fewer "
                        "queries at once, or allow more in Sharding.timeout_s or loading_s"
                    ) from None
                self._members.report(number, actors[number], "it did not answer in time")
                missing.append(number)
            except errors.RayError as error:
                problem = f"its process has ended ({type(error).__name__})"
                self._members.report(number, actors[number], problem)
                missing.append(number)
        return found, sorted(missing)

    def _raise_cause(self, number: int, error: Any) -> None:
        cause = error.cause
        if isinstance(cause, BitternError | GenerationGoneError):
            raise cause from None
        raise InternalError(
            f"shard {number} failed: {type(cause).__name__}: {cause}; please report this"
        ) from error

    def _limits(self, rows: RowSet) -> list[Any]:
        """Each shard's share of some rows, as it is sent; None where it has none."""
        known: list[Any] | None = rows.known.get(self)
        if known is None:
            token, known = next(_tokens), []
            for part in self._stripes.split(rows.rows):
                packed = self._stripes.packed(part)
                size = packed.values.nbytes
                known.append(self._shared(Limits(token, packed), size) if size else None)
            rows.known[self] = known
        return known

    def _shared(self, value: Any, nbytes: int) -> Any:
        """What is to be sent, put into shared memory where it is large."""
        return self._ray.put(value) if nbytes > _INLINE_BYTES else value

    # What is missing

    def _whole(self, nearest: list[Nearest], missing: list[int]) -> list[Nearest]:
        if missing:
            raise self._unavailable(missing, self.shards)
        return nearest

    def _partial(self, nearest: list[Nearest], missing: list[int]) -> Partial:
        end = max((s.loaded.last_row + 1 for s in self.shards if s.loaded is not None), default=0)
        ranges = [np.empty((0, 2), np.int64), *(self._stripes.ranges(n, end) for n in missing)]
        joined = np.concatenate(ranges)
        return Partial(nearest, joined[np.argsort(joined[:, 0])])

    def _unavailable(
        self, missing: Sequence[int], statuses: Sequence[ShardStatus]
    ) -> ShardUnavailableError:
        """What to raise where shards are missing."""
        problems = "; ".join(
            f"shard {number}: {statuses[number].problem or 'it reads its codes'}"
            for number in missing[:3]
        )
        more = " ..." if len(missing) > 3 else ""
        return ShardUnavailableError(
            f"{len(missing)} of {len(statuses)} shards cannot be searched ({problems}{more}); "
            "they are replaced and read their codes again: ask again in a while",
            details={"shards": ",".join(map(str, missing)), "of": str(len(statuses))},
        )
