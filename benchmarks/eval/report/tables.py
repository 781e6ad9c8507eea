"""`results.csv`: one line per row and measure, with all figures."""

from __future__ import annotations

import csv
import io
import math

from bittern.benchmarks.eval.report.wording import plain
from bittern.benchmarks.eval.results import Figure, Results, Row
from bittern.service.export.spreadsheets import harmless

COLUMNS = (
    "suite", "task", "group", "model", "system", "metric", "bits", "bytes_per_item", "rerank",
    "draws", "queries", "clusters", "search_ms", "measure", "ranked", "expected",
    "best", "worst", "low", "high", "deviation", "deviation_splits",
)  # fmt: skip


def results_csv(results: Results) -> str:
    """RFC 4180; numbers to the last digit, empty where there is none; no cell is a formula."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\r\n")
    lines.writerow(COLUMNS)
    for row in results.rows:
        for measure, figure in row.figures.items():
            lines.writerow([*_system(results.suite, row), _words(measure), *_figures(figure)])
    return text.getvalue()


def _system(suite: str, row: Row) -> list[str]:
    words = [_words(w) for w in (suite, row.task, row.group, row.model, row.system, row.metric)]
    bits = "" if row.bits is None else str(row.bits)
    counts = [str(count) for count in (row.rerank, row.draws, row.queries, row.clusters)]
    return [*words, bits, _number(row.bytes_per_item), *counts, _number(row.search_ms)]


def _figures(figure: Figure) -> list[str]:
    values = (figure.ranked, figure.expected, figure.best, figure.worst, figure.low, figure.high)
    return [
        *(_number(v) for v in values),
        _number(figure.deviation),
        _number(figure.deviation_splits),
    ]


def _words(text: str) -> str:
    return harmless(plain(text))


def _number(number: float | None) -> str:
    return "" if number is None or math.isnan(number) else repr(float(number))
