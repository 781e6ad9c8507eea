"""GBIF's simple download, which names no media: told from others so that its reader can say so."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from bittern.errors import ManifestError

_HEADER_BYTES = 64 << 10
_BEGINS = b"gbifID\tdatasetKey\t"


def is_simple_download(path: Path) -> bool:
    """Whether a path is a GBIF simple download, in its zip or out of it."""
    return _first_bytes(path).removeprefix(b"\xef\xbb\xbf").startswith(_BEGINS)


def refuse_simple_download(path: Path) -> None:
    """Raise a `ManifestError` with the remedy if the path is a GBIF simple download."""
    if is_simple_download(path):
        raise ManifestError(
            f"{path} is a GBIF download in the simple format, which names no media; ask GBIF for "
            "the same occurrences as a Darwin Core Archive",
            field="source",
        )


def _first_bytes(path: Path) -> bytes:
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".txt", ".tsv") and path.is_file():
            with path.open("rb") as file:
                return file.read(_HEADER_BYTES)
        if suffix == ".zip" and path.is_file():
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if len(names) == 1 and names[0].lower().endswith((".csv", ".txt")):
                    with archive.open(names[0]) as member:
                        return member.read(_HEADER_BYTES)
    except (
        OSError,
        ValueError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        pass
    return b""
