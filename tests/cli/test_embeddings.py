"""`--embeddings`: what `encode --store-embeddings` writes serves the other commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bittern.cli import main
from bittern.encoders.base import Media, Modality
from bittern.encoders.field.encoder import FieldEncoder
from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def stored(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "codes.parquet"
    with pytest.MonkeyPatch.context() as patch:
        command = ["bittern", "encode", str(manifest), "--output", str(path), "--store-embeddings"]
        patch.setattr("sys.argv", command)
        with pytest.raises(SystemExit):
            main()
    return path


@pytest.fixture(autouse=True)
def _media_are_not_embedded(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = FieldEncoder.encode

    def words_only(self: FieldEncoder, modality: Modality, batch: Sequence[Media]) -> Any:
        assert modality == Modality.TEXT
        return encode(self, modality, batch)

    monkeypatch.setattr(FieldEncoder, "encode", words_only)


def as_folder(stored: Path, folder: Path) -> Path:
    """The same embeddings as NumPy arrays."""
    folder.mkdir()
    table = pq.read_table(stored)
    np.save(folder / "embeddings.npy", np.stack(table["embedding"].to_numpy()))
    (folder / "ids.txt").write_text("\n".join(table["occurrenceID"].to_pylist()))
    times = [table[name].to_numpy() for name in ("start_s", "end_s")]
    np.save(folder / "spans.npy", np.stack(times, axis=1))
    return folder


def hits(run: Run, archive: Path) -> Any:
    found = json.loads(run("search", archive, "an animal", "-k", 50, "--json").out)["hits"]
    return [(hit["id"], hit["distance"], hit["start_s"], hit["end_s"]) for hit in found]


@pytest.mark.parametrize("form", ["parquet", "folder"])
def test_an_archive_of_embeddings_answers_as_one_of_the_media(
    run: Run, archive: Path, manifest: Path, stored: Path, tmp_path: Path, form: str
) -> None:
    made = stored if form == "parquet" else as_folder(stored, tmp_path / "vectors")
    done = run("index", tmp_path / "again", manifest, "--embeddings", made)
    assert done.status == 0
    assert hits(run, tmp_path / "again") == hits(run, archive)
    again = run("index", tmp_path / "again", manifest, "--embeddings", made)
    assert " added" not in again.out


def test_codes_of_embeddings_are_those_of_the_media(
    run: Run, manifest: Path, stored: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again.parquet"
    assert run("encode", manifest, "--output", out, "--embeddings", stored).status == 0
    columns = ["id", "start_s", "end_s", "code"]
    assert pq.read_table(out, columns=columns) == pq.read_table(stored, columns=columns)


def test_a_training_on_embeddings_names_what_it_did_not_use(
    run: Run, manifest: Path, stored: Path, tmp_path: Path
) -> None:
    table = pq.read_table(stored)
    some = tmp_path / "some.parquet"
    extra = table.slice(0, 1).set_column(1, "occurrenceID", pa.array(["nobody"]))
    pq.write_table(pa.concat_tables([table.slice(1), extra.cast(table.schema)]), some)
    done = run(
        "train", "pairs", manifest, "--embeddings", some, "--modality", "image",
        "--output", tmp_path / "out", "--bits", 16, "--epochs", 1,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert f"has no embedding of '{table['occurrenceID'][0]}'" in done.err.replace("\n", " ")
    assert "'nobody'" in done.err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("index OUT SOURCE --embeddings /nowhere", "no embeddings at /nowhere"),
        ("index OUT SOURCE --embeddings STORED --engine ray", "leave out --engine ray"),
        ("index OUT SOURCE --embeddings STORED --model bioclip-2", "bioclip-2"),
        ("encode SOURCE --output OUT.parquet --embeddings SOURCE", "not a Parquet file"),
        ("train pairs SOURCE --output OUT --embeddings STORED --lora", "--lora"),
        ("index OUT SOURCE --keep-embeddings", "--keep-embeddings is now --store-embeddings"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(
    run: Run, manifest: Path, stored: Path, tmp_path: Path, command: str, message: str
) -> None:
    names = {"OUT": tmp_path / "out", "SOURCE": manifest, "STORED": stored}
    names["OUT.parquet"] = tmp_path / "out.parquet"
    done = run(*(names.get(word, word) for word in command.split()))
    assert (done.status > 0, message in done.err.replace("\n", " ")) == (True, True), done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()
