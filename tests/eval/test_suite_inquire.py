from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bittern.benchmarks.eval.suites.inquire import Inquire
from bittern.benchmarks.eval.tasks import Protocol, Relevance, Task
from bittern.errors import LayoutError, QrelsError
from bittern.types import MediaItem
from tests.eval.conftest import Miniatures
from tests.eval.miniatures import inat24, inquire

TOWERS = frozenset({"text", "image"})
PHOTOS = {str(own): photo for own, photo, _ in inat24.IMAGES}
LINES = [
    inquire.annotation(query, photo) for query, each in inquire.RELEVANT.items() for photo in each
]


@pytest.fixture
def whole(miniatures: Miniatures) -> Path:
    return miniatures("inquire")


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def tasks(data: Path, **options: Any) -> list[Task]:
    """Those for the queries of both splits by default."""
    return Inquire().tasks(data, Protocol(**{"database": "all", **options}), TOWERS)


def full(data: Path, **options: Any) -> Task:
    (task,) = tasks(data, candidates="full", **options)
    return task


def rerank(data: Path, **options: Any) -> Task:
    (task,) = tasks(data, candidates="rerank", **options)
    return task


def photos(task: Task, relevance: Relevance | None = None) -> dict[str, set[str]]:
    chosen = relevance or task.relevance
    return {
        own: {PHOTOS[task.items.ids[i]] for i in chosen.of(query).tolist()}
        for query, own in enumerate(task.queries.ids)
    }


def test_all_images_are_ranked_for_every_query_that_something_answers(whole: Path) -> None:
    task = full(whole)
    assert len(task.items) == 14
    assert task.candidates is None
    assert photos(task) == {own: set(each) for own, each in inquire.RELEVANT.items() if each}
    assert list(task.left_out) == ["1 of 5 queries has no relevant item and was left out (95)"]


def test_queries_are_searched_in_their_own_words_and_for_no_class(whole: Path) -> None:
    task = full(whole)
    assert list(task.queries.contents)[1] == ("long necks, more than one",)
    assert (task.queries.classes == -1).all()
    assert (task.items.classes == -1).all()


def test_published_splits_of_the_queries_are_groups(whole: Path) -> None:
    task = full(whole)
    assert task.groups["val"].tolist() == [True, True, False, False]
    assert task.groups["test"].tolist() == [False, False, True, True]


def test_queries_of_the_test_split_are_searched_as_published_by_default(
    whole: Path,
) -> None:
    for task in (full(whole, database=""), full(whole, database="test")):
        assert list(task.queries.ids) == ["7", "40"]
        assert not task.groups
        assert list(task.left_out) == ["1 of 3 queries has no relevant item and was left out (95)"]
        assert photos(task) == {own: set(inquire.RELEVANT[own]) for own in ("7", "40")}
        assert task.notes[0].startswith("The queries of the test split are used")
    val = full(whole, database="val")
    assert list(val.queries.ids) == ["13", "268"]
    assert "for tuning" in val.notes[0]


def test_rerank_of_one_split_ranks_the_candidates_of_its_queries_alone(
    whole: Path, data: Path
) -> None:
    (data / "train.json").unlink()
    for task in (rerank(whole, database="test"), rerank(data, database="test")):
        assert photos(task) == {"7": {"jaguars-1", "kitten-1"}}
        assert photos(task, task.candidates) == {"7": set(inquire.CANDIDATES["7"])}
        assert len(task.items) == len(inquire.CANDIDATES["7"])


def test_each_task_is_measured_as_its_own_script_does(whole: Path) -> None:
    first, second = tasks(whole)
    assert not first.measures
    assert second.measures == ("AP_minR@100", "nDCG@100", "MRR")


