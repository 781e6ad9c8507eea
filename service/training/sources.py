"""Reads a manifest or a folder as training examples.

Unusable entries are skipped, with position and reason; `strict` refuses the source instead. Names
come from Darwin Core columns or from folder names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from bittern.encoders.prompts import AUDIO_TEMPLATES, IMAGE_TEMPLATES, Names, captions
from bittern.errors import InvalidInputError, ManifestError, QueryError
from bittern.query import MAX_TEXT_CHARS
from bittern.service.sources import Source, read_source
from bittern.service.sources.headings import column_names
from bittern.service.training.examples import Example, Examples, Skipped
from bittern.types import AddResult, MediaItem

MAX_CAPTION_CHARS = MAX_TEXT_CHARS
"""Longest caption; as long as a text query may be."""
MAX_LABEL_CHARS = 200
MAX_LABELS = 100
"""Most labels of one item."""
DEFAULT_CAPTION_COLUMN = "caption"
DEFAULT_LABEL_COLUMN = "label"
LABEL_SEPARATOR = "|"
NAME_COLUMNS = ("vernacularName", "scientificName", "species")
"""Columns that name a taxon."""
_HIGHER_RANKS = ("kingdom", "phylum", "class", "order", "family")
_TEMPLATES: Mapping[str, Sequence[str]] = {"image": IMAGE_TEMPLATES, "audio": AUDIO_TEMPLATES}
_KINGDOMS = "Animalia|Plantae|Fungi|Chromista|Protozoa|Bacteria|Archaea|Viruses"
_RANKED = re.compile(rf"(?:\d+_)?((?:{_KINGDOMS})(?:_[^_]+){{6}})")
"""``00017_Animalia_Chordata_Aves_Strigiformes_Strigidae_Strix_aluco``, as iNaturalist's sets."""
_LATIN_AND_COMMON = re.compile(r"([A-Z][a-z-]+(?: [a-z-]+)+)_([^_]+)")
"""``Strix aluco_Tawny Owl``, as BirdNET's training folders."""
_SHOWN = 3
Reading = Callable[[MediaItem], Example]
"""Turns an item into an example; a `ManifestError` says why it cannot be one."""


def read_pairs(
    source: Path,
    *,
    caption_column: str | None = None,
    templates: Sequence[str] | None = None,
    strict: bool = False,
) -> Examples:
    """Media with their captions.

    The captions of a manifest come from the named column, else from a column ``caption`` (unless
    templates are given), else from the templates, filled with `vernacularName`, `scientificName`
    and the ranks from `kingdom` to `family`. In a folder, the names are those of its subfolders
    (``Strix aluco/1.jpg``, ``tawny owl/1.jpg``).

    Args:
        source: manifest or folder, as `bittern.service.sources.read_source` takes it.
        caption_column: a manifest's column with one caption per row.
        templates: with `{common}`, `{scientific}`, `{taxonomy}`; None for the published ones.
        strict: whether one unusable row refuses the source.

    Returns:
        Examples of one modality or both, with captions and groups.

    Raises:
        SourceNotFoundError: no such source, or no media in it.
        ManifestError: unreadable, without captions or names (the message names the existing
            columns), nothing usable, or with `strict` anything unusable.
    """
    listing = list_media(source)
    read: Reading
    if listing.is_folder:
        listing.refuse_column(caption_column)
        read = _FolderPair(templates)
    elif caption_column is not None:
        read = _CaptionedPair(listing.column(caption_column, "captions", "--caption-column"))
    elif templates is None and (captions := listing.find(DEFAULT_CAPTION_COLUMN)):
        read = _CaptionedPair(captions)
    elif set(NAME_COLUMNS) & listing.columns.keys():
        read = _NamedPair(templates)
    else:
        raise ManifestError(
            f"{source} has neither a column '{DEFAULT_CAPTION_COLUMN}' nor one of "
            f"{', '.join(NAME_COLUMNS)} to make captions of; its columns with something in them "
            f"are {listing.column_list()}: name the one with the captions with --caption-column",
            field="caption_column",
        )
    return listing.examples(read, strict)


def read_labels(
    source: Path,
    *,
    label_column: str | None = None,
    strict: bool = False,
) -> Examples:
    """Media with their classes.

    Args:
        source: manifest, or folder with a subfolder per class.
        label_column: a manifest's column of labels, separated by ``|``; None for ``label``.
        strict: whether one unusable row refuses the source.

    Returns:
        Examples with labels, of two classes or more; the group is all labels together.

    Raises:
        SourceNotFoundError: no such source, or no media in it.
        ManifestError: unreadable, no such column (the message names the existing ones), one class
            only, nothing usable, or with `strict` anything unusable.
    """
    listing = list_media(source)
    read: Reading
    if listing.is_folder:
        listing.refuse_column(label_column)
        read = _folder_label
    else:
        column = listing.column(label_column or DEFAULT_LABEL_COLUMN, "labels", "--label-column")
        read = _Labelled(column)
    examples = listing.examples(read, strict)
    if len(examples.classes) < 2:
        raise ManifestError(
            f"all {len(examples)} examples of {source} are of one class, "
            f"'{examples.classes[0]}'; learning to tell classes apart takes two or more",
            field="label_column",
        )
    return examples


