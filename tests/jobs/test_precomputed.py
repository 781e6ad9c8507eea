"""Embeddings that were made before: the files that hold them, and items that get theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bittern.errors import BitternError, InvalidInputError
from bittern.hashing.training.embedding_sets import EmbeddingWriter, View
from bittern.service.ingest.precomputed import Precomputed
from bittern.service.models.model import Embedder
from bittern.types import AddResult, AddStatus, MediaItem
from tests.engine.toy import ToyEncoder

DIM = 5


def unit(rows: int, dim: int = DIM) -> NDArray[np.float32]:
    values = np.random.default_rng(rows).standard_normal((rows, dim)).astype(np.float32)
    unit: NDArray[np.float32] = values / np.linalg.norm(values, axis=1, keepdims=True)
    return unit


def bring(folder: Path, values: NDArray[Any], ids: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / "embeddings.npy", values)
    (folder / "ids.txt").write_text("".join(f"{one}\n" for one in ids))
    return folder


def table(path: Path, values: Any, **columns: Any) -> Path:
    pq.write_table(pa.table({**columns, "embedding": values}), path)
    return path


def fixed(values: NDArray[Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def npy(folder: Path) -> Path:
    return bring(folder / "vectors", unit(4), ["b", "a", "c", "d"])


def halves(folder: Path) -> Path:
    return bring(folder / "vectors", unit(4).astype(np.float16), ["b", "a", "c", "d"])


def safetensors(folder: Path) -> Path:
    save_file({"embeddings": unit(4)}, folder / "embeddings.safetensors")
    (folder / "ids.json").write_text(json.dumps(["b", "a", "c", "d"]))
    return folder


def one_view(folder: Path) -> Path:
    with EmbeddingWriter(folder / "set", {"photo": View("image", DIM, "float32")}) as writer:
        writer.append({"photo": unit(4)})
    pq.write_table(pa.table({"anything": ["b", "a", "c", "d"]}), folder / "set" / "ids.parquet")
    return folder / "set"


def parquet(folder: Path) -> Path:
    return table(folder / "e.parquet", fixed(unit(4)), id=["b", "a", "c", "d"])


def parquet_of_doubles(folder: Path) -> Path:
    lists = pa.array(unit(4).astype(np.float64).tolist(), pa.large_list(pa.float64()))
    return table(folder / "e.pq", lists, occurrenceID=["b", "a", "c", "d"], id=["w"] * 4)


def parquet_of_halves(folder: Path) -> Path:
    return table(folder / "e.parquet", fixed(unit(4).astype(np.float16)), id=["b", "a", "c", "d"])


FORMS = [npy, halves, safetensors, one_view, parquet, parquet_of_doubles, parquet_of_halves]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(tmp_path: Path, form: Callable[[Path], Path]) -> None:
    source = Precomputed.open(form(tmp_path))
    assert (source.rows, source.dim, len(source.digest)) == (4, DIM, 64)
    [row] = source.rows_of("a")
    assert not len(source.rows_of("nobody"))
    assert np.allclose(source.read(np.array([row, 0, 3])), unit(4)[[1, 0, 3]], atol=1e-3)
    unlisted = source.unlisted()
    assert unlisted.startswith("3 of 4 rows of")
    assert unlisted.endswith("the source does not list 'b', 'c', 'd'")


def test_windows_of_a_recording_come_by_their_time(tmp_path: Path) -> None:
    times = {"start_s": [3.0, None, 0.0], "end_s": [6.0, None, 3.0]}
    path = table(tmp_path / "e.parquet", fixed(unit(3)), id=["owl", "fox", "owl"], **times)
    source = Precomputed.open(path)
    assert source.rows_of("owl").tolist() == [2, 0]
    assert source.spans[source.rows_of("owl")].tolist() == [[0, 3], [3, 6]]


def test_a_temporary_copy_goes_with_its_reader(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    source = Precomputed.open(parquet(tmp_path))
    assert list((tmp_path / "tmp").iterdir())
    del source
    assert not list((tmp_path / "tmp").iterdir())


def test_the_disk_is_checked_before_a_file_is_copied(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(InvalidInputError, match="set TMPDIR"):
        Precomputed.open(parquet(tmp_path))


@pytest.mark.parametrize(
    ("ids", "spans"),
    [
        (["a", "b", "a"], None),
        (["a", "b", "a"], [[0, 3], [0, 3], [0, 3]]),
        (["a", "b", "a"], [[0, 3], [0, 3], [np.nan, np.nan]]),
    ],
)
def test_rows_of_one_item_are_refused_unless_their_times_differ(
    tmp_path: Path, ids: list[str], spans: Any
) -> None:
    folder = bring(tmp_path / "vectors", unit(3), ids)
    if spans is not None:
        np.save(folder / "spans.npy", np.array(spans, np.float32))
    with pytest.raises(InvalidInputError, match=r"1 row too many for 'a':.*Take repeated rows out"):
        Precomputed.open(folder)


@pytest.mark.parametrize("span", [[3, 1], [-1, 2], [0, np.inf], [np.nan, 2]])
def test_impossible_times_are_named(tmp_path: Path, span: Any) -> None:
    folder = bring(tmp_path / "vectors", unit(2), ["a", "b"])
    np.save(folder / "spans.npy", np.array([[0, 3], span], np.float32))
    with pytest.raises(InvalidInputError, match=r"1 of 2 rows .* first is row 1, .*'b'"):
        Precomputed.open(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_rows_without_an_embedding_are_counted_and_the_first_is_named(
    tmp_path: Path, value: float
) -> None:
    values = unit(4)
    values[[1, 3]] = [value, 0, 0, 0, 0]
    with pytest.raises(InvalidInputError, match=r"^2 of 4 rows of .* hold NaN.*first is row 1\b"):
        Precomputed.open(bring(tmp_path, values, ["a", "b", "c", "d"]))


def test_rows_of_another_norm_are_counted_and_to_be_divided_by_it(tmp_path: Path) -> None:
    values = unit(3)
    values[2] = [3, 0, 0, 0, 0]
    message = r"^1 of 3 rows of .* does not have the norm 1; .*row 2\b.* with 3\. Divide each by"
    with pytest.raises(InvalidInputError, match=message):
        Precomputed.open(bring(tmp_path, values, ["a", "b", "c"]))
    values[0, 0] = np.nan
    with pytest.raises(InvalidInputError, match=r"1 of 3 rows .* NaN.*1 of 3 rows .* norm 1"):
        Precomputed.open(bring(tmp_path / "both", values, ["a", "b", "c"]))


def test_a_set_of_several_views_is_refused(tmp_path: Path) -> None:
    views = {"photo": View("image", DIM, "float32"), "caption": View("text", DIM, "float32")}
    with EmbeddingWriter(tmp_path / "set", views) as writer:
        writer.append({"photo": unit(3), "caption": unit(3)})
    (tmp_path / "set" / "ids.txt").write_text("a\nb\nc\n")
    with pytest.raises(InvalidInputError, match="views photo, caption: give"):
        Precomputed.open(tmp_path / "set")


@pytest.mark.parametrize(
    ("values", "columns", "message"),
    [
        (pa.array([[1.0], [0.6, 0.8]]), {"id": ["a", "b"]}, "of 2 numbers; all must have 1"),
        (pa.array([[1.0], None]), {"id": ["a", "b"]}, "of 0 numbers; all must have 1"),
        (pa.array([[1.0], [None]]), {"id": ["a", "b"]}, "with nulls; all must have 1"),
        (pa.array([None, [1.0]]), {"id": ["a", "b"]}, "limit"),
        (pa.array([[1], [1]]), {"id": ["a", "b"]}, "must be lists of float16"),
        (pa.array([b"ab", b"cd"]), {"id": ["a", "b"]}, "must be lists of float16"),
        (pa.array([[1e300], [1.0]]), {"id": ["a", "b"]}, "1 of 2 rows .* infinity"),
        (pa.array([[1.0], [1.0]]), {"name": ["a", "b"]}, "must have a column id"),
        (pa.array([[1.0], [1.0]]), {"id": ["a", None]}, "rows without an id"),
        (pa.array([[1.0], [1.0]]), {"id": [["a"], ["b"]]}, "cannot be read as Parquet"),
        (
            pa.array([[1.0]], pa.list_(pa.float32())).slice(0, 0),
            {"id": pa.array([], pa.string())},
            "limit",
        ),
        (
            pa.array([[1.0], [1.0]]),
            {"id": ["a", "b"], "start_s": ["x", "y"], "end_s": ["x", "y"]},
            "cannot be read as Parquet",
        ),
    ],
)
def test_a_parquet_file_that_is_not_as_it_should_be_is_refused(
    tmp_path: Path, values: Any, columns: Any, message: str
) -> None:
    path = table(tmp_path / "e.parquet", values, **columns)
    with pytest.raises(InvalidInputError, match=message) as caught:
        Precomputed.open(path)
    assert str(path) in caught.value.message


def test_other_files_are_refused_with_what_to_give(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", unit(2))
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "codes.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and so on")
    for name, words in {
        "e.npy": "folder with embeddings.npy and ids.txt",
        "codes.parquet": "--store-embeddings",
        "damaged.parquet": "cannot be read as Parquet",
        "absent": "no embeddings at",
    }.items():
        with pytest.raises(BitternError, match=words):
            Precomputed.open(tmp_path / name)


# Folders that are not as they should be


def nothing(folder: Path) -> None:
    (folder / "embeddings.npy").unlink()


def no_ids(folder: Path) -> None:
    (folder / "ids.txt").unlink()


def fewer_ids(folder: Path) -> None:
    (folder / "ids.txt").write_text("a\n")


def latin_ids(folder: Path) -> None:
    (folder / "ids.txt").write_bytes("a\nb\xe9".encode("latin-1"))


def objects(folder: Path) -> None:
    np.save(folder / "embeddings.npy", np.array([[{}]], object), allow_pickle=True)


def integers(folder: Path) -> None:
    np.save(folder / "embeddings.npy", np.eye(2, DIM, dtype=np.int64))


def flat(folder: Path) -> None:
    np.save(folder / "embeddings.npy", np.ones(2, np.float32))


def by_columns(folder: Path) -> None:
    np.save(folder / "embeddings.npy", np.asfortranarray(unit(2)))


def short(folder: Path) -> None:
    path = folder / "embeddings.npy"
    path.write_bytes(path.read_bytes()[:-4])


def other_spans(folder: Path) -> None:
    np.save(folder / "spans.npy", np.zeros((3, 2), np.float32))


def json_of_numbers(folder: Path) -> None:
    no_ids(folder)
    (folder / "ids.json").write_text("[1, 2]")


def deep_json(folder: Path) -> None:
    no_ids(folder)
    (folder / "ids.json").write_text("[" * 100_000)


def no_parquet(folder: Path) -> None:
    no_ids(folder)
    (folder / "ids.parquet").write_bytes(b"PAR1 and so on")


def parquet_with_a_gap(folder: Path) -> None:
    no_ids(folder)
    pq.write_table(pa.table({"id": ["a", None]}), folder / "ids.parquet")


def parquet_of_lists(folder: Path) -> None:
    no_ids(folder)
    pq.write_table(pa.table({"id": [["a"], ["b"]]}), folder / "ids.parquet")


def two_tensors(folder: Path) -> None:
    nothing(folder)
    save_file({"embeddings": unit(2), "more": unit(2)}, folder / "embeddings.safetensors")


SPOILT = [
    nothing, no_ids, fewer_ids, latin_ids, objects, integers, flat, by_columns, short, other_spans,
    json_of_numbers, deep_json, no_parquet, parquet_with_a_gap, parquet_of_lists, two_tensors,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_folder_that_is_not_as_it_should_be_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    folder = bring(tmp_path, unit(2), ["a", "b"])
    spoil(folder)
    with pytest.raises(BitternError, match=str(folder)):
        Precomputed.open(folder)


# Items


def test_items_get_their_embeddings_and_what_is_missing_is_named(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    names = ["fox", "owl", "owl", "two", "two", "rest"]
    folder = bring(tmp_path / "vectors", unit(6, encoder.dim), names)
    times = [[np.nan, np.nan], [1, 2], [0, 1], [0, 1], [1, 2], [np.nan, np.nan]]
    np.save(folder / "spans.npy", np.array(times))
    source, embedder = Precomputed.open(folder), Embedder("toy", lambda _: encoder)
    entries: list[MediaItem | AddResult] = [
        MediaItem("fox", "fox.jpg", "image", path=tmp_path / "fox.jpg"),
        MediaItem("owl", "owl.wav", "audio", path=tmp_path / "owl.wav"),
        MediaItem("absent", "absent.jpg", "image", path=tmp_path / "absent.jpg"),
        MediaItem("two", "two.jpg", "image", path=tmp_path / "two.jpg"),
        AddResult("bad", AddStatus.FAILED),
    ]
    fox, owl, *others, passed = source.embedded(embedder, entries)
    assert (fox.spans, owl.spans) == ([(None, None)], [(0.0, 1.0), (1.0, 2.0)])
    assert np.array_equal(owl.stacked(), unit(6, encoder.dim)[[2, 1]])
    messages = [one.result.message for one in others if one.result]
    assert messages[0] == f"{folder} has no embedding of 'absent'"
    assert "2 embeddings of the photograph 'two'" in messages[1]
    assert passed.result == entries[4]
    assert (
        source.unlisted()
        == f"1 of 6 rows of {folder} was not used: the source does not list 'rest'"
    )
    assert not encoder.batches


def test_embeddings_of_another_encoder_are_refused(tmp_path: Path) -> None:
    embedder = Embedder("toy", lambda _: ToyEncoder())
    path = parquet(tmp_path)
    with pytest.raises(InvalidInputError, match="5 dimensions, the model's have 12: name"):
        Precomputed.open(path).check_encoder(embedder, ["image"])
    for about, words in (
        ({"bittern.encoder": "other"}, "are of 'other', not of the image tower of 'toy'"),
        (
            {"bittern.encoder": "toy", "bittern.towers": '{"image": "x"}'},
            "are of 'toy', not of the image tower",
        ),
    ):
        stored = pa.table({"id": ["a"], "embedding": fixed(unit(1, 12))})
        pq.write_table(stored.replace_schema_metadata(about), path)
        with pytest.raises(InvalidInputError, match=words):
            Precomputed.open(path).check_encoder(embedder, ["image"])
    same = {"bittern.encoder": "renamed", "bittern.towers": '{"image": "toy-image"}'}
    pq.write_table(stored.replace_schema_metadata(same), path)
    Precomputed.open(path).check_encoder(embedder, ["image", "audio"])
