from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bittern.errors import CodeError, InvalidInputError, SourceNotFoundError
from bittern.hashing.training.embedding_sets import SET_FILE, EmbeddingSet, EmbeddingWriter, View
from tests.hashing.training.sets import DIM, embeddings, make_set


def describe_as(folder: Path, **changes: Any) -> None:
    path = folder / SET_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_written_set_is_read_back(tmp_path: Path) -> None:
    opened = make_set(tmp_path / "set", labels="multi", groups=True)
    text, image, labels = embeddings(120)
    rows = np.array([0, 49, 50, 119])
    assert np.array_equal(opened.read("caption", rows), text[rows].astype(np.float16))
    assert np.array_equal(opened.read("photo", rows), image[rows].astype(np.float32))
    assert opened.groups is not None
    assert np.array_equal(opened.groups, labels)
    assert opened.multi_labels is not None
    offsets, values = opened.multi_labels
    assert values[offsets[119] :].tolist() == [labels[119], 6]
    assert opened.description.encoder == "toy"


def test_a_set_made_with_numpy_alone_opens(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 4), dtype=np.float32))
    np.save(tmp_path / "labels.npy", np.array([0, 1, -1], dtype=np.int32))
    view = {"modality": "image", "dim": 4, "dtype": "float32"}
    described = {"format": 1, "rows": 3, "views": {"a": view}, "labels": "single"}
    (tmp_path / SET_FILE).write_text(json.dumps(described))
    opened = EmbeddingSet.open(tmp_path)
    assert opened.rows == 3
    assert opened.labels is not None
    assert opened.labels.tolist() == [0, 1, -1]


def test_the_digest_changes_with_any_value(tmp_path: Path) -> None:
    same = make_set(tmp_path / "a", labels="single").digest
    assert make_set(tmp_path / "b", labels="single").digest == same
    values = np.load(tmp_path / "b" / "photo.npy")
    values[77, 3] += 1e-6
    np.save(tmp_path / "b" / "photo.npy", values)
    assert EmbeddingSet.open(tmp_path / "b").digest != same
    labels = np.load(tmp_path / "a" / "labels.npy")
    labels[5] += 1
    np.save(tmp_path / "a" / "labels.npy", labels)
    assert EmbeddingSet.open(tmp_path / "a").digest != same


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((120, DIM + 1), dtype=np.float16), "shape"),
        (np.zeros((119, DIM), dtype=np.float16), "shape"),
        (np.zeros((120, DIM), dtype=np.float32), "float32"),
        (np.zeros((120, DIM), dtype=">f2"), ">f2"),
        (np.asfortranarray(np.zeros((120, DIM), dtype=np.float16)), "columns"),
    ],
)
def test_an_array_that_is_not_as_described_is_refused(
    tmp_path: Path, array: np.ndarray, message: str
) -> None:
    make_set(tmp_path / "set")
    np.save(tmp_path / "set" / "caption.npy", array)
    with pytest.raises(InvalidInputError, match=r"caption\.npy") as caught:
        EmbeddingSet.open(tmp_path / "set")
    assert message in caught.value.message


def test_pickles_and_damaged_arrays_are_refused(tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    path = tmp_path / "set" / "caption.npy"
    whole = path.read_bytes()
    np.save(path, np.array([{}] * 120, dtype=object), allow_pickle=True)
    for content in (path.read_bytes(), whole[:-100], whole[:40], b"", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=r"caption\.npy"):
            EmbeddingSet.open(tmp_path / "set")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f2', 'fortran_order': False, 'shape': (1180591620717411303424, 12)}",
        "{'descr': '<f2', 'fortran_order': False, 'shape': (True, 4)}",
        "{'descr': ((), ()), 'fortran_order': False, 'shape': (120, 12)}",
        "(" * 9000,
        "-" * 9000 + "1",
    ],
    ids=["endless", "truth", "dtype", "brackets", "signs"],
)
def test_a_header_made_to_harm_is_refused(tmp_path: Path, header: str) -> None:
    make_set(tmp_path / "set")
    written = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    (tmp_path / "set" / "caption.npy").write_bytes(written + bytes(120 * DIM * 2))
    with pytest.raises(InvalidInputError, match=r"caption\.npy"):
        EmbeddingSet.open(tmp_path / "set")


