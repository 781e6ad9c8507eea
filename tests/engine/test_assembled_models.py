"""Saved models with adapters and distilled towers at work: real code, tiny weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bittern.encoders.base import Encoder, Modality
from bittern.encoders.catalogue import CATALOGUE, load_encoder
from bittern.errors import (
    BitternError,
    DigestMismatchError,
    InvalidInputError,
    ModelDamagedError,
    ModelNotFoundError,
    UnsupportedModalityError,
    WeightsMissingError,
)
from bittern.hashing.saved_model import ADAPTER_FILE, CARD_FILE, SavedModel
from bittern.index.archive import Archive
from bittern.query import Query
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.encoding import encode_source
from bittern.service.jobs.indexing import index_source
from bittern.service.jobs.model_choice import load_first
from bittern.service.local.archive import LocalArchive
from bittern.service.models.model import Embedders, catalogue_encoder
from bittern.service.models.saved import load_saved
from bittern.service.sources import read_source
from bittern.types import AddStatus
from tests.encoders.tiny import clap_entry, openclip_entry
from tests.engine.assembled import (
    BOTH,
    CLAP,
    CLIP,
    Trained,
    adapted,
    distilled,
    hasher_on,
    write_weights,
)
from tests.engine.toy import COLOURS, fill_folder, picture, sound


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two tiny encoders in the catalogue, with their weights here."""
    folder = write_weights(tmp_path_factory.mktemp("weights"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CATALOGUE, CLIP, openclip_entry())
        patch.setitem(CATALOGUE, CLAP, clap_entry())
        patch.setenv("BITTERN_WEIGHTS", str(folder))
        patch.setenv("HF_HUB_CACHE", str(folder / "no-cache"))
        yield folder


@pytest.fixture(scope="module")
def heron() -> Trained:
    return distilled()


@pytest.fixture(scope="module")
def egret() -> Trained:
    return adapted()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_folder(tmp_path_factory.mktemp("media") / "media")


def folder_of(saved: SavedModel, tmp_path: Path) -> Path:
    saved.save(tmp_path / "models" / saved.card.name)
    return tmp_path / "models" / saved.card.name


def refused(
    folder: Path, media: Path, kind: type[BitternError], match: str, bits: int | None = None
) -> None:
    """Refused with the reason before there is an archive, and by an archive that there is."""
    entries, options = read_source(media).entries, IndexOptions(model=str(folder), bits=bits)
    with pytest.raises(kind, match=match):
        load_first(options, Embedders(catalogue_encoder), entries)
    with Archive.create(folder.parent / "refused") as archive:
        with pytest.raises(kind, match=match):
            index_source(LocalArchive(archive), entries, options)
        assert archive.model_records() == []


@pytest.mark.parametrize("kind", ["lsh", "hashcoder", "hybrid"])
def test_an_archive_answers_the_same_when_it_is_opened_again(
    kind: str, heron: Trained, media: Path, tmp_path: Path
) -> None:
    queries = [
        Query(text="a red bird", target="image"),
        Query(audio=sound("green"), target="image"),
        Query(text="a blue bird", target="audio", metric="hamming"),
    ]
    saved = heron.saved(kind)
    options = IndexOptions(model=str(folder_of(saved, tmp_path)))
    with Archive.create(tmp_path / "archive") as archive:
        local = LocalArchive(archive)
        report = index_source(local, read_source(media).entries, options)
        assert report.items[AddStatus.ADDED] == 7
        before = [local.answer(query) for query in queries]
        kept = archive.model_folder(saved.card.digest)
        assert {file.name for file in kept.iterdir()} == set(saved.files())
        assert ADAPTER_FILE in saved.files()
    for file in (tmp_path / "models" / "heron").iterdir():
        file.unlink()  # the archive has its own copy
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.verify() == []
        again = [LocalArchive(archive).answer(query) for query in queries]
    for first, second in zip(before, again, strict=True):
        assert first.model == "heron"
        assert [h.distance for h in first.hits] == [h.distance for h in second.hits]
        assert [h.observation.id for h in first.hits] == [h.observation.id for h in second.hits]
        assert first.hits


@pytest.fixture(scope="module")
def local(
    heron: Trained, media: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalArchive]:
    """An archive of pictures and sounds by the distilled model."""
    folder = tmp_path_factory.mktemp("heron")
    options = IndexOptions(model=str(folder_of(heron.saved(), folder)))
    with Archive.create(folder / "archive") as archive:
        local = LocalArchive(archive)
        index_source(local, read_source(media).entries, options)
        yield local


@pytest.mark.parametrize("colour", COLOURS)
def test_a_sound_finds_the_picture_that_its_tower_was_taught(
    local: LocalArchive, colour: str
) -> None:
    found = local.search(audio=sound(colour), target="image", metric="hamming")
    assert found.hits[0].observation.id == f"{colour}.png"
    seen = local.search(image=picture(colour), target="audio", metric="hamming")
    assert seen.hits[0].observation.media == f"sounds/{colour}.wav"


def test_recordings_are_cut_as_the_audio_tower_wants_it(local: LocalArchive) -> None:
    ends = {o.media: o.end_s for o in local.list() if o.modality == "audio"}
    assert ends["sounds/two.wav"] == 2.0  # one window of the tiny CLAP, two of the toy encoder
    encoded = local.encode(audio=sound("red", "green", "blue"))
    assert [(e.start_s, e.end_s) for e in encoded] == [(0.0, 2.0), (2.0, 3.0)]


def test_a_model_names_all_encoders_behind_it(local: LocalArchive) -> None:
    [info] = local.models()
    assert (info.encoder, info.weights, info.modalities) == (
        BOTH,
        "ready",
        ("audio", "image", "text"),
    )
    assert local.registry.encoders() == {CLIP, CLAP}


def test_weights_that_are_missing_are_named_and_the_others_are_not(
    local: LocalArchive, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / CLIP).symlink_to(weights / CLIP)
    monkeypatch.setenv("BITTERN_WEIGHTS", str(tmp_path))
    [info] = local.models()
    assert f"the weights of '{CLAP}'" in info.weights
    assert f"the weights of '{CLIP}'" not in info.weights
    cold = LocalArchive(local.archive)
    with pytest.raises(WeightsMissingError, match=CLAP):
        cold.search(audio=sound("red"), target="image")


def test_a_server_starts_without_the_weights_and_says_what_it_cannot_answer(
    local: LocalArchive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    local.warm()
    assert caplog.messages == []
    monkeypatch.delitem(CATALOGUE, CLAP)
    LocalArchive(local.archive).warm()
    assert "heron cannot answer audio queries" in caplog.messages[0]
    assert f"no encoder '{CLAP}'" in caplog.messages[0]


def test_codes_in_a_file_are_those_of_the_archive(
    local: LocalArchive, heron: Trained, media: Path, tmp_path: Path
) -> None:
    options = IndexOptions(model=str(folder_of(heron.saved(), tmp_path)))
    encode_source(read_source(media).entries, tmp_path / "codes.parquet", options)
    local.export(tmp_path / "all.parquet")
    tables = [pq.read_table(tmp_path / f"{name}.parquet") for name in ("codes", "all")]
    coded, stored = (dict(zip(*map(list, (t["id"], t["code"])), strict=True)) for t in tables)
    assert {str(k): v.as_py() for k, v in coded.items()} == {
        str(k): v.as_py() for k, v in stored.items()
    }
    assert tables[0].schema.metadata[b"bittern.encoder"].decode() == BOTH


def test_adapters_change_codes_and_leave_the_encoder_of_other_models_alone(
    egret: Trained, media: Path, tmp_path: Path
) -> None:
    loads: Counter[str] = Counter()

    def load(name: str) -> Encoder:
        loads[name] += 1
        return load_encoder(name)

    saved, images = egret.saved(), [e for e in read_source(media).entries if "png" in str(e)]
    plain = load_encoder(CLIP)
    bare = SavedModel.describe(
        "bare",
        saved.hasher,
        encoder=CLIP,
        towers={str(m): d for m, d in plain.digests.items()},
        licence="none",
    )
    with Archive.create(tmp_path / "archive") as archive:
        local = LocalArchive(archive, load_encoder=load)
        for model in (bare, saved):
            model.save(tmp_path / model.card.name)
            index_source(local, images, IndexOptions(model=str(tmp_path / model.card.name)))
        codes = {
            name: [e.code for e in local.encode(image=picture("red"), model=name)]
            for name in ("egret", "bare")
        }
        assert codes["egret"] != codes["bare"]
        texts = [local.encode(text="a red bird", model=name)[0] for name in codes]
        assert texts[0].code == texts[1].code  # no adapters there
    assert loads == {CLIP: 2}  # once as it is, once with adapters


def test_models_with_the_same_towers_load_them_once(heron: Trained) -> None:
    loads: Counter[str] = Counter()

    def load(name: str) -> Encoder:
        loads[name] += 1
        return load_encoder(name)

    embedders = Embedders(load)
    first, second = heron.saved("lsh"), heron.saved("hashcoder", name="bittern")
    assert embedders.of(first) is embedders.of(second)
    text = embedders.of(first).embed(Modality.TEXT, ["an owl"])
    plain = embedders.named(CLIP).embed(Modality.TEXT, ["an owl"])
    np.testing.assert_array_equal(text, plain)
    assert loads == {CLIP: 1, CLAP: 1}


def test_damaged_adapters_are_refused_with_the_reason(
    heron: Trained, media: Path, tmp_path: Path
) -> None:
    folder = folder_of(heron.saved(), tmp_path)
    content = bytearray((folder / ADAPTER_FILE).read_bytes())
    content[-1] ^= 1
    (folder / ADAPTER_FILE).write_bytes(content)
    refused(folder, media, ModelDamagedError, "digest")


def test_adapters_and_cards_that_do_not_fit_the_towers_are_refused(
    heron: Trained, media: Path, tmp_path: Path
) -> None:
    tensors = {n: t for n, t in heron.tensors.items() if n != "audio.projection.bias"}
    other = Trained(heron.name, heron.encoder, heron.plans, tensors, heron.whole)
    folder = folder_of(other.saved(), tmp_path / "other")
    refused(folder, media, ModelDamagedError, "'heron' cannot be used: .*audio.projection.bias")
    folder = folder_of(heron.saved(encoder=CLIP), tmp_path / "hidden")
    refused(folder, media, ModelDamagedError, f"'{CLIP}'.*{CLAP}")


def test_other_base_weights_are_refused_with_encoder_and_remedy(
    heron: Trained, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    write_weights(tmp_path / "other", seed=1)
    folder = folder_of(heron.saved(), tmp_path)
    monkeypatch.setenv("BITTERN_WEIGHTS", str(tmp_path / "other"))
    refused(folder, media, DigestMismatchError, f"'{CLAP}'.*'heron'.*train the model again")
    # Towers that are not needed for this source are checked all the same.
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / CLAP).symlink_to(weights / CLAP)
    (tmp_path / "mixed" / CLIP).symlink_to(tmp_path / "other" / CLIP)
    monkeypatch.setenv("BITTERN_WEIGHTS", str(tmp_path / "mixed"))
    options = IndexOptions(model=str(folder))
    with pytest.raises(DigestMismatchError, match=f"weights of '{CLIP}'"):
        load_first(options, Embedders(catalogue_encoder), read_source(media / "sounds").entries)


def test_other_bits_than_the_model_has_are_refused(
    heron: Trained, media: Path, tmp_path: Path
) -> None:
    refused(folder_of(heron.saved(), tmp_path), media, InvalidInputError, "64 bits", bits=128)


def test_a_source_of_nothing_that_the_model_takes_is_refused(
    egret: Trained, media: Path, tmp_path: Path
) -> None:
    folder = folder_of(egret.saved(), tmp_path)
    refused(folder, media / "sounds", UnsupportedModalityError, "'egret' takes image, text.*audio")
    with pytest.raises(UnsupportedModalityError, match=f"encoder '{CLIP}' takes"):
        load_first(
            IndexOptions(model=CLIP),
            Embedders(catalogue_encoder),
            read_source(media / "sounds").entries,
        )


def test_an_encoder_that_is_not_in_the_catalogue_is_named(
    egret: Trained, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(egret.saved(), tmp_path)
    monkeypatch.delitem(CATALOGUE, CLIP)
    refused(folder, media, ModelNotFoundError, f"'egret' cannot be used here.*'{CLIP}'.*upgrade")


@pytest.mark.parametrize(
    ("encoder", "tower", "match"),
    [(BOTH, "image", "not how they are combined"), (CLIP, "smell", "towers for smell")],
)
def test_several_encoders_without_an_assembly_and_unknown_towers_are_refused(
    heron: Trained, tmp_path: Path, encoder: str, tower: str, match: str
) -> None:
    hasher, towers = hasher_on(heron.whole, "lsh"), {tower: "0" * 64}
    saved = SavedModel.describe("loose", hasher, encoder=encoder, towers=towers, licence="none")
    with pytest.raises(ModelDamagedError, match=match):
        load_saved(folder_of(saved, tmp_path))


@pytest.mark.parametrize("content", ["[" * 100_000, "{}", "no card", '{"format": 99}'])
def test_a_card_of_nonsense_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / CARD_FILE).write_text(content)
    with pytest.raises(ModelDamagedError, match=CARD_FILE):
        load_saved(tmp_path)


def test_a_model_in_a_models_folder_is_found_by_its_folders_name(
    heron: Trained, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(heron.saved(), tmp_path)
    heron.saved().save(tmp_path / "models" / CLIP)  # the name of an encoder means the encoder
    entries = read_source(media).entries
    for variable in (False, True):
        if not variable:
            monkeypatch.chdir(tmp_path)
        else:
            monkeypatch.chdir("/")
            monkeypatch.setenv("BITTERN_MODELS", str(tmp_path / "models"))
        embedders = Embedders(catalogue_encoder)
        found = load_first(IndexOptions(model="heron"), embedders, entries)
        assert found.encoders == (CLAP, CLIP)
        assert load_first(IndexOptions(model=CLIP), embedders, entries).encoders == (CLIP,)
    with pytest.raises(ModelNotFoundError, match=r"no model '\.\./models/stork'"):
        load_first(IndexOptions(model="../models/stork"), embedders, entries)
