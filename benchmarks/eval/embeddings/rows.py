"""Embeddings in shards, read one tile at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.arrays import checked_rows
from bittern.benchmarks.eval.embeddings.shards import Shard
from bittern.errors import ArchiveDamagedError


class ShardedRows:
    """`EmbeddedRows` over shards on disk.

    In memory are owners and spans (16 bytes a row) and the tile at hand. Tiles are read into
    memory of their own instead of being mapped: pages of a file that stays mapped count as this
    process's memory, up to the whole file.
    """

    def __init__(self, shards: Sequence[Shard], dim: int, digest: str) -> None:
        """Join shards that have been checked.

        Args:
            shards: in the order of their items.
            dim: length of an embedding.
            digest: hex SHA-256 of what was embedded, by what.
        """
        self.dim = dim
        self.digest = digest
        firsts = np.concatenate([[0], np.cumsum([s.items for s in shards])]).astype(np.int64)
        self.items = int(firsts[-1])
        self.owners: NDArray[np.int64] = np.concatenate(
            [np.empty(0, np.int64), *(s.owners + f for s, f in zip(shards, firsts, strict=False))]
        )
        self.spans: NDArray[np.float32] = np.concatenate(
            [np.empty((0, 2), np.float32), *(s.spans for s in shards)]
        )
        self.failed: Sequence[tuple[int, str]] = tuple(
            (int(first) + place, sentence)
            for shard, first in zip(shards, firsts, strict=False)
            for place, sentence in shard.failed
        )
        self._starts = np.concatenate([[0], np.cumsum([len(s) for s in shards])]).astype(np.int64)
        self._tensors = [s.embeddings for s in shards]  # owners and spans are not kept twice

    def __len__(self) -> int:
        return len(self.owners)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """See `EmbeddedRows`. Each tile is a new array, of which this keeps nothing: whoever lets
        go of one before asking for the next has one in memory.

        Raises:
            ArchiveDamagedError: a shard was removed or cut short meanwhile.
        """
        for first in range(0, len(self), rows):
            yield first, self._between(first, min(first + rows, len(self)))

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `EmbeddedRows`; shard after shard, whatever the order asked for.

        Raises:
            CodeError: there is no such row.
            ArchiveDamagedError: a shard was removed or cut short meanwhile.
        """
        wanted = checked_rows(rows, len(self))
        taken = np.empty((len(wanted), self.dim), np.float32)
        order = np.argsort(wanted, kind="stable")
        cuts = np.searchsorted(wanted[order], self._starts)
        for shard, (begin, end) in enumerate(pairwise(cuts)):
            if begin < end:
                chosen = order[begin:end]
                local = wanted[chosen] - self._starts[shard]
                taken[chosen] = self._some(shard, local)
        return taken

    def _some(self, shard: int, local: NDArray[np.int64]) -> NDArray[np.float32]:
        """Ascending rows of a shard; the file is mapped for this call alone."""
        tensor = self._tensors[shard]
        try:
            if tensor.path.stat().st_size >= tensor.offset + tensor.shape[0] * self.dim * 4:
                some: NDArray[np.float32] = np.take(tensor.mapped(), local, axis=0)
                return some
        except OSError as error:
            raise self._gone(shard, str(error)) from error
        raise self._gone(shard, "it is shorter than it was")

    def _between(self, first: int, last: int) -> NDArray[np.float32]:
        """Rows `first` to `last - 1` in memory of their own."""
        tile = np.empty((last - first, self.dim), np.float32)
        shard = int(np.searchsorted(self._starts, first, "right")) - 1
        at = first
        while at < last:
            end = min(last, int(self._starts[shard + 1]))
            if at < end:
                self._fill(shard, at, tile[at - first : end - first])
            at, shard = max(at, end), shard + 1
        return tile

    def _fill(self, shard: int, at: int, out: NDArray[np.float32]) -> None:
        tensor = self._tensors[shard]
        try:
            with tensor.path.open("rb", buffering=0) as stream:
                stream.seek(tensor.offset + (at - int(self._starts[shard])) * self.dim * 4)
                view, got = out.data.cast("B"), 0
                while got < len(view) and (more := stream.readinto(view[got:])):
                    got += more
        except OSError as error:
            raise self._gone(shard, str(error)) from error
        if got < out.nbytes:
            raise self._gone(shard, "it is shorter than it was")

    def _gone(self, shard: int, why: str) -> ArchiveDamagedError:
        return ArchiveDamagedError(
            f"embeddings were lost while they were read, {self._tensors[shard].path}: {why}. Run "
            "again: only this shard is made again."
        )