def test_negative_classes_among_several_are_refused(tmp_path: Path) -> None:
    make_set(tmp_path / "set", labels="multi")
    values = np.load(tmp_path / "set" / "label_values.npy")
    values[3] = -1
    np.save(tmp_path / "set" / "label_values.npy", values)
    with pytest.raises(InvalidInputError, match=r"label_values\.npy must hold classes from 0"):
        EmbeddingSet.open(tmp_path / "set")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=SET_FILE):
        EmbeddingSet.open(tmp_path)
    make_set(tmp_path / "set", labels="single")
    (tmp_path / "set" / "labels.npy").unlink()
    with pytest.raises(SourceNotFoundError, match=r"labels\.npy"):
        EmbeddingSet.open(tmp_path / "set")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"rows": 0},
        {"rows": "120"},
        {"views": {}},
        {"views": {"../caption": {"modality": "text", "dim": DIM}}},
        {"views": {"labels": {"modality": "text", "dim": DIM}}},
        {"views": {"caption": {"modality": "A smell", "dim": DIM}}},
        {"surprise": 1},
    ],
)
def test_a_description_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    make_set(tmp_path / "set")
    describe_as(tmp_path / "set", **changes)
    with pytest.raises(InvalidInputError, match=SET_FILE):
        EmbeddingSet.open(tmp_path / "set")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_row(tmp_path: Path, bad: float) -> None:
    make_set(tmp_path / "set")
    values = np.load(tmp_path / "set" / "photo.npy")
    values[93, 2] = bad
    np.save(tmp_path / "set" / "photo.npy", values)
    with pytest.raises(InvalidInputError, match=r"row 93 of .*photo\.npy"):
        _ = EmbeddingSet.open(tmp_path / "set").digest


def test_two_views_that_are_the_same_array_are_refused(tmp_path: Path) -> None:
    text, _, _ = embeddings(20)
    views = {"one": View("text", DIM), "two": View("text", DIM)}
    with EmbeddingWriter(tmp_path / "set", views) as writer:
        writer.append({"one": text, "two": text})
    with pytest.raises(InvalidInputError, match=r"views one and two .* same embeddings"):
        _ = EmbeddingSet.open(tmp_path / "set").digest


def test_offsets_that_do_not_rise_are_refused(tmp_path: Path) -> None:
    make_set(tmp_path / "set", labels="multi")
    offsets = np.load(tmp_path / "set" / "label_offsets.npy")
    offsets[3] = 10_000
    np.save(tmp_path / "set" / "label_offsets.npy", offsets)
    with pytest.raises(InvalidInputError, match="label_offsets"):
        EmbeddingSet.open(tmp_path / "set")


def test_an_interrupted_writer_leaves_no_set(tmp_path: Path) -> None:
    text, _, _ = embeddings(20)
    writer = EmbeddingWriter(tmp_path / "set", {"one": View("text", DIM)})
    writer.append({"one": text})
    with pytest.raises(KeyboardInterrupt), writer:
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_set_is_never_overwritten(tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    with pytest.raises(InvalidInputError, match="exists already"):
        make_set(tmp_path / "set")


@pytest.mark.parametrize(
    "batch",
    [
        {"one": np.zeros((2, DIM + 1))},
        {"other": np.zeros((2, DIM))},
        {"one": np.full((2, DIM), np.nan)},
        {"one": np.full((2, DIM), 1e6)},  # infinite as float16
        {},
    ],
)
def test_a_batch_that_does_not_fit_the_set_is_refused(
    tmp_path: Path, batch: dict[str, np.ndarray]
) -> None:
    writer = EmbeddingWriter(tmp_path / "set", {"one": View("text", DIM)})
    with pytest.raises(CodeError):
        writer.append(batch)
    writer.abandon()


def test_labels_must_be_given_where_they_were_declared(tmp_path: Path) -> None:
    writer = EmbeddingWriter(tmp_path / "set", {"one": View("text", DIM)}, labels="single")
    with pytest.raises(CodeError, match="labels must be given"):
        writer.append({"one": np.zeros((2, DIM))})
    writer.abandon()
