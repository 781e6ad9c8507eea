from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from bittern.cli import output
from bittern.cli.app import app
from bittern.cli.output import EscapingFormatter, byte_size
from bittern.cli.serving import byte_count, warn_without_gpu
from bittern.index.archive import Archive
from bittern.index.folder import ArchiveFolder
from bittern.index.observation import CodedObservation
from bittern.query import SearchOptions
from bittern.types import Observation
from tests.cli.conftest import SAMPLE, Run
from tests.index.samples import build_index


def commands(group: Any = None, before: str = "") -> Iterator[str]:
    """Every command, as it is typed after `bittern`."""
    found: Any = group or get_command(app)
    for name, command in found.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield before + name


KEYS = {"model", "target", "metric", "took_ms", "hits", "engine", "exact", "cutoff", "nearest"}


@pytest.mark.parametrize(
    ("words", "first"), [("a giant panda", "giant-panda-1"), ("a bee on a flower", "honey-bee-1")]
)
def test_words_find_photographs(run: Run, archive: Path, words: str, first: str) -> None:
    answer = json.loads(run("search", archive, words, "-k", 3, "--json").out)
    assert answer["hits"][0]["id"] == first


def test_the_json_answer_has_the_shape_that_programs_expect(run: Run, archive: Path) -> None:
    answer = json.loads(run("search", archive, "frogs", "--target", "audio", "--json").out)
    assert set(answer) == KEYS
    assert (answer["model"], answer["target"], answer["metric"]) == (
        "field-256",
        "audio",
        "asymmetric",
    )
    hit = answer["hits"][0]
    assert set(hit) == {"rank", "id", "distance", "media", "path", "start_s", "end_s", "metadata"}
    assert Path(hit["path"]).is_file()
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


@pytest.mark.parametrize("columns", [40, 80, 130])
def test_names_and_folders_of_files_are_never_broken(
    run: Run, archive: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    for console in (output.out, output.err):
        monkeypatch.setattr(console, "_width", columns)
        monkeypatch.setattr(console, "_force_terminal", True)
    shown = run("search", archive, "a bee on a flower")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.out).splitlines()
    for hit in json.loads(run("search", archive, "a bee on a flower", "--json").out)["hits"]:
        assert any(hit["media"] in line for line in lines)
    refused = run("search", archive, "--image", f"/nowhere/{'x' * 100}.jpg")
    assert f"/nowhere/{'x' * 100}.jpg" in refused.err


def test_several_inputs_are_one_query(run: Run, archive: Path) -> None:
    two = run("search", archive, "--id", "honey-bee-1", "--id", "cheetah-1", "-k", 2, "--json")
    assert {hit["id"] for hit in json.loads(two.out)["hits"]} == {"honey-bee-1", "cheetah-1"}
    picture = SAMPLE / "images" / "cheetah-1.webp"
    more = run(
        *("search", archive, "a bee", "--image", picture, "--minus", "a fish"),
        *("--minus-id", "giant-panda-1", "--json"),
    )
    ids = [hit["id"] for hit in json.loads(more.out)["hits"]]
    assert set(ids[:2]) == {"honey-bee-1", "cheetah-1"}
    assert ids[-1] == "giant-panda-1"


def test_where_narrows_the_hits(run: Run, archive: Path) -> None:
    answer = json.loads(run("search", archive, "x", "--where", "label = 'bee'", "--json").out)
    assert [hit["id"] for hit in answer["hits"]] == ["honey-bee-1"]


@pytest.mark.parametrize(
    "options", [[], ["--max-distance", "1"], ["--relevance", "usual", "--target", "audio"]]
)
def test_where_nothing_matches_that_is_all_that_is_said(
    run: Run, archive: Path, options: list[str]
) -> None:
    done = run("search", archive, "x", "--where", "label = 'unicorn'", *options)
    assert (done.status, done.out) == (0, "")
    assert done.err.strip() == "nothing matches where label = 'unicorn'"


