"""Calls name media below allowed folders, and cannot reach files outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.errors import InvalidInputError, PreconditionError, SourceNotFoundError
from bittern.service.jobs.serving import AllowedFolders
from bittern.service.sources import SourceOptions
from bittern.types import AddResult, MediaItem


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    folder = tmp_path / "traps"
    (folder / "site").mkdir(parents=True)
    (folder / "site" / "a.jpg").write_bytes(b"jpeg")
    (tmp_path / "secret.jpg").write_bytes(b"jpeg")
    return folder


def test_a_source_is_found_by_the_folders_name_and_a_path_below(traps: Path) -> None:
    allowed = AllowedFolders({"traps": traps})
    assert allowed.find("traps/site") == traps / "site"
    assert allowed.find("traps") == traps
    [item] = allowed.source("traps", SourceOptions())
    assert isinstance(item, MediaItem)
    assert item.media == "site/a.jpg"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "/etc",
        "traps/../secret.jpg",
        "../traps",
        "traps/site/../../secret.jpg",
        "https://example.org/a.jpg",
        "file:///etc/passwd",
        "traps/\0",
        "traps/a\nb",
        "x" * 5_000,
    ],
)
def test_what_is_no_path_below_a_folder_is_refused(traps: Path, source: str) -> None:
    with pytest.raises((InvalidInputError, SourceNotFoundError), match="allowed are traps"):
        AllowedFolders({"traps": traps}).find(source)


def test_a_link_that_leads_out_is_refused(traps: Path) -> None:
    (traps / "out").symlink_to(traps.parent)
    with pytest.raises(InvalidInputError, match="leads out of its folder"):
        AllowedFolders({"traps": traps}).find("traps/out")
    with pytest.raises(InvalidInputError, match="leads out of its folder"):
        AllowedFolders({"traps": traps}).find("traps/out/secret.jpg")


def test_media_that_a_manifest_names_elsewhere_fail_alone(traps: Path) -> None:
    (traps / "link.jpg").symlink_to(traps.parent / "secret.jpg")
    lines = ["media", "site/a.jpg", "../secret.jpg", str(traps.parent / "secret.jpg"), "link.jpg"]
    (traps / "m.csv").write_text("\n".join(lines))
    found = list(AllowedFolders({"traps": traps}).source("traps/m.csv", SourceOptions()))
    assert isinstance(found[0], MediaItem)
    assert len(found) == 4
    for entry in found[1:]:
        assert isinstance(entry, AddResult)
        assert "outside the folders that the operator has allowed" in entry.message


def test_media_of_another_allowed_folder_are_allowed(traps: Path) -> None:
    lists = traps.parent / "lists"
    lists.mkdir()
    (lists / "m.csv").write_text(f"media\n{traps / 'site' / 'a.jpg'}\n")
    [item] = AllowedFolders({"traps": traps, "lists": lists}).source("lists/m.csv", SourceOptions())
    assert isinstance(item, MediaItem)


def test_without_an_allowed_folder_the_message_names_the_option() -> None:
    with pytest.raises(PreconditionError, match="--jobs-from FOLDER"):
        AllowedFolders({}).find("traps")


def test_messages_do_not_show_the_path_of_a_folder(traps: Path) -> None:
    allowed = AllowedFolders({"traps": traps})
    assert allowed.without_paths(f"{traps}/site/a.jpg is empty") == "traps/site/a.jpg is empty"


def test_folders_go_by_their_own_name_or_by_one_that_is_given(traps: Path) -> None:
    allowed = AllowedFolders.parse([str(traps), f"cams={traps}"])
    assert allowed.find("traps/site") == allowed.find("cams/site") == traps / "site"
    with pytest.raises(InvalidInputError, match="two allowed folders are called 'traps'"):
        AllowedFolders.parse([str(traps), f"traps={traps}"])


def test_unusable_folders_are_refused_before_the_server_starts(traps: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no folder at"):
        AllowedFolders({"x": traps / "nowhere"})
    with pytest.raises(InvalidInputError, match="cannot be the name of an allowed folder"):
        AllowedFolders({"a/b": traps})


def test_tables_and_shards_are_not_read_through_links_that_lead_out(traps: Path) -> None:
    (traps.parent / "secret.tar").write_bytes(b"")
    (traps / "site" / "x-000.tar").symlink_to(traps.parent / "secret.tar")
    with pytest.raises(InvalidInputError, match=r"'site/x-000.tar' leads out of its folder"):
        AllowedFolders({"traps": traps}).source("traps", SourceOptions())


def test_what_a_call_wants_to_be_fetched_is_not(traps: Path) -> None:
    (traps / "m.csv").write_text("media\nhttps://h.org/p/a.jpg\nsite/a.jpg\n")
    wanted = SourceOptions(fetch=("https://h.org/p/",))
    source = AllowedFolders({"traps": traps}).source("traps/m.csv", wanted)
    refused, there = source
    assert isinstance(refused, AddResult)
    assert "not fetched" in refused.message
    assert isinstance(there, MediaItem)
    assert source.fetch == ()