@pytest.mark.parametrize(("split", "other"), [("val", "test"), ("test", "val")])
def test_queries_of_the_other_split_need_not_be_there(
    whole: Path, data: Path, split: str, other: str
) -> None:
    (data / f"inquire_queries_{other}.csv").unlink()
    Inquire().check(data, Protocol(database=split))
    first, second = tasks(data, database=split)
    assert photos(first) == photos(full(whole, database=split))
    assert photos(second) == photos(rerank(whole, database=split))
    assert any("of the split that is not used, whose file is missing" in t for t in first.left_out)
    (data / "train.json").unlink()
    assert photos(rerank(data, database=split)) == photos(second)
    with pytest.raises(LayoutError, match=f"inquire_queries_{other}"):
        Inquire().check(data, Protocol(database=other))


def test_rerank_alone_is_checked_for_what_it_needs_alone(data: Path) -> None:
    only = Protocol(candidates="rerank")
    for file in ("train.json", "inquire_annotations.csv"):
        (data / file).unlink()
    shutil.rmtree(data / "train")
    Inquire().check(data, only)
    with pytest.raises(LayoutError, match="lacks 3 of "):
        Inquire().check(data, Protocol())
    shutil.rmtree(data / "rerank")
    with pytest.raises(LayoutError, match="lacks 1 of ") as refused:
        Inquire().check(data, only)
    assert "train.json" not in str(refused.value)


def test_rerank_ranks_pictures_of_its_own_where_photographs_of_inat24_are_not_there(
    whole: Path, data: Path
) -> None:
    shutil.rmtree(data / "train")
    assert photos(rerank(data)) == photos(rerank(whole))
    assert any("iNat24 is missing or incomplete" in note for note in rerank(data).notes)


def test_split_that_one_file_of_queries_does_not_tell_is_refused(data: Path) -> None:
    for split in ("val", "test"):
        (data / f"inquire_queries_{split}.csv").unlink()
    inquire.write_queries(data / "inquire_queries.csv", {**inquire.VAL, **inquire.TEST})
    task = full(data, database="")
    assert (len(task.queries), task.groups) == (4, {})
    assert "does not tell the splits" in task.notes[0]
    with pytest.raises(LayoutError, match="does not tell val from test"):
        Inquire().check(data, Protocol(database="test"))


def test_rerank_ranks_the_candidates_and_counts_what_is_relevant_among_them(whole: Path) -> None:
    task = rerank(whole)
    assert task.name == "text→image, rerank 100"
    assert photos(task) == {
        "13": {"calf-1", "kitten-1"},
        "268": {"giraffes-1"},
        "7": {"jaguars-1", "kitten-1"},
    }
    assert photos(task, task.candidates) == {
        own: set(each) for own, each in inquire.CANDIDATES.items()
    }
    assert "2 of 5 queries have no relevant item and were left out (40, 95)" in task.left_out


def test_rerank_alone_needs_no_image_but_the_candidates(data: Path) -> None:
    wanted = {photo for each in inquire.CANDIDATES.values() for photo in each}
    for _, photo, _ in inat24.IMAGES:
        if photo not in wanted:
            (data / inat24.path_of(photo)).unlink()
    assert len(rerank(data).items) == len(wanted) == 10


def test_rerank_runs_on_the_pictures_of_its_own_files_without_inat24(
    whole: Path, data: Path
) -> None:
    for file in ("train.json", "inquire_annotations.csv"):
        (data / file).unlink()
    shutil.rmtree(data / "train")
    task = rerank(data)
    assert photos(task) == photos(rerank(whole))
    assert photos(task, task.candidates) == photos(rerank(whole), rerank(whole).candidates)
    assert task.groups["val"].tolist() == [True, True, False]
    for number in reversed(range(len(task.items))):
        item = task.items.contents[number]
        assert isinstance(item, MediaItem)
        assert item.media == inat24.path_of(PHOTOS[task.items.ids[number]])
        assert item.data == (whole / item.media).read_bytes()
    with pytest.raises(LayoutError, match="lacks 3 of "):
        full(data)


