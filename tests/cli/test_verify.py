"""`bittern verify`, with and without `--repair`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bittern.index.checksums import Checksum, append_checksums
from tests.cli.conftest import Run


@pytest.fixture
def copy(archive: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy"
    shutil.copytree(archive, path)
    return path


def data_file(path: Path) -> Path:
    return next((path / "store" / "observations.lance" / "data").iterdir())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def test_verify_codes_a_sample_again_and_finds_the_same(run: Run, copy: Path) -> None:
    done = run("verify", copy, "--json")
    shown = json.loads(done.out)
    assert (done.status, shown["ok"], shown["problems"]) == (0, True, [])
    codes = shown["codes"]
    assert codes["media"] > 0
    assert codes["codes"] >= codes["media"]
    assert codes["wrong"] == codes["changed"] == codes["unusable"] == codes["unchecked"] == []
    assert codes["flipped"] <= 0.05 * codes["bits"]
    assert "bits differ" in run("verify", copy).out


def test_verify_leaves_the_sample_out_where_none_is_wanted(run: Run, copy: Path) -> None:
    shown = json.loads(run("verify", copy, "--sample", "0", "--json").out)
    assert shown["codes"]["media"] == 0


def test_a_flipped_bit_is_found_and_what_to_do_is_said(run: Run, copy: Path) -> None:
    flip(data_file(copy))
    done = run("verify", copy)
    assert done.status == 1
    assert "its checksum differs; run bittern verify --repair" in done.err


def test_a_lost_data_file_is_repaired_and_what_is_lost_is_said(run: Run, copy: Path) -> None:
    data_file(copy).unlink()
    assert run("verify", copy, "--sample", "0").status == 1
    before = sorted(path for path in copy.rglob("*") if path.name != "lock")
    dry = run("verify", copy, "--repair", "--dry-run")
    assert dry.status == 0
    assert "would make a new version" in dry.out
    assert sorted(path for path in copy.rglob("*") if path.name != "lock") == before
    done = run("verify", copy, "--repair")
    assert done.status == 0
    assert f"bittern verify {copy}" in done.out
    assert run("verify", copy, "--sample", "0").status == 0
    assert "nothing to repair" in run("verify", copy, "--repair").out


def test_a_model_whose_digest_shows_that_it_is_sound_stays_whatever_its_checksums_say(
    run: Run, copy: Path
) -> None:
    [model] = (copy / "models").iterdir()
    for name in ("model.json", "nothing.bin"):
        key = (model / name).relative_to(copy).as_posix()
        append_checksums(copy, {key: Checksum("0" * 32, 10**15)})
    assert run("verify", copy, "--sample", "0").status == 1
    assert run("verify", copy, "--repair").out.splitlines()[0] == "write the checksums again"
    assert not (copy / "lost-found").exists()
    assert run("verify", copy, "--sample", "0").status == 0
    flip(model / "hasher.safetensors")
    assert f"move models/{model.name}, which is damaged" in run("verify", copy, "--repair").out


def test_a_link_is_named_with_where_it_leads_and_repair_leaves_it(
    run: Run, copy: Path, tmp_path: Path
) -> None:
    (copy / "models").rename(tmp_path / "elsewhere")
    (copy / "models").symlink_to(tmp_path / "elsewhere")
    for options in (("--json",), ("--repair", "--dry-run"), ("--repair",)):
        done = run("verify", copy, *options)
        assert done.status == 1
        assert f"models is a symbolic link to {tmp_path / 'elsewhere'}" in done.out + done.err
    assert (copy / "models").is_symlink()
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_files_that_nothing_needs_are_named_and_removed(run: Run, copy: Path) -> None:
    orphan = copy / ".archive-0123"
    orphan.write_bytes(b"cut off")
    (copy / "archive-notes.txt").write_text("the owner's own")
    done = run("verify", copy, "--sample", "0")
    assert done.status == 0
    assert orphan.name in done.err
    assert orphan.name in run("verify", copy, "--repair").out
    assert not orphan.exists()
    assert (copy / "archive-notes.txt").exists()


def test_repair_of_what_is_no_archive_fails(run: Run, tmp_path: Path) -> None:
    done = run("verify", tmp_path, "--repair")
    assert done.status == 1
    assert "no archive" in done.err


def test_a_dry_run_without_repair_is_misuse(run: Run, copy: Path) -> None:
    done = run("verify", copy, "--dry-run")
    assert done.status == 2
    assert "--repair" in done.err


def test_verify_names_derived_files_that_are_damaged_and_changes_nothing(
    run: Run, copy: Path
) -> None:
    (copy / "derived").mkdir(exist_ok=True)
    (copy / "derived" / "rows.json").write_text("no set")
    done = run("verify", copy)
    assert done.status == 0
    assert "sound; 4 image, 4 audio observations" in done.out
    assert "damaged derived files, built again" in done.err
    assert "rows: " in done.err
    shown = json.loads(run("verify", copy, "--json").out)
    assert (shown["ok"], shown["problems"], len(shown["derived_made_anew"])) == (True, [], 1)
    assert (copy / "derived" / "rows.json").read_text() == "no set"


def test_verify_names_what_is_damaged(run: Run, copy: Path) -> None:
    shutil.rmtree(copy / "store")
    done = run("verify", copy)
    assert done.status == 1
    assert "store" in done.err
