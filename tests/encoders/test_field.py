from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from PIL import Image

import bittern.encoders.field
from bittern.encoders.base import Encoder, Media, Modality
from bittern.encoders.field.encoder import FieldEncoder
from bittern.encoders.field.networks import MiniLM, views
from bittern.errors import InvalidInputError, QueryError, UnsupportedModalityError

SAMPLE = Path(__file__).parents[2] / "bittern" / "sample"


@pytest.fixture(scope="module")
def field() -> FieldEncoder:
    return bittern.encoders.field.load()


def picture(name: str) -> np.ndarray:
    with Image.open(SAMPLE / "images" / name) as opened:
        return np.asarray(opened.convert("RGB"))


def sound(name: str) -> np.ndarray:
    samples, rate = soundfile.read(SAMPLE / "audio" / name, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, 48_000), dtype=np.float32)


def nearest(field: FieldEncoder, embedding: np.ndarray, texts: list[str]) -> str:
    scores = field.encode(Modality.TEXT, texts) @ embedding
    return texts[int(np.argmax(scores))]


def test_field_is_an_encoder_with_three_towers(field: FieldEncoder) -> None:
    assert isinstance(field, Encoder)
    assert field.modalities == {"text", "image", "audio"}
    assert field.windowing is not None


@pytest.mark.parametrize("modality", list(Modality))
def test_an_empty_batch_gives_no_rows(field: FieldEncoder, modality: Modality) -> None:
    out = field.encode(modality, [])
    assert out.shape == (0, 384)
    assert out.dtype == np.float32


def test_embeddings_are_float32_of_unit_norm(field: FieldEncoder) -> None:
    rng = np.random.default_rng(0)
    batches: dict[Modality, list[Media]] = {
        Modality.TEXT: ["owl", ""],
        Modality.IMAGE: [rng.integers(0, 255, (1, 7, 3), dtype=np.uint8)],
        Modality.AUDIO: [np.zeros(48_000, np.float32), np.zeros(1, np.float32)],
    }
    for modality, batch in batches.items():
        out = field.encode(modality, batch)
        assert out.shape == (len(batch), 384)
        assert out.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-5)


def test_text_in_other_scripts_is_embedded(field: FieldEncoder) -> None:
    out = field.encode(Modality.TEXT, ["сова", "フクロウ", "بومة", "🦉", "a" * 5000, "\ud800"])
    assert np.isfinite(out).all()


def test_text_embeddings_do_not_depend_on_the_batch(field: FieldEncoder) -> None:
    texts = ["owl", "a red deer stag roaring at dawn in the highlands", "two ducks", "wolf"]
    alone = np.concatenate([field.encode(Modality.TEXT, [t]) for t in texts])
    np.testing.assert_array_equal(field.encode(Modality.TEXT, texts), alone)


def test_a_text_by_itself_is_embedded_as_by_transformers() -> None:
    texts = ["owl", "a red deer stag roaring at dawn", "сова", "", "owl " * 200]
    by_transformers = MiniLM(batch=2).encode(texts)
    np.testing.assert_allclose(MiniLM().encode(texts), by_transformers, atol=2e-6)


def test_picture_embeddings_do_not_depend_on_the_batch(field: FieldEncoder) -> None:
    pictures = [picture(n) for n in ("owl-1.webp", "horse-1.webp", "goldfish-1.webp")]
    alone = np.concatenate([field.encode(Modality.IMAGE, [p]) for p in pictures])
    np.testing.assert_array_equal(field.encode(Modality.IMAGE, pictures), alone)


def test_sound_embeddings_do_not_depend_on_the_batch(field: FieldEncoder) -> None:
    windows = [sound(n)[:144_000] for n in ("tawny-owl-1.ogg", "goose-1.ogg")]
    alone = np.concatenate([field.encode(Modality.AUDIO, [w]) for w in windows])
    np.testing.assert_array_equal(field.encode(Modality.AUDIO, windows), alone)


