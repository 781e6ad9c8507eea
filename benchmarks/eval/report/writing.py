"""The files of a report, each replaced as a whole."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from bittern.benchmarks.eval.report.markdown import results_markdown
from bittern.benchmarks.eval.report.page import page
from bittern.benchmarks.eval.report.plots import Plot, draw
from bittern.benchmarks.eval.report.stored import results_json
from bittern.benchmarks.eval.report.tables import results_csv
from bittern.benchmarks.eval.report.wording import slug
from bittern.benchmarks.eval.results import Results
from bittern.errors import InvalidInputError

PLOTS = "plots"
"""Folder of the plots inside a report."""
_OURS = re.compile(r"\d\d-[a-z0-9-]+\.svg")


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write `results.json`, `results.csv`, `results.md`, `plots/*.svg` and `index.html`.

    The same results and media give the same bytes. Each file is written aside and then put into
    its place, `index.html` last, so a reader never meets half of one; plots that an earlier
    report left there, and that this one does not have, are taken away.

    Args:
        results: a run.
        folder: made if it is not there.

    Returns:
        the files, `index.html` first.

    Raises:
        InvalidInputError: the folder cannot be written to.
    """
    drawn = draw(results)
    named = [(f"{PLOTS}/{_name(number, plot)}", plot) for number, plot in enumerate(drawn, 1)]
    files = {
        "results.json": results_json(without_places(results)),
        "results.csv": results_csv(results),
        **{path: plot.svg for path, plot in named},
        "results.md": results_markdown(results, named),
        "index.html": page(results, drawn),
    }
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            _replace(folder / name, text)
        for old in (folder / PLOTS).iterdir():
            if _OURS.fullmatch(old.name) and f"{PLOTS}/{old.name}" not in files:
                old.unlink()
    except OSError as error:
        raise InvalidInputError(
            f"the report cannot be written to {folder}: {error}; choose another folder",
            field="out",
        ) from error
    return [folder / name for name in reversed(files)]


def without_places(results: Results) -> Results:
    """The same results with the names of media in place of where they lie on this machine."""
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


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("wb") as stream:
        stream.write(text.encode("utf-8"))
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
