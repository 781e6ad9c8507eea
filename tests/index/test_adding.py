"""Adding: one commit per batch, duplicates by policy, several models, bad items alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bittern.errors import (
    DigestMismatchError,
    InvalidInputError,
    ObservationNotFoundError,
    PreconditionError,
    QueryError,
)
from bittern.index.archive import Archive
from bittern.index.models import ModelRecord
from bittern.index.observation import CodedObservation
from bittern.index.store import Store
from bittern.types import AddResult, AddStatus, Observation
from tests.index.samples import BAT, OWL, code, ids, model, photo, recording, statuses


def add(
    archive: Archive, *items: list[CodedObservation], policy: str = "error", by: ModelRecord = OWL
) -> list[AddResult]:
    return archive.add(list(items), model=by.digest, on_duplicate=policy)  # type: ignore[arg-type]


def test_a_batch_is_one_commit(archive: Archive) -> None:
    before = archive.generation
    add(archive, photo("a"), photo("b"), recording("c", 3))
    assert archive.generation == before + 1
    assert ids(archive) == ["a", "b", "c#t=0,3", "c#t=3,6", "c#t=6,9"]


def test_each_row_has_the_version_that_wrote_it(archive: Archive) -> None:
    add(archive, photo("a"), photo("b"))
    first = archive.generation
    add(archive, photo("b"), photo("c"), policy="overwrite")
    rows = Store(archive.path / "store").read(["id", "committed"]).to_pylist()
    committed = {row["id"]: row["committed"] for row in rows}
    assert committed == {"a": first, "b": archive.generation, "c": archive.generation}
    assert archive.generation > first


def test_a_batch_of_nothing_commits_nothing(archive: Archive) -> None:
    before = archive.generation
    assert add(archive) == []
    assert archive.generation == before


@pytest.mark.parametrize(
    ("policy", "status", "latitude"),
    [("error", "failed", 1.0), ("skip", "skipped", 1.0), ("overwrite", "overwritten", 2.0)],
)
def test_a_stored_duplicate_follows_the_policy_and_the_rest_goes_in(
    archive: Archive, policy: str, status: str, latitude: float
) -> None:
    add(archive, photo("a", {"decimalLatitude": 1.0}))
    results = add(archive, photo("a", {"decimalLatitude": 2.0}), photo("b"), policy=policy)
    assert statuses(results) == [status, "added"]
    assert archive.get("a").metadata == {"decimalLatitude": latitude}
    assert ids(archive) == ["a", "b"]


@pytest.mark.parametrize(
    ("policy", "status", "latitude"),
    [("error", "failed", 1.0), ("skip", "skipped", 1.0), ("overwrite", "overwritten", 2.0)],
)
def test_a_duplicate_within_the_batch_follows_the_policy(
    archive: Archive, policy: str, status: str, latitude: float
) -> None:
    first, second = photo("a", {"decimalLatitude": 1.0}), photo("a", {"decimalLatitude": 2.0})
    assert statuses(add(archive, first, second, policy=policy)) == ["added", status]
    assert archive.get("a").metadata == {"decimalLatitude": latitude}
    assert archive.verify() == []


def test_a_duplicate_is_reported_with_its_reason(archive: Archive) -> None:
    add(archive, photo("a"))
    result = add(archive, photo("a"))[0]
    assert (result.reason, result.observations) == ("DUPLICATE_OBSERVATION", 0)
    assert "'a'" in result.message
    assert "overwrite" in result.message


@pytest.mark.parametrize("windows", [1, 2, 3, 5])
def test_overwriting_replaces_all_windows_in_one_commit(archive: Archive, windows: int) -> None:
    add(archive, recording("call", 3), photo("z"))
    before, rows = archive.generation, {o.id: o.row for o in archive.list().observations}
    result = add(archive, recording("call", windows, seed=50), policy="overwrite")[0]
    assert (result.status, result.observations) == (AddStatus.OVERWRITTEN, windows)
    assert archive.generation == before + 1
    assert len(archive.rows("occurrenceID = 'call'")) == windows
    after = {o.id: o.row for o in archive.list().observations}
    assert all(after[name] == row for name, row in rows.items() if name in after)
    assert all(row > max(rows.values()) for name, row in after.items() if name not in rows)
    assert np.array_equal(archive.code("call#t=0,3", OWL.digest), code(50))
    assert archive.verify() == []


def test_a_search_after_overwriting_sees_the_new_code(archive: Archive) -> None:
    add(archive, photo("a", seed=1), photo("b", seed=2))
    archive.search(code(1), model=OWL.digest, k=1, metric="hamming")
    add(archive, photo("a", seed=3), policy="overwrite")
    hit = archive.search(code(3), model=OWL.digest, k=1, metric="hamming").hits[0]
    assert (hit.observation.id, hit.distance) == ("a", 0.0)


def test_row_numbers_are_never_given_out_twice(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "a") as archive:
        archive.register_model(OWL, {})
        add(archive, photo("a"), photo("b"))
        archive.delete(["b"])
    with Archive.open(tmp_path / "a", write=True) as archive:
        add(archive, photo("c"), recording("d", 2))
        assert [o.row for o in archive.list().observations] == [0, 2, 3, 4]
        add(archive, recording("d", 1), policy="overwrite")
    with Archive.open(tmp_path / "a", write=True) as archive:
        add(archive, photo("e"))
        assert [o.row for o in archive.list().observations] == [0, 2, 3, 5]


# Several models


@pytest.mark.parametrize("policy", ["error", "skip", "overwrite"])
def test_another_models_codes_fill_the_same_observations(archive: Archive, policy: str) -> None:
    archive.register_model(BAT, {})
    add(archive, photo("a", {"family": "kept"}), recording("c", 2))
    before = archive.generation
    filling = [photo("a", {"family": "new"}, record=BAT), recording("c", 2, record=BAT)]
    assert statuses(add(archive, *filling, policy=policy, by=BAT)) == ["added", "added"]
    assert archive.generation == before + 1
    assert ids(archive) == ["a", "c#t=0,3", "c#t=3,6"]
    assert archive.get("a").metadata == {"family": "kept"}
    assert np.array_equal(archive.code("a", BAT.digest), filling[0][0].code)
    assert np.array_equal(archive.code("a", OWL.digest), photo("a")[0].code)
    assert archive.verify() == []


def test_windows_that_only_another_model_has_become_new_rows(archive: Archive) -> None:
    archive.register_model(BAT, {})
    add(archive, recording("c", 2))
    add(archive, recording("c", 1, seconds=10, record=BAT), by=BAT)
    assert ids(archive) == ["c#t=0,3", "c#t=3,6", "c#t=0,10"]
    assert len(archive.search(np.ones(32), model=BAT.digest, k=9, metric="hamming").hits) == 1
    with pytest.raises(ObservationNotFoundError, match="no code of model owl"):
        archive.code("c#t=0,10", OWL.digest)


def test_skip_skips_only_what_this_model_has_coded(archive: Archive) -> None:
    archive.register_model(BAT, {})
    add(archive, photo("a"), photo("b"))
    add(archive, photo("a", record=BAT), by=BAT)
    again = [photo("a", record=BAT), photo("b", record=BAT)]
    assert statuses(add(archive, *again, policy="skip", by=BAT)) == ["skipped", "added"]
    assert set(archive.coded(["a", "b", "c"], BAT.digest)) == {"a", "b"}


def test_overwriting_forgets_the_other_models_codes(archive: Archive) -> None:
    archive.register_model(BAT, {})
    add(archive, photo("a"))
    add(archive, photo("a", record=BAT), by=BAT)
    add(archive, photo("a", seed=9), policy="overwrite")
    with pytest.raises(ObservationNotFoundError):
        archive.code("a", BAT.digest)
    assert archive.search(np.ones(32), model=BAT.digest, k=9, metric="hamming").hits == []


def test_filling_with_another_modality_fails(archive: Archive) -> None:
    archive.register_model(BAT, {})
    add(archive, photo("a"))
    result = add(archive, recording("a", 1, record=BAT), by=BAT)[0]
    assert (result.status, result.reason) == (AddStatus.FAILED, "DUPLICATE_OBSERVATION")


def test_an_unregistered_model_is_refused(archive: Archive) -> None:
    with pytest.raises(DigestMismatchError):
        add(archive, photo("a", record=BAT), by=BAT)


def test_registering_a_model_twice_changes_nothing_but_lost_files(archive: Archive) -> None:
    generation, folder = archive.generation, archive.model_folder(OWL.digest)
    archive.register_model(OWL, {"card.json": b"other"})
    assert archive.generation == generation
    assert (folder / "card.json").read_bytes() == b"{}"
    assert (folder / "heads" / "shared.bin").read_bytes() == b"\x00\x01"


def test_models_that_look_the_same_are_refused(archive: Archive) -> None:
    twin = replace(OWL, digest=OWL.digest[:16] + "0" * 48)
    with pytest.raises(DigestMismatchError, match="first 16 digits"):
        archive.register_model(twin, {})


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "", "a\\b"])
def test_a_models_file_cannot_leave_its_folder(archive: Archive, name: str) -> None:
    with pytest.raises(InvalidInputError, match="relative path"):
        archive.register_model(BAT, {name: b""})
    assert [m.digest for m in archive.model_records()] == [OWL.digest]


@pytest.mark.parametrize("digest", ["", "../../x", "ABCDEF0123456789", "abc"])
def test_a_digest_that_is_no_hex_is_refused(archive: Archive, digest: str) -> None:
    with pytest.raises(InvalidInputError, match="digest"):
        archive.register_model(replace(BAT, digest=digest), {})


# Bad items


def one(observation: Observation, bits: int = 64) -> list[CodedObservation]:
    return [CodedObservation(observation, code(0, bits))]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ([], "METADATA"),
        (photo(""), "METADATA"),
        (photo("line\nbreak"), "METADATA"),
        (photo("x" * 1025), "METADATA"),
        (photo("a#t=0,3"), "METADATA"),
        (photo("\ud800"), "INVALID_INPUT"),
        (one(Observation("other", "a", "image", "a.jpg")), "METADATA"),
        (one(Observation("a", "a", "video", "a.mp4")), "METADATA"),
        (one(Observation("a", "a", "audio", "a", start_s=3.0)), "METADATA"),
        (one(Observation("a", "a", "audio", "a", start_s=3.0, end_s=3.0)), "METADATA"),
        (one(Observation("a", "a", "audio", "a", start_s=-1.0, end_s=3.0)), "METADATA"),
        (one(Observation("a", "a", "audio", "a", start_s=0.0, end_s=float("inf"))), "METADATA"),
        (photo("a") + photo("a"), "METADATA"),
        (photo("a", {"decimalLatitude": 91}), "METADATA"),
        (photo("a", record=BAT), "CODE"),
        ([CodedObservation(Observation("a", "a", "image", "a"), np.zeros(8))], "CODE"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_item_fails_alone(
    archive: Archive, item: list[CodedObservation], reason: str
) -> None:
    results = add(archive, photo("before"), item, photo("later"))
    assert statuses(results) == ["added", "failed", "added"]
    assert results[1].reason == reason
    assert ids(archive) == ["before", "later"]
    assert archive.verify() == []


def test_a_failed_overwrite_leaves_what_was_there(archive: Archive) -> None:
    add(archive, photo("a", {"family": "old"}))
    assert statuses(add(archive, photo("a", {"bad name": 1}), policy="overwrite")) == ["failed"]
    assert archive.get("a").metadata == {"family": "old"}


def test_an_unknown_policy_is_refused(archive: Archive) -> None:
    with pytest.raises(QueryError, match="'merge'"):
        add(archive, photo("a"), policy="merge")


def test_a_reader_cannot_change_anything(archive: Archive) -> None:
    add(archive, photo("a"))
    with Archive.open(archive.path) as reader:
        for change in (
            lambda: add(reader, photo("b")),
            lambda: reader.delete(["a"]),
            lambda: reader.register_model(BAT, {}),
        ):
            with pytest.raises(PreconditionError, match="write=True"):
                change()


# Trouble


@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_leaves_the_archive_usable(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Whether it comes before the commit or when that is done, no row number is lost track of."""
    append = Store.append

    def interrupted(store: Store, rows: pa.Table) -> None:
        if late:
            append(store, rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add(archive, photo("a"))
    monkeypatch.undo()
    assert ids(archive) == (["a"] if late else [])
    add(archive, photo("b"), photo("c"))
    assert ids(archive) == [*(["a"] if late else []), "b", "c"]
    assert archive.verify() == []


def test_a_disk_that_refuses_stores_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, table: object) -> None:
            self._table = table

        def add(self, rows: pa.Table) -> None:
            raise OSError("No space left on device")

        def __getattr__(self, name: str) -> object:
            return getattr(self._table, name)

    monkeypatch.setattr(archive._store, "_writable", Full(archive._store._table))
    with pytest.raises(PreconditionError, match="No space left on device"):
        add(archive, photo("a"))
    monkeypatch.undo()
    assert statuses(add(archive, photo("a"))) == ["added"]
    assert archive.verify() == []


# Embeddings


def embedded(name: str, vector: list[float]) -> list[CodedObservation]:
    return [CodedObservation(photo(name)[0].observation, code(0), np.array(vector, np.float32))]


def test_embeddings_are_kept_beside_the_codes(archive: Archive) -> None:
    add(archive, embedded("a", [0.6, 0.8]), photo("b"))
    column = archive._current().store.read(["id", OWL.embedding_column])[OWL.embedding_column]
    assert column[0].as_py() == pytest.approx([0.6, 0.8], abs=1e-3)
    assert column[1].as_py() is None


def test_an_embedding_of_another_length_fails_alone(archive: Archive) -> None:
    results = add(archive, embedded("a", [0.6, 0.8]), embedded("b", [1.0, 0.0, 0.0]))
    assert statuses(results) == ["added", "failed"]
    assert results[1].reason == "CODE"


def test_a_longer_code_than_the_default_is_stored_whole(tmp_path: Path) -> None:
    wide = model("wide", 512)
    with Archive.create(tmp_path / "w") as archive:
        archive.register_model(wide, {})
        add(archive, photo("a", record=wide), by=wide)
        assert np.array_equal(archive.code("a", wide.digest), photo("a", record=wide)[0].code)
