"""The results of a run, as dataclasses; `results.json` is exactly this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Score:
    """A measure's mean over queries.

    Attributes:
        ranked: in the product's order.
        expected: over random orders of equal distances; the headline.
        best: had ties fallen best, query by query.
        worst: had they fallen worst.
        low: 2.5% point of the bootstrap over queries, of `expected`.
        high: 97.5% point.
        deviation: standard deviation over seeds (within a random split, where there are several);
            None for a single seed.
        deviation_splits: standard deviation over random splits, of the means over seeds; None for
            a single split.
    """

    ranked: float
    expected: float
    best: float
    worst: float
    low: float
    high: float
    deviation: float | None = None
    deviation_splits: float | None = None


@dataclass(frozen=True)
class Row:
    """One system on one group of the queries of one task.

    Attributes:
        task: name of the task.
        group: ``all``, or a named group of the queries (``seen``, ``novel``).
        model: whose embeddings, or codes.
        system: e.g. ``Hashing-Baseline``.
        metric: ``cosine``, ``symmetric`` or ``asymmetric``.
        bits: code length; None for float vectors.
        bytes_per_item: what is stored per item, all windows together, on average.
        rerank: so many of the nearest were re-ranked by float cosine; 0 for none.
        draws: seeds times splits.
        queries: how many.
        clusters: how many of them are independent: queries for the same class are one.
        search_ms: milliseconds of one search for the 100 nearest, on one thread of the machine of
            this run; None where it was not timed.
        figures: by name of the measure.
    """

    task: str
    group: str
    model: str
    system: str
    metric: str
    bits: int | None
    bytes_per_item: float
    rerank: int
    draws: int
    queries: int
    clusters: int
    search_ms: float | None
    figures: Mapping[str, Score]

    @property
    def label(self) -> str:
        """Short name: ``ITQ 256 asymmetric``."""
        words = [self.system, str(self.bits) if self.bits else "", self.metric]
        again = f"top {self.rerank} by cosine" if self.rerank else ""
        return " ".join(word for word in (*words, again) if word)

    @property
    def name(self) -> str:
        """The label with its model."""
        return f"{self.model}: {self.label}"


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same queries, paired.

    Attributes:
        task, group, measure: of what.
        family: what the question is: ``baseline`` (codes and Hashing-Baseline of the same length),
            ``float`` (codes and float vectors), ``distance`` (asymmetric and symmetric), or
            ``model`` (the same system over two models).
        a, b: labels of the rows (`Row.label`, with its model).
        difference: mean of a minus b.
        low, high: 95% bootstrap interval of it.
        p: of a paired randomisation test, two-sided.
        p_adjusted: Holm's correction over the comparisons of one task, group, measure and family.
    """

    task: str
    group: str
    measure: str
    family: str
    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float


@dataclass(frozen=True)
class ClassScore:
    """The main measure for the queries of one class.

    Attributes:
        task, name: task, and class as it is shown.
        group: ``seen``, ``novel`` or empty.
        relevant: items of the class.
        values: by row label.
    """

    task: str
    name: str
    group: str
    relevant: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class ShownHit:
    """One hit of a chosen query.

    Attributes:
        rank: from 1.
        id: of the item.
        relevant: whether it is right.
        distance: as the system gives it.
        modality: of the item.
        media: path of the file on this machine while the page is made; empty for a text.
        text: of a text; empty otherwise.
        start_s, end_s: of the window that was found.
        caption: names, as the metadata have them.
        credit: rights holder and licence, as the metadata have them.
    """

    rank: int
    id: str
    relevant: bool
    distance: float
    modality: str
    media: str
    text: str = ""
    start_s: float | None = None
    end_s: float | None = None
    caption: str = ""
    credit: str = ""


@dataclass(frozen=True)
class ShownQuery:
    """A chosen query with its top hits under one system."""

    task: str
    query: str
    text: str
    media: str
    label: str
    value: float
    relevant: int
    hits: Sequence[ShownHit]


@dataclass(frozen=True)
class GroupSummary:
    """A group of a task's queries.

    Attributes:
        name: ``all``, or as the suite calls it.
        queries: how many.
        clusters: how many of them are independent: queries for the same class are one.
        relevant: mean number of relevant items per query.
        chance: main measure of a random order, expected; None where it has none.
    """

    name: str
    queries: int
    clusters: int
    relevant: float
    chance: float | None


@dataclass(frozen=True)
class TaskSummary:
    """Queries and items of a task, with one model; of several random splits, the first.

    Attributes:
        name: of the task.
        model: whose embeddings, or codes.
        measures: names; the first is the main one of this task.
        splits: how many random splits there are.
        items, rows: how many; rows are observations (windows).
        depth: all systems are ranked so deep, and measures cut there; None for everything.
        groups: ``all`` first.
        left_out: sentences, with counts.
        notes: what one must know.
    """

    name: str
    model: str
    measures: Sequence[str]
    splits: int
    items: int
    rows: int
    depth: int | None
    groups: Sequence[GroupSummary]
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Results:
    """A whole run.

    Attributes:
        suite: its name.
        about: what it is, with its paper.
        command: as it was given, with the machine's paths left out of it.
        protocol: `Protocol.to_json`, and what the suite's own defaults came to.
        measures: names of all, in order; `TaskSummary.measures` has those of a task.
        models: name, kind, digest, licence, windows of each model.
        digests: of data, embeddings, relevance.
        machine: as `bittern.benchmarks.machine.describe` gives it, with date and seconds taken.
        tasks, rows, comparisons, classes, shown: the numbers.
        notes: sentences for the top of the page.
    """

    suite: str
    about: str
    command: str
    protocol: Mapping[str, Any]
    measures: Sequence[str]
    models: Sequence[Mapping[str, str]]
    digests: Mapping[str, str]
    machine: Mapping[str, Any]
    tasks: Sequence[TaskSummary]
    rows: Sequence[Row]
    comparisons: Sequence[Comparison] = ()
    classes: Sequence[ClassScore] = ()
    shown: Sequence[ShownQuery] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def measures_of(self, task: str) -> list[str]:
        """Names of the measures of a task, the main one first."""
        own = [name for summary in self.tasks if summary.name == task for name in summary.measures]
        return list(dict.fromkeys(own or self.measures))

    def group_of(self, task: str, model: str, group: str) -> GroupSummary | None:
        """What is known of a group of the queries."""
        groups = (
            one
            for summary in self.tasks
            if (summary.name, summary.model) == (task, model)
            for one in summary.groups
            if one.name == group
        )
        return next(groups, None)