@pytest.mark.parametrize(
    ("option", "value", "cutoff"), [("--max-distance", "1000", 1000), ("--recall", "0.9", None)]
)
def test_the_json_answer_has_the_same_keys_whatever_the_options(
    run: Run, archive: Path, option: str, value: str, cutoff: float | None
) -> None:
    answer = json.loads(run("search", archive, "a bee", "-k", 2, option, value, "--json").out)
    assert set(answer) == KEYS
    assert len(answer["hits"]) == 2
    assert (answer["engine"], answer["exact"], answer["nearest"]) == ("flat", True, None)
    assert answer["cutoff"] == cutoff


def test_nothing_near_enough_is_an_answer_that_says_how_to_see_the_nearest(
    run: Run, archive: Path
) -> None:
    done = run("search", archive, "a giant panda", "--max-distance", 1)
    assert (done.status, done.out) == (0, "")
    assert "the nearest is" in done.err
    assert "giant-panda-1.webp" in done.err
    found = re.search(r"To see it: --max-distance ([0-9.]+)", done.err)
    assert found
    shown = run("search", archive, "a giant panda", "--max-distance", found[1])
    assert "giant-panda-1.webp" in shown.out
    assert f"none beyond {found[1]}" in shown.err
    answer = json.loads(run("search", archive, "a giant panda", "--max-distance", 1, "--json").out)
    assert (answer["hits"], answer["cutoff"]) == ([], 1)
    assert answer["nearest"]["id"] == "giant-panda-1"


def test_among_few_observations_relevance_is_not_judged_and_that_is_said(
    run: Run, archive: Path
) -> None:
    done = run("search", archive, "a giant panda", "--relevance", "usual", "-k", 2)
    assert done.status == 0
    assert "giant-panda-1.webp" in done.out
    assert "too few observations to judge relevance" in done.err
    answer = json.loads(run("search", archive, "a bee", "--relevance", "0.01", "--json").out)
    assert (answer["cutoff"], len(answer["hits"])) == (None, 4)


def test_where_relevance_is_not_judged_the_distance_alone_decides_and_that_is_said(
    run: Run, archive: Path
) -> None:
    done = run("search", archive, "a giant panda", "--relevance", "usual", "--max-distance", 1)
    assert (done.status, done.out) == (0, "")
    assert "too few observations to judge relevance: only the distance counts" in done.err
    assert "nothing is near enough: the nearest is" in done.err
    assert "nothing is relevant" not in done.err


def test_stats_show_what_searches_and_why(run: Run, archive: Path) -> None:
    done = run("stats", archive)
    assert done.status == 0
    for words in ("4 image", "field-256", "flat, exact", "every code is compared", "generation"):
        assert words in done.out
    shown = json.loads(run("stats", archive, "--json").out)
    assert shown["observations"]["image"] == 4
    [model] = shown["models"]
    assert model["engines"]["image"]["kind"] == "flat"
    assert model["engines"]["image"]["rows"] == 4


ACTED_ON = "\x1b\x9b\u202e\u2066\u200f\u061c\u2028\n"


