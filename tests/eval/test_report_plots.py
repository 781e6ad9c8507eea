"""Plots: what is drawn, with text that stays text, and names that stay apart."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import xml.etree.ElementTree as Tree

import pytest

from bittern.benchmarks.eval.report.plots import Plot, draw
from bittern.benchmarks.eval.report.svg import COLOURS, inline
from bittern.benchmarks.eval.results import Results, Score
from tests.eval.example_results import PICTURES, SOUNDS, example_results


@pytest.fixture(scope="module")
def results() -> Results:
    return example_results()


@pytest.fixture(scope="module")
def plots(results: Results) -> list[Plot]:
    return draw(results)


def _texts(svg: str) -> list[tuple[str, float, float]]:
    """Texts with their positions."""
    found = []
    for element in Tree.fromstring(svg.encode()).iter("{http://www.w3.org/2000/svg}text"):
        words = "".join(element.itertext())
        position = re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", element.get("transform", ""))
        x, y = position.groups() if position else (element.get("x", "nan"), element.get("y", "nan"))
        found.append((words, float(x), float(y)))
    return found


def test_every_task_has_its_four_plots(plots: list[Plot]) -> None:
    kinds = ["bytes", "time", "groups", "classes"]

    assert [(p.task, p.kind) for p in plots] == [(t, k) for t in (PICTURES, SOUNDS) for k in kinds]


def test_the_text_of_a_plot_is_text(plots: list[Plot]) -> None:
    words = [text for text, _, _ in _texts(plots[0].svg)]

    assert {"bytes per item", "AP_minR@50", "float32", "ITQ", "chance 0.031"} <= set(words)


def test_names_beside_lines_do_not_overlap(plots: list[Plot], results: Results) -> None:
    for plot in plots[:2]:
        names = {row.system for row in results.rows if row.bits}
        heights = sorted(y for text, _, y in _texts(plot.svg) if text in names)

        assert len(heights) == 7
        assert min(b - a for a, b in itertools.pairwise(heights)) >= 10


def test_no_text_of_a_plot_ends_outside_it(plots: list[Plot]) -> None:
    for plot in plots:
        box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', plot.svg)
        assert box is not None
        for words, x, y in _texts(plot.svg):
            assert math.isnan(x) or 0 <= x <= float(box[1]), words
            assert math.isnan(y) or 0 <= y <= float(box[2]), words


def test_symmetric_and_re_ranked_rows_are_left_to_the_table(results: Results) -> None:
    some = [row for row in results.rows if row.metric == "symmetric" or row.rerank]

    assert draw(dataclasses.replace(results, rows=some, classes=())) == []


def test_searches_that_were_not_timed_have_no_plot_of_time(results: Results) -> None:
    rows = [dataclasses.replace(row, search_ms=None) for row in results.rows]

    kinds = [p.kind for p in draw(dataclasses.replace(results, rows=rows, classes=()))]

    assert kinds == ["bytes", "groups"] * 2


def test_each_model_has_plots_of_its_own(results: Results) -> None:
    rows = [dataclasses.replace(row, model=m) for m in ("a", "b") for row in results.rows]

    drawn = draw(dataclasses.replace(results, rows=rows, classes=()))

    assert [p.title for p in drawn if p.kind == "bytes" and p.task == PICTURES] == [
        f"AP_minR@50 against bytes per item, {m}" for m in ("a", "b")
    ]


def test_names_are_no_mathematics_and_no_markup(results: Results) -> None:
    name = '$\\frac{1}$ <script id="a"\x00'
    rows = [dataclasses.replace(results.rows[4], system=name)]

    (plot, *_) = draw(dataclasses.replace(results, rows=rows, classes=()))

    assert any(text.startswith("$\\frac{1}$ <script") for text, _, _ in _texts(plot.svg))
    assert "<script" not in plot.svg
    assert 'id="a"' in inline(plot.svg, "p1", "x")


def test_rows_without_numbers_are_not_drawn(results: Results) -> None:
    nothing = {"AP_minR@50": Score(*[math.nan] * 6)}
    rows = [
        dataclasses.replace(results.rows[0], figures=nothing),
        dataclasses.replace(results.rows[1], bytes_per_item=0.0, search_ms=math.inf),
    ]

    assert draw(dataclasses.replace(results, rows=rows, classes=())) == []


def test_one_single_point_can_be_drawn(results: Results) -> None:
    some = dataclasses.replace(results, rows=results.rows[:1], classes=results.classes[:1])

    assert [plot.kind for plot in draw(some)] == ["bytes", "time", "classes"]


def test_plots_of_one_page_share_no_ids_and_take_the_page_s_colours(plots: list[Plot]) -> None:
    bodies = [inline(plot.svg, f"p{n}", "label") for n, plot in enumerate(plots)]
    ids = [found for body in bodies for found in re.findall(r'\bid="([^"]+)"', body)]

    assert len(ids) == len(set(ids))
    for body in bodies:
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
        assert used <= set(ids)
        assert not re.search("|".join(COLOURS), body)
        assert "font-family" not in body
