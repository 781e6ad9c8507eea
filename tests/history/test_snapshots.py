"""Snapshots keep what was; restoring one brings it back to every reader."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bittern.errors import InvalidInputError, NotFoundError, PreconditionError
from bittern.index.archive import Archive
from bittern.index.folder import ArchiveFolder
from bittern.index.store import Store
from bittern.index.writer import Writer
from tests.history.killing import KilledError, Killer
from tests.history.states import state
from tests.index.samples import BAT, OWL, ids, photo, recording


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "marsh") as made:
        made.register_model(OWL, {"card.json": b"{}"})
        made.add([photo("a"), photo("b"), recording("r", 3)], model=OWL.digest)
        yield made


def test_a_snapshot_is_opened_as_the_archive_was(archive: Archive) -> None:
    before = state(archive)
    taken = archive.take_snapshot("spring", note="before the moult")
    archive.delete(["a", "r"])
    archive.add([photo("c", seed=9)], model=OWL.digest)
    with Archive.open(archive.path, snapshot="spring") as then:
        assert state(then) == before
        assert then.generation == taken.version
        assert dict(taken.rows) == {"image": 2, "audio": 3}
    assert [info.name for info in archive.snapshots()] == ["spring"]
    assert archive.snapshots()[0] == taken


def test_a_snapshot_stays_when_old_versions_are_cleaned_up(archive: Archive) -> None:
    before = state(archive)
    archive.take_snapshot("spring")
    for name in "cdefgh":
        archive.add([photo(name)], model=OWL.digest)
    archive.delete(["a", "b"])
    with pytest.warns(UserWarning, match="removes every version"):
        Store(archive.path / "store")._table.optimize(cleanup_older_than=timedelta(0))
    with Archive.open(archive.path, snapshot="spring") as then:
        assert state(then) == before


def test_a_dropped_snapshot_is_gone_and_its_version_is_unpinned(archive: Archive) -> None:
    archive.take_snapshot("spring")
    archive.drop_snapshot("spring")
    assert archive.snapshots() == []
    assert Store(archive.path / "store").pins() == {}
    with pytest.raises(NotFoundError, match="its snapshots: none"):
        Archive.open(archive.path, snapshot="spring")


@pytest.mark.parametrize("name", ["", "../up", "12", "a b", "x" * 65, ".hidden"])
def test_a_name_that_no_snapshot_can_have_is_refused(archive: Archive, name: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be called"):
        archive.take_snapshot(name)


def test_a_second_snapshot_of_a_name_is_refused(archive: Archive) -> None:
    archive.take_snapshot("spring")
    with pytest.raises(PreconditionError, match="already"):
        archive.take_snapshot("spring")


def test_a_snapshot_cannot_be_written_to(archive: Archive) -> None:
    archive.take_snapshot("spring")
    with pytest.raises(PreconditionError, match="bittern restore"):
        Archive.open(archive.path, snapshot="spring", write=True)


def test_a_snapshot_is_taken_while_another_process_writes(archive: Archive) -> None:
    with Archive.open(archive.path) as reader:
        taken = reader.take_snapshot("spring")
    assert archive.snapshots() == [taken]


def test_restoring_brings_rows_codes_metadata_and_models_back(archive: Archive) -> None:
    before = state(archive)
    archive.take_snapshot("spring")
    archive.register_model(BAT, {"card.json": b"{}"})
    archive.add([photo("b", seed=3, record=BAT)], model=BAT.digest)
    archive.add(
        [photo("a", {"genus": "Strix"}, seed=77)], model=OWL.digest, on_duplicate="overwrite"
    )
    archive.delete(["r"])
    archive.add([photo("new", {"fieldNumber": "7"})], model=OWL.digest)
    after = state(archive)
    kept = archive.restore("spring")
    assert state(archive) == before
    assert kept.automatic
    archive.restore(kept.name)
    assert state(archive) == after


def test_row_numbers_are_not_reused_after_a_restore(archive: Archive) -> None:
    archive.take_snapshot("spring")
    archive.add([photo("c"), photo("d")], model=OWL.digest)
    last = archive.get("d").row
    archive.restore("spring")
    archive.add([photo("e")], model=OWL.digest)
    assert archive.get("e").row == last + 1
    with Archive.open(archive.path) as fresh:
        assert fresh.get("e").row == last + 1


def test_restoring_the_newest_state_changes_nothing(archive: Archive) -> None:
    before = state(archive)
    archive.take_snapshot("spring")
    archive.restore("spring")
    assert state(archive) == before


def test_a_version_without_a_name_can_be_restored_while_it_exists(archive: Archive) -> None:
    before, version = state(archive), archive.generation
    archive.delete(["a"])
    assert version in [info.version for info in archive.snapshots(unnamed=True)]
    archive.restore(version)
    assert state(archive) == before


def test_an_unknown_version_is_refused_with_the_versions_that_exist(archive: Archive) -> None:
    with pytest.raises(NotFoundError, match="version 999"):
        archive.restore(999)


def test_a_version_whose_model_was_dropped_is_not_restored_without_its_codes(
    archive: Archive,
) -> None:
    then, version = state(archive), archive.generation
    archive.register_model(BAT, {"card.json": b"{}"})
    every = [photo("a", record=BAT), photo("b", record=BAT), recording("r", 3, record=BAT)]
    archive.add(every, model=BAT.digest, on_duplicate="skip")
    archive.writer.switch_model(BAT.digest)
    archive.writer.drop_retired()
    before = state(archive)
    with pytest.raises(PreconditionError, match=f"5 codes of model {OWL.digest[:16]}"):
        archive.restore(version)
    assert state(archive) == before
    assert archive.snapshots() == []
    archive.register_model(OWL, {"card.json": b"{}"})
    archive.restore(version)
    assert state(archive) == then
    assert archive.verify() == []


STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 7), st.integers(0, 99)),
    st.tuples(st.just("fill"), st.integers(0, 7), st.integers(0, 99)),
    st.tuples(st.just("delete"), st.integers(0, 7), st.just(0)),
    st.tuples(st.just("take"), st.just(0), st.just(0)),
    st.tuples(st.just("restore"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("look"), st.just(0), st.just(0)),
    st.tuples(st.just("compact"), st.just(0), st.just(0)),
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEP, min_size=4, max_size=14))
def test_readers_answer_across_restores_like_one_that_has_just_opened(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("walk") / "marsh"
    with Archive.create(path) as writer, Archive.open(path) as reader:
        for record in (OWL, BAT):
            writer.register_model(record, {"card.json": b"{}"})
        taken = [(writer.take_snapshot("s0").name, state(writer))]
        for what, which, seed in steps:
            name = f"item{which}"
            if what == "add":
                made = recording(name, 2, seed=seed) if which % 3 == 2 else photo(name, seed=seed)
                writer.add([made], model=OWL.digest, on_duplicate="overwrite")
            elif what == "fill":
                made = photo(name, seed=seed, record=BAT)
                writer.add([made], model=BAT.digest, on_duplicate="skip")
            elif what == "delete" and any(name in known for known in ids(writer)):
                writer.delete([known for known in ids(writer) if known.startswith(name)])
            elif what == "take":
                taken.append((writer.take_snapshot(f"s{len(taken)}").name, state(writer)))
            elif what == "restore":
                chosen, wanted = taken[which % len(taken)]
                writer.restore(chosen)
                assert state(writer) == wanted
            elif what == "look":
                state(reader)
            elif what == "compact":
                writer._store.compact()
        with Archive.open(path) as fresh:
            assert state(reader) == state(fresh) == state(writer)
        for chosen, wanted in taken:
            with Archive.open(path, snapshot=chosen) as then:
                assert state(then) == wanted


def test_a_restore_that_is_killed_anywhere_leaves_the_state_before_or_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bittern.index import folder

    path = tmp_path / "marsh"
    with Archive.create(path) as archive:
        archive.register_model(OWL, {"card.json": b"{}"})
        archive.add([photo("a"), photo("b"), recording("r", 3)], model=OWL.digest)
        archive.take_snapshot("spring")
        old = state(archive)
        archive.register_model(BAT, {"card.json": b"{}"})
        archive.add([photo("b", record=BAT), photo("c", record=BAT)], model=BAT.digest)
        archive.writer.switch_model(BAT.digest)
        archive.writer.drop_retired()
        archive.delete(["c"])
        new = state(archive)
    seen = []
    for last in range(60):
        with Archive.open(path) as reader, monkeypatch.context() as patched:
            before = state(reader)
            killer = Killer(patched, last, after=True)
            killer.watch(folder, "write_json")
            killer.watch(Store, "merge", "drop_columns", "add_columns")
            # A process that dies ends no switch.
            patched.setattr(folder.ArchiveFolder, "complete_switch", lambda self, version: None)
            writer = Archive(*_parts(path))
            try:
                writer.restore("spring")
                break
            except KilledError:
                pass
            finally:
                writer._writer._file_lock.release()  # type: ignore[union-attr]
            with Archive.open(path) as fresh:
                after = state(fresh)
                assert state(reader) == after
            assert after in (before, old)
            seen.append(after)
        with Archive.open(path, write=True) as opened:
            assert state(opened) == after
    assert seen[0] == new
    assert seen[-1] == old
    with Archive.open(path) as fresh:
        assert state(fresh) == old
        assert fresh.verify() == []


def _parts(path: Path) -> tuple[ArchiveFolder, Store, Writer]:
    """What an archive that is open for writing is made of, without anything that opening does."""
    folder = ArchiveFolder(path)
    store = Store(folder.store)
    return folder, store, Writer(folder, store, folder.lock())
