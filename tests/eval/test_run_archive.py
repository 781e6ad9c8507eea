"""A whole run over an archive: stored codes rank as the archive's own searches do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bittern.benchmarks.eval.cells import read_cell
from bittern.benchmarks.eval.jobs import StoredModel
from bittern.benchmarks.eval.request import DEFAULT_BITS, EvalRequest
from bittern.benchmarks.eval.results import Results
from bittern.benchmarks.eval.run import evaluate
from bittern.benchmarks.eval.suites.custom_archive import StoredCodes
from bittern.benchmarks.eval.systems.base import Training
from bittern.benchmarks.eval.tasks import Protocol
from bittern.errors import InvalidInputError
from bittern.index.archive import Archive
from bittern.query import Query
from bittern.service.local.archive import LocalArchive
from bittern.types import MediaItem
from tests.engine.toy import ToyEncoder, picture
from tests.eval.test_suite_custom import data, with_archive
from tests.eval.toy_runs import Quiet

__all__ = ["data", "with_archive"]


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bittern.benchmarks.eval.jobs.catalogue_encoder", lambda name: ToyEncoder())


def a_run(folder: Path, out: str = "run", **changed: object) -> Results:
    given: dict[str, object] = {
        "suite": "custom",
        "data": folder,
        "out": folder.parent / out,
        "cache": folder.parent / "cache",
        "rerank": 2,
    }
    return evaluate(EvalRequest(**{**given, **changed}), Quiet())  # type: ignore[arg-type]


def test_every_model_that_coded_the_items_is_measured_at_its_own_length(
    with_archive: Path,
) -> None:
    results = a_run(with_archive)
    measured = {(r.task, r.model, r.bits, r.metric, r.rerank) for r in results.rows}
    assert measured == {
        *(
            ("text→image", model, bits, metric, 0)
            for model, bits in (("toy-64", 64), ("toy-32", 32))
            for metric in ("symmetric", "asymmetric")
        ),
        *(
            (task, "toy-64", 64, metric, 0)
            for task in ("text→audio", "image→audio", "audio→image")
            for metric in ("symmetric", "asymmetric")
        ),
        *(("audio→image", "toy-32", 32, metric, 0) for metric in ("symmetric", "asymmetric")),
    }
    assert {r.bytes_per_item for r in results.rows if r.task == "text→image"} == {8.0, 4.0}


def test_codes_are_ranked_as_the_archive_itself_ranks_them(with_archive: Path) -> None:
    a_run(with_archive)
    cells = [
        cell
        for path in (with_archive.parent / "run" / "cells").iterdir()
        if (cell := read_cell(path.parent, path.stem)) is not None
    ]
    with Archive.open(with_archive / "archive") as archive:
        engine = LocalArchive(archive, load_encoder=lambda name: ToyEncoder())
        for metric, ours in (("asymmetric", "asymmetric"), ("hamming", "symmetric")):
            query = Query(text="something red", target="image", k=3, metric=metric, model="toy-64")  # type: ignore[arg-type]
            hits = engine.answer(query).hits
            [cell] = [c for c in cells if (c.about["task"], c.about["bits"]) == ("text→image", 64)]
            [ranked] = [r for v, r in cell.variants.items() if v.metric == ours]
            np.testing.assert_allclose(ranked.distances[0], [hit.distance for hit in hits])


def test_one_model_can_be_named(with_archive: Path) -> None:
    results = a_run(with_archive, models=("toy-64",))
    assert {row.model for row in results.rows} == {"toy-64"}
    with pytest.raises(InvalidInputError, match="it has codes by toy-64"):
        a_run(with_archive, "other", models=("nobody",))


def test_windows_can_be_items_of_an_archive(with_archive: Path) -> None:
    results = a_run(with_archive, protocol=Protocol(windows="separate"))
    sounds = next(task for task in results.tasks if task.name == "text→audio")
    assert sounds.items == 5


@pytest.mark.parametrize(
    "changed", [{"systems": ("itq",)}, {"bits": (16,)}, {"embeddings": Path("outside")}]
)
def test_what_stored_codes_cannot_do_is_refused(
    with_archive: Path, changed: dict[str, Any]
) -> None:
    assert changed.get("bits") != DEFAULT_BITS
    with pytest.raises(InvalidInputError, match="stored codes are ranked as they are"):
        a_run(with_archive, **changed)


def test_stored_bits_are_signs_and_each_query_has_its_own_distances() -> None:
    codes = np.array([[0b00000101], [0b11111111]], dtype=np.uint8)
    stored = StoredCodes(
        "toy", "d", frozenset(), Path(), codes, np.arange(2), np.full((2, 2), np.nan), 0
    )
    assert stored.read(np.array([0])).tolist() == [[1, -1, 1, -1, -1, -1, -1, -1]]
    none = np.empty((0, 8), np.float32)
    fitted = StoredModel(stored).fit(Training(none, "image", none, "text"), 8, 0)
    np.testing.assert_array_equal(fitted.encode_items(stored.read(np.arange(2))), codes)
    queries = stored.read(np.array([1, 0]))
    encoded = fitted.encode_queries(queries, "symmetric")
    assert fitted.distances(encoded, codes, 0, 2).tolist() == [[6, 0], [0, 6]]
    assert fitted.distances(encoded, codes, 1, 2).tolist() == [[0, 6]]
    soft = fitted.distances(fitted.encode_queries(queries, "asymmetric"), codes, 0, 2)
    assert soft.shape == (2, 2)
    assert soft[0, 1] < soft[0, 0]
    assert soft[1, 0] < soft[1, 1]


def test_items_that_a_model_has_not_coded_are_counted(with_archive: Path) -> None:
    with Archive.open(with_archive / "archive", write=True) as archive:
        engine = LocalArchive(archive, load_encoder=lambda name: ToyEncoder())
        extra = MediaItem("extra", "extra.png", "image", data=picture("green", jitter=40))
        list(engine.add([extra], model="toy-64"))
    results = a_run(with_archive)
    sentences = {
        task.model: [text for text in task.left_out if "never be found" in text]
        for task in results.tasks
        if task.name == "text→image"
    }
    assert sentences["toy-64"] == []
    assert sentences["toy-32"] == ["1 item has no code by toy-32, and can never be found"]
