"""The documentation shows what was measured, and its examples find something in the sample."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bittern.index.archive import Archive
from tests.index.samples import OWL, photo

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


class Excerpt(NamedTuple):
    """A table of a page: its heading, and what its rows and columns are in the results."""

    page: str
    heading: str
    results: str
    rows: list[dict[str, Any]]
    columns: list[dict[str, Any]]


FLOAT: dict[str, Any] = {"system": "float32", "bits": None}
SEEN_NOVEL: list[dict[str, Any]] = [{"group": "seen"}, {"group": "novel"}]
EXCERPTS = [
    Excerpt(
        "README.md", "| | bytes per item | seen | novel |", "eval-words-aligned",
        [FLOAT, {**FLOAT, "system": "aligned float32"}, {"system": "hybrid", "bits": 256}],
        SEEN_NOVEL,
    ),
    Excerpt(
        "README.md", "| | float, 1,536 bytes | 32 bytes | 8 bytes |", "eval-field",
        [{"task": task} for task in ("text→image", "text→audio", "audio→image")],
        [FLOAT, *({"system": "field hybrid", "bits": bits} for bits in (256, 64))],
    ),
    Excerpt(
        "docs/background/learned-codes.md", "| seen / novel | bytes | AP |", "eval-words-aligned",
        [
            *({**FLOAT, "system": s} for s in ("float32", "centred float32", "aligned float32")),
            {"system": "aligned", "bits": 256},
            {"system": "hybrid", "bits": 256},
            {"system": "hybrid", "bits": 64},
        ],
        SEEN_NOVEL,
    ),
    Excerpt(
        "docs/how-to/evaluate.md", "bits                           float    64   256", "eval-field",
        [
            *({**FLOAT, "system": name} for name in ("float32", "centred float32")),
            *(
                {"system": name, "metric": metric}
                for name in ("Hashing-Baseline", "ITQ", "random projection", "field hybrid")
                for metric in ("symmetric", "asymmetric")
            ),
        ],
        [{"bits": 64, "task": "text→image"}, {"bits": 256, "task": "text→image"}],
    ),
]  # fmt: skip


def lines_below(heading: str, page: str) -> Iterator[str]:
    """The rows of a table, up to the first line that is none."""
    lines = iter((ROOT / page).read_text().splitlines())
    assert heading in lines, f"{page} has no table {heading}"
    for line in lines:
        if not re.search(r"\.\d", line) and not line.startswith("| ---"):
            return
        if re.search(r"\.\d", line):
            yield line


def measured(excerpt: Excerpt, **wanted: Any) -> float:
    rows = json.loads((RESULTS / excerpt.results / "results.json").read_text())["rows"]
    wanted = {"rerank": 0, **wanted}
    if wanted.get("bits") and "metric" not in wanted:
        wanted["metric"] = "asymmetric"
    [row] = [row for row in rows if wanted.items() <= row.items()]
    return float(row["figures"]["AP"]["expected"])


@pytest.mark.parametrize("excerpt", EXCERPTS, ids=lambda e: f"{e.page} {e.results}")
def test_a_table_shows_what_was_measured(excerpt: Excerpt) -> None:
    lines = list(lines_below(excerpt.heading, excerpt.page))
    assert len(lines) == len(excerpt.rows)
    for line, row in zip(lines, excerpt.rows, strict=True):
        shown = re.findall(r"(?<!\()(?<!\d)\.\d+", line)  # chance is in brackets
        columns = excerpt.columns[: len(shown)]
        for figure, column in zip(shown, columns, strict=True):
            expected = measured(excerpt, **{**column, **row})
            assert figure == f"{expected:.{len(figure) - 1}f}".lstrip("0"), line


def test_the_words_benchmark_is_shown_as_it_was_printed() -> None:
    printed = (RESULTS / "words.txt").read_text().split("novel classes: mAP")
    heading = "| seen / novel | 64 bits (8 bytes) | 256 bits (32 bytes) |"
    for line in lines_below(heading, "docs/background/learned-codes.md"):
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = {"CroVCA behind an alignment": "aligned CroVCA"}.get(name, name)
        for column, cell in zip((2, 4), cells, strict=True):  # of 16, 32, 64, 128 and 256 bits
            for figure, part in zip(cell.split(" / "), printed, strict=True):
                [row] = re.findall(rf"^{name} +asymmetric +(.*)$", part, re.MULTILINE)
                assert row.split()[column].partition("±")[0] == figure, line


NOT_IN_THE_SAMPLE = {
    "observationType = 'animal'",  # of camera traps
    "within_box(5.9, 45.8, 10.5, 47.8)",  # the sample has no coordinates
}


def conditions() -> Iterator[tuple[str, str]]:
    """Each condition in examples of the pages, help texts and docstrings, and its file."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "bittern").rglob("*.py")]
    for page in pages:
        for line in page.read_text().splitlines():
            for found in re.findall(r'where[ =]"([^"{]+)"', line):
                yield found, str(page.relative_to(ROOT))


def test_the_conditions_of_examples_match_observations_of_the_sample(tmp_path: Path) -> None:
    with (ROOT / "bittern" / "sample" / "manifest.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    with Archive.create(tmp_path / "sample") as archive:
        archive.register_model(OWL, {})
        own = ("occurrenceID", "media")
        items = [photo(r["occurrenceID"], {k: r[k] for k in r if k not in own}) for r in rows]
        archive.add(items, model=OWL.digest)
        found = [(where, page) for where, page in conditions() if where not in NOT_IN_THE_SAMPLE]
        assert len(found) > 10
        assert [each for each in found if not len(archive.rows(each[0]))] == []