@dataclass(frozen=True)
class _CaptionedPair:
    column: str

    def __call__(self, item: MediaItem) -> Example:
        caption = " ".join(str(item.metadata.get(self.column) or "").split())
        if not caption:
            raise ManifestError(f"the column '{self.column}' holds no caption")
        return _pair(item, (caption,), group_of(names_of_row(item.metadata), caption))


@dataclass(frozen=True)
class _NamedPair:
    templates: Sequence[str] | None

    def __call__(self, item: MediaItem) -> Example:
        names = names_of_row(item.metadata)
        filled = captions_of(names, item.modality, self.templates)
        if not filled:
            raise ManifestError(
                f"none of {', '.join(NAME_COLUMNS)} gives a name that a caption needs"
            )
        return _pair(item, filled, group_of(names, filled[0]))


@dataclass(frozen=True)
class _FolderPair:
    templates: Sequence[str] | None

    def __call__(self, item: MediaItem) -> Example:
        names = names_of_folder(_folder_of(item))
        filled = captions_of(names, item.modality, self.templates)
        if not filled and not names.scientific:  # the folder's name may be of either kind
            filled = captions_of(Names(scientific=names.common), item.modality, self.templates)
        if not filled:
            raise ManifestError(f"the folder's name, '{_folder_of(item)}', fills no template")
        return _pair(item, filled, group_of(names, filled[0]))


@dataclass(frozen=True)
class _Labelled:
    column: str

    def __call__(self, item: MediaItem) -> Example:
        cell = str(item.metadata.get(self.column) or "")
        return _labelled(item, cell.split(LABEL_SEPARATOR), f"the column '{self.column}'")


def _folder_label(item: MediaItem) -> Example:
    return _labelled(item, [_folder_of(item)], "the folder's name")


def _folder_of(item: MediaItem) -> str:
    """The first folder below the source."""
    parts = PurePosixPath(item.media).parts
    if len(parts) < 2:
        raise ManifestError("it is in no subfolder, whose name would be its class")
    return parts[0]


def _pair(item: MediaItem, captions: tuple[str, ...], group: str) -> Example:
    longest = max(len(caption) for caption in captions)
    if longest > MAX_CAPTION_CHARS:
        raise ManifestError(f"a caption of {longest} characters; the limit is {MAX_CAPTION_CHARS}")
    return Example(item.occurrence_id, _path(item), item.modality, captions, group=group)


def _labelled(item: MediaItem, given: Sequence[str], where: str) -> Example:
    labels = tuple(sorted({tidy for label in given if (tidy := " ".join(label.split()))}))
    if not labels:
        raise ManifestError(f"{where} holds no label")
    if len(labels) > MAX_LABELS:
        raise ManifestError(f"{len(labels)} labels; the limit is {MAX_LABELS}")
    if len(max(labels, key=len)) > MAX_LABEL_CHARS:
        raise ManifestError(f"a label of more than {MAX_LABEL_CHARS} characters")
    path = _path(item)
    return Example(item.occurrence_id, path, item.modality, labels=labels, group="|".join(labels))


def _path(item: MediaItem) -> Path:
    if item.path is None:
        raise ManifestError("it is not a file")
    return item.path


def list_media(source: Path) -> Listing:
    """List a source; nothing is decoded.

    Raises:
        SourceNotFoundError: no such source, or no media in it.
        ManifestError: unreadable, or no row has existing media.
    """
    try:
        listed = read_source(source)
    except OSError as error:
        raise ManifestError(f"{source} cannot be read: {error}", field="source") from error
    listing = Listing(listed)
    listing.refuse_if_empty()
    return listing


