"""Darwin Core Archives for tests: the one of the fixtures, and small ones written on the spot."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bittern.service.sources import Source
from bittern.types import AddResult, MediaItem

SAMPLE = Path(__file__).parents[2] / "bittern" / "sample"
FIXTURES = Path(__file__).parent / "fixtures"
DWC = "http://rs.tdwg.org/dwc/terms/"
DC = "http://purl.org/dc/terms/"
OCCURRENCE = f"{DWC}Occurrence"
EVENT = f"{DWC}Event"
MULTIMEDIA = "http://rs.gbif.org/terms/1.0/Multimedia"
AUDUBON = "http://rs.tdwg.org/ac/terms/Multimedia"
PLAIN = 'encoding="UTF-8" fieldsTerminatedBy="\\t" linesTerminatedBy="\\n" fieldsEnclosedBy=""'


def items(source: Source) -> dict[str, MediaItem]:
    """The media of a source by their ids."""
    return {e.occurrence_id: e for e in source if isinstance(e, MediaItem)}


def failures(source: Source) -> list[AddResult]:
    """The entries of a source that cannot be coded."""
    return [e for e in source if isinstance(e, AddResult)]


def copied(path: str, to: Path) -> Path:
    """A copy of a file or folder of the fixtures."""
    source = FIXTURES / path
    if source.is_dir():
        return Path(shutil.copytree(source, to))
    return Path(shutil.copyfile(source, to))


def zipped(folder: Path, to: Path, below: str = "") -> Path:
    """A zip of the files in a folder."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, below + path.name)
    return to


def table(
    tag: str,
    row_type: str,
    file: str,
    terms: Sequence[str],
    *,
    rules: str = PLAIN,
    header_lines: int = 1,
    key: int | None = 0,
) -> str:
    """A table of a meta.xml; short terms are those of Darwin Core."""
    named = [term if "://" in term else DWC + term for term in terms]
    fields = "".join(f'<field index="{i}" term="{t}"/>' for i, t in enumerate(named) if t)
    joined = "" if key is None else f'<{"id" if tag == "core" else "coreid"} index="{key}"/>'
    return (
        f'<{tag} {rules} ignoreHeaderLines="{header_lines}" rowType="{row_type}">'
        f"<files><location>{file}</location></files>{joined}{fields}</{tag}>"
    )


def archive(
    folder: Path, tables: Sequence[str], files: Mapping[str, Sequence[Sequence[str]] | bytes]
) -> Path:
    """A folder with a meta.xml of the tables, and files of rows or of bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    meta = f'<archive xmlns="http://rs.tdwg.org/dwc/text/">{"".join(tables)}</archive>'
    (folder / "meta.xml").write_text(meta, encoding="utf-8")
    for name, rows in files.items():
        if isinstance(rows, bytes):
            (folder / name).write_bytes(rows)
        else:
            text = "".join("\t".join(row) + "\n" for row in rows)
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def picture_archive(folder: Path, rows: Sequence[Sequence[str]], **files: bytes) -> Path:
    """An archive of one occurrence, ``1``, with the rows (coreid, identifier) of media."""
    return archive(
        folder,
        [
            table("core", OCCURRENCE, "occurrence.txt", ["occurrenceID", "scientificName"]),
            table("extension", MULTIMEDIA, "media.txt", ["", f"{DC}identifier"]),
        ],
        {
            "occurrence.txt": [("occurrenceID", "scientificName"), ("1", "Bos taurus")],
            "media.txt": [("coreid", "identifier"), *rows],
            **files,
        },
    )
