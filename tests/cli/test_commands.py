from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import SAMPLE, Run


@pytest.mark.parametrize(
    ("words", "first"), [("a giant panda", "giant-panda-1"), ("a bee on a flower", "honey-bee-1")]
)
def test_words_find_photographs(run: Run, archive: Path, words: str, first: str) -> None:
    answer = json.loads(run("search", archive, words, "-k", 3, "--json").out)
    assert answer["hits"][0]["id"] == first


def test_the_json_answer_has_the_shape_that_programs_expect(run: Run, archive: Path) -> None:
    answer = json.loads(run("search", archive, "frogs", "--target", "audio", "--json").out)
    assert set(answer) == {"model", "target", "metric", "took_ms", "hits"}
    assert (answer["model"], answer["target"], answer["metric"]) == (
        "field-256",
        "audio",
        "asymmetric",
    )
    hit = answer["hits"][0]
    assert set(hit) == {"rank", "id", "distance", "media", "start_s", "end_s", "metadata"}
    assert hit["rank"] == 1
    assert hit["end_s"] > hit["start_s"] >= 0
    assert hit["metadata"]["occurrenceID"] == hit["id"].partition("#")[0]
    assert hit["metadata"]["license"]


def test_a_table_names_file_and_licence(run: Run, archive: Path) -> None:
    done = run("search", archive, "a giant panda", "-k", 1)
    assert done.status == 0
    for word in ("giant panda", "giant-panda-1.webp", "distance", "licence"):
        assert word in done.out


def test_a_picture_and_a_sound_can_be_the_query(run: Run, archive: Path) -> None:
    picture = SAMPLE / "images" / "cheetah-1.webp"
    answer = json.loads(run("search", archive, "--image", picture, "--json").out)
    assert answer["hits"][0]["id"] == "cheetah-1"
    call = SAMPLE / "audio" / "goose-1.ogg"
    answer = json.loads(run("search", archive, "--audio", call, "--target", "image", "--json").out)
    assert answer["target"] == "image"
    assert len(answer["hits"]) == 4


def test_where_narrows_and_an_empty_answer_is_said(run: Run, archive: Path) -> None:
    answer = json.loads(run("search", archive, "x", "--where", "label = 'bee'", "--json").out)
    assert [hit["id"] for hit in answer["hits"]] == ["honey-bee-1"]
    done = run("search", archive, "x", "--where", "label = 'unicorn'")
    assert (done.status, done.out) == (0, "")
    assert "nothing matches" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "-k", "0"], "not 0"),
        (["x", "-k", "-1"], "not -1"),
        (["x", "-k", "1000000000"], "1000000000"),
        ([""], "empty"),
        (["x" * 100_000], "100000"),
        ([], "exactly one"),
        (["x", "--target", "smell"], "smell"),
        (["x", "--metric", "cosine"], "cosine"),
        (["x", "--where", "DROP TABLE observations"], "no condition"),
        (["x", "--where", "nosuch = 1"], "nosuch"),
        (["--image", "/nowhere.jpg"], "/nowhere.jpg"),
    ],
)
def test_misuse_ends_with_a_message_and_no_trace(
    run: Run, archive: Path, arguments: list[str], message: str
) -> None:
    done = run("search", archive, *arguments)
    assert done.status in (1, 2)
    assert done.out == ""
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nosuch"],
        ["nosuch"],
        ["index"],
        ["search", "a", "b", "-k", "q"],
        ["index", "a", "b", "--bits", "x"],
    ],
)
def test_unusable_arguments_end_with_2_and_no_trace(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert "Usage" in done.err
    assert "Traceback" not in done.err


def test_the_command_alone_prints_its_help(run: Run) -> None:
    done = run()
    assert "Usage" in done.out + done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", 0], "not 0"),
        (["--bits", 7], "not 7"),
        (["--model", "field-256", "--bits", 128], "256 bits"),
        (["--hasher", "md5"], "md5"),
        (["--model", "nosuch"], "nosuch"),
        (["--on-duplicate", "maybe"], "maybe"),
    ],
)
def test_a_mistake_leaves_no_archive_behind(
    run: Run, manifest: Path, tmp_path: Path, arguments: list[object], message: str
) -> None:
    done = run("index", tmp_path / "new", manifest, *arguments)
    assert done.status in (1, 2)
    assert message in done.err
    assert not (tmp_path / "new").exists()


