"""Numbers, names and methods as people read them, the same in Markdown, plots and page."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from bittern.benchmarks.eval.comparisons import FAMILIES
from bittern.benchmarks.eval.measures import measure
from bittern.benchmarks.eval.results import Results, Row, Score, ShownHit
from bittern.errors import InvalidInputError

NONE = "–"
"""What stands where there is no value."""
_LONGEST = 2000
_INVISIBLE = {"Cc", "Cs", "Cn"}


def plain(text: object, longest: int = _LONGEST) -> str:
    """A text of others on one line: control characters and halves of surrogate pairs become
    U+FFFD, white space one blank, and what is longer than `longest` characters ends in "…".
    """
    words = " ".join(str(text)[: 4 * longest].split())
    shown = "".join("\ufffd" if unicodedata.category(c) in _INVISIBLE else c for c in words)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def value(number: float | None, positions: int = 3) -> str:
    """``0.512``."""
    if number is None or math.isnan(number):
        return NONE
    return f"{number:.{positions}f}" if abs(number) < 1e6 else f"{number:.3g}"


def signed(number: float) -> str:
    """``+0.012``, with a minus sign of a plus sign's width."""
    return NONE if math.isnan(number) else f"{number:+.3f}".replace("-", "−")


def interval(low: float, high: float, *, sign: bool = False) -> str:
    """``0.483 to 0.541``."""
    if math.isnan(low) or math.isnan(high):
        return NONE
    return f"{signed(low)} to {signed(high)}" if sign else f"{value(low)} to {value(high)}"


def ties(figure: Score) -> str:
    """Worst and best order of ties; `NONE` where they are the same to the digits that are shown."""
    worst, best = value(figure.worst), value(figure.best)
    return NONE if worst == best or NONE in (worst, best) else f"{worst} to {best}"


def deviations(figure: Score, draws: int, splits: int) -> str:
    """``± 0.004 over 10 seeds, ± 0.011 over 3 splits``; empty for one draw.

    Args:
        figure: of a row.
        draws: its seeds times splits.
        splits: of its task.
    """
    splits = max(1, splits)
    found = []
    if figure.deviation is not None:
        found.append(f"± {value(figure.deviation)} over {amount(max(1, draws // splits))} seeds")
    if figure.deviation_splits is not None:
        found.append(f"± {value(figure.deviation_splits)} over {amount(splits)} splits")
    return ", ".join(found)


def without_model(label: str, models: Collection[str]) -> str:
    """The label of a row of which the model goes without saying, where there is only one."""
    (model,) = models if len(models) == 1 else ("",)
    return label.removeprefix(f"{model}: ") if model else label


def small(number: float | None) -> str:
    """Three significant digits: ``0.0123``, ``1.23``, ``1,230``."""
    if number is None or not math.isfinite(number):
        return NONE
    if number == 0:
        return "0"
    if abs(number) >= 1e15 or abs(number) < 1e-6:
        return f"{number:.2e}"
    digits = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{round(number, digits):,.{digits}f}"


def amount(number: float) -> str:
    """Bytes or counts: ``32``, ``1,536``, ``12.5``."""
    if not math.isfinite(number):
        return NONE
    return f"{number:,.0f}" if number == round(number) else small(number)


def probability(p: float) -> str:
    """``0.032``, ``< 0.001``."""
    if math.isnan(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def distance(row: Row) -> str:
    """How rows were compared: ``asymmetric, top 100 by cosine``."""
    again = f"top {row.rerank} by cosine" if row.rerank else ""
    return ", ".join(block for block in (row.metric, again) if block)


def distance_of(hit: ShownHit) -> str:
    """A hit's distance."""
    return small(hit.distance) if math.isfinite(hit.distance) else plain(hit.distance)


def flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested values as rows of a table: ``versions.numpy``, ``2.4.6``."""
    found: list[tuple[str, str]] = []
    for key, inner in values.items():
        if isinstance(inner, Mapping) and inner:
            found += [(f"{plain(key, 200)}.{name}", text) for name, text in flat(inner)]
        else:
            found.append((plain(key, 200), _text(inner)))
    return found


def _text(inner: Any) -> str:
    if inner is None or inner == "" or inner == [] or inner == ():
        return NONE
    if isinstance(inner, bool):
        return "yes" if inner else "no"
    if isinstance(inner, float):
        return f"{inner:.6g}"
    if isinstance(inner, (list, tuple)):
        return plain("; ".join(_text(one) for one in inner))
    return plain(inner)


def slug(text: str) -> str:
    """A name for a file: ``text-image``."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-") or "task"


def by_task_and_group(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by task and group, in the order in which they come."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.task, row.group), []).append(row)
    return found


def meaning(name: str) -> str:
    """What a measure of this name is, and where it is defined; empty where it is unknown."""
    try:
        kind = measure(name).kind
    except InvalidInputError:
        return ""
    return f"{kind.about} ({kind.citation})"


FEWEST = 30
"""With fewer independent queries, intervals and tests are called rough."""
_VALUES = (
    "Each value is a mean over queries. Codes are short, so many items are equally far from a "
    "query, and how such ties fall says nothing about a system: values are the expectation over "
    "random orders of equal distances. What the worst and the best order would give is shown where "
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
