from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bittern.benchmarks.eval.suites import custom as custom_queries
from bittern.benchmarks.eval.suites.custom import CustomSuite
from bittern.benchmarks.eval.suites.custom_archive import ArchiveItems
from bittern.benchmarks.eval.tasks import Protocol, Task
from bittern.errors import LayoutError, LimitExceededError, QrelsError
from bittern.hashing.codes import pack
from bittern.index.archive import Archive
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.indexing import index_source
from bittern.service.local.archive import LocalArchive
from bittern.service.models.saved import load_saved
from bittern.service.sources import read_source
from bittern.types import MediaItem
from tests.engine.conftest import toy_model
from tests.engine.toy import ToyEncoder, fill_folder, picture, sound

ALL = frozenset({"text", "image", "audio"})
QUERIES = """query_id,text,media,target,group
red,something red,,image,warm
blue,something blue,,image,cold
hear,something green,,audio,
look,,query.png,audio,
hum,,query.wav,image,warm
"""
QRELS = """red 0 red.png 2
red 0 blue.png 0
blue 0 blue.png 1
hear 0 sounds/green.wav 1
hear 0 sounds/two.wav#t=0,1 1
look 0 sounds/two.wav#t=1,2 3
look 0 sounds/two.wav#t=0,1 1
hum 0 green.png 1
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures and four recordings, one of them of two seconds, as a folder `items`."""
    root = tmp_path / "data"
    fill_folder(root / "items")
    (root / "queries.csv").write_text(QUERIES)
    (root / "qrels.txt").write_text(QRELS)
    (root / "query.png").write_bytes(picture("blue"))
    (root / "query.wav").write_bytes(sound("green"))
    return root


@pytest.fixture
def with_archive(data: Path) -> Path:
    """The same, indexed by two models of different lengths; the second coded the pictures only."""
    (data / "items").rename(data.parent / "media")
    encoder = ToyEncoder()
    with Archive.create(data / "archive") as archive:
        engine = LocalArchive(archive, load_encoder=lambda name: encoder)
        for bits, pattern in ((64, ""), (32, "*.png")):
            folder = data.parent / f"model-{bits}"
            toy_model(encoder, bits).save(folder)
            source = read_source(
                data.parent / "media" / pattern if pattern else data.parent / "media"
            )
            index_source(engine, source.entries, IndexOptions(model=str(folder)))
    return data


def tasks(
    data: Path, protocol: Protocol | None = None, towers: frozenset[str] = ALL
) -> dict[str, Task]:
    return {t.name: t for t in CustomSuite().tasks(data, protocol or Protocol(), towers)}


def right(task: Task, query: str) -> dict[str, int]:
    """Ids of what answers a query, with grades."""
    position = list(task.queries.ids).index(query)
    entries = slice(task.relevance.offsets[position], task.relevance.offsets[position + 1])
    positions, grades = task.relevance.items[entries], task.relevance.grades[entries]
    return {
        task.items.ids[i]: int(g) for i, g in zip(positions.tolist(), grades.tolist(), strict=True)
    }