@pytest.mark.parametrize(
    ("file", "kind"),
    [("owl-1.webp", "owl"), ("giraffe-1.webp", "giraffe"), ("goldfish-1.webp", "goldfish")],
)
def test_a_picture_is_nearest_to_its_name(field: FieldEncoder, file: str, kind: str) -> None:
    (embedding,) = field.encode(Modality.IMAGE, [picture(file)])
    assert nearest(field, embedding, ["owl", "giraffe", "goldfish", "wolf", "duck"]) == kind


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("tawny-owl-1.ogg", "owl"),
        ("goose-1.ogg", "goose"),
        ("dogs-barking-1.ogg", "dog"),
        ("ducks-1.ogg", "duck"),
        ("crow-1.ogg", "crow"),
        ("chicken-1.ogg", "chicken"),
    ],
)
def test_a_sound_is_nearest_to_its_name(field: FieldEncoder, file: str, kind: str) -> None:
    (embedding,) = field.encode(Modality.AUDIO, [sound(file)[: 48_000 * 60]])
    names = ["owl", "goose", "dog", "duck", "chicken", "crow", "sparrow", "frog"]
    assert nearest(field, embedding, names) == kind


def test_a_picture_is_nearer_to_its_sound_than_to_another(field: FieldEncoder) -> None:
    pictures = field.encode(Modality.IMAGE, [picture("white-duck-1.webp"), picture("cat-1.webp")])
    (duck,) = field.encode(Modality.AUDIO, [sound("ducks-1.ogg")])
    assert pictures[0] @ duck > pictures[1] @ duck + 0.1


def test_the_whole_picture_is_seen() -> None:
    wide = np.zeros((100, 400, 3), np.uint8)
    wide[:, :40] = 255
    framed, stretched = views(wide)
    assert framed[130, 10].tolist() == [255, 255, 255]
    assert stretched[130, -10].tolist() == [255, 255, 255]
    assert framed[10, 130].tolist() == [127, 127, 127]


def test_a_window_is_cut_into_frames_of_3_seconds_and_padded(field: FieldEncoder) -> None:
    goose = sound("goose-1.ogg")[:144_000]
    padded = np.concatenate([goose, np.zeros(144_000 - len(goose), np.float32)])
    np.testing.assert_array_equal(*field.encode(Modality.AUDIO, [goose, padded]))


@pytest.mark.parametrize(
    ("modality", "item", "said"),
    [
        (Modality.TEXT, 7, "item 0 must be a text, not int"),
        (Modality.IMAGE, np.zeros((4, 4, 3), np.float32), "float32"),
        (Modality.IMAGE, np.zeros((4, 4), np.uint8), r"\[4, 4\]"),
        (Modality.IMAGE, np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (Modality.AUDIO, np.zeros(10, np.float64), "float64"),
        (Modality.AUDIO, np.zeros(0, np.float32), r"\[0\]"),
        (Modality.AUDIO, np.zeros((2, 10), np.float32), r"\[2, 10\]"),
        (Modality.AUDIO, np.full(10, np.nan, np.float32), "NaN"),
    ],
)
def test_an_item_of_the_wrong_kind_is_refused(
    field: FieldEncoder, modality: Modality, item: object, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        field.encode(modality, [item])  # type: ignore[list-item]


def test_an_unknown_modality_is_refused(field: FieldEncoder) -> None:
    with pytest.raises(UnsupportedModalityError, match="smell"):
        field.encode("smell", [])  # type: ignore[arg-type]


def test_each_tower_has_its_own_digest(field: FieldEncoder) -> None:
    digests = field.digests
    assert set(digests) == set(Modality)
    assert len(set(digests.values())) == 3
    assert all(len(d) == 64 for d in digests.values())


def test_calibration_has_unit_rows_for_each_modality() -> None:
    embeddings = bittern.encoders.field.calibration()
    assert set(embeddings) == {"text", "image", "audio"}
    for rows in embeddings.values():
        assert rows.shape[1] == 384
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_text_that_would_not_be_read_to_its_end_is_refused(field: FieldEncoder) -> None:
    with pytest.raises(QueryError, match="256"):
        field.encode(Modality.TEXT, ["an owl", "owl " * 300])
