from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bittern.encoders.base import Modality
from bittern.errors import ModelNotFoundError, SourceNotFoundError
from bittern.hashing.codes import pack
from bittern.hashing.saved_model import SavedModel
from bittern.hashing.training_free import fit
from bittern.index.archive import Archive
from bittern.service.ingest.report import JobReport
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.encoding import encode_source
from bittern.service.jobs.indexing import index_source
from bittern.service.local.archive import LocalArchive
from bittern.service.models.model import Embedders
from bittern.service.sources import read_source
from bittern.types import AddStatus, MediaItem
from tests.engine.toy import COLOURS, ToyEncoder, picture, sound


def write_manifest(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(picture(colour))
    (folder / "call.wav").write_bytes(sound("red"))
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    return folder / "manifest.csv"


def test_whatever_a_manifest_calls_its_columns_it_can_be_indexed(
    empty: LocalArchive, tmp_path: Path, options: IndexOptions
) -> None:
    headings = 'media,id,"field, with comma",dwc:genus,code_1,Espèce,,order,2nd'
    path = write_manifest(tmp_path / "m", f"{headings}\nred.png,7,x,Ardea,c,é,e,o,s\n")
    report = index_source(empty, read_source(path).entries, options)
    assert report.failures == []
    assert dict(empty.get("red.png").metadata) == {
        "id_": "7",
        "field_with_comma": "x",
        "genus": "Ardea",
        "column_code_1": "c",
        "Espece": "é",
        "column_7": "e",
        "order": "o",
        "column_2nd": "s",
    }


def test_rows_may_share_an_occurrence_if_their_media_differ(
    empty: LocalArchive, tmp_path: Path, options: IndexOptions
) -> None:
    path = write_manifest(tmp_path / "m", "occurrenceID,media\nfox,red.png\nfox,call.wav\n")
    (path.parent / "call.wav").write_bytes(sound("red", "blue"))
    report = index_source(empty, read_source(path).entries, options)
    assert report.failures == []
    assert [o.id for o in empty.list()] == [
        "fox",
        "fox#media=call.wav#t=0,1",
        "fox#media=call.wav#t=1,2",
    ]


def test_indexing_again_decodes_nothing_and_adds_what_is_new(
    local: LocalArchive, encoder: ToyEncoder, media: Path, options: IndexOptions
) -> None:
    (media / "late.png").write_bytes(picture("blue"))
    encoder.batches.clear()
    report = index_source(local, read_source(media).entries, options)
    assert (report.items[AddStatus.SKIPPED], report.items[AddStatus.ADDED]) == (7, 1)
    assert encoder.batches == [(Modality.IMAGE, 1)]


def test_a_file_of_the_same_name_below_another_folder_is_not_lost_in_silence(
    local: LocalArchive, tmp_path: Path, options: IndexOptions
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "red.png").write_bytes(picture("blue"))
    (other / "new.png").write_bytes(picture("blue"))
    report = index_source(local, read_source(other).entries, options)
    assert report.items[AddStatus.ADDED] == 1
    [failure] = report.failures
    assert (failure.occurrence_id, failure.reason) == ("red.png", "DUPLICATE_OBSERVATION")
    assert "folder above both" in failure.message
    assert "overwrite replaces the stored one" in failure.message


def test_ids_do_not_depend_on_which_files_are_present(
    empty: LocalArchive, tmp_path: Path, options: IndexOptions
) -> None:
    path = write_manifest(tmp_path / "m", "occurrenceID,media\no1,late.png\no1,red.png\n")
    index_source(empty, read_source(path).entries, options)
    assert [o.id for o in empty.list()] == ["o1#media=red.png"]
    (path.parent / "late.png").write_bytes(picture("blue"))
    report = index_source(empty, read_source(path).entries, options)
    assert (report.items[AddStatus.SKIPPED], report.items[AddStatus.ADDED]) == (1, 1)
    assert empty.get("o1").media == "late.png"


def test_bad_files_are_reported_and_the_rest_is_indexed(
    empty: LocalArchive, media: Path, options: IndexOptions
) -> None:
    (media / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    (media / "empty.wav").touch()
    report = index_source(empty, read_source(media).entries, options)
    assert report.items[AddStatus.ADDED] == 7
    assert {f.occurrence_id for f in report.failures} == {"broken.jpg", "empty.wav"}
    assert all(f.reason and f.message for f in report.failures)


def test_a_file_is_indexed_whatever_its_name_on_one_line(
    empty: LocalArchive, tmp_path: Path, options: IndexOptions
) -> None:
    (tmp_path / "call#t=1,2.wav").write_bytes(sound("red"))
    (tmp_path / "Größe 100%?.png").write_bytes(picture("red"))
    (tmp_path / "two\nlines.png").write_bytes(picture("red"))
    report = index_source(empty, read_source(tmp_path).entries, options)
    (failure,) = report.failures
    assert "U+000A" in failure.message
    assert "rename the file" in failure.message
    assert [o.media for o in empty.list()] == ["Größe 100%?.png", "call#t=1,2.wav"]


def test_a_source_indexes_to_the_same_rows_in_the_same_order(
    tmp_path: Path, media: Path, options: IndexOptions
) -> None:
    def rows(name: str) -> list[tuple[str, bytes]]:
        with Archive.create(tmp_path / name) as archive:
            local = LocalArchive(archive, load_encoder=lambda _: ToyEncoder())
            index_source(local, read_source(media).entries, options)
            digest = local.registry.find().digest
            return [
                (o.id, archive.code(o.id, digest).tobytes()) for o in archive.list().observations
            ]

    assert rows("one") == rows("two")


def test_an_unknown_model_is_refused_with_the_known_ones(empty: LocalArchive, media: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="bioclip-2"):
        index_source(empty, read_source(media).entries, IndexOptions(model="nosuch"))


def test_a_hasher_is_fitted_on_the_first_media_where_the_encoder_has_none(
    empty: LocalArchive, media: Path
) -> None:
    empty = LocalArchive(empty.archive, load_encoder=lambda name: ToyEncoder(name=name))
    report = index_source(empty, read_source(media).entries, IndexOptions(model="bioclip"))
    assert report.items[AddStatus.ADDED] == 7
    assert report.model == "bioclip-256"
    assert "fitted on 8 observations" in report.warnings[0]
    assert empty.search(text="green", target="image").hits[0].observation.id == "green.png"
    again = index_source(empty, read_source(media).entries, IndexOptions(model="bioclip"))
    assert again.items[AddStatus.SKIPPED] == 7
    assert len(empty.models()) == 1


def test_codes_in_parquet_carry_the_digest_and_the_bit_order(
    tmp_path: Path, media: Path, options: IndexOptions, encoder: ToyEncoder
) -> None:
    to = tmp_path / "codes.parquet"
    report = encode_source(
        read_source(media).entries, to, options, embedders=Embedders(lambda name: encoder)
    )
    table = pq.read_table(to)
    about = table.schema.metadata
    card = json.loads((Path(options.model) / "model.json").read_text())
    assert about[b"bittern.digest"].decode() == card["digest"]
    assert b"i % 8" in about[b"bittern.bit_order"]
    assert (table.num_rows, report.observations) == (8, 8)
    assert table.schema.field("code").type.byte_width == 8
    assert not list(tmp_path.glob("*.partial"))


def test_no_file_of_codes_is_left_where_nothing_could_be_coded(
    tmp_path: Path, options: IndexOptions, encoder: ToyEncoder
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture")
    entries = read_source(tmp_path / "bad").entries
    with pytest.raises(SourceNotFoundError, match=r"a\.png"):
        encode_source(
            entries, tmp_path / "codes.parquet", options, embedders=Embedders(lambda name: encoder)
        )
    assert not list(tmp_path.glob("codes*"))


def test_embeddings_are_kept_on_request(
    empty: LocalArchive, media: Path, model_folder: Path, encoder: ToyEncoder
) -> None:
    kept = IndexOptions(model=str(model_folder), keep_embeddings=True)
    index_source(empty, read_source(media).entries, kept)
    model = empty.registry.find()
    assert model.modalities == frozenset(Modality)
    embedding = encoder.encode(Modality.IMAGE, [np.full((4, 4, 3), COLOURS["blue"], np.uint8)])
    code = pack(model.logits(Modality.IMAGE, embedding))
    assert code.shape == (1, 8)
    assert any(c.startswith("embedding_") for c in empty.archive._store.columns)


@pytest.fixture
def eyes(tmp_path: Path) -> Path:
    """A model of words and pictures only, over an encoder that hears as well."""
    encoder = ToyEncoder()
    texts = encoder.encode(Modality.TEXT, list(COLOURS))
    seen = (Modality.TEXT, Modality.IMAGE)
    saved = SavedModel.describe(
        "eyes",
        fit("lsh", {str(m): np.concatenate([texts, -texts]) for m in seen}, 64),
        encoder=encoder.name,
        towers={str(m): encoder.digests[m] for m in seen},
        licence="CC0-1.0",
    )
    saved.save(tmp_path / "eyes")
    return tmp_path / "eyes"


def named_at_the_end(report: JobReport) -> bool:
    """Whether three pictures are in, and each of four recordings has failed with its reason."""
    assert (report.items[AddStatus.ADDED], report.items[AddStatus.FAILED]) == (3, 4)
    assert {f.reason for f in report.failures} == {"UNSUPPORTED_MODALITY"}
    assert {f.message for f in report.failures} == {"model 'eyes' takes image and text, not audio"}
    return "sounds/two.wav" in {f.occurrence_id for f in report.failures}


def test_what_a_model_does_not_take_fails_one_by_one_and_the_rest_goes_in(
    empty: LocalArchive, encoder: ToyEncoder, eyes: Path, media: Path
) -> None:
    entries, options = read_source(media).entries, IndexOptions(model=str(eyes), commit_items=2)
    assert named_at_the_end(index_source(empty, entries, options))
    assert {modality for modality, _ in encoder.batches} == {Modality.IMAGE}
    again = index_source(empty, entries, IndexOptions(model="eyes"))
    assert (again.items[AddStatus.SKIPPED], again.items[AddStatus.FAILED]) == (3, 4)
    assert empty.stats().observations == {"image": 3, "audio": 0}


def test_what_a_named_model_does_not_take_is_not_added(
    empty: LocalArchive, eyes: Path, media: Path
) -> None:
    pictures = [e for e in read_source(media).entries if "png" in str(e)]
    index_source(empty, pictures, IndexOptions(model=str(eyes)))
    recording = MediaItem("call", "call.wav", "audio", data=sound("red"))
    [[result]] = empty.add([recording], model="eyes")
    assert (result.status, result.reason) == (AddStatus.FAILED, "UNSUPPORTED_MODALITY")


def test_what_a_model_does_not_take_is_left_out_of_a_file_of_codes(
    encoder: ToyEncoder, eyes: Path, media: Path, tmp_path: Path
) -> None:
    report = encode_source(
        read_source(media).entries,
        tmp_path / "codes.parquet",
        IndexOptions(model=str(eyes)),
        embedders=Embedders(lambda name: encoder),
    )
    assert named_at_the_end(report)
    assert pq.read_table(tmp_path / "codes.parquet").num_rows == 3
