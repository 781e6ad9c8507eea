"""What each system is, beyond the contract: its definition, or the library it stands for."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from bittern.benchmarks.eval.systems.base import Training
from bittern.benchmarks.eval.systems.codes import FittedCodes, TrainingFree
from bittern.benchmarks.eval.systems.exact import unit
from bittern.benchmarks.eval.systems.quantized import ProductQuantizer, train_quantizer
from bittern.benchmarks.eval.systems.selection import UNLABELLED
from bittern.benchmarks.eval.systems.vectors import FloatVectors
from bittern.errors import CodeError, InvalidInputError
from bittern.hashing.codes import asymmetric_distance, hamming_distance, pack
from bittern.hashing.training_free import fit

DIM, ROWS, QUERIES = 48, 700, 20


@pytest.fixture(scope="module")
def training() -> Training:
    rng = np.random.default_rng(1)
    spread = rng.standard_normal((DIM, DIM))
    items = unit(rng.standard_normal((ROWS, DIM)) @ spread + 1).astype(np.float32)
    queries = unit(rng.standard_normal((QUERIES, DIM)) @ spread - 1).astype(np.float32)
    return Training(items, "audio", queries, "text")


def cosines(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    q, x = queries.astype(np.float64), rows.astype(np.float64)
    found: np.ndarray = (q @ x.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(x, axis=1)
    return found


def test_float32_is_the_cosine_of_the_embeddings(training: Training) -> None:
    fitted = FloatVectors("float32").fit(training, None, 0)
    stored = fitted.encode_items(training.items)
    assert np.array_equal(stored, training.items)
    distances = fitted.distances(
        fitted.encode_queries(training.queries, "cosine"), stored, 0, QUERIES
    )
    assert np.abs(distances - (1 - cosines(training.queries, training.items))).max() < 3e-8


def test_centred_is_the_cosine_once_each_side_has_lost_its_mean(training: Training) -> None:
    fitted = FloatVectors("centred").fit(training, None, 0)
    queries, stored = (
        fitted.encode_queries(training.queries, "cosine"),
        fitted.encode_items(training.items),
    )
    expected = cosines(
        training.queries - training.queries.mean(axis=0),
        training.items - training.items.mean(axis=0),
    )
    assert np.abs(fitted.distances(queries, stored, 0, QUERIES) - (1 - expected)).max() < 1e-6


def test_a_single_query_is_no_cloud_to_centre_on(training: Training) -> None:
    one = Training(training.items, "audio", training.queries[:1], "text")
    fitted = FloatVectors("centred").fit(one, None, 0)
    assert np.array_equal(fitted.encode_queries(training.queries, "cosine"), training.queries)


def test_int8_is_what_faiss_scalar_quantizer_keeps(training: Training) -> None:
    fitted = FloatVectors("int8").fit(training, None, 0)
    index = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_8bit)
    index.train(training.items)
    stored = fitted.encode_items(training.items)
    assert np.array_equal(stored, index.sa_encode(training.items))
    decoded = index.sa_decode(stored)
    steps = np.ptp(training.items, axis=0) / 255
    assert (np.abs(decoded - training.items) <= 0.51 * steps + 1e-6).all()
    distances = fitted.distances(
        fitted.encode_queries(training.queries, "cosine"), stored, 0, QUERIES
    )
    assert np.abs(distances - (1 - cosines(training.queries, decoded))).max() < 3e-8


def test_int8_takes_what_is_out_of_range_to_its_end(training: Training) -> None:
    fitted = FloatVectors("int8").fit(training, None, 0)
    far = np.stack([np.full(DIM, 9.0), np.full(DIM, -9.0)]).astype(np.float32)
    assert np.array_equal(fitted.encode_items(far), np.repeat([[255], [0]], DIM, axis=1))


def test_fewer_bytes_are_further_from_the_truth(training: Training) -> None:
    errors = []
    for precision in ("float32", "float16", "int8"):
        fitted = FloatVectors(precision).fit(training, None, 0)
        queries, stored = (
            fitted.encode_queries(training.queries, "cosine"),
            fitted.encode_items(training.items),
        )
        truth = 1 - cosines(training.queries, training.items)
        errors.append(np.abs(fitted.distances(queries, stored, 0, QUERIES) - truth).max())
    assert errors[0] < errors[1] < errors[2] < 0.01


def test_embeddings_beyond_half_precision_stay_finite(training: Training) -> None:
    fitted = FloatVectors("float16").fit(training, None, 0)
    assert np.isfinite(fitted.encode_items(training.items * np.float32(1e9))).all()
    with pytest.raises(CodeError, match="row 0, 1, 2, 3, 4 and 695 more of 700"):
        fitted.encode_items(training.items.astype(np.float64) * 1e300)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "kind"), [("hb", "pca"), ("itq", "itq"), ("lsh", "lsh")])
@pytest.mark.parametrize("bits", [16, 96])
def test_codes_are_those_of_the_hasher_with_the_components_of_the_items(
    name: str, kind: str, bits: int, training: Training
) -> None:
    fitted = UNLABELLED[name].fit(training, bits, 3)
    assert isinstance(fitted, FittedCodes)
    hasher = fit(
        kind,  # type: ignore[arg-type]
        {"audio": training.items, "text": training.queries},
        bits,
        seed=3,
        basis=["audio"],
    )
    stored = fitted.encode_items(training.items)
    assert np.array_equal(stored, pack(hasher.logits(training.items, "audio")))
    logits = hasher.logits(training.queries, "text")
    symmetric = fitted.distances(
        fitted.encode_queries(training.queries, "symmetric"), stored, 0, QUERIES
    )
    assert np.array_equal(symmetric, hamming_distance(pack(logits), stored))
    queries = fitted.encode_queries(training.queries, "asymmetric")
    asymmetric = fitted.distances(queries, stored, 0, QUERIES)
    assert np.array_equal(asymmetric, np.stack([asymmetric_distance(z, stored) for z in logits]))


def test_random_systems_are_drawn_ten_times_fitted_ones_thrice_and_others_once() -> None:
    draws = {name: system.draws for name, system in UNLABELLED.items()}
    assert {name for name, many in draws.items() if many == 10} == {"hb", "lsh"}
    assert {name for name, many in draws.items() if many == 3} == {"itq", "pq", "opq"}
    assert set(draws.values()) == {1, 3, 10}


@pytest.mark.parametrize(
    ("rows", "dim", "bits", "components"),
    [(5000, 48, 48, 0), (5000, 48, 56, 48), (33, 48, 32, 0), (33, 48, 40, 32), (1, 48, 8, 1)],
)
def test_codes_of_more_bits_than_components_say_what_was_appended(
    rows: int, dim: int, bits: int, components: int
) -> None:
    for name in ("hb", "itq"):
        system = UNLABELLED[name]
        assert isinstance(system, TrainingFree)
        note = system.notes(rows, dim, bits)
        assert bool(note) == (components > 0)
        if components:
            assert note.startswith(f"{system.name} at {bits} bits")
            assert f"the {components} components that {rows:,} training rows" in note
    projection = UNLABELLED["lsh"]
    assert isinstance(projection, TrainingFree)
    assert projection.notes(rows, dim, bits) == ""


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("bits", [16, 64])
def test_quantized_distances_are_those_of_faiss(
    rotate: bool, bits: int, training: Training
) -> None:
    fitted = ProductQuantizer(rotate).fit(training, bits, 4)
    items, queries = (unit(x - x.mean(axis=0)) for x in (training.items, training.queries))
    quantizer, rotation = train_quantizer(items.astype(np.float32), bits // 8, 4, rotate=rotate)

    def turned(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = rotation.apply(rows) if rotate else rows
        return found

    stored = fitted.encode_items(training.items)
    codes = quantizer.compute_codes(turned(items.astype(np.float32)))
    assert (stored == codes).mean() > 0.999
    decoded = quantizer.decode(stored)
    as_stored = turned(queries.astype(np.float32))
    for metric, encoded in (
        ("asymmetric", as_stored),
        ("symmetric", quantizer.decode(quantizer.compute_codes(as_stored))),
    ):
        expected = ((encoded.astype(np.float64)[:, None] - decoded) ** 2).sum(axis=2)
        sought = fitted.encode_queries(training.queries, metric)  # type: ignore[arg-type]
        found = fitted.distances(sought, stored, 0, QUERIES)
        assert np.abs(found - expected).max() < 1e-5


def test_quantizers_tell_why_they_do_not_fit(training: Training) -> None:
    assert "5 bytes do not divide 48" in ProductQuantizer(False).fits(DIM, 40)
    assert "multiple of 8" in ProductQuantizer(False).fits(DIM, 12)
    few = Training(training.items[:255], "audio", training.queries, "text")
    with pytest.raises(InvalidInputError, match="256 rows"):
        ProductQuantizer(True).fit(few, 16, 0)


def test_the_centre_of_the_queries_is_part_of_a_quantizers_digest(training: Training) -> None:
    moved = Training(training.items, "audio", training.queries + np.float32(0.5), "text")
    system = ProductQuantizer(False)
    assert system.fit(moved, 16, 0).digest != system.fit(training, 16, 0).digest
