"""`kill -9` at any moment loses nothing acknowledged and shows nothing half done.

`make soak` does the same for as long as you like.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bittern.index import versions
from bittern.index.archive import Archive
from bittern.index.store import Store
from tests.index.samples import BAT, OWL, photo
from tests.survival import journal
from tests.survival.comparing import is_held
from tests.survival.content import Content, Row
from tests.survival.soak import soak

ROUNDS = 20
SEED = 20


def test_killing_the_writer_loses_nothing_acknowledged_and_leaves_no_part(tmp_path: Path) -> None:
    state = soak(tmp_path, SEED, ROUNDS)
    assert state.killed >= ROUNDS * 2 // 3
    assert state.acknowledged > 2 * ROUNDS


def test_the_comparison_notices_every_kind_of_loss(tmp_path: Path) -> None:
    """A harness that finds nothing must be one that would."""
    state = soak(tmp_path, SEED + 1, 3)
    with Archive.open(state.path) as archive:
        assert is_held(archive, state.content) == []
        name = next(name for name, item in state.content.items.items() if item)
        for damage in (
            lambda content: content.items.pop(name),
            lambda content: setattr(_first(content, name), "row", 10**6),
            lambda content: _first(content, name).codes.clear(),
            lambda content: _first(content, name).embeddings.update({"m0": 1, "m1": 1}),
            lambda content: _first(content, name).fields.update(countryCode="XX"),
            lambda content: content.models.append("m5"),
            lambda content: content.kept.update(lost={}),
        ):
            other = journal.content_from_json(
                json.loads(json.dumps(journal.content_to_json(state.content)))
            )
            damage(other)
            assert is_held(archive, other) != []


def _first(content: Content, name: str) -> Row:
    return next(iter(content.items[name].values()))


def test_what_a_killed_writer_left_goes_when_the_next_one_opens(tmp_path: Path) -> None:
    path = tmp_path / "marsh"
    with Archive.create(path) as archive:
        archive.register_model(OWL, {"card.json": b"{}"})
        archive.add([photo("p")], model=OWL.digest)
        archive._store.add_code_column(BAT)
    (path / ".archive-x1").write_text("{")
    (path / "models" / ".new-x2").mkdir()
    (path / "models" / ".new-x2" / "card.json").write_text("{")
    with Archive.open(path, write=True) as archive:
        assert archive._store.field_type(BAT.code_column) is None
        assert archive.verify() == []
        archive.register_model(BAT, {})
        archive.add([photo("p", record=BAT)], model=BAT.digest)
    assert not list(path.glob(".archive-*")) + list((path / "models").glob(".*"))
    assert Store(path / "store").field_type(BAT.code_column) is not None


def test_a_column_with_codes_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    path = tmp_path / "marsh"
    with Archive.create(path) as archive:
        archive.register_model(OWL, {"card.json": b"{}"})
        before = (path / "archive.json").read_bytes()
        archive.register_model(BAT, {})
        archive.add([photo("p", record=BAT)], model=BAT.digest)
    after = (path / "archive.json").read_bytes()
    (path / "archive.json").write_bytes(before)
    Archive.open(path, write=True).close()
    (path / "archive.json").write_bytes(after)
    with Archive.open(path) as archive:
        assert archive.code("p", BAT.digest).tolist() == photo("p", record=BAT)[0].code.tolist()


def test_a_kept_version_of_an_empty_archive_outlives_the_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LanceDB removes the manifest of a version that names no files, branch or no branch."""
    for name in ("KEPT_S", "KEPT_AT_LEAST_S"):
        monkeypatch.setattr(versions, name, 0.0)
    with Archive.create(tmp_path / "marsh") as archive:
        archive.register_model(OWL, {})
        store, empty = archive._store, archive._store.version
        store.pin("empty", empty)
        archive.add([photo("p")], model=OWL.digest)
        one = store.version
        store.pin("one", one)
        archive.add([photo("q")], model=OWL.digest)
        for version in list(store._old._recent):
            store._old._recent.remove(version)
        store.compact()
        assert store.pins() == {"empty": empty, "one": one}
        assert Store(store.path, empty).count() == 0
        assert Store(store.path, empty).pinned().read(["id"]).num_rows == 0
        assert Store(store.path, one).read(["id"])["id"].to_pylist() == ["p"]