def rewritten(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(params=["items", "archive"])
def either(request: pytest.FixtureRequest) -> Path:
    """What holds for media and for an archive alike."""
    name = "data" if request.param == "items" else "with_archive"
    path: Path = request.getfixturevalue(name)
    return path


def test_each_pair_of_modalities_is_a_task(either: Path) -> None:
    found = tasks(either)
    assert list(found) == ["text→image", "text→audio", "image→audio", "audio→image"]
    assert list(found["text→image"].queries.ids) == ["red", "blue"]
    assert found["text→image"].queries.contents == [("something red",), ("something blue",)]
    assert sorted(found["text→image"].items.ids) == ["blue.png", "green.png", "red.png"]
    assert len(found["text→audio"].items) == 4


def test_what_the_qrels_say_is_right(either: Path) -> None:
    found = tasks(either)
    assert right(found["text→image"], "red") == {"red.png": 2}
    assert right(found["text→image"], "blue") == {"blue.png": 1}
    assert right(found["audio→image"], "hum") == {"green.png": 1}


def test_a_window_that_is_judged_counts_for_its_recording(either: Path) -> None:
    found = tasks(either)
    assert right(found["text→audio"], "hear") == {"sounds/green.wav": 1, "sounds/two.wav": 1}
    assert right(found["image→audio"], "look") == {"sounds/two.wav": 3}


def test_media_that_are_searched_with_lie_beside_the_queries(either: Path) -> None:
    found = tasks(either)["image→audio"].queries.contents[0]
    assert isinstance(found, MediaItem)
    assert found.path == either / "query.png"
    assert found.modality == "image"


def test_groups_of_queries_are_kept_apart(either: Path) -> None:
    found = tasks(either)
    groups = {name: members.tolist() for name, members in found["text→image"].groups.items()}
    assert groups == {"warm": [True, False], "cold": [False, True]}
    assert found["text→audio"].groups == {}


def test_prompts_are_put_around_the_words(data: Path) -> None:
    protocol = Protocol(prompts=["a photo of {name}", "{name}, close"])
    task = tasks(data, protocol)["text→image"]
    assert list(task.queries.ids) == ["red#0", "red#1", "blue#0", "blue#1"]
    assert task.queries.contents[1] == ("something red, close",)
    assert right(task, "red#1") == {"red.png": 2}
    assert task.groups["warm"].tolist() == [True, True, False, False]
    averaged = tasks(data, replace(protocol, average_prompts=True))["text→image"]
    assert averaged.queries.contents[0] == ("a photo of something red", "something red, close")


# Windows as items


def cut(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a second: two of the recording `two`, one of every other."""
    counts = [2 if name == "sounds/two.wav" else 1 for name in task.items.ids]
    owners = np.repeat(np.arange(len(counts)), counts)
    starts = np.concatenate([np.arange(count) for count in counts])
    return owners, np.stack([starts, starts + 1], axis=1).astype(np.float32)


def test_where_windows_are_items_a_judged_window_counts_for_itself(either: Path) -> None:
    task = tasks(either, Protocol(windows="separate"))["image→audio"]
    assert task.by_window is not None
    found = task.by_window(*cut(task))
    assert found.by_window is None
    assert len(found.items) == 5
    assert "sounds/green.wav" in found.items.ids
    assert right(found, "look") == {"sounds/two.wav#t=0,1": 1, "sounds/two.wav#t=1,2": 3}


def test_where_windows_are_items_a_judged_recording_counts_for_all_of_its_windows(
    data: Path,
) -> None:
    (data / "qrels.txt").write_text("hear 0 sounds/two.wav 2\nhear 0 sounds/red.wav#t=0,1 1\n")
    rewritten(data / "queries.csv", lambda s: "\n".join([s.split("\n")[0], s.split("\n")[3]]))
    task = tasks(data, Protocol(windows="separate"))["text→audio"]
    assert task.by_window is not None
    assert right(task.by_window(*cut(task)), "hear") == {
        "sounds/two.wav#t=0,1": 2,
        "sounds/two.wav#t=1,2": 2,
        "sounds/red.wav": 1,
    }


def test_pictures_have_no_windows(data: Path) -> None:
    assert tasks(data, Protocol(windows="separate"))["text→image"].by_window is None


# Archives


def test_the_codes_of_every_model_come_with_an_archives_items(with_archive: Path) -> None:
    images = tasks(with_archive)["text→image"].items
    assert isinstance(images, ArchiveItems)
    assert [(one.name, one.bits, len(one)) for one in images.stored] == [
        ("toy-64", 64, 3),
        ("toy-32", 32, 3),
    ]
    sounds = tasks(with_archive)["text→audio"].items
    assert isinstance(sounds, ArchiveItems)
    assert [(one.name, len(one)) for one in sounds.stored] == [("toy-64", 5)]


def test_stored_codes_are_those_of_the_model_that_comes_with_them(with_archive: Path) -> None:
    images = tasks(with_archive)["text→image"].items
    assert isinstance(images, ArchiveItems)
    with Archive.open(with_archive / "archive") as archive:
        for stored in images.stored:
            assert load_saved(stored.folder).card.digest == stored.digest
            for row, owner in enumerate(stored.owners.tolist()):
                expected = archive.code(images.ids[owner], stored.digest)
                assert stored.codes[row].tolist() == expected.tolist()
            assert stored.uncoded == 0


def test_windows_of_a_recording_stand_together_with_their_times(with_archive: Path) -> None:
    sounds = tasks(with_archive)["text→audio"].items
    assert isinstance(sounds, ArchiveItems)
    stored = sounds.stored[0]
    two = list(sounds.ids).index("sounds/two.wav")
    assert (np.diff(stored.owners) >= 0).all()
    assert stored.spans[stored.owners == two].tolist() == [[0, 1], [1, 2]]
    assert stored.codes.dtype == pack(np.zeros((1, 64))).dtype


def test_what_a_model_has_not_coded_is_counted(with_archive: Path) -> None:
    encoder = ToyEncoder()
    with Archive.open(with_archive / "archive", write=True) as archive:
        engine = LocalArchive(archive, load_encoder=lambda name: encoder)
        later = MediaItem("later", "later.png", "image", data=picture("red", jitter=40))
        list(engine.add([later], model="toy-64"))
    images = tasks(with_archive)["text→image"].items
    assert isinstance(images, ArchiveItems)
    assert [(one.name, len(one), one.uncoded) for one in images.stored] == [
        ("toy-64", 4, 0),
        ("toy-32", 3, 1),
    ]


def test_media_of_an_archive_are_found_where_they_were(with_archive: Path) -> None:
    items = tasks(with_archive)["text→audio"].items
    item = items.contents[list(items.ids).index("sounds/two.wav")]
    assert isinstance(item, MediaItem)
    assert item.occurrence_id == "sounds/two.wav"
    assert item.path == (with_archive.parent / "media" / "sounds" / "two.wav").resolve()


def test_an_archive_is_left_as_it_was(with_archive: Path) -> None:
    before = content_of(with_archive)
    for task in tasks(with_archive).values():
        _ = task.items.contents[0]
    assert content_of(with_archive) == before


def test_a_window_that_an_archive_has_not_is_unknown(with_archive: Path) -> None:
    with (with_archive / "qrels.txt").open("a") as qrels:
        qrels.write("look 0 sounds/two.wav#t=7,8 1\n")
    with pytest.raises(QrelsError, match=r"two\.wav#t=7,8' \(line 9\)"):
        tasks(with_archive)
    message = tasks(with_archive, Protocol(unknown="skip"))["text→image"].left_out
    assert any("1 line names an unknown item" in sentence for sentence in message)


def test_an_archive_that_is_none_is_refused(with_archive: Path) -> None:
    (with_archive / "archive" / "archive.json").unlink()
    with pytest.raises(LayoutError, match="archive cannot be read"):
        tasks(with_archive)


def test_an_archive_without_codes_is_refused(data: Path) -> None:
    (data / "items").rename(data.parent / "media")
    Archive.create(data / "archive").close()
    with pytest.raises(LayoutError, match="has no codes"):
        tasks(data)


# Bad input


def test_an_archive_beside_media_is_refused(data: Path) -> None:
    (data / "manifest.csv").write_text("media\nitems/red.png\n")
    with pytest.raises(LayoutError, match=r"holds manifest\.csv and items/"):
        CustomSuite().check(data, Protocol())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("red,again,,image,", "line 7: the query 'red' is in line 2 already"),
        ("x,words,query.png,image,", "line 7: the query has both a text and a medium"),
        ("x,,,image,", "line 7: the query has neither"),
        ("x,words,,smell,", "line 7: the target is 'smell'"),
        ("x,words,,,", "line 7 has no target"),
        (",words,,image,", "line 7 has no query_id"),
        ("x,,notes.txt,image,", "line 7: 'notes.txt' is of no known kind"),
        ("x," + "a" * 2001 + ",,image,", "line 7: the text has 2,001 characters"),
        ("x,words,,image,all", "none called 'all'"),
        ("x,words,image", "line 7: the row has 3 cells"),
        ("x,,gone.png,image,", r"1 query names a file .*gone.png \(line 7\).*--missing skip"),
        ("x,,a\0b.png,image,", "1 query names a file"),
        ("x,,../" + "a" * 300 + ".png,image,", "1 query names a file"),
    ],
)
def test_an_unusable_query_is_refused_with_its_line(data: Path, row: str, message: str) -> None:
    rewritten(data / "queries.csv", lambda text: text + row + "\n")
    with pytest.raises(LayoutError, match=message):
        tasks(data)


def test_queries_without_their_file_can_be_left_out(data: Path) -> None:
    rewritten(data / "queries.csv", lambda text: text + "x,,gone.png,image,\n")
    found = tasks(data, Protocol(missing="skip"))
    assert any("1 query has no file" in line for line in found["text→image"].left_out)


@pytest.mark.parametrize("content", [b"", b"query_id,target\n", b"id,target\nx,image\n", b"\xff\n"])
def test_queries_that_cannot_be_read_are_refused(data: Path, content: bytes) -> None:
    (data / "queries.csv").write_bytes(content)
    with pytest.raises(LayoutError):
        tasks(data)


@pytest.mark.parametrize(
    ("limit", "most", "error", "message"),
    [
        ("MAX_QUERIES", 4, LimitExceededError, "more than 4 queries"),
        ("MAX_GROUPS", 2, LayoutError, "3 groups of queries"),
    ],
)
def test_too_many_queries_and_groups_are_refused(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    most: int,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(custom_queries, limit, most)
    with pytest.raises(error, match=message):
        tasks(data)


def test_queries_for_an_absent_modality_are_refused(data: Path) -> None:
    for path in (data / "items" / "sounds").iterdir():
        path.unlink()
    rewritten(data / "qrels.txt", lambda s: "".join(x + "\n" for x in s.split("\n") if "png" in x))
    with pytest.raises(LayoutError, match=r"has queries for audio, and .* holds none"):
        tasks(data)


def test_a_query_that_nothing_answers_is_left_out_and_counted(data: Path) -> None:
    rewritten(data / "qrels.txt", lambda text: text.replace("blue 0 blue.png 1\n", ""))
    task = tasks(data)["text→image"]
    assert list(task.queries.ids) == ["red"]
    assert any("1 of 2 queries has no relevant item" in line for line in task.left_out)


def test_judgements_of_another_modality_are_left_out_and_counted(data: Path) -> None:
    with (data / "qrels.txt").open("a") as qrels:
        qrels.write("red 0 sounds/red.wav 1\n")
    task = tasks(data)["text→image"]
    assert right(task, "red") == {"red.png": 2}
    assert any(
        "1 judgement is of an item of another modality" in sentence for sentence in task.left_out
    )


def test_a_table_of_ones_own_is_mended_and_not_taken_from_elsewhere(data: Path) -> None:
    (data / "queries.csv").write_text("id,text\nq1,an owl\n")
    with pytest.raises(LayoutError) as caught:
        tasks(data)
    assert "published" not in caught.value.message
    assert "write it yourself" in caught.value.message
    assert "q1,an owl,,image" in caught.value.message
