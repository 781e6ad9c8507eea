"""Damaged files of every format are read, or refused with an error of ours."""

from __future__ import annotations

import gzip
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bittern.errors import BitternError
from bittern.service.sources import SourceOptions
from bittern.service.sources.darwin_core import darwin_core_entries
from bittern.service.sources.formats import READERS
from bittern.types import MediaItem
from tests.sources import test_camtrap, test_coco, test_shards, test_xeno_canto
from tests.sources.archives import FIXTURES, SAMPLE, zipped

SNIPPETS = (
    b"[" * 50, b"{", b"}", b"null", b"NaN", b"-1e999", b"9" * 400, b'"', b"\\ud800", b"\x00",
    b"\xff", b",", b"\n", b"\t", b"<", b"../../etc/passwd", b"true", b'"' + b"x" * 3000 + b'"',
    b"http://[",
)  # fmt: skip


def damaged(content: bytes, seed: int) -> bytes:
    """The content truncated, overwritten, shortened or repeated at one to four positions."""
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + rng.randint(0, 40))
        content = rng.choice(
            [
                content[:start],
                content[:start] + content[end:],
                content[:start] + rng.choice(SNIPPETS) + content[end:],
                content[:end] + content[start:],
            ]
        )
    return content


def camtrap(folder: Path) -> Path:
    media = [test_camtrap.medium("m1"), test_camtrap.medium("m2")]
    return test_camtrap.package(folder, media, [test_camtrap.OBSERVED])


def coco(folder: Path) -> Path:
    return test_coco.written(folder, test_coco.inat(), "train/alpaca.jpg")


def xeno_canto(folder: Path) -> Path:
    recordings = [test_xeno_canto.recording(number) for number in (7, 8)]
    page = test_xeno_canto.page(*recordings)
    return test_xeno_canto.written(folder, page, "XC7.mp3", "XC8.mp3")


def tar(folder: Path) -> Path:
    return test_shards.shard(
        folder / "s.tar.gz", {f"{n}.jpg": bytes(300) for n in range(5)}, "w:gz"
    )


def parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"media": ["a.jpg"], "n": [1]}), folder / "m.parquet")
    (folder / "a.jpg").touch()
    return folder / "m.parquet"


def csv(folder: Path) -> Path:
    (folder / "m.csv").write_text('media,occurrenceID,n\na.jpg,1,"x, y"\n')
    (folder / "a.jpg").touch()
    return folder / "m.csv"


def fixture(name: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copytree(FIXTURES / name, folder / "source"))


def in_zip(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    return lambda folder: zipped(write(folder), folder / "source.zip")


def gzipped(folder: Path) -> Path:
    source = fixture("inaturalist_open_data")(folder)
    for table in list(source.iterdir()):
        (source / f"{table.name}.gz").write_bytes(gzip.compress(table.read_bytes()))
        table.unlink()
    return source


@pytest.mark.parametrize(
    ("format_", "write"),
    [
        ("camtrap-dp", camtrap),
        ("camtrap-dp", in_zip(camtrap)),
        ("coco", coco),
        ("xeno-canto", xeno_canto),
        ("darwin-core", fixture("darwin_core")),
        ("darwin-core", in_zip(fixture("darwin_core"))),
        ("inaturalist", lambda f: fixture("inaturalist_export")(f) / "observations-1.csv"),
        ("inaturalist", in_zip(fixture("inaturalist_export"))),
        ("inaturalist-open-data", fixture("inaturalist_open_data")),
        ("inaturalist-open-data", gzipped),
        ("tar", tar),
        ("manifest", csv),
        ("manifest", parquet),
    ],
)
def test_a_damaged_source_is_read_or_refused(
    tmp_path: Path, format_: str, write: Callable[[Path], Path]
) -> None:
    source = write(tmp_path)
    reader = next(each for each in READERS if each.name == format_)
    from_fixtures = format_.startswith(("darwin", "inaturalist"))
    root = SAMPLE.resolve() if from_fixtures else tmp_path.resolve()
    options = SourceOptions(media=str(root), fetch=("https://media.example.org/",))
    options = options if from_fixtures else SourceOptions()
    files = [source] if source.is_file() else [p for p in source.iterdir() if p.is_file()]
    listed = 0
    for file in sorted(files):
        whole = file.read_bytes()
        for seed in range(40 if len(files) > 1 else 150):
            file.write_bytes(damaged(whole, seed))
            reader.recognises(source)
            try:
                for entry, position in reader.entries(source, options):
                    listed += 1
                    assert position or format_ in ("tar", "inaturalist-open-data"), seed
                    path = entry.path if isinstance(entry, MediaItem) else None
                    assert path is None or path.resolve().is_relative_to(root), seed
            except BitternError as error:
                assert error.message, seed  # noqa: PT017
        file.write_bytes(whole)
    packed = {".zip", ".gz", ".parquet"} & {file.suffix for file in files}
    assert packed or listed > 10, "the damage left nothing to be read"


def test_members_with_passwords_are_refused(tmp_path: Path) -> None:
    path = zipped(FIXTURES / "darwin_core", tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as whole:
        begins = whole.getinfo("meta.xml").header_offset
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature, begins if flags == 6 else 0)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(signature, at + 4)
    path.write_bytes(content)
    with pytest.raises(BitternError, match="cannot be unpacked"):
        list(darwin_core_entries(path, SourceOptions()))
