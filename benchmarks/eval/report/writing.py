"""The files of a report, each replaced as a whole.

`results.json` holds the fields of `Results` under their own names, and ``version``. Floats are
written so that they read back to the last bit; those that JSON has no number for are the strings
``"NaN"``, ``"Infinity"`` and ``"-Infinity"``. `results.csv` has one line per row and measure.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from bittern.benchmarks.eval.report.page import page, results_markdown
from bittern.benchmarks.eval.report.plots import Plot, draw
from bittern.benchmarks.eval.report.wording import plain, slug
from bittern.benchmarks.eval.results import Results
from bittern.errors import InvalidInputError
from bittern.files import replace_file
from bittern.service.export.writers import harmless

VERSION = 2
"""Of the layout of `results.json`."""
PLOTS = "plots"
"""Folder of the plots inside a report."""
_OURS = re.compile(r"\d\d-[a-z0-9-]+\.svg")


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write `results.json`, `results.csv`, `results.md`, `plots/*.svg` and `index.html`.

    The same results and media give the same bytes. Each file is replaced as a whole, `index.html`
    last; plots of an earlier report that this one does not have are removed.

    Args:
        results: a run.
        folder: made if need be.

    Returns:
        The files, `index.html` first.

    Raises:
        InvalidInputError: the folder cannot be written to.
    """
    drawn = draw(results)
    named = [(f"{PLOTS}/{_name(number, plot)}", plot) for number, plot in enumerate(drawn, 1)]
    files = {
        "results.json": results_json(without_paths(results)),
        "results.csv": results_csv(results),
        **{path: plot.svg for path, plot in named},
        "results.md": results_markdown(results, named),
        "index.html": page(results, drawn),
    }
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            replace_file(folder / name, text.encode())
        for old in (folder / PLOTS).iterdir():
            if _OURS.fullmatch(old.name) and f"{PLOTS}/{old.name}" not in files:
                old.unlink()
    except OSError as error:
        raise InvalidInputError(
            f"the report cannot be written to {folder}: {error}; choose another folder",
            field="out",
        ) from error
    return [folder / name for name in reversed(files)]


def without_paths(results: Results) -> Results:
    """The same results with the names of media instead of their paths."""
    shown = [
        replace(
            query,
            media=Path(query.media).name,
            hits=[replace(hit, media=Path(hit.media).name) for hit in query.hits],
        )
        for query in results.shown
    ]
    return replace(results, shown=shown)


def _name(number: int, plot: Plot) -> str:
    return f"{number:02d}-{plot.kind}-{slug(plot.task)}.svg"


def results_json(results: Results) -> str:
    """The text of `results.json`."""
    written = {"version": VERSION, **_plain(results)}
    return json.dumps(written, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if hasattr(value, "item") and not isinstance(value, (str, int, float)):
        return _plain(value.item())  # NumPy's scalars
    return float(value) if isinstance(value, float) else value


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
            cells = {"suite": results.suite, **vars(row), "measure": measure, **vars(figure)}
            lines.writerow([_cell(cells[name]) for name in COLUMNS])
    return text.getvalue()


def _cell(content: str | float | None) -> str:
    if isinstance(content, str):
        return harmless(plain(content))
    if content is None or math.isnan(content):
        return ""
    return str(content) if isinstance(content, int) else repr(float(content))
