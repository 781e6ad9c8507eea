"""The tables of a Darwin Core Archive, as its meta.xml describes them.

Darwin Core text guide: https://dwc.tdwg.org/text/. The XML is not trusted: it must be small, have
no document type (so no entities to expand), and name only files inside the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from xml.etree import ElementTree

from bittern.errors import ManifestError
from bittern.service.sources.headings import kept_names
from bittern.service.sources.packed import check_inside
from bittern.service.sources.tables import Dialect

META = "meta.xml"
MAX_META_BYTES = 4 << 20
_SEPARATORS = {r"\t": "\t", r"\n": "\n", r"\r": "\r", r"\\": "\\"}
_MAX_COLUMN = 10_000
OCCURRENCE = frozenset({"occurrence", "simpledarwinrecord"})
EVENT = frozenset({"event"})
MEDIA = frozenset({"multimedia", "image"})


@dataclass(frozen=True)
class MetaTable:
    """One file of the archive, or several that continue each other.

    Attributes:
        kind: last segment of the row type in lower case: ``occurrence``, ``multimedia``.
        files: paths inside the archive.
        dialect: how its cells and rows are separated.
        header_lines: rows before the data.
        key: column that joins the tables; None if there is none.
        columns: by name a column, or a constant value.
        defaults: by name the value for empty cells.
    """

    kind: str
    files: tuple[str, ...]
    dialect: Dialect
    header_lines: int
    key: int | None
    columns: dict[str, int | str]
    defaults: dict[str, str]

    @cached_property
    def width(self) -> int:
        """Fewest cells of a row."""
        last = max((index for _, index in self._indexed), default=-1)
        return max(last, -1 if self.key is None else self.key) + 1

    @cached_property
    def _indexed(self) -> list[tuple[str, int]]:
        return [(name, index) for name, index in self.columns.items() if isinstance(index, int)]

    @cached_property
    def _usual(self) -> dict[str, str]:
        """The values of rows with empty cells."""
        constant = {name: text for name, text in self.columns.items() if isinstance(text, str)}
        return {name: text for name, text in {**constant, **self.defaults}.items() if text}

    def named(self, cells: list[str]) -> dict[str, str]:
        """Values of one row under their names; empty ones are left out."""
        row = dict(self._usual)
        for name, index in self._indexed:
            if cells[index] and (value := cells[index].strip()):
                row[name] = value
        return row


@dataclass(frozen=True)
class Meta:
    """The tables of an archive: its core and its extensions."""

    core: MetaTable
    extensions: tuple[MetaTable, ...]


def read_meta(content: bytes) -> Meta:
    """The tables that a meta.xml describes.

    Raises:
        ManifestError: an unreadable meta.xml.
    """
    try:
        text = content.decode("utf-8-sig")
        if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
            raise ManifestError(
                "meta.xml declares a document type or entities, which are not allowed; remove them",
                field="source",
            )
        root = ElementTree.fromstring(text)  # noqa: S314  # no document type, no entities
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError) as error:
        raise ManifestError(f"meta.xml is not XML in UTF-8: {error}", field="source") from error
    tables = {"core": [], "extension": []}  # type: dict[str, list[MetaTable]]
    for element in root:
        if _bare(element.tag) in tables:
            tables[_bare(element.tag)].append(_table(element))
    if len(tables["core"]) != 1:
        raise ManifestError(
            f"meta.xml describes {len(tables['core'])} core tables; an archive has one",
            field="source",
        )
    return Meta(tables["core"][0], tuple(tables["extension"]))


def _table(element: ElementTree.Element) -> MetaTable:
    terms: list[tuple[str, int | str, str]] = []
    for child in _children(element, "field"):
        term, default = child.get("term", ""), child.get("default", "")
        index = _whole(child, "index")
        terms.append((term, default if index is None else index, default))
    names = kept_names([term for term, _, _ in terms])
    keys = [_whole(c, "index") for tag in ("id", "coreid") for c in _children(element, tag)]
    return MetaTable(
        kind=element.get("rowType", "SimpleDarwinRecord").strip().rpartition("/")[2].lower(),
        files=tuple(check_inside(location, META) for location in _locations(element)),
        dialect=_dialect(element),
        header_lines=_whole(element, "ignoreHeaderLines") or 0,
        key=next((key for key in keys if key is not None), None),
        columns={name: index for name, (_, index, _) in zip(names, terms, strict=True)},
        defaults={n: d for n, (_, p, d) in zip(names, terms, strict=True) if d and p != d},
    )


def _dialect(element: ElementTree.Element) -> Dialect:
    return Dialect(
        separator=_unescaped(element.get("fieldsTerminatedBy", ",")),
        quote=_unescaped(element.get("fieldsEnclosedBy", '"')),
        line_end=_unescaped(element.get("linesTerminatedBy", r"\n")),
        encoding=element.get("encoding", "").strip() or "UTF-8",
    )


def _unescaped(text: str) -> str:
    for escape, character in _SEPARATORS.items():
        text = text.replace(escape, character)
    return text


def _locations(element: ElementTree.Element) -> Iterator[str]:
    found = False
    for files in _children(element, "files"):
        for location in _children(files, "location"):
            found = True
            yield (location.text or "").strip()
    if not found:
        raise ManifestError("meta.xml describes a table without a file", field="source")


def _children(element: ElementTree.Element, tag: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if _bare(child.tag) == tag)


def _bare(tag: object) -> str:
    """A tag without its namespace; comments have none."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _whole(element: ElementTree.Element, attribute: str) -> int | None:
    text = element.get(attribute, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= _MAX_COLUMN):
        raise ManifestError(
            f"meta.xml has {attribute}={text[:40]!r}, which is not a number from 0 to "
            f"{_MAX_COLUMN}",
            field="source",
        )
    return int(text)
