"""What papers differ in, as options that are written into every result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Windows = Literal["max", "mean", "separate"]
Level = Literal["species", "genus", "family", "order", "class"]
Novel = Literal["none", "random", "taxonomy"]
Candidates = Literal["full", "rerank", "both"]


@dataclass(frozen=True)
class Protocol:
    """How a suite is run.

    Attributes:
        prompts: templates of queries for classes, with ``{common}``, ``{scientific}``,
            ``{taxonomy}`` and ``{name}``; empty for the suite's own. One query each, unless
            averaged.
        average_prompts: one query per class, the mean of its prompts' embeddings.
        database: name of the published split that is ranked; empty for the suite's own.
        windows: a recording counts by its nearest window (``max``), by the mean distance of its
            windows (``mean``), or each window is an item (``separate``).
        level: what counts as the same kind.
        novel: how classes are told into seen and novel: not at all, at random, or so that novel
            ones share no genus (or higher taxon) with seen ones (cf. arXiv 2208.08217).
        novel_share: of the classes, what part is novel.
        soundscapes: folder of annotated soundscapes to search as well; empty for none.
        candidates: INQUIRE: full ranking, the given 100 candidates per query, or both.
        fit_on: unlabelled items that training-free systems look at: those that are searched, or
            the published training split.
        fit_rows: at most so many rows are fitted on, drawn at random.
        depth: rank so deep; 0 for everything.
        missing: whether items without a file are left out (``skip``) or end the run (``error``).
        unknown: the same for qrels that name items or queries that there are not.
        repeats: random splits of suites that have them.
        seed: of everything that is drawn.
    """

    prompts: Sequence[str] = ()
    average_prompts: bool = False
    database: str = ""
    windows: Windows = "max"
    level: Level = "species"
    novel: Novel = "none"
    novel_share: float = 0.2
    soundscapes: str = ""
    candidates: Candidates = "both"
    fit_on: Literal["items", "training"] = "items"
    fit_rows: int = 100_000
    depth: int | None = None
    missing: Literal["error", "skip"] = "error"
    unknown: Literal["error", "skip"] = "error"
    repeats: int = 3
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