def test_files_of_the_rerank_without_pictures_are_refused(data: Path) -> None:
    (data / "train.json").unlink()
    table = pa.table({"query": ["a young animal"], "inat24_image_id": [1], "relevant": [1]})
    pq.write_table(table, data / "rerank/test-00000-of-00001.parquet")
    with pytest.raises(LayoutError, match=r"expected columns image \(with bytes\)"):
        rerank(data)


def test_row_of_the_rerank_without_an_image_id_is_refused_by_its_number(data: Path) -> None:
    (data / "train.json").unlink()
    path = data / "rerank/test-00000-of-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[1]["inat24_image_id"] = None
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(LayoutError, match="image id 'None' in row group 0, row 1"):
        rerank(data)


def test_pictures_of_unknown_queries_end_the_run_unless_skipped(data: Path) -> None:
    (data / "train.json").unlink()
    inquire.write_queries(data / "inquire_queries_test.csv", {"40": "another"})
    with pytest.raises(QrelsError, match="4 of 12 candidates name unknown queries"):
        rerank(data)
    assert list(rerank(data, unknown="skip").queries.ids) == ["13", "268"]


def test_both_tasks_rank_the_same_items(whole: Path) -> None:
    first, second = tasks(whole)
    assert first.items is second.items
    assert photos(second) == photos(rerank(whole))
    assert photos(second, second.candidates) == photos(rerank(whole), rerank(whole).candidates)


def test_without_candidates_the_rerank_is_left_out_with_a_note(data: Path) -> None:
    shutil.rmtree(data / "rerank")
    (task,) = tasks(data)
    assert task.name == "text→image"
    assert any("INQUIRE-Rerank was not run" in t for t in task.left_out)
    with pytest.raises(LayoutError, match=r"lacks the candidates.*1\.9 GB.*--candidates full"):
        rerank(data)
    full(data)


@pytest.mark.parametrize(
    "lines",
    [
        ["query_id,image_id"]
        + [f"{q},{inat24.id_of(p)}" for q, each in inquire.CANDIDATES.items() for p in each],
        ["query,file_name,relevant"]
        + [
            f'"{({**inquire.VAL, **inquire.TEST})[q]}",{inat24.path_of(p)},1'
            for q, each in inquire.CANDIDATES.items()
            for p in each
        ],
    ],
)
def test_candidates_may_be_a_table_by_id_or_by_words_and_path(
    whole: Path, data: Path, lines: list[str]
) -> None:
    shutil.rmtree(data / "rerank")
    (data / "inquire_rerank.csv").write_text("\n".join(lines), "utf-8")
    assert photos(rerank(data), rerank(data).candidates) == photos(
        rerank(whole), rerank(whole).candidates
    )


def test_data_may_lie_as_in_the_repository_of_the_benchmark(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "inat24", ignore=shutil.ignore_patterns("inq*", "rerank"))
    shutil.copytree(whole, tmp_path / "inquire", ignore=shutil.ignore_patterns("train*"))
    assert len(tasks(tmp_path)) == 2


def test_prompts_are_put_around_the_words_if_that_is_wanted(whole: Path) -> None:
    task = full(whole, prompts=("{name}", "a photo of {name}"))
    assert list(task.queries.ids)[:2] == ["13#0", "13#1"]
    assert task.queries.contents[1] == ("a photo of a young animal",)
    assert task.relevance.of(0).tolist() == task.relevance.of(1).tolist()
    assert task.groups["val"].tolist() == [True] * 4 + [False] * 4


