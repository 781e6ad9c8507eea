"""Look-up indexes: made from a size on, kept current, and never seen in what is found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern.index import writer
from bittern.index.archive import Archive
from bittern.index.columns import DARWIN_CORE, IDENTITY
from bittern.index.filters import compile_where
from bittern.index.generation import Generation
from tests.index.samples import BAT, OWL, ids, photo, recording

SPECIES = ["Bubo bubo", "Bubo", "bubo bubo", "100% owl", "o'wl", "", "Ardea"]
COUNTRIES = ["FR", "DE", "US"]
LATITUDES = [-90.0, -0.0, 0.0, 1.5, 48.25, 90.0]
DATES = ["2024", "2024-05", "2024-05-17", "2023-12-31"]
COLUMNS: dict[str, tuple[str, list[Any]]] = {
    "scientificName": ("text", SPECIES),
    "genus": ("text", SPECIES),
    "countryCode": ("text", COUNTRIES),
    "eventDate": ("text", DATES),
    "license": ("text", COUNTRIES),
    "decimalLatitude": ("number", LATITUDES),
    "decimalLongitude": ("number", LATITUDES),
    "tally": ("number", [0, 1, 2, -1]),
}


def metadata(chosen: np.random.Generator) -> dict[str, Any]:
    """Values from few, a third of them missing."""
    return {
        name: values[int(chosen.integers(len(values)))]
        for name, (_, values) in COLUMNS.items()
        if chosen.random() > 1 / 3
    }


def fill(archive: Archive, *, index: bool) -> None:
    """Rows before the indexes, after them, deleted, and written again."""
    chosen = np.random.default_rng(3)
    archive.register_model(OWL, {})
    archive.add([photo(f"a{i}", metadata(chosen)) for i in range(120)], model=OWL.digest)
    archive.delete([f"a{i}" for i in range(0, 120, 7)])
    if index:
        writer.make_lookups(archive._store)
    archive.add([photo(f"b{i}", metadata(chosen)) for i in range(60)], model=OWL.digest)
    if index:
        archive._store.compact()
    archive.add([photo(f"c{i}", metadata(chosen)) for i in range(40)], model=OWL.digest)
    archive.add(
        [photo(f"b{i}", metadata(chosen)) for i in range(0, 60, 3)],
        model=OWL.digest,
        on_duplicate="overwrite",
    )
    archive.delete(["a1", "b1", "c1", "b3"])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Archive, Archive]]:
    """The same archive with look-up indexes and without."""
    folder = tmp_path_factory.mktemp("lookups")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writer, "LOOKUPS_FROM", 1)
        with Archive.create(folder / "with") as indexed:
            fill(indexed, index=True)
            patched.setattr(writer, "LOOKUPS_FROM", 10**9)
            with Archive.create(folder / "without") as plain:
                fill(plain, index=False)
                assert indexed._store.lookups() == set(writer.LOOKUPS)
                assert plain._store.lookups() == set()
                yield indexed, plain


def literal(value: object) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(sorted(COLUMNS)))
    kind, values = COLUMNS[name]
    one, other = (literal(draw(st.sampled_from(values))) for _ in range(2))
    several = ", ".join(map(literal, draw(st.lists(st.sampled_from(values), min_size=1))))
    forms = [
        f"{name} {draw(st.sampled_from(['=', '<>', '<', '<=', '>', '>=']))} {one}",
        f"{name} {draw(st.sampled_from(['IN', 'NOT IN']))} ({several})",
        f"{name} {draw(st.sampled_from(['BETWEEN', 'NOT BETWEEN']))} {one} AND {other}",
        f"{name} {draw(st.sampled_from(['IS NULL', 'IS NOT NULL']))}",
    ]
    if kind == "text":
        pattern = draw(st.sampled_from(["'B%'", "'%'", "'Bubo'", "'_ubo%'", "'%o'", "'100\\%%'"]))
        like = draw(st.sampled_from(["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"]))
        forms += [f"{name} {like} {pattern}", f"lower({name}) = {one}"]
    return draw(st.sampled_from(forms))


CONDITIONS = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        inner.map(lambda one: f"NOT ({one})"),
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(
            lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"
        ),
    ),
    max_leaves=5,
)


@given(where=CONDITIONS)
@settings(max_examples=300, deadline=None)
def test_a_condition_finds_the_same_with_and_without_indexes(
    both: tuple[Archive, Archive], where: str
) -> None:
    indexed, plain = both
    assert ids(indexed, where) == ids(plain, where)


@given(where=CONDITIONS)
@settings(max_examples=60, deadline=None)
def test_rows_found_by_id_are_those_that_the_store_would_name(
    both: tuple[Archive, Archive], where: str
) -> None:
    types: Any = {**IDENTITY, **DARWIN_CORE, "tally": "int64"}
    compiled = compile_where(where, types)
    for archive in both:
        snapshot = Generation(archive._store)
        named = np.sort(snapshot.store.read(["row"], compiled)["row"].to_numpy())
        assert snapshot.rows_matching(where).tolist() == named.tolist()


def test_look_ups_by_name_find_rows_on_both_sides_of_the_index(
    both: tuple[Archive, Archive],
) -> None:
    for archive in both:
        assert archive.get("a2").id == "a2"
        assert archive.get("c39").id == "c39"
        assert archive.coded(["a2", "b2", "c2", "a1", "x"], OWL.digest).keys() == {"a2", "b2", "c2"}
        assert archive.verify() == []


@pytest.fixture
def from_ten_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LOOKUPS_FROM", 10)


def test_indexes_are_made_when_a_large_enough_archive_is_closed(
    archive: Archive, from_ten_rows: None
) -> None:
    archive.add([photo(f"p{i}") for i in range(9)], model=OWL.digest)
    archive.close()
    with Archive.open(archive.path, write=True) as again:
        assert again._store.lookups() == set()
        again.add([photo("p9")], model=OWL.digest)
    with Archive.open(archive.path) as again:
        assert again._store.lookups() == set(writer.LOOKUPS)
        assert again.verify() == []


def test_indexes_are_made_on_the_way_of_many_commits(archive: Archive, from_ten_rows: None) -> None:
    with Archive.open(archive.path) as reader:
        for i in range(64):
            archive.add([photo(f"p{i}")], model=OWL.digest)
            assert len(ids(reader)) == i + 1
        assert archive._store.lookups() == set(writer.LOOKUPS)
        archive.add([photo("next")], model=OWL.digest)
        assert ids(reader)[-1] == "next"
        assert reader.get("p5").row == 5
        assert reader.verify() == archive.verify() == []


def test_making_an_index_changes_the_generation_and_nothing_else(
    archive: Archive, from_ten_rows: None
) -> None:
    archive.add([photo(f"p{i}", {"countryCode": "FR"}) for i in range(12)], model=OWL.digest)
    query = np.random.default_rng(0).normal(size=64)

    def found() -> object:
        return (
            archive.search(query, model=OWL.digest, k=5, metric="asymmetric").hits,
            ids(archive, "countryCode = 'FR'"),
        )

    before, generation = found(), archive.generation
    writer.make_lookups(archive._store)
    assert archive.generation > generation
    assert found() == before
    assert archive.verify() == []


def test_overwriting_and_filling_work_through_indexes(
    archive: Archive, from_ten_rows: None
) -> None:
    archive.register_model(BAT, {})
    archive.add([photo(f"p{i}") for i in range(12)], model=OWL.digest)
    archive.add([recording("r", 4)], model=OWL.digest)
    writer.make_lookups(archive._store)
    archive.add(
        [photo("p3", {"family": "new"}, seed=1)], model=OWL.digest, on_duplicate="overwrite"
    )
    archive.add([recording("r", 2, seed=7)], model=OWL.digest, on_duplicate="overwrite")
    archive.add([photo("p4", record=BAT)], model=BAT.digest)
    assert len(ids(archive)) == 14
    assert archive.get("p3").metadata == {"family": "new"}
    assert archive.get("p3").row == 3
    assert archive.code("p4", BAT.digest).tolist() == photo("p4", record=BAT)[0].code.tolist()
    assert archive.code("p4", OWL.digest).tolist() == photo("p4")[0].code.tolist()
    assert archive.verify() == []


def test_a_large_archive_is_compacted_only_where_enough_has_changed(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add([photo(f"p{i}") for i in range(100)], model=OWL.digest)
    monkeypatch.setattr(writer, "_CHEAP_ROWS", 50)
    assert not writer.compact_if_worth_it(archive._store, changed=9)
    assert writer.compact_if_worth_it(archive._store, changed=10)
    assert writer.compact_if_worth_it(archive._store, changed=0, most_small_files=1)
