"""How an archive is to be searched: which engine, with how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bittern.errors import QueryError

EngineKind = Literal["auto", "flat", "ivf", "graph", "gpu"]


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What the one who opens an archive decides about searching it.

    Attributes:
        engine: ``auto`` takes what measured best for the size and the wanted recall; ``flat``
            is always exact; ``ivf`` and ``graph`` say which approximate index answers where
            less than all is wanted; ``gpu`` answers on the graphics card where there is one.
        recall: share of the true nearest that is wanted where a search does not say, above 0
            to 1; 1 is exact.
        threads: the most threads of one search; None for one per usable core.
        gpu_memory: bytes of codes on the graphics card at most; None for what suits it.
    """

    engine: EngineKind = "auto"
    recall: float = 1.0
    threads: int | None = None
    gpu_memory: int | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            QueryError: one of them is unusable.
        """
        if self.engine not in get_args(EngineKind):
            raise QueryError(
                f"engine must be one of {', '.join(get_args(EngineKind))}, not {self.engine!r}",
                field="engine",
            )
        check_recall(self.recall)
        for name, value in (("threads", self.threads), ("gpu_memory", self.gpu_memory)):
            if value is not None and (isinstance(value, bool) or value < 1):
                raise QueryError(f"{name} must be at least 1, not {value!r}", field=name)


def check_recall(recall: float) -> float:
    """Return `recall` if it can be wanted; a QueryError otherwise."""
    if isinstance(recall, bool) or not isinstance(recall, int | float) or not 0 < recall <= 1:
        raise QueryError(
            f"recall must be above 0 and at most 1 (exact), not {recall!r}", field="recall"
        )
    return float(recall)
