"""How far embedding has come, and whether the disk has room for the rest."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from bittern.benchmarks.eval.embeddings.shards import Shard
from bittern.errors import LimitExceededError
from bittern.service.ingest.report import Stages, new_stages
from bittern.text import agreeing, counted

_TOLD_S = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far embedding has come.

    Attributes:
        done: items that are through, those that were there already included.
        total: items.
        looked_up: items that were looked for in the cache; nothing is embedded before all were.
        failed: items without an embedding, so far.
        found: items that were embedded before.
        disk_bytes: what is going to be written, at least: recordings count one window each.
        stages: what the stages of the pipeline have done.
    """

    done: int
    total: int
    looked_up: int
    failed: int
    found: int
    disk_bytes: int
    stages: Stages


OnProgress = Callable[[Progress], None]


@dataclass
class Watch:
    """Counts what is through, and tells of it."""

    total: int
    dim: int
    folder: Path
    on_progress: OnProgress
    done: int = 0
    looked_up: int = 0
    failed: int = 0
    found: int = 0
    disk_bytes: int = 0
    stages: Stages = field(default_factory=new_stages)
    told: float = 0.0

    def look_up(self, last: int, shard: Shard | None) -> None:
        """The cache was looked through up to item `last`; the shard was there, or not."""
        self.looked_up = last
        if shard is not None:
            self.found += shard.items
            self.done += shard.items
            self.failed += len(shard.failed)
        self.tell()

    def begin(self) -> None:
        """See whether what is not there has room on the disk.

        Raises:
            LimitExceededError: it has not.
        """
        left = self.total - self.found
        self.disk_bytes = left * self.dim * 4
        check_room(self.folder, self.disk_bytes, left, self.dim)
        if left:
            _log.info(
                "embedding %d of %d items: at least %d MB below %s",
                left, self.total, self.disk_bytes // 10**6, self.folder,
            )  # fmt: skip
        self.tell(at_once=True)

    def item(self, failed: bool) -> None:
        """One more item is through."""
        self.done += 1
        self.failed += failed
        self.tell()

    def tell(self, at_once: bool = False) -> None:
        """Call back, twice a second at the most unless `at_once`."""
        now = monotonic()
        if at_once or now - self.told >= _TOLD_S:
            self.told = now
            self.on_progress(
                Progress(
                    self.done,
                    self.total,
                    self.looked_up,
                    self.failed,
                    self.found,
                    self.disk_bytes,
                    self.stages,
                )
            )


def check_room(folder: Path, needed: int, rows: int, dim: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        LimitExceededError: with the sizes, and what to do.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LimitExceededError(
            f"{counted(rows, 'embedding')} of {dim} float32 "
            f"{agreeing(rows, 'needs', 'need')} {needed / 1e9:.1f} GB, the disk of {folder} "
            f"has {free / 1e9:.1f} GB left. Make room, or keep the cache on another disk.",
            details={"needed": str(needed), "free": str(free)},
        )
