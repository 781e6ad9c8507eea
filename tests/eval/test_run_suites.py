"""Every published layout, from its folder to its figures, on miniatures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bittern.benchmarks.eval.report import write_report
from bittern.benchmarks.eval.results import Results
from bittern.benchmarks.eval.run import evaluate
from bittern.benchmarks.eval.tasks import Protocol
from bittern.errors import LayoutError
from tests.eval.conftest import Miniatures
from tests.eval.toy_runs import Quiet, request, towers

TASKS = {
    "inquire": ["text→image", "text→image, rerank 100"],
    "inat24": ["text→image"],
    "inatsounds": ["text→audio"],
    "ssw60": ["audio→image", "text→audio", "text→image", "image→audio"],
    "soundscapes": ["text→audio, windows", "text→audio, recordings"],
}


def a_run(tmp_path: Path, suite: str, data: Path, protocol: Protocol | None = None) -> Results:
    wanted = request(
        tmp_path,
        suite=suite,
        data=data,
        out=tmp_path / f"run-{suite}",
        bits=(8,),
        systems=("float32", "itq"),
        rerank=2,
        protocol=protocol or Protocol(),
    )
    return evaluate(wanted, Quiet())


@pytest.mark.parametrize("suite", TASKS)
def test_a_suite_runs_from_its_published_layout_to_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, miniatures: Miniatures, suite: str
) -> None:
    towers(monkeypatch)
    results = a_run(tmp_path, suite, miniatures(suite))
    assert [task.name for task in results.tasks] == TASKS[suite]
    assert {(row.task, row.system) for row in results.rows} == {
        (task, system) for task in TASKS[suite] for system in ("float32", "ITQ")
    }
    for row in results.rows:
        main = next(t.measures[0] for t in results.tasks if t.name == row.task)
        assert row.figures[main].worst <= row.figures[main].best
        for figure in row.figures.values():
            assert 0 <= figure.worst <= figure.expected + 1e-12
            assert figure.expected <= figure.best + 1e-12 <= 1 + 1e-9
            assert figure.low <= figure.high
    for task in results.tasks:
        assert all(np.isfinite(group.chance) for group in task.groups if group.chance is not None)
    written = write_report(results, tmp_path / "report")
    assert all(path.stat().st_size for path in written)


def test_a_folder_of_another_suite_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bittern.benchmarks.eval.jobs.spaces_for", lambda *a: pytest.fail("loaded"))
    (tmp_path / "inat24").mkdir()
    with pytest.raises(LayoutError, match="lacks 2 of inat24"):
        a_run(tmp_path, "inat24", tmp_path / "inat24")


@pytest.mark.parametrize(
    ("suite", "protocol", "groups"),
    [
        ("inat24", Protocol(novel="taxonomy", novel_share=0.3), {"all", "seen", "novel"}),
        ("inat24", Protocol(level="family"), {"all"}),
        ("inatsounds", Protocol(windows="mean"), {"all"}),
        ("inatsounds", Protocol(windows="separate", fit_on="training"), {"all"}),
        ("ssw60", Protocol(prompts=("a {common}", "{scientific}")), {"all"}),
        ("ssw60", Protocol(prompts=("a {common}", "{name}"), average_prompts=True), {"all"}),
        ("inquire", Protocol(candidates="rerank"), {"all"}),
    ],
)
def test_options_of_the_protocol_run_through(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    miniatures: Miniatures,
    suite: str,
    protocol: Protocol,
    groups: set[str],
) -> None:
    towers(monkeypatch)
    results = a_run(tmp_path, suite, miniatures(suite), protocol)
    assert {row.group for row in results.rows} == groups
    assert results.protocol["windows"] == protocol.windows
    assert results.protocol["prompts"] == list(protocol.prompts)
