"""How the figures of a run were come by, for the top of page and Markdown."""

from __future__ import annotations

from bittern.benchmarks.eval.results import Results

FEWEST = 30
"""With fewer independent queries, intervals and tests are called rough."""
FAMILIES = {
    "baseline": "codes and Hashing-Baseline of the same length",
    "float": "codes and float vectors",
    "distance": "asymmetric and symmetric distance to the same codes",
    "model": "the same system over two models",
}
"""What each family of tests asks."""
_VALUES = (
    "Each value is a mean over queries. Codes are short, so many items are equally far from a "
    "query, and how such ties fall says nothing about a system: values are the expectation over "
    "random orders of equal distances. What the worst and the best order would give is told where "
    "it differs."
)
_DRAWS = (
    "Where a system was drawn with several seeds, or classes were split at random several times, "
    "a value is the mean over these, and ± their standard deviation."
)
_INTERVALS = (
    "Intervals are 95% bootstrap intervals (BCa, 2,000 resamples) over queries, or over classes "
    "where several queries ask for one class: these are what is called independent here. They are "
    "not adjusted for their number."
)
_TESTS = (
    "Two systems are compared on the same queries by a paired sign-flip test, two-sided, with "
    "Holm's correction within each task, group and family."
)
_ROUGH = (
    f"With fewer than {FEWEST} independent queries, marked by *, intervals and tests are rough."
)
_CHANCE = "Chance is what a random order would have."
_TIME = (
    "Milliseconds are those of one search for the 100 nearest, on one thread of the machine of "
    "this run."
)


def methods(results: Results) -> list[str]:
    """Paragraphs that say what the figures of this run are."""
    families = list(dict.fromkeys(c.family for c in results.comparisons))
    tests = [_TESTS, _families(families)] if families else []
    figures = [figure for row in results.rows for figure in row.figures.values()]
    drawn = any(f.deviation is not None or f.deviation_splits is not None for f in figures)
    rough = any(row.clusters < FEWEST for row in results.rows)
    timed = any(row.search_ms is not None for row in results.rows)
    return [
        " ".join([_VALUES, *([_DRAWS] if drawn else []), _CHANCE]),
        " ".join([_INTERVALS, *tests, *([_ROUGH] if rough else [])]),
        *([_TIME] if timed else []),
    ]


def question(family: str) -> str:
    """What a family of tests asks."""
    return FAMILIES.get(family, family)


def independent(clusters: int) -> str:
    """``1,200``; ``24*`` where that is few."""
    return f"{clusters:,}" + ("*" if clusters < FEWEST else "")


def _families(families: list[str]) -> str:
    known = [question(family) for family in families if family in FAMILIES]
    if not known:
        return ""
    return f"The {'families are' if len(known) > 1 else 'family is'}: {'; '.join(known)}."
