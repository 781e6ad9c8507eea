"""Look-up, listing, counts, deletion, export and verification."""

from __future__ import annotations

import base64
import subprocess
import sys

import numpy as np
import pytest

from bittern.errors import ObservationNotFoundError, PreconditionError, QueryError
from bittern.index.archive import Archive
from tests.index.samples import BAT, OWL, ids, photo, recording


@pytest.fixture
def marsh(archive: Archive) -> Archive:
    items = [photo(f"p{i}", {"tally": i}) for i in range(10)]
    archive.add([*items, recording("call", 3)], model=OWL.digest)
    return archive


def test_get_returns_what_was_added(marsh: Archive) -> None:
    observation = marsh.get("call#t=3,6")
    assert (observation.occurrence_id, observation.modality) == ("call", "audio")
    assert (observation.start_s, observation.end_s, observation.row) == (3.0, 6.0, 11)
    assert marsh.get("p3").metadata == {"tally": 3}


@pytest.mark.parametrize("name", ["nobody", "", "p1' OR 'a'='a", "\ud800", "\0", "call"])
def test_an_unknown_id_is_not_found(marsh: Archive, name: str) -> None:
    with pytest.raises(ObservationNotFoundError):
        marsh.get(name)


def test_each_caller_gets_metadata_of_its_own(marsh: Archive) -> None:
    dict.update(marsh.get("p3").metadata, tally=99)
    assert marsh.get("p3").metadata == {"tally": 3}


def test_an_observation_read_before_is_read_again_after_a_commit(marsh: Archive) -> None:
    assert marsh.get("p3").metadata == {"tally": 3}
    marsh.add([photo("p3", {"tally": 30})], model=OWL.digest, on_duplicate="overwrite")
    assert marsh.get("p3").metadata == {"tally": 30}
    marsh.delete(["p3"])
    with pytest.raises(ObservationNotFoundError):
        marsh.get("p3")


