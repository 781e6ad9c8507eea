"""Readers beside a writer: each sees whole commits, the newest ones, and nothing in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bittern.index.archive import Archive
from bittern.index.generation import Generation
from tests.index.samples import BAT, OWL, code, ids, photo, recording


@pytest.fixture
def reader(archive: Archive) -> Iterator[Archive]:
    with Archive.open(archive.path) as opened:
        yield opened


def test_a_reader_sees_each_commit_of_the_writer(archive: Archive, reader: Archive) -> None:
    for i in range(20):
        archive.add([photo(f"p{i}", seed=i)], model=OWL.digest)
        hit = reader.search(code(i), model=OWL.digest, k=1, metric="hamming").hits[0]
        assert hit.observation.id == f"p{i}"
        assert reader.generation == archive.generation
    archive.delete(["p3"])
    assert "p3" not in ids(reader)


def test_a_reader_sees_a_model_that_is_registered_later(archive: Archive, reader: Archive) -> None:
    assert reader.model_records() == [OWL]
    archive.register_model(BAT, {"x": b"1"})
    archive.add([photo("a", record=BAT)], model=BAT.digest)
    assert reader.model_records() == [OWL, BAT]
    assert len(reader.search(np.ones(32), model=BAT.digest, k=1, metric="hamming").hits) == 1
    assert reader.model_folder(BAT.digest).joinpath("x").read_bytes() == b"1"


def test_a_reader_sees_new_metadata_columns(archive: Archive, reader: Archive) -> None:
    assert reader.list().observations == []
    archive.add([photo("a", {"tally": 3})], model=OWL.digest)
    assert ids(reader, "tally = 3") == ["a"]


def test_compaction_changes_nothing_that_is_seen(archive: Archive, reader: Archive) -> None:
    for i in range(12):
        archive.add([photo(f"p{i}")], model=OWL.digest)
    archive.delete(["p5"])
    query = np.random.default_rng(0).normal(size=64)
    before = reader.search(query, model=OWL.digest, k=20, metric="asymmetric").hits
    archive._store.compact()
    assert reader.search(query, model=OWL.digest, k=20, metric="asymmetric").hits == before
    assert archive.search(query, model=OWL.digest, k=20, metric="asymmetric").hits == before
    assert reader.verify() == archive.verify() == []


def test_rows_are_found_wherever_a_compaction_has_put_them(archive: Archive) -> None:
    for i in range(5):
        archive.add([photo(f"p{i}", {"tally": i})], model=OWL.digest)
    archive.delete(["p1"])
    before = archive._current()
    archive._store.compact()
    for look in (
        lambda snapshot: snapshot.matching("`tally` >= 3").rows.tolist() == [3, 4],
        lambda snapshot: [o.id for o in snapshot.observations([4, 2])] == ["p4", "p2"],
        lambda snapshot: snapshot.table(np.array([2, 3]), ["id"])["id"].to_pylist() == ["p2", "p3"],
    ):
        after = Generation(archive._store, before)
        assert after._rows.map.ids.tolist() == before._rows.map.ids.tolist()
        assert look(after)
        assert after._rows.map.ids.tolist() != before._rows.map.ids.tolist()


def test_many_commits_are_compacted_on_the_way(archive: Archive) -> None:
    for i in range(130):
        archive.add([photo(f"p{i}")], model=OWL.digest)
    assert archive._store._table.stats()["fragment_stats"]["num_fragments"] < 70
    assert len(ids(archive)) == 130
    assert archive.verify() == []


def test_a_snapshot_does_not_change_under_its_reader(archive: Archive) -> None:
    archive.add([photo("a"), photo("b")], model=OWL.digest)
    snapshot = archive._current()
    archive.delete(["a"])
    archive.add([photo("b", {"family": "new"})], model=OWL.digest, on_duplicate="overwrite")
    assert [o.id for o in snapshot.observations(snapshot.rows)] == ["a", "b"]
    assert snapshot.observations([1])[0].metadata == {}


def test_threads_that_search_during_overwrites_see_one_generation_each(archive: Archive) -> None:
    """Each commit gives all windows of one recording the same new code and tally."""

    def commit(i: int) -> None:
        item = recording("call", 2 + i % 3, {"tally": i})
        item = [type(one)(one.observation, code(i)) for one in item]
        archive.add([item], model=OWL.digest, on_duplicate="overwrite")

    commit(0)
    problems: list[str] = []
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            hits = archive.search(code(0), model=OWL.digest, k=10, metric="hamming").hits
            tallies = {hit.observation.metadata["tally"] for hit in hits}
            distances = {hit.distance for hit in hits}
            if len(tallies) != 1 or len(distances) != 1:
                problems.append(f"{tallies} {distances}")
            i = int(next(iter(tallies)) or 0)
            if len(hits) != 2 + i % 3:
                problems.append(f"{len(hits)} windows of generation {i}")

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(1, 25):
        commit(i)
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []


class ArchiveAgainstADictionary(RuleBasedStateMachine):
    """Any sequence of changes leaves what a dictionary of recordings would hold."""

    @initialize(factory=st.just(None))
    def make(self, factory: None) -> None:
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.archive = Archive.create(Path(self.folder.name) / "marsh")
        self.archive.register_model(OWL, {})
        self.reader = Archive.open(self.archive.path)
        self.model: dict[str, list[bytes]] = {}

    @rule(
        name=st.sampled_from("abcd"),
        windows=st.integers(1, 3),
        seed=st.integers(0, 99),
        policy=st.sampled_from(["error", "skip", "overwrite"]),
    )
    def add(self, name: str, windows: int, seed: int, policy: str) -> None:
        item = recording(name, windows, seed=seed)
        self.archive.add([item], model=OWL.digest, on_duplicate=policy)  # type: ignore[arg-type]
        if name not in self.model or policy == "overwrite":
            self.model[name] = [one.code.tobytes() for one in item]

    @rule(name=st.sampled_from("abcd"))
    def delete(self, name: str) -> None:
        if name in self.model:
            self.archive.delete([name])
            del self.model[name]

    @rule()
    def compact(self) -> None:
        self.archive._store.compact()

    @rule()
    def reopen(self) -> None:
        self.archive.close()
        self.archive = Archive.open(self.archive.path, write=True)

    @invariant()
    def holds_what_the_dictionary_holds(self) -> None:
        if not hasattr(self, "archive"):
            return
        wanted = {
            f"{name}#t={3 * i},{3 * (i + 1)}": value
            for name, codes in self.model.items()
            for i, value in enumerate(codes)
        }
        for opened in (self.archive, self.reader):
            hits = opened.search(np.ones(64), model=OWL.digest, k=100, metric="hamming").hits
            found = {h.observation.id: opened.code(h.observation.id, OWL.digest) for h in hits}
            assert {name: value.tobytes() for name, value in found.items()} == wanted
            fresh = Generation(opened._current().store).codes(OWL)["audio"]
            used = opened._current().codes(OWL)["audio"]
            assert np.array_equal(fresh.rows, used.rows)
            assert np.array_equal(fresh.codes, used.codes)

    def teardown(self) -> None:
        if hasattr(self, "archive"):
            self.archive.close()
            self.reader.close()
            self.folder.cleanup()


TestArchiveAgainstADictionary = ArchiveAgainstADictionary.TestCase
TestArchiveAgainstADictionary.settings = settings(
    max_examples=5, stateful_step_count=10, deadline=None
)