def test_nothing_that_a_terminal_acts_on_is_printed(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(archive, path)
    folder = ArchiveFolder(path)
    folder.write_header(replace(folder.read_header(), name=f"a{ACTED_ON}b"))
    with Archive.open(path, write=True) as opened:
        record = opened.model_records()[0]
        metadata = {"vernacularName": f"owl{ACTED_ON}", "license": ACTED_ON}
        seen = Observation("hostile", "hostile", "image", "a.jpg", ACTED_ON, metadata=metadata)
        opened.add([[CodedObservation(seen, np.zeros(32, np.uint8))]], model=record.digest)
    search = ("search", path, "--id", "hostile", "-k", 1)
    commands = [search, ("stats", path), ("verify", path), ("snapshots", path, "--all")]
    for command in [*commands, *((*command, "--json") for command in commands)]:
        done = run(*command)
        assert done.out
        assert not set(ACTED_ON) & set((done.out + done.err).replace("\n", "")), command
    [hit] = json.loads(run(*search, "--json").out)["hits"]
    assert hit["metadata"]["license"] == ACTED_ON


def test_text_in_the_log_stays_on_its_line() -> None:
    try:
        raise ValueError(f"filter{ACTED_ON}INFO forged")
    except ValueError:
        record = logging.getLogger().makeRecord(
            "bittern", logging.ERROR, "", 0, "for %s", (ACTED_ON,), sys.exc_info()
        )
    written = EscapingFormatter("%(levelname)s %(message)s").format(record)
    first, *traceback = written.split("\n")
    assert first.startswith(r"ERROR for \u001b\u009b\u202e")
    assert all(line.startswith("  ") for line in traceback)
    assert not (set(ACTED_ON) - {"\n"}) & set(written)


def test_stats_mark_models_that_are_not_searched_first(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(archive, path)
    with Archive.open(path, write=True) as opened:
        record = opened.model_records()[0]
        other = replace(record, name="other", digest="ab" * 32, state="pending")
        opened.register_model(other, {})
    assert "other (pending)" in run("stats", path).out
    with Archive.open(path, write=True) as opened:
        opened.writer.switch_model(other.digest)
    assert "field-256 (retired)" in run("stats", path).out
    states = {m["name"]: m["state"] for m in json.loads(run("stats", path, "--json").out)["models"]}
    assert states == {"field-256": "retired", "other": "ready"}


@pytest.fixture
def large(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the archive, of a size from which on indexes are of use."""
    monkeypatch.setattr("bittern.index.engines.choosing.APPROXIMATE_FROM", 2)
    return Path(shutil.copytree(archive, tmp_path / "large"))


def test_a_search_on_the_command_line_builds_no_index_and_says_how_once(
    run: Run, large: Path
) -> None:
    done = run("search", large, "a bee", "--recall", "0.9")
    assert done.err.count("--recall 0.95") == done.err.count("these 4 rows have no index") == 1
    assert "approximate" not in done.err
    assert not list((large / "derived").glob("*-ivf.*"))
    assert "have no index" not in run("search", large, "a bee", "--recall", "1").err
    answer = run("search", large, "a bee", "--recall", "0.9", "--json")
    assert json.loads(answer.out)["exact"]
    assert "have no index" in answer.err


def test_a_search_on_the_command_line_uses_an_index_that_is_stored(run: Run, large: Path) -> None:
    with Archive.open(large, search=SearchOptions(recall=0.9)) as opened:
        build_index(opened, opened.model_records()[0].digest)
    assert list((large / "derived").glob("*-image-ivf.*"))
    assert "have no index" not in run("search", large, "a bee", "--recall", "0.9").err


def test_what_needs_a_folder_refuses_the_address_of_a_server(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    done = run("index", "localhost:50051", "photos")
    assert done.status == 2
    assert "'localhost:50051' is the address of a server" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (2**26, "64.0 MiB"),
        (3 * 2**50, "3,072.0 TiB"),
    ],
)
def test_sizes_are_shown_as_people_read_them(count: int, shown: str) -> None:
    assert byte_size(count) == shown


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4GiB", 2**32),
        ("500MB", 500_000_000),
        ("1.5 GiB", 3 * 2**29),
        ("1024", 1024),
        ("2k", 2000),
        ("4Gi", 2**32),
        ("7B", 7),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu-memory", "much"], "not a size"),
        (["--gpu-memory", "-1GiB"], "not a size"),
        (["--gpu-memory", "1,000,000,000"], "not a size"),
        (["--gpu-memory", "4 GiB 5"], "not a size"),
        (["--gpu-memory", "8Gbit"], "not a size"),
        (["--engine", "warp"], "not 'warp'"),
        (["--search-threads", "0"], "--search-threads must be a whole number from 1 to 1024"),
        (["--search-threads", "1025"], "not 1025"),
        (["--gpu-memory", "0"], "--gpu-memory must be a whole number of at least 1"),
        (["--recall", "0"], "--recall must be above 0"),
    ],
)
def test_a_server_is_not_started_with_options_that_cannot_be(
    run: Run, archive: Path, options: list[str], message: str
) -> None:
    done = run("serve", archive, "--listen", "127.0.0.1:0", *options)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "-k", "1000000000"], "1000000000"),
        ([""], "empty"),
        ([], "at least one of WORDS, --image, --audio and --id"),
        (["x", "--id", "bee"], "no observation 'bee'"),
        (["x", "--target", "smell"], "smell"),
        (["x", "--metric", "cosine"], "cosine"),
        (["x", "--max-distance", "nan"], "--max-distance must be a distance in bits"),
        (["x", "--relevance", "very"], "not 'very'"),
        (["x", "--recall", "1.5"], "not 1.5"),
        (["x", "--where", "DROP TABLE observations"], "is not a condition"),
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
        (["--rename", "x"], "HEADING=NAME"),
        (["--workers", "x"], "'--workers': not a whole number"),
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


def test_files_that_cannot_be_written_are_refused_before_the_work(
    run: Run, archive: Path, manifest: Path, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    for done in (
        run("export", archive, "--output", nowhere / "x.csv"),
        run("encode", manifest, "--output", nowhere / "x.parquet"),
        run("encode", manifest, "--output", tmp_path),
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


def test_encode_writes_the_codes_that_index_stores(
    run: Run, archive: Path, manifest: Path, tmp_path: Path
) -> None:
    assert run("encode", manifest, "--output", tmp_path / "codes.parquet").status == 0
    assert run("export", archive, "--output", tmp_path / "all.parquet").status == 0
    encoded, stored = (pq.read_table(tmp_path / f"{n}.parquet") for n in ("codes", "all"))
    assert encoded.schema.metadata[b"bittern.digest"] == stored.schema.metadata[b"bittern.digest"]
    codes = dict(zip(encoded["id"].to_pylist(), encoded["code"].to_pylist(), strict=True))
    assert codes == dict(zip(stored["id"].to_pylist(), stored["code"].to_pylist(), strict=True))
    assert all(len(code) == 32 for code in codes.values())


def test_models_lists_which_weights_are_present(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("models", "--json").out)}
    assert set(rows) >= {"field", "bioclip", "bioclip-2", "bioclip-2.5", "biolingual"}
    assert rows["field"]["ready"]
    assert set(rows["field"]["modalities"]) == {"text", "image", "audio"}


def test_weights_that_are_missing_are_reported_before_anything_is_decoded(
    run: Run, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("BITTERN_WEIGHTS", raising=False)
    done = run("index", tmp_path / "archive", manifest, "--model", "bioclip-2")
    assert done.status == 1
    assert "hf download" in done.err
    assert "bioclip-2" in done.err


def test_a_server_that_is_to_use_a_graphics_card_says_at_once_that_there_is_none(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bittern.index.engines.device_memory.available_device", lambda: None)
    warn_without_gpu()
    [line] = caplog.records
    assert line.levelname == "WARNING"
    assert "no graphics card can be used" in line.getMessage()
    monkeypatch.setattr("bittern.index.engines.device_memory.available_device", lambda: "cuda:0")
    warn_without_gpu()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.status == 0
    assert f"Example: bittern {command}" in done.out


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["repair", "archive"], "verify --repair"),
        (["optimize", "archive"], "serve --recall"),
        (["stats", "archive", "--column", "a=b"], "--column is now --rename"),
        (["search", "archive", "x", "--within", "9"], "--within is now --max-distance"),
        (["eval", "field", "--out", "run"], "--out is now --output"),
        (["train", "pairs", "photos", "--out", "model"], "--out is now --output"),
        (["jobs", "submit", "localhost:1", "x", "--column", "a=b"], "--column is now --rename"),
    ],
)
def test_a_former_name_is_answered_with_the_new_one(
    run: Run, arguments: list[str], answer: str
) -> None:
    done = run(*arguments)
    assert done.status == 2
    assert answer in done.err
