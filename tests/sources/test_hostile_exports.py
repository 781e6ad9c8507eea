"""Whatever bytes an export holds, it is read, or refused with an error of ours."""

from __future__ import annotations

import gzip
import shutil
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern.errors import BitternError
from bittern.service.sources import SourceOptions
from bittern.service.sources.darwin_core import darwin_core_entries, is_darwin_core
from bittern.service.sources.inaturalist_export import (
    inaturalist_export_entries,
    is_inaturalist_export,
)
from bittern.service.sources.inaturalist_open_data import is_open_data, open_data_entries
from bittern.types import AddResult
from tests.sources.archives import FIXTURES, SAMPLE, zipped

HERE = SourceOptions(media=str(SAMPLE), fetch=("https://media.example.org/",))
READERS = [
    ("darwin_core", is_darwin_core, darwin_core_entries),
    ("inaturalist_export", is_inaturalist_export, inaturalist_export_entries),
    ("inaturalist_open_data", is_open_data, open_data_entries),
]
edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 20),
        st.one_of(
            st.binary(max_size=20), st.sampled_from([b"\n", b"\t", b'"', b"\0", b"../", b"<"])
        ),
    ),
    min_size=1,
    max_size=6,
)


def changed(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for where, length, put in changes:
        at = int(where * len(content))
        content = content[:at] + put + content[at + length :]
    return content


@pytest.mark.parametrize(("name", "recognises", "entries"), READERS)
@given(which=st.integers(0, 10), packed=st.booleans(), changes=edits)
@settings(max_examples=60, deadline=None)
def test_damaged_exports_are_read_or_refused(
    name: str,
    recognises: object,
    entries: object,
    which: int,
    packed: bool,
    changes: list[tuple[float, int, bytes]],
) -> None:
    assert callable(recognises)
    assert callable(entries)
    with TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(FIXTURES / name, Path(temporary) / "source"))
        files = sorted(folder.iterdir())
        damaged = files[which % len(files)]
        if not packed:
            damaged.write_bytes(changed(damaged.read_bytes(), changes))
        source = damaged if name == "inaturalist_export" else folder
        if packed and name == "inaturalist_open_data":
            content = changed(gzip.compress(damaged.read_bytes()), changes)
            damaged.unlink()
            (folder / f"{damaged.name}.gz").write_bytes(content)
        elif packed:
            source = zipped(folder, Path(temporary) / "a.zip")
            source.write_bytes(changed(source.read_bytes(), changes))
        recognises(source)
        try:
            for listed in entries(source, HERE):
                path = None if isinstance(listed.entry, AddResult) else listed.entry.path
                assert path is None or path.resolve().is_relative_to(SAMPLE.resolve())
        except BitternError as error:
            assert error.message  # noqa: PT017


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
        list(darwin_core_entries(path, HERE))
