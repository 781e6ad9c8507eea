"""Where runs and qrels of a run lie, and what they are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bittern.benchmarks.eval.cells import Cell, Ranked, Variant
from bittern.benchmarks.eval.tasks import Relevance
from bittern.benchmarks.eval.trec import write_judgements, write_runs
from tests.eval.test_windows import a_task


def a_cell(seed: int = 7) -> Cell:
    ranked = Ranked(
        values={},
        hits=np.array([[0, 3, -1], [1, 2, 0]], dtype=np.int32),
        distances=np.zeros((2, 0)),
        rows=np.zeros((2, 0), dtype=np.int64),
        search_ms=None,
        bytes_per_item=1.0,
    )
    about = {"system": "ITQ", "bits": 8, "seeds": [seed, seed + 1]}
    return Cell(about, {Variant("asymmetric"): ranked, Variant("asymmetric", 100): ranked})


def test_runs_tell_what_was_ranked_anew_and_by_which_seed(tmp_path: Path) -> None:
    written = write_runs(tmp_path, a_task(), a_cell(), "toy")
    assert [path.name for path in written] == [
        "ITQ-8-asymmetric-seed7.run",
        "ITQ-8-asymmetric-top100-seed7.run",
    ]
    for path in written:
        assert {line.split()[-1] for line in path.read_text().splitlines()} == {path.stem}
    lines = written[0].read_text().splitlines()
    assert [line.split()[2] for line in lines] == ["a", "d", "b", "c", "a"]


def test_each_random_split_has_a_folder_of_its_own(tmp_path: Path) -> None:
    first, second = a_task(), replace(a_task(), repeat=1)
    assert write_judgements(tmp_path, first, "toy").parent.name == "text-to-audio"
    assert write_judgements(tmp_path, second, "toy").parent.name == "text-to-audio-1"
    [run, _] = write_runs(tmp_path, second, a_cell(), "toy")
    assert run.parent.name == "text-to-audio-1"


def test_judgements_that_changed_are_written_anew(tmp_path: Path) -> None:
    task = a_task()
    path = write_judgements(tmp_path, task, "toy")
    before = path.read_text()
    fewer = Relevance(np.array([0, 1, 2]), np.array([0, 1]), np.array([1, 3], dtype=np.int32))
    assert write_judgements(tmp_path, replace(task, relevance=fewer), "toy") == path
    assert path.read_text().splitlines() == ["heron 0 a 1", "owl 0 b 3"]
    assert len(before.splitlines()) == 4


def test_long_names_are_cut_and_stay_apart(tmp_path: Path) -> None:
    names = ["m" * 300, "m" * 299 + "n"]
    paths = [write_judgements(tmp_path, a_task(), name) for name in names]
    folders = {path.parent.parent.name for path in paths}
    assert len(folders) == 2
    assert all(len(name) <= 100 for name in folders)
    assert all(path.is_file() for path in paths)