class Listing:
    """The media of a source, and its metadata columns.

    Attributes:
        is_folder: whether the source is a folder, not a manifest.
        columns: names of the metadata columns that are not empty, in order.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.is_folder = source.path.is_dir()
        self.columns: dict[str, None] = {}
        for entry in source:
            if isinstance(entry, MediaItem):
                self.columns.update(dict.fromkeys(entry.metadata))

    def column_list(self) -> str:
        """The columns, for a message."""
        named = [column for column in self.columns if column != "type"]
        return ", ".join(named[:20]) + (", ..." if len(named) > 20 else "") if named else "none"

    def find(self, name: str) -> str | None:
        """The metadata name of a manifest's column; None if it is missing or empty."""
        standard = column_names([name], {})[0]
        by_lower = {column.lower(): column for column in self.columns}
        return by_lower.get(name.strip().lower()) or by_lower.get(standard.lower())

    def column(self, name: str, holds: str, option: str) -> str:
        """The metadata name of a manifest's column; refused if it is missing or empty."""
        found = self.find(name)
        if found is None:
            raise ManifestError(
                f"{self._source.path} has no column '{name}' with {holds}; its columns with "
                f"something in them are {self.column_list()}: name one of them with {option}",
                field=option.strip("-").replace("-", "_"),
            )
        return found

    def refuse_column(self, column: str | None) -> None:
        """Refuse a named column for a folder, which has none."""
        if column is not None:
            raise InvalidInputError(
                f"{self._source.path} is a folder and has no column '{column}'; its subfolders' "
                "names are used, or give a manifest",
                field="source",
            )

    def refuse_if_empty(self) -> None:
        """Refuse a source if all its entries have failed."""
        failed = [_failed(w, e) for w, e in self._entries() if isinstance(e, AddResult)]
        if len(failed) == len(self._source.listed):
            self._refuse(0, failed)

    def examples(self, read: Reading, strict: bool) -> Examples:
        """All entries as examples, or skipped with their reason."""
        items: list[Example] = []
        skipped: list[Skipped] = []
        first: dict[str, str] = {}
        for where, entry in self._entries():
            if isinstance(entry, AddResult):
                skipped.append(_failed(where, entry))
                continue
            try:
                example = read(entry)
                before = first.setdefault(str(example.path.resolve()), where)
                if before != where:
                    raise ManifestError(f"the same file is in {before} already")
                items.append(example)
            except ManifestError as error:
                skipped.append(Skipped(where, f"'{entry.media[:200]}': {error.message}"))
        if not items or (strict and skipped):
            self._refuse(len(items), skipped)
        return Examples(self._source.path, tuple(items), tuple(skipped))

    def _entries(self) -> Iterator[tuple[str, MediaItem | AddResult]]:
        """Position of each entry, and the entry."""
        for entry, where in self._source.listed:
            yield where or entry.occurrence_id, entry

    def _refuse(self, usable: int, skipped: Sequence[Skipped]) -> NoReturn:
        shown = "; ".join(f"{s.where}: {s.reason}" for s in skipped[:_SHOWN])
        more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        raise ManifestError(
            f"{self._source.path}: {len(skipped)} of {usable + len(skipped)} entries cannot be "
            f"trained on: {shown}{more}",
            field="source",
            details={"skipped": str(len(skipped)), "usable": str(usable)},
        )


def _failed(where: str, entry: AddResult) -> Skipped:
    return Skipped(where, entry.message.removeprefix(f"{where}: "))


def names_of_row(metadata: Mapping[str, object]) -> Names:
    """The names in a row's Darwin Core columns; empty where it has none.

    The scientific name is `scientificName` without its author, or else `species`. The taxonomy is
    the ranks from the kingdom down, followed by that name; empty without any rank.
    """
    cells = {column: _tidy(str(value)) for column, value in metadata.items() if value is not None}
    scientific = cells.get("scientificName", "")
    author = cells.get("scientificNameAuthorship", "")
    if author and scientific.endswith(author):
        scientific = scientific.removesuffix(author).strip()
    scientific = scientific or cells.get("species", "")
    ranks = [cells[rank] for rank in _HIGHER_RANKS if cells.get(rank)]
    return Names(
        common=cells.get("vernacularName", ""),
        scientific=scientific,
        taxonomy=" ".join([*ranks, scientific or cells.get("genus", "")]).strip() if ranks else "",
    )


def names_of_folder(folder: str) -> Names:
    """The names in a folder's name.

    iNaturalist's ranks joined by underscores and BirdNET's ``Scientific name_Common name`` are
    split. Any other name counts as the common name; its underscores are spaces.
    """
    ranked = _RANKED.fullmatch(folder)
    if ranked:
        ranks = ranked[1].split("_")
        return Names(scientific=" ".join(ranks[-2:]), taxonomy=" ".join(ranks))
    both = _LATIN_AND_COMMON.fullmatch(folder)
    if both:
        return Names(scientific=_tidy(both[1]), common=_tidy(both[2]))
    return Names(common=_tidy(folder.replace("_", " ")))


def captions_of(names: Names, modality: str, templates: Sequence[str] | None) -> tuple[str, ...]:
    """All captions that the names fill.

    Without a common name, the scientific one also replaces it: ``a photo of Strix aluco``.

    Args:
        names: of one item.
        modality: ``image`` or ``audio``.
        templates: None for the published ones of the modality.

    Returns:
        One caption or more; empty if there are no names for any template.

    Raises:
        InvalidInputError: a template is malformed.
    """
    chosen = _TEMPLATES[modality] if templates is None else templates
    found = _filled(names, chosen)
    if not names.common and names.scientific:
        found += _filled(Names(common=names.scientific), chosen)
    return tuple(dict.fromkeys(found))


def group_of(names: Names, caption: str) -> str:
    """The group of an item: its scientific name, else the common one, else `caption`."""
    return _tidy(names.scientific or names.common or caption).casefold()


def _filled(names: Names, templates: Sequence[str]) -> list[str]:
    try:
        return captions(names, templates)
    except QueryError:  # none of the templates has its names
        return []


def _tidy(text: str) -> str:
    return " ".join(text.split())
