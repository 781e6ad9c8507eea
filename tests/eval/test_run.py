"""A whole run: what it measures, what it keeps, and that it goes on where it was interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest

from bittern.benchmarks.eval import measuring
from bittern.benchmarks.eval import run as run_module
from bittern.benchmarks.eval.results import Results, Row
from bittern.benchmarks.eval.run import evaluate
from bittern.benchmarks.eval.tasks import Protocol
from bittern.encoders.base import Modality
from bittern.errors import InvalidInputError, LayoutError
from tests.eval.toy_runs import Quiet, request, towers


def row(results: Results, task: str, system: str, **wanted: object) -> Row:
    found = [
        each
        for each in results.rows
        if (each.task, each.system, each.group) == (task, system, "all")
        and all(getattr(each, name) == value for name, value in wanted.items())
    ]
    assert len(found) == 1
    return found[0]


def test_a_run_measures_every_task_with_every_system_at_every_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch)
    results = evaluate(request(tmp_path), Quiet(), "bittern eval field")
    assert [task.name for task in results.tasks] == ["text→image", "text→audio", "audio→image"]
    per_task = [(r.system, r.bits, r.metric, r.rerank) for r in results.rows][:13]
    coded = [
        (system, bits, metric, again)
        for system in ("Hashing-Baseline", "ITQ")
        for bits in (8, 16)
        for metric, again in (("symmetric", 0), ("asymmetric", 0), ("asymmetric", 4))
    ]
    assert sorted(per_task, key=str) == sorted([("float32", None, "cosine", 0), *coded], key=str)
    best = row(results, "text→image", "float32").figures["AP"]
    assert best.expected == best.ranked == best.best == best.worst == 1.0
    assert results.command == "bittern eval field"
    assert results.machine["seconds"] > 0


def test_draws_and_bytes_are_those_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch)
    results = evaluate(request(tmp_path), Quiet())
    hb = row(results, "text→audio", "Hashing-Baseline", bits=16, metric="symmetric", rerank=0)
    assert hb.draws == 10
    assert hb.figures["AP"].deviation is not None
    windows_per_recording = (1 + 2 + 3) / 3
    assert hb.bytes_per_item == 2 * windows_per_recording
    again = row(results, "text→audio", "Hashing-Baseline", bits=16, rerank=4)
    assert again.bytes_per_item == (2 + 4 * 12) * windows_per_recording
    assert row(results, "text→audio", "ITQ", bits=8, metric="symmetric").draws == 3


def test_a_run_goes_on_where_it_was_interrupted_and_comes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch)
    whole = evaluate(request(tmp_path, out=tmp_path / "undisturbed"), Quiet())
    measured = measuring.measured_cell
    done: list[str] = []

    def interrupted(*given: Any) -> object:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append("cell")
        return measured(*given)

    monkeypatch.setattr(run_module, "measured_cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(request(tmp_path), Quiet())
    assert len(list((tmp_path / "run" / "cells").iterdir())) == 4
    done.clear()

    def counted(*given: Any) -> object:
        done.append("cell")
        return measured(*given)

    monkeypatch.setattr(run_module, "measured_cell", counted)
    again = evaluate(request(tmp_path), Quiet())
    assert len(done) == 15 - 4
    assert figures(again) == figures(whole)
    assert again.comparisons == whole.comparisons
    assert [query.hits for query in again.shown] == [query.hits for query in whole.shown]


def figures(results: Results) -> list[object]:
    return [(each.label, each.task, each.figures) for each in results.rows]


def test_another_code_length_embeds_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = towers(monkeypatch)
    evaluate(request(tmp_path), Quiet())
    encoder.batches.clear()
    evaluate(request(tmp_path, out=tmp_path / "other", bits=(24,)), Quiet())
    assert encoder.batches == []


def test_a_folder_of_another_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch)
    evaluate(request(tmp_path, systems=("float32",)), Quiet())
    other = request(tmp_path, bits=(8,), systems=("itq",), protocol=Protocol(windows="mean"))
    with pytest.raises(InvalidInputError, match="with other bits, systems, windows; choose"):
        evaluate(other, Quiet())


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="no folder of a run"):
        evaluate(request(tmp_path), Quiet())


def test_missing_data_are_named_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bittern.benchmarks.eval.jobs.spaces_for", lambda *a: pytest.fail("loaded"))
    with pytest.raises(LayoutError, match="inquire needs its data"):
        evaluate(request(tmp_path, suite="inquire", data=None), Quiet())


def test_an_encoder_without_a_tower_gets_the_tasks_that_it_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch, Modality.TEXT, Modality.IMAGE)
    results = evaluate(request(tmp_path, systems=("float32",)), Quiet())
    assert [task.name for task in results.tasks] == ["text→image"]


def test_an_encoder_that_can_do_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch, Modality.IMAGE)
    with pytest.raises(InvalidInputError, match="toy has towers for image"):
        evaluate(request(tmp_path), Quiet())


def test_windows_can_be_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    towers(monkeypatch)
    separate = Protocol(windows="separate")
    results = evaluate(request(tmp_path, protocol=separate, systems=("float32",)), Quiet())
    sounds = next(task for task in results.tasks if task.name == "text→audio")
    assert (sounds.items, sounds.rows) == (18, 18)
    assert row(results, "text→audio", "float32").figures["AP"].expected == 1.0


def test_systems_that_cannot_be_fitted_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch)
    results = evaluate(request(tmp_path, systems=("float32", "pq")), Quiet())
    assert {each.system for each in results.rows} == {"float32"}
    assert len(results.notes) == 2  # the other one is on what encoders were trained on
    assert results.notes[0].startswith("Faiss PQ is left out at 8, 16 bits (text→image; ")


def test_nothing_is_ranked_anew_where_everything_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch)
    results = evaluate(request(tmp_path, rerank=9), Quiet())
    assert not any(each.rerank for each in results.rows)


def test_runs_and_qrels_give_other_programs_the_same_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch)
    results = evaluate(request(tmp_path, systems=("float32", "itq")), Quiet())
    folder = tmp_path / "run" / "trec" / "toy" / "text-to-audio"
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels.txt")))
    for name, wanted in (
        ("ITQ-8-symmetric-seed0", {"system": "ITQ", "bits": 8, "metric": "symmetric"}),
        ("float32-cosine-seed0", {"system": "float32"}),
    ):
        run = list(ir_measures.read_trec_run(str(folder / f"{name}.run")))
        theirs = ir_measures.calc_aggregate([ir_measures.AP], qrels, run)[ir_measures.AP]
        ours = row(results, "text→audio", **wanted).figures["AP"].ranked
        assert theirs == pytest.approx(ours, abs=1e-9)


def test_what_is_right_is_marked_among_the_hits_that_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch)
    results = evaluate(request(tmp_path), Quiet())
    shown = [query for query in results.shown if query.task == "text→audio"]
    assert {query.text for query in shown} == {"red", "green", "blue"}
    for query in shown:
        assert [hit.rank for hit in query.hits] == list(range(1, 9))
        for hit in query.hits:
            assert hit.relevant == hit.id.startswith(query.text)
            assert Path(hit.media).is_file()
            assert hit.end_s is not None
            assert hit.credit == "me · CC0"


def test_a_cell_of_other_data_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    towers(monkeypatch)
    wanted = request(tmp_path, systems=("float32",))
    evaluate(wanted, Quiet())
    manifest = tmp_path / "data" / "manifest.csv"
    lines = manifest.read_text().splitlines()
    lines[1] = lines[1].replace(",red,", ",blue,")
    manifest.write_text("\n".join(lines) + "\n")
    results = evaluate(wanted, Quiet())
    assert row(results, "text→image", "float32").figures["AP"].expected < 1.0
    assert not np.isnan(results.tasks[0].groups[0].chance or np.nan)


def test_settings_that_cannot_be_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    good = request(tmp_path)
    for bad, message in (
        (replace(good, measures=("mAP",)), "mAP"),
        (replace(good, rerank=-1), "--rerank must be 0 or more, not -1"),
        (replace(good, bits=(13,)), "13"),
        (replace(good, suite="imagenet"), "unknown suite 'imagenet'"),
        (replace(good, protocol=Protocol(novel_share=1.0)), "--novel-share must be above 0"),
        (replace(good, protocol=Protocol(repeats=0)), "--repeats must be 1 or more"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            evaluate(bad, Quiet())
    assert not (tmp_path / "run").exists()


def test_a_measure_that_float_vectors_have_not_leaves_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch)
    results = evaluate(request(tmp_path, measures=("P_H2",)), Quiet())
    assert {each.metric for each in results.rows} == {"symmetric"}
    assert any(note.startswith("float32 is left out") for note in results.notes)
    both = evaluate(request(tmp_path, out=tmp_path / "two", measures=("P_H2", "AP")), Quiet())
    assert "P_H2" not in row(both, "text→image", "float32").figures
    assert "AP" in row(both, "text→image", "float32").figures


def test_all_systems_are_cut_at_the_same_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers(monkeypatch)
    shallow = request(tmp_path, protocol=Protocol(depth=2), rerank=0, measures=("AP", "P@2"))
    results = evaluate(shallow, Quiet())
    assert {task.depth for task in results.tasks} == {2}
    for each in results.rows:
        if each.task == "text→image":
            assert each.figures["AP"].best <= 2 / 3 + 1e-12  # two of three can be found


def test_nothing_is_fitted_on_novel_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bittern.benchmarks.eval import jobs as fitting
    from tests.eval.embedding_toys import ArrayRows
    from tests.eval.test_windows import a_task

    task = replace(a_task(), groups={"novel": np.array([False, True])})
    rows = ArrayRows(np.eye(6, 8, dtype=np.float32), np.array([0, 0, 1, 2, 3, 3]))
    assert fitting.rows_to_fit_on(task, rows).tolist() == [0, 1, 4, 5]
    assert fitting.rows_to_fit_on(a_task(), rows).tolist() == list(range(6))
    few = fitting.drawn_rows(np.array([3, 5, 8, 9]), Protocol(fit_rows=2))
    assert len(few) == 2
    assert set(few.tolist()) <= {3, 5, 8, 9}
