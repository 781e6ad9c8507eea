"""Codes for the shards of a sharded engine, read from an archive's store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bittern.errors import ArchiveDamagedError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.sharded.shard import Partitions
from bittern.index.loading import Coded, ascending, coded, int64s
from bittern.index.store import Store, quoted


@dataclass(frozen=True)
class StoreSource:
    """Reads a shard's codes from an archive's store, at the same path on every machine.

    Attributes:
        store: the store's folder.
        column: the column of a model's codes.
        modality: ``image`` or ``audio``; None for both.
    """

    store: Path
    column: str
    modality: str | None = None

    def read(
        self,
        version: int,
        partitions: Partitions,
        shard: int,
        before: tuple[int, CodeBlocks] | None,
    ) -> CodeBlocks:
        """See `engines.sharded.Source`; of a later generation only the changes are read."""
        store = Store(self.store, version)
        if store.field_type(self.column) is None:
            raise ArchiveDamagedError(
                f"version {version} of the store at {self.store} has no column {self.column}; "
                "open a version after the model was registered"
            )
        condition = f"{partitions.condition(shard)} AND `{self.column}` IS NOT NULL"
        if self.modality is not None:
            condition += f" AND `modality` = {quoted(self.modality)}"
        if before is None:
            return partitions.blocks(*self._codes(store, condition))
        known_version, blocks = before
        live = np.sort(int64s(store.read(["row"], condition)["row"]))
        rows, codes = self._codes(store, f"{condition} AND `committed` > {known_version}")
        known = blocks.rows
        gone = np.union1d(
            np.setdiff1d(known, live, assume_unique=True),
            np.intersect1d(known, rows, assume_unique=True),
        )
        return (blocks.without(gone) if len(gone) else blocks).merged(rows, codes)

    def _codes(self, store: Store, condition: str) -> Coded:
        table = store.read(["row", self.column], condition)
        return ascending(*coded(table["row"], table[self.column], store.code_bytes(self.column)))