def test_files_that_cannot_be_written_are_told_before_the_work(
    run: Run, archive: Path, manifest: Path, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    for done in (
        run("export", archive, "--to", nowhere / "x.csv"),
        run("encode", manifest, "--out", nowhere / "x.parquet"),
        run("encode", manifest, "--out", tmp_path),
        run("index", manifest, manifest),
    ):
        assert done.status in (1, 2)
        assert done.err.startswith("error: ")
        assert "Traceback" not in done.err


def test_errors_are_one_line_where_nobody_looks(run: Run, tmp_path: Path) -> None:
    done = run("search", tmp_path / ("long" * 40), "x")
    assert done.err.count("\n") == 1


def test_a_failed_query_names_its_file(run: Run, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = run("search", archive, "--image", tmp_path / "bad.png")
    assert done.err.count("bad.png") == 1
    assert "the query's" not in done.err


def test_misuse_is_2_and_failure_is_1(run: Run, archive: Path, tmp_path: Path) -> None:
    assert run("search", archive, "x", "-k", 0).status == 2
    assert run("search", archive, "x", "--model", "nosuch").status == 1
    done = run("search", tmp_path / "nowhere", "x")
    assert done.status == 1
    assert "bittern index" in done.err


def test_an_unusable_item_is_named_and_the_rest_goes_in(
    run: Run, manifest: Path, archive: Path, tmp_path: Path
) -> None:
    report = json.loads(run("index", archive, manifest, "--json").out)
    assert report["items"]["skipped"] == 7
    assert {f["id"] for f in report["failures"]} == {"broken", "empty", "missing"}
    assert all(f["reason"] and f["message"] for f in report["failures"])


def test_a_source_of_nothing_usable_fails(run: Run, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.jpg").write_bytes(b"not a picture")
    done = run("index", tmp_path / "archive", tmp_path / "media")
    assert done.status == 1
    assert "a.jpg" in done.err


def test_verify_says_that_an_archive_is_sound(run: Run, archive: Path) -> None:
    done = run("verify", archive)
    assert done.status == 0
    assert "sound" in done.out


def test_verify_names_what_is_damaged(run: Run, archive: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(archive, copy)
    shutil.rmtree(copy / "store")
    done = run("verify", copy)
    assert done.status == 1
    assert "store" in done.err


def test_encode_writes_the_codes_that_index_stores(
    run: Run, archive: Path, manifest: Path, tmp_path: Path
) -> None:
    assert run("encode", manifest, "--out", tmp_path / "codes.parquet").status == 0
    assert run("export", archive, "--to", tmp_path / "all.parquet").status == 0
    encoded, stored = (pq.read_table(tmp_path / f"{n}.parquet") for n in ("codes", "all"))
    assert encoded.schema.metadata[b"bittern.digest"] == stored.schema.metadata[b"bittern.digest"]
    codes = dict(zip(encoded["id"].to_pylist(), encoded["code"].to_pylist(), strict=True))
    assert codes == dict(zip(stored["id"].to_pylist(), stored["code"].to_pylist(), strict=True))
    assert all(len(code) == 32 for code in codes.values())


def test_models_tells_which_weights_are_here(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("models", "--json").out)}
    assert set(rows) >= {"field", "bioclip", "bioclip-2", "bioclip-2.5", "biolingual"}
    assert rows["field"]["ready"]
    assert set(rows["field"]["modalities"]) == {"text", "image", "audio"}


def test_weights_that_are_missing_are_told_before_anything_is_decoded(
    run: Run, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("BITTERN_WEIGHTS", raising=False)
    done = run("index", tmp_path / "archive", manifest, "--model", "bioclip-2")
    assert done.status == 1
    assert "hf download" in done.err
    assert "bioclip-2" in done.err


def test_every_command_has_help_with_an_example(run: Run) -> None:
    for command in ("demo", "models", "index", "search", "serve", "encode", "verify", "export"):
        done = run(command, "--help")
        assert done.status == 0
        assert f"bittern {command}" in done.out