def test_half_of_the_files_gone_ends_the_run_unless_they_are_skipped(data: Path) -> None:
    for _, photo, _ in inat24.IMAGES[::2]:
        (data / inat24.path_of(photo)).unlink()
    with pytest.raises(LayoutError, match=r"7 of 14 images that train\.json lists are missing"):
        tasks(data)
    task, again = tasks(data, missing="skip")
    kept = {photo for _, photo, _ in inat24.IMAGES[1::2]}
    assert photos(task) == {
        own: set(each) & kept for own, each in inquire.RELEVANT.items() if set(each) & kept
    }
    assert "6 of 10 annotations are about images that were skipped" in task.left_out
    assert "6 of 12 candidates are images that were skipped" in again.left_out


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (("999", "1000", inat24.path_of("calf-1")), "query '999'"),
        (("13", "77", "train/x/y.jpg"), "image 77 train/x/y.jpg"),
        (("13", "abc", inat24.path_of("calf-1")), "image abc"),
        (("13", "1000", inat24.path_of("cow-1")), "image 1000"),
        (("13", "9" * 40, inat24.path_of("cow-1")), "image 9999"),
    ],
)
def test_annotation_of_something_unknown_ends_the_run_unless_it_is_skipped(
    data: Path, line: tuple[str, str, str], named: str
) -> None:
    inquire.write_annotations(data, [line, *LINES])
    with pytest.raises(QrelsError) as refused:
        tasks(data)
    assert "1 of 11 annotations name" in str(refused.value)
    assert f"inquire_annotations.csv, line 2: {named}" in str(refused.value)
    assert "--unknown skip" in str(refused.value)
    task = full(data, unknown="skip")
    assert photos(task)["13"] == set(inquire.RELEVANT["13"])
    assert any(sentence.startswith("1 of 11 annotations") for sentence in task.left_out)


def test_repeated_annotation_counts_once_and_is_counted(data: Path) -> None:
    inquire.write_annotations(data, [*LINES, LINES[0]])
    task = full(data)
    assert photos(task)["13"] == set(inquire.RELEVANT["13"])
    assert "1 of 11 annotations occurs twice and counts once" in task.left_out


def test_repeated_query_is_refused(data: Path) -> None:
    inquire.write_queries(data / "inquire_queries_test.csv", {**inquire.TEST, "13": "again"})
    with pytest.raises(LayoutError, match="line 5: query_id 13 occurs twice"):
        tasks(data)


def test_queries_of_the_same_words_cannot_be_matched_with_candidates(data: Path) -> None:
    inquire.write_queries(
        data / "inquire_queries_test.csv", {**inquire.TEST, "96": "a young  animal"}
    )
    with pytest.raises(QrelsError, match="queries 13 and 96 have the same words"):
        tasks(data)
    full(data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("inquire_queries_val.csv", "id,text\n1,a\n", "found columns 'id', 'text'"),
        ("inquire_queries_val.csv", "query_id,query_text\n", "holds no query"),
        ("inquire_queries_test.csv", "query_id,query_text\n7,\n", "line 2 has no query_text"),
        ("inquire_annotations.csv", "query_id,image_id\n13,1000\n", "image_path"),
        ("inquire_annotations.csv", "query_id,image_id,image_path\n13\n", "line 2"),
        ("inquire_rerank.csv", "a,b\n1,2\n", "query_id or query, and image_id or file_name"),
        ("inquire_rerank.csv", "", "is empty"),
        ("rerank/test-00000-of-00001.parquet", "PAR1 no more", "cannot be read as Parquet"),
    ],
)
def test_file_of_another_layout_is_refused_with_what_was_found(
    data: Path, name: str, content: str, message: str
) -> None:
    (data / name).write_text(content)
    with pytest.raises(LayoutError) as refused:
        tasks(data)
    assert message in str(refused.value)
    assert Path(name).name in str(refused.value)


def test_parquet_with_other_columns_is_refused(data: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), data / "rerank/test-00000-of-00001.parquet")
    with pytest.raises(LayoutError, match="expected columns query, inat24_image_id, found"):
        tasks(data)


def test_unknown_candidate_is_named_by_its_row(data: Path) -> None:
    table = pa.table({"query": ["a young animal", "no query"], "inat24_image_id": [5, 1000]})
    pq.write_table(table, data / "rerank/test-00000-of-00001.parquet")
    with pytest.raises(QrelsError, match=r"2 of 10 candidates .*row 1: image 5; .*'no query'"):
        tasks(data)
    assert set(rerank(data, unknown="skip").queries.ids) == {"13", "268"}
