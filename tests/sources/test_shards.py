from __future__ import annotations

import gc
import io
import json
import re
import tarfile
from pathlib import Path

import pytest

from bittern.errors import ManifestError, SourceNotFoundError
from bittern.service.sources import SourceOptions, read_source, remote
from bittern.service.sources.tar import expanded
from bittern.types import AddResult, MediaItem


def shard(path: Path, members: dict[str, bytes], mode: str = "w", **kwargs: int) -> Path:
    with tarfile.open(path, mode, **kwargs) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def outcomes(entries: list[MediaItem | AddResult]) -> list[str]:
    return [
        e.occurrence_id if isinstance(e, MediaItem) else f"failed: {e.message}" for e in entries
    ]


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz")])
def test_media_come_with_what_their_sidecars_say(tmp_path: Path, suffix: str, mode: str) -> None:
    sidecar = {"scientific_name": "Pica pica", "n": 3, "box": [1], "deep": {"a": 1}, "none": None}
    path = shard(
        tmp_path / f"s{suffix}",
        {
            "./a/1.json": json.dumps(sidecar).encode(),
            "./a/1.jpg": b"one",
            "./a/1.txt": b"a magpie\n",
            "./a/1.cls": b"7",
            "./a/1.npy": b"x",
            "./a/2.wav": b"two",
        },
        mode,
    )
    first, second = list(read_source(path))
    assert isinstance(first, MediaItem)
    assert isinstance(second, MediaItem)
    assert (first.occurrence_id, first.media, first.data) == ("a/1", "a/1.jpg", b"one")
    assert first.metadata == {
        "scientificName": "Pica pica",
        "n": 3,
        "caption": "a magpie",
        "label": "7",
    }
    assert (second.occurrence_id, second.modality, second.metadata) == ("a/2", "audio", {})


def test_shards_are_named_by_braces_stars_and_folders(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"s-{number:03}.tar", {f"{number}.jpg": b"x"})
    for name in ("s-{000..002}.tar", "s-*.tar", "s-00{0,1,2}.tar", ""):
        assert outcomes(list(read_source(tmp_path / name))) == ["0", "1", "2"]
    *good, missing = outcomes(list(read_source(tmp_path / "s-{000..003}.tar")))
    assert good == ["0", "1", "2"]
    assert "s-003.tar" in missing
    with pytest.raises(SourceNotFoundError, match="no tar shards"):
        read_source(tmp_path / "t-{000..003}.tar")
    with pytest.raises(ManifestError, match="more than 100,000"):
        expanded("{0..999999}.tar")


def test_further_media_of_a_key_get_ids_of_their_own(tmp_path: Path) -> None:
    shard(tmp_path / "1.tar", {"k.jpg": b"x", "k.wav": b"y"})
    shard(tmp_path / "2.tar", {"k.png": b"z", "k.jpg": b"x"})
    *ids, again = outcomes(list(read_source(tmp_path)))
    assert ids == ["k", "k#media=k.wav", "k#media=k.png"]
    assert "twice" in again


@pytest.mark.parametrize("kept", [0.35, 0.5, 0.8])
def test_a_shard_that_breaks_off_gives_what_it_held_and_one_failure(
    tmp_path: Path, kept: float
) -> None:
    path = shard(tmp_path / "s.tar", {f"{n}.jpg": bytes(2_000) for n in range(20)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    *good, failed = outcomes(list(read_source(path)))
    assert good == [str(n) for n in range(len(good))]
    assert len(good) >= 20 * kept - 2
    assert "s.tar: it ends too early" in failed


def test_a_file_that_is_no_tar_file_is_reported(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"\x1f\x8bhello", b"x" * 2_000):
        (tmp_path / "s.tar").write_bytes(content)
        [failed] = outcomes(list(read_source(tmp_path / "s.tar")))
        assert failed.startswith("failed: s.tar: it is")


def test_links_and_names_that_climb_are_not_followed(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", {"../../1.jpg": b"x", "/etc/2.jpg": b"x", "ok.jpg": b"y"})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("3.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    climbs, absolute, good = outcomes(list(read_source(path)))
    assert "leads out" in climbs
    assert "leads out" in absolute
    assert good == "ok"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["s.tar"]


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_read_up_to_a_limit(tmp_path: Path, format_: int) -> None:
    long = "é" * 150 + ".jpg"
    path = shard(tmp_path / "s.tar", {long: b"x", "y" * 2_000 + ".jpg": b"x"}, format=format_)
    first, second = list(read_source(path))
    assert isinstance(first, MediaItem)
    assert first.media == long
    assert isinstance(second, AddResult)
    assert "1024 printable characters" in second.message


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(content: bytes) -> bytes:
    return header(tarfile.XHDTYPE, len(content)) + content + bytes(-len(content) % 512)


GOOD = b"".join(header(tarfile.REGTYPE, 1, f"{n}.jpg") + b"x" + bytes(511) for n in (1, 2))
NUMBERS = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header(tarfile.XHDTYPE, 1 << 40) + bytes(1 << 20), "header of 1,099,511,627,776 bytes"),
        (pax(b"9 a=1234\n") * 2_000 + bytes(1_024), "damaged after member 2|headers of more than"),
        (pax(NUMBERS) + header(tarfile.REGTYPE, 1) + b"9999999\n" + b"0\n" * 400_000, "headers of"),
        (pax(b"9" * 5_000 + b" path=a.jpg\n") + bytes(1_024), "damaged after member 2"),
        (pax(b"12 size=-99\n") + header(tarfile.REGTYPE, 1) + bytes(1_024), "damaged after"),
        (header(tarfile.REGTYPE, 1 << 60) + bytes(1_024), "ends too early"),
        (header(tarfile.REGTYPE, 100) + b"x", "ends too early"),
        (b"", "ends too early"),
        (b"no header" * 100, "damaged after member 2"),
        (b"y" + header(tarfile.REGTYPE, 0)[1:] + bytes(1_024), "damaged after member 2"),
    ],
    ids=["pax", "chain", "sparse", "digits", "negative", "huge", "cut", "endless", "text", "sum"],
)
def test_hostile_headers_cost_neither_memory_nor_the_members_before(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(GOOD + content)
    good, *_, failed = outcomes(list(read_source(path)))
    assert good == "1"
    assert re.search(f"failed: .*({words})", failed)


def test_a_sidecar_that_cannot_be_read_fails_its_media(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", {"1.jpg": b"x", "1.json": b"{", "2.jpg": b"y"})
    failed, good = outcomes(list(read_source(path)))
    assert "1.json" in failed
    assert good == "2"


def test_large_members_lie_on_disk_for_as_long_as_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "IN_MEMORY_BYTES", 1_000)
    path = shard(tmp_path / "s.tar", {"1.wav": bytes(5_000), "2.wav": b"x"})
    first = next(iter(read_source(path)))
    assert isinstance(first, MediaItem)
    assert first.data is None
    assert first.path is not None
    name = str(first.path)
    assert Path(name).read_bytes() == bytes(5_000)
    del first
    gc.collect()
    assert not Path(name).exists()


def test_globs_hold_for_members(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", {"a/1.jpg": b"x", "b/2.jpg": b"y"})
    assert outcomes(list(read_source(path, SourceOptions(include=("b",))))) == ["b/2"]


def test_keys_that_are_no_ids_become_some_that_are(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", {"k#t=1.jpg": b"x", "k#t=1.wav": b"y"})
    assert outcomes(list(read_source(path))) == ["k%23t=1", "k%23t=1#media=k%23t=1.wav"]
