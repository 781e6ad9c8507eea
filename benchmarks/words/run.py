"""Every contestant over several splits and code lengths, as two tables: seen and novel classes.

A split has a seed, which also seeds the contestants. Figures are means over the splits, ±
their standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bittern.benchmarks.measures import chance_of_average_precision
from bittern.benchmarks.speed.report import Report, Table, bar, say
from bittern.benchmarks.words.contestants import CONTESTANTS, Contestant
from bittern.benchmarks.words.data import FILES, EmbeddedWords, load
from bittern.benchmarks.words.protocol import WordsTask, split

BITS = (16, 32, 64, 128, 256)
SEEDS = 3
QUICK_BITS = (64,)
QUICK_SEEDS = 1
_SEEDS_APART = 1000
"""Between the splits' ranges of seeds, so that no two draws share one."""
NOTES = (
    "mAP over the whole database, as trec_eval's map; mean over splits ± standard deviation.",
    "HB: Hashing-Baseline. Names too: components of names and glosses, not of glosses alone.",
    "Novel classes are few, and splits differ: compare within a split (--json has every one).",
    "Equal distances are ordered by row. Chance: the expectation over all orders.",
    "Everything is fitted on the training half of the seen classes, their names included.",
)


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        seeds: how many splits, numbered from 0.
        bits: code lengths.
        folder: with WordNet's `data.noun`; found or fetched if none is given.
        files: lexicographer files that nouns are taken from.
        ideas: measure what else was tried, in place of the contestants.
        by_definition: ask with the classes' definitions, which nothing was trained on.
    """

    seeds: int = SEEDS
    bits: Sequence[int] = BITS
    folder: Path | None = None
    files: Sequence[int] = FILES
    ideas: bool = False
    by_definition: bool = False


@dataclass(frozen=True)
class Figure:
    """One contestant on one split.

    Attributes:
        contestant: its name.
        metric: ``asymmetric``, ``symmetric`` or ``cosine``.
        bits: of a code; 0 for floats.
        split: seed of the split.
        seen: mAP of the seen classes' names.
        novel: mAP of the novel classes' names.
    """

    contestant: str
    metric: str
    bits: int
    split: int
    seen: float
    novel: float


def run(settings: Settings) -> Report:
    """Measure all contestants on WordNet, the learned ones included.

    Raises:
        SourceNotFoundError, InvalidInputError, WeightsMissingError: the data cannot be had.
        CodeError: unusable bits.
    """
    from bittern.benchmarks.words.ideas import IDEAS
    from bittern.benchmarks.words.learned import LEARNED

    words = load(settings.folder, settings.files, by_definition=settings.by_definition)
    return report(words, settings, IDEAS if settings.ideas else (*CONTESTANTS, *LEARNED))


def report(
    words: EmbeddedWords, settings: Settings, contestants: Sequence[Contestant] = CONTESTANTS
) -> Report:
    """Measure `contestants` on words that are embedded already."""
    figures = list(measure(words, settings, contestants))
    tables = [_table(figures, settings.bits, side) for side in ("seen", "novel")]
    tables[-1] = replace(tables[-1], notes=NOTES)
    values: dict[str, Any] = {
        "files": list(settings.files),
        "items": len(words.items),
        "classes": len(words.queries),
        "figures": [figure.__dict__ for figure in figures],
    }
    return Report("words", _size(words, settings), tables, values)


def measure(
    words: EmbeddedWords, settings: Settings, contestants: Sequence[Contestant]
) -> Iterator[Figure]:
    """Every figure, split by split."""
    coded = sum(len(settings.bits) if c.coded else 1 for c in contestants)
    with bar(settings.seeds * coded) as advance:
        for seed in range(settings.seeds):
            say(f"split {seed + 1} of {settings.seeds}")
            task = split(words, seed)
            yield _chance(task, seed)
            for contestant in contestants:
                for bits in settings.bits if contestant.coded else (0,):
                    yield from _figures(contestant, task, bits, seed)
                    advance()


def _figures(contestant: Contestant, task: WordsTask, bits: int, seed: int) -> list[Figure]:
    """Means over the contestant's draws, by metric."""
    drawn = [
        contestant.measure(task, bits, seed * _SEEDS_APART + draw)
        for draw in range(contestant.draws)
    ]
    return [
        Figure(
            contestant.name,
            metric,
            bits,
            seed,
            seen=float(np.mean([qualities[metric].seen for qualities in drawn])),
            novel=float(np.mean([qualities[metric].novel for qualities in drawn])),
        )
        for metric in drawn[0]
    ]


def _chance(task: WordsTask, seed: int) -> Figure:
    relevant = task.relevant
    expected = np.array([chance_of_average_precision(int(row.sum()), len(row)) for row in relevant])
    seen, novel = expected[task.seen].mean(), expected[task.novel].mean()
    return Figure("chance", "", 0, seed, float(seen), float(novel))


def _table(figures: Sequence[Figure], bits: Sequence[int], side: str) -> Table:
    """Rows are contestants and metrics; floats stand in a column of their own."""
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for figure in figures:
        row = found.setdefault((figure.contestant, figure.metric), {})
        row.setdefault(figure.bits, []).append(getattr(figure, side))
    columns = (0, *bits)
    rows = [
        [name, metric, *(_cell(by_bits.get(column, [])) for column in columns)]
        for (name, metric), by_bits in found.items()
    ]
    heads = ["contestant", "metric", *(f"{b} bits" if b else "float" for b in columns)]
    return Table(f"{side} classes: mAP", heads, rows)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    parts = [np.mean(values)] + ([np.std(values, ddof=1)] if len(values) > 1 else [])
    return "±".join(f"{part:.3f}".removeprefix("0") for part in parts)


def _size(words: EmbeddedWords, settings: Settings) -> str:
    task = split(words, 0)
    return (
        f"WordNet 3.0 nouns of lexicographer files {', '.join(f'{f:02d}' for f in settings.files)}"
        f": {len(words.items)} items, {len(words.queries)} classes ({len(task.seen)} seen, "
        f"{len(task.novel)} novel); MiniLM, {words.items.shape[1]} dimensions; "
        f"{settings.seeds} splits, in the first {len(task.train_rows)} items for training, "
        f"{len(task.database_rows)} in the database"
        f"{'; asked by definition' if settings.by_definition else ''}"
    )