def test_reading_does_not_load_lancedb(marsh: Archive) -> None:
    code = (
        "import sys; from bittern.index.archive import Archive\n"
        "with Archive.open(sys.argv[1]) as archive:\n"
        "    archive.get('p3'), archive.list(where='tally > 3')\n"
        "print('lancedb' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(marsh.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_code_returns_what_was_added(marsh: Archive) -> None:
    assert np.array_equal(marsh.code("p3", OWL.digest), photo("p3")[0].code)
    with pytest.raises(ObservationNotFoundError):
        marsh.code("nobody", OWL.digest)


# Pages


@pytest.mark.parametrize("size", [1, 4, 13, 100])
def test_pages_together_are_the_whole_listing(marsh: Archive, size: int) -> None:
    found, token = [], ""
    while True:
        page = marsh.list(page_size=size, page_token=token)
        assert len(page.observations) <= size
        found += page.observations
        if not (token := page.next_token):
            break
    assert [o.row for o in found] == list(range(13))


def test_pages_stay_put_while_others_add_and_delete(marsh: Archive) -> None:
    first = marsh.list(page_size=4)
    marsh.delete(["p3", "p4"])
    marsh.add([photo("new")], model=OWL.digest)
    rest = marsh.list(page_size=100, page_token=first.next_token)
    assert [o.id for o in rest.observations][:2] == ["p5", "p6"]
    assert rest.observations[-1].id == "new"
    assert rest.next_token == ""


def test_a_listing_can_be_filtered(marsh: Archive) -> None:
    page = marsh.list(page_size=2, where="tally >= 7")
    rest = marsh.list(page_size=2, where="tally >= 7", page_token=page.next_token)
    assert [o.id for o in (*page.observations, *rest.observations)] == ["p7", "p8", "p9"]
    with pytest.raises(QueryError, match="another condition"):
        marsh.list(page_token=page.next_token)
    with pytest.raises(QueryError, match="page token"):
        marsh.list(where="tally >= 7", page_token="!" + page.next_token)


@pytest.mark.parametrize(
    "token", ["!", "abc", "é", "AAAA", base64.b64encode(b"9" * 25 + b".00000000").decode()]
)
def test_a_made_up_page_token_is_refused(marsh: Archive, token: str) -> None:
    with pytest.raises(QueryError, match="page token"):
        marsh.list(page_token=token)


# Rows, counts


def test_rows_are_those_that_match(marsh: Archive) -> None:
    assert marsh.rows().tolist() == list(range(13))
    assert marsh.rows("tally < 3").tolist() == [0, 1, 2]
    assert marsh.rows("modality = 'audio'").tolist() == [10, 11, 12]


def test_stats_count_rows_recordings_and_codes(marsh: Archive) -> None:
    marsh.register_model(BAT, {})
    marsh.add([photo("p0", record=BAT)], model=BAT.digest)
    stats = marsh.stats()
    assert stats.name == "marsh"
    assert stats.observations == {"image": 10, "audio": 3}
    assert stats.recordings == 1
    assert [(m.name, m.bits, dict(m.rows)) for m in stats.models] == [
        ("owl-64", 64, {"image": 10, "audio": 3}),
        ("bat-32", 32, {"image": 1, "audio": 0}),
    ]
    assert stats.generation == marsh.generation
    assert stats.columns["tally"] == "int64"
    marsh.search(np.ones(64), model=OWL.digest, k=1, metric="hamming")
    assert marsh.stats().code_bytes == 13 * 8


# Deleting


def test_deleting_by_observation_id_and_by_occurrence_id(marsh: Archive) -> None:
    generation = marsh.generation
    assert marsh.delete(["call", "p1", "p1"]) == ["p1", "call#t=0,3", "call#t=3,6", "call#t=6,9"]
    assert marsh.generation == generation + 1
    assert marsh.delete(["p2"]) == ["p2"]
    assert ids(marsh) == ["p0", *(f"p{i}" for i in range(3, 10))]
    assert len(marsh.search(np.ones(64), model=OWL.digest, k=50, metric="hamming").hits) == 8
    assert marsh.verify() == []


def test_deleting_one_window_leaves_the_others(marsh: Archive) -> None:
    assert marsh.delete(["call#t=3,6"]) == ["call#t=3,6"]
    assert ids(marsh, "modality = 'audio'") == ["call#t=0,3", "call#t=6,9"]


def test_an_unknown_id_deletes_nothing_and_all_are_named(marsh: Archive) -> None:
    with pytest.raises(ObservationNotFoundError, match="2 of 3 ids are unknown") as caught:
        marsh.delete(["p1", "ghost", "spook"])
    assert caught.value.details["unknown"] == "ghost,spook"
    assert "p1" in ids(marsh)


def test_deleting_nothing_commits_nothing(marsh: Archive) -> None:
    generation = marsh.generation
    assert marsh.delete([]) == []
    assert marsh.generation == generation


def test_a_deleted_observation_can_be_added_again_on_a_new_row(marsh: Archive) -> None:
    marsh.delete(["call", "p9"])
    marsh.add([photo("p9")], model=OWL.digest)
    assert marsh.get("p9").row == 13


# Export


def test_batches_hold_everything_in_row_order(marsh: Archive) -> None:
    marsh.add([photo("p0", {"tally": 99})], model=OWL.digest, on_duplicate="overwrite")
    batches = list(marsh.iter_batches(["id", "tally"], model=OWL.digest, batch_rows=4))
    assert max(batch.num_rows for batch in batches) <= 4
    names = [name for batch in batches for name in batch["id"].to_pylist()]
    codes = [value for batch in batches for value in batch["code"].to_pylist()]
    assert names == ids(marsh)
    assert batches[0]["tally"][0].as_py() == 99
    assert codes == [marsh.code(name, OWL.digest).tobytes() for name in names]


def test_batches_can_be_filtered_and_hide_internal_columns(marsh: Archive) -> None:
    (batch,) = marsh.iter_batches(where="tally < 2")
    assert batch.num_rows == 2
    assert {"row", "committed", "mediaRoot", OWL.code_column}.isdisjoint(batch.schema.names)
    with pytest.raises(QueryError, match="no column 'mediaHash'"):
        marsh.iter_batches(["mediaHash"])


def test_batches_hold_the_root_of_media_if_it_is_named(marsh: Archive) -> None:
    (batch,) = marsh.iter_batches(["id", "mediaRoot"])
    assert batch.schema.names == ["id", "mediaRoot"]


# Verification


def test_a_sound_archive_has_no_problems(marsh: Archive) -> None:
    marsh.search(np.ones(64), model=OWL.digest, k=1, metric="hamming")
    marsh.delete(["p4"])
    marsh.add([photo("x"), recording("call", 1)], model=OWL.digest, on_duplicate="overwrite")
    assert marsh.verify() == []


def test_verify_names_rows_that_break_the_rules(marsh: Archive) -> None:
    store = marsh._store
    twin = store.read(store.columns, "id = 'p1'")
    store.append(twin)
    store._table.update(where="id = 'p2'", values={"modality": "video"})
    store._table.update(where="id = 'call#t=0,3'", values={"end_s": -1.0})
    store._table.update(where="id = 'p3'", values_sql={OWL.code_column: "NULL"})
    store.version = store._table.version
    found = "\n".join(marsh.verify())
    for part in ("row occur more than once: 1", "id occur more than once: p1", "neither", "p2"):
        assert part in found
    assert "windows do not run forward" in found
    assert "1 observations have no code" in found


def test_verify_names_a_lost_model_folder(marsh: Archive) -> None:
    folder = marsh.model_folder(OWL.digest)
    folder.rename(folder.with_name("gone"))
    assert "has lost its files" in "\n".join(marsh.verify())


def test_verify_notices_an_index_that_differs_from_the_store(marsh: Archive) -> None:
    snapshot = marsh._current()
    blocks = snapshot.codes(OWL)
    blocks["image"] = blocks["image"].without(blocks["image"].rows[2:])
    assert "differs from the store" in "\n".join(marsh.verify())


def test_a_closed_archive_says_so(marsh: Archive) -> None:
    marsh.close()
    marsh.close()
    with pytest.raises(PreconditionError, match="closed"):
        marsh.get("p1")
    with pytest.raises(PreconditionError, match="closed"):
        marsh.delete(["p1"])
