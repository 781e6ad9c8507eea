"""Per-query values to rows: means over draws and splits, groups, what is compared with what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bittern.benchmarks.eval.aggregate import (
    Line,
    Measured,
    by_class,
    headline,
    lines_of,
)
from bittern.benchmarks.eval.cells import Cell, Ranked, Variant
from bittern.benchmarks.eval.comparisons import comparisons_of
from bittern.benchmarks.eval.measures import TIES
from bittern.benchmarks.eval.results import Row
from bittern.benchmarks.eval.tasks import Classes, Items, QuerySet, Relevance, Task

PLAIN = Variant("asymmetric")


def a_task(names: list[str], seen: list[bool], repeat: int = 0) -> Task:
    classes = np.arange(len(names), dtype=np.int32)
    chosen = np.array(seen)
    return Task(
        name="text→text",
        queries=QuerySet(names, "text", [(n,) for n in names], classes, "text"),
        items=Items(names, "text", names, classes, "text"),
        relevance=Relevance.by_class(classes, classes),
        classes=Classes(names),
        repeat=repeat,
        groups={"seen": chosen, "novel": ~chosen},
    )


def a_cell(expected: list[list[float]], **about: object) -> Cell:
    """Draws by queries; ties spread by a tenth to either side."""
    values = np.array(expected)
    ties = np.stack([values + 0.01, values, values + 0.1, values - 0.1])
    none = np.empty((values.shape[1], 0))
    ranked = Ranked({"AP": ties}, none.astype(np.int32), none, none.astype(np.int64), 0.002, 32.0)
    known = {"task": "text→text", "model": "m", "system": "ITQ", "bits": 256, **about}
    return Cell(known, {PLAIN: ranked})


def test_a_figure_is_the_mean_over_queries_of_the_mean_over_draws() -> None:
    task = a_task(["a", "b", "c"], [True, True, False])
    cell = a_cell([[0.2, 0.4, 0.9], [0.4, 0.6, 0.7]])
    lines = {line.row.group: line for line in lines_of([Measured(task, cell)], ["AP"], 0)}
    assert set(lines) == {"all", "seen", "novel"}
    row = lines["seen"].row
    assert (row.queries, row.clusters, row.draws, row.search_ms) == (2, 2, 2, 0.002)
    figure = row.figures["AP"]
    assert figure.expected == pytest.approx(0.4)
    assert figure.ranked == pytest.approx(0.41)
    assert figure.best == pytest.approx(0.5)
    assert figure.worst == pytest.approx(0.3)
    assert figure.deviation == pytest.approx(np.std([0.3, 0.5], ddof=1))
    assert lines["novel"].values.tolist() == [pytest.approx(0.8)]
    assert lines["all"].row.figures["AP"].low <= figure.expected + 0.3


def test_a_query_of_several_splits_counts_once_by_its_mean_where_it_is_in_the_group() -> None:
    first = Measured(a_task(["a", "b"], [True, False], 0), a_cell([[0.2, 0.5]]))
    second = Measured(a_task(["a", "b"], [True, True], 1), a_cell([[0.4, 0.9]]))
    lines = {line.row.group: line for line in lines_of([first, second], ["AP"], 0)}
    assert lines["seen"].queries == ("a", "b")
    assert lines["seen"].values.tolist() == [pytest.approx(0.3), pytest.approx(0.9)]
    assert lines["novel"].values.tolist() == [pytest.approx(0.5)]
    assert lines["novel"].row.figures["AP"].deviation_splits is None
    assert lines["seen"].row.figures["AP"].deviation is None
    assert lines["seen"].row.figures["AP"].deviation_splits == pytest.approx(
        np.std([0.2, 0.65], ddof=1)
    )
    assert lines["all"].values.tolist() == [pytest.approx(0.3), pytest.approx(0.7)]


def test_a_measure_that_is_undefined_is_left_out() -> None:
    task = a_task(["a", "b"], [True, False])
    cell = a_cell([[0.2, 0.5]])
    lines = lines_of([Measured(task, cell)], ["AP", "P_H2"], 0)
    assert list(lines[0].row.figures) == ["AP"]


def test_undefined_values_of_single_queries_do_not_count() -> None:
    task = a_task(["a", "b"], [True, True])
    lines = lines_of([Measured(task, a_cell([[0.2, np.nan]]))], ["AP"], 0)
    assert lines[0].row.figures["AP"].expected == pytest.approx(0.2)


def a_line(system: str, bits: int | None, metric: str, values: list[float], **row: object) -> Line:
    n = len(values)
    base = Row("t", "all", "m", system, metric, bits, 1.0, 0, 1, n, n, 1.0, {})
    ids = tuple(f"q{n}" for n in range(len(values)))
    row_of = replace(base, **row)  # type: ignore[arg-type]
    return Line(row_of, "AP", ids, np.arange(n), np.array(values))


LINES = [
    a_line("float32", None, "cosine", [0.9, 0.8, 0.9, 0.7]),
    a_line("Hashing-Baseline", 64, "asymmetric", [0.4, 0.4, 0.5, 0.4]),
    a_line("Hashing-Baseline", 256, "asymmetric", [0.5, 0.5, 0.6, 0.5]),
    a_line("ITQ", 64, "asymmetric", [0.6, 0.5, 0.6, 0.5]),
    a_line("ITQ", 256, "asymmetric", [0.7, 0.6, 0.7, 0.6]),
    a_line("ITQ", 256, "symmetric", [0.5, 0.4, 0.5, 0.4]),
    a_line("ITQ", 256, "asymmetric", [0.9, 0.9, 0.9, 0.9], rerank=100),
]


def test_codes_are_compared_with_the_baseline_with_floats_and_with_their_other_distance() -> None:
    pairs = {(c.family, c.a, c.b) for c in comparisons_of(LINES, 0)}
    hb, itq = "m: Hashing-Baseline", "m: ITQ"
    assert pairs == {
        ("baseline", f"{itq} 64 asymmetric", f"{hb} 64 asymmetric"),
        ("baseline", f"{itq} 256 asymmetric", f"{hb} 256 asymmetric"),
        *(
            ("float", f"{system} {bits} asymmetric", "m: float32 cosine")
            for system in (hb, itq)
            for bits in (64, 256)
        ),
        ("distance", f"{itq} 256 asymmetric", f"{itq} 256 symmetric"),
    }


def test_the_same_system_over_two_models_is_compared_once() -> None:
    one = a_line("ITQ", 64, "asymmetric", [0.6, 0.5, 0.6, 0.5])
    other = a_line("ITQ", 64, "asymmetric", [0.5, 0.5, 0.4, 0.5], model="n")
    [found] = comparisons_of([one, other], 0)
    assert (found.family, found.a, found.b) == (
        "model", "m: ITQ 64 asymmetric", "n: ITQ 64 asymmetric",
    )  # fmt: skip


def test_queries_for_one_class_count_as_one_in_intervals() -> None:
    names = [f"a{n}" for n in range(8)]
    task = a_task(names, [True] * 8)
    classes = np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.int32)
    queries = replace(task.queries, classes=classes)
    cell = a_cell([[0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1]])
    [alone] = [x for x in lines_of([Measured(task, cell)], ["AP"], 0) if x.row.group == "all"]
    [together] = [
        x
        for x in lines_of([Measured(replace(task, queries=queries), cell)], ["AP"], 0)
        if x.row.group == "all"
    ]
    assert (alone.row.clusters, together.row.clusters) == (8, 2)
    one, two = alone.row.figures["AP"], together.row.figures["AP"]
    assert one.expected == two.expected
    assert two.high - two.low > one.high - one.low


def test_a_comparison_says_how_much_and_how_sure() -> None:
    found = {(c.a, c.b): c for c in comparisons_of(LINES, 0)}
    one = found["m: ITQ 256 asymmetric", "m: float32 cosine"]
    assert one.difference == pytest.approx(-0.175)
    assert one.low < one.difference < one.high < 0
    assert one.p <= one.p_adjusted <= 1
    assert one.measure == "AP"


def test_the_headline_is_fixed_and_not_chosen_by_its_figures() -> None:
    worse = a_line("learned", 256, "asymmetric", [0.1, 0.1, 0.1, 0.1])
    assert [line.row.name for line in headline([*LINES, worse], "t")] == [
        "m: learned 256 asymmetric",
        "m: Hashing-Baseline 256 asymmetric",
        "m: float32 cosine",
    ]


def test_a_system_without_the_main_measure_is_no_headline() -> None:
    nothing = a_line("float32", None, "cosine", [])
    assert headline([nothing], "t") == headline([], "t") == []


def test_a_class_has_the_mean_of_its_queries() -> None:
    line = a_line("ITQ", 8, "asymmetric", [0.2, 0.6, 0.9, np.nan])
    assert by_class(replace(line, clusters=np.array([0, 0, -3, 0]))) == {0: pytest.approx(0.4)}


def test_an_interval_is_of_the_expected_values_and_not_of_the_products_order() -> None:
    names = [f"q{number}" for number in range(6)]
    cell = a_cell([[0.5] * 6])
    ranked = cell.variants[PLAIN]
    values = ranked.values["AP"].copy()
    values[TIES.index("ranked")] = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    spread = replace(cell, variants={PLAIN: replace(ranked, values={"AP": values})})
    lines = lines_of([Measured(a_task(names, [True] * 6), spread)], ["AP"], 0)
    figure = lines[0].row.figures["AP"]
    assert [figure.low, figure.high] == pytest.approx([0.5, 0.5])
    assert lines[0].values.tolist() == [0.5] * 6


def test_a_split_without_a_group_gives_it_nothing() -> None:
    first = Measured(a_task(["a", "b"], [True, False], 0), a_cell([[0.2, 0.5]]))
    bare = replace(a_task(["a", "b"], [True, True], 1), groups={})
    lines = {
        line.row.group: line
        for line in lines_of([first, Measured(bare, a_cell([[0.4, 0.9]]))], ["AP"], 0)
    }
    assert lines["novel"].queries == ("b",)
    assert lines["novel"].values.tolist() == [pytest.approx(0.5)]
    assert lines["seen"].values.tolist() == [pytest.approx(0.2)]


def test_systems_on_other_queries_are_not_compared() -> None:
    one = a_line("ITQ", 64, "asymmetric", [0.6, 0.5])
    other = a_line("float32", None, "cosine", [0.5, 0.5])
    assert len(comparisons_of([one, other], 0)) == 1
    assert comparisons_of([one, replace(other, queries=("q0", "q9"))], 0) == []


def test_a_measure_that_one_split_has_not_is_left_out_of_all() -> None:
    first = Measured(a_task(["a", "b"], [True, True], 0), a_cell([[0.2, 0.5]]))
    cell = a_cell([[0.4, 0.9]])
    ranked = cell.variants[PLAIN]
    more = replace(ranked, values={**ranked.values, "P_H2": ranked.values["AP"]})
    second = Measured(a_task(["a", "b"], [True, True], 1), replace(cell, variants={PLAIN: more}))
    for measured in ([first, second], [second, first]):
        assert list(lines_of(measured, ["AP", "P_H2"], 0)[0].row.figures) == ["AP"]
