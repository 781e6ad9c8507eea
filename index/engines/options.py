"""How an archive is to be searched: which engine, with how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from bittern.errors import QueryError

EngineKind = Literal["auto", "flat", "ivf", "graph", "gpu"]

MAX_THREADS = 1_024
"""Most threads of one search."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What the one who opens an archive decides about searching it.

    Attributes:
        engine: ``auto`` takes what measured best for the size and the wanted recall; ``flat``
            is always exact; ``ivf`` and ``graph`` say which approximate index answers where
            less than all is wanted; ``gpu`` answers on the graphics card where there is one.
        recall: share of the true nearest that is wanted where a search does not say, above 0
            to 1; 1 is exact.
        threads: the most threads of one search, 1 to 1,024; None for one per usable core.
        gpu_memory: bytes of codes on the graphics card at most; None for what suits it.
        build: whether approximate indexes are built, in the background, when they are first
            wanted. Without, one that was kept is used and none is made: for those who ask once.
    """

    engine: EngineKind = "auto"
    recall: float = 1.0
    threads: int | None = None
    gpu_memory: int | None = None
    build: bool = True

    def __post_init__(self) -> None:
        """Check the values; whole numbers of any type become int, and other numbers float.

        Raises:
            QueryError: one of them is unusable.
        """
        if not isinstance(self.engine, str) or self.engine not in get_args(EngineKind):
            raise QueryError(
                f"engine must be one of {', '.join(get_args(EngineKind))}, not {self.engine!r}",
                field="engine",
            )
        if not isinstance(self.build, bool):
            raise QueryError(f"build must be True or False, not {self.build!r}", field="build")
        checked = {
            "recall": check_recall(self.recall),
            "threads": _whole("threads", self.threads, MAX_THREADS),
            "gpu_memory": _whole("gpu_memory", self.gpu_memory),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def check_options(options: object) -> SearchOptions:
    """Return the options, or the defaults for None; a QueryError for anything else."""
    if options is None:
        return SearchOptions()
    if not isinstance(options, SearchOptions):
        raise QueryError(
            "search must be SearchOptions, e.g. bittern.SearchOptions(recall=0.95), "
            f"not {type(options).__name__}",
            field="search",
        )
    return options


def check_recall(recall: object) -> float:
    """Return `recall` as a float if it can be wanted; a QueryError otherwise."""
    number = isinstance(recall, int | float | np.integer | np.floating)
    if not number or isinstance(recall, bool) or not 0 < recall <= 1:  # type: ignore[operator]
        raise QueryError(
            f"recall must be above 0 and at most 1 (exact), not {recall!r}", field="recall"
        )
    return float(recall)  # type: ignore[arg-type]


def _whole(name: str, value: object, most: int | None = None) -> int | None:
    """A whole number from 1 on, as an int; None stays None."""
    if value is None:
        return None
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    number = int(value) if whole else 0  # type: ignore[call-overload]
    if number < 1 or (most is not None and number > most):
        span = "of at least 1" if most is None else f"from 1 to {most:,}"
        raise QueryError(f"{name} must be a whole number {span}, not {value!r}", field=name)
    return number
