"""Training examples: media with captions or labels, listed from a manifest or a folder.

Nothing is decoded. Unusable entries are skipped, with position and reason; `strict` refuses the
source instead. Names come from Darwin Core columns or from folder names.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import NoReturn

from bittern.encoders.prompts import AUDIO_TEMPLATES, IMAGE_TEMPLATES, Names, captions
from bittern.errors import InvalidInputError, ManifestError, QueryError
from bittern.query import MAX_TEXT_CHARS
from bittern.service.sources import read_source
from bittern.service.sources.headings import column_names
from bittern.types import AddResult, MediaItem

MAX_CAPTION_CHARS = MAX_TEXT_CHARS
"""Longest caption; as long as a text query may be."""
MAX_LABEL_CHARS = 200
MAX_LABELS = 100
"""Most labels of one item."""
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


@dataclass(frozen=True, slots=True)
class Example:
    """One photograph or recording to train on.

    Attributes:
        id: identifier, unique among the examples.
        path: the file, not decoded yet.
        modality: ``image`` or ``audio``.
        captions: all variants of its caption; empty without captions.
        labels: its classes; empty without labels.
        group: equal for items with the same species, else name, caption or labels. A batch
            should have each group once: if two of its items share a caption, each becomes a
            wrong answer for the other.
    """

    id: str
    path: Path
    modality: str
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row or file that cannot be trained on, with the reason."""

    where: str
    reason: str


@dataclass(frozen=True)
class Examples:
    """Examples in the order of their source.

    Attributes:
        source: the manifest or folder.
        items: the examples.
        skipped: unusable entries.
    """

    source: Path
    items: tuple[Example, ...]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Example:
        return self.items[index]

    @cached_property
    def groups(self) -> Counter[str]:
        """How many items each group has."""
        return Counter(item.group for item in self.items)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """All labels, sorted."""
        return tuple(sorted({label for item in self.items for label in item.labels}))

    @cached_property
    def modalities(self) -> Counter[str]:
        """How many items each modality has."""
        return Counter(item.modality for item in self.items)

    def of(self, modality: str) -> Examples:
        """The examples of one modality, without `skipped`."""
        items = tuple(item for item in self.items if item.modality == modality)
        return replace(self, items=items, skipped=())

    def counted(self) -> str:
        """How many items each modality has, in words."""
        return ", ".join(f"{n} {m}" for m, n in sorted(self.modalities.items()))

    def digest(self) -> str:
        """Hex SHA-256 of the examples in order, without the files' contents."""
        digest = hashlib.sha256()
        for item in self.items:
            for text in (item.id, item.modality, item.group, *item.captions, "", *item.labels):
                digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
            digest.update(b"\n")
        return digest.hexdigest()


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
    listing = _Listing(source)
    if listing.is_folder:
        listing.refuse_column(caption_column)
        return listing.examples(partial(_folder_pair, templates), strict)
    column = None
    if caption_column is not None:
        column = listing.column(caption_column, "captions", "--caption-column")
    elif templates is None:
        column = listing.find("caption")
    if column is not None:
        return listing.examples(partial(_captioned_pair, column), strict)
    if set(NAME_COLUMNS) & listing.columns.keys():
        return listing.examples(partial(_named_pair, templates), strict)
    raise ManifestError(
        f"{source} has neither a column 'caption' nor one of {', '.join(NAME_COLUMNS)} to make "
        f"captions of; its columns with something in them are {listing.column_list()}: name the "
        "one with the captions with --caption-column",
        field="caption_column",
    )


def read_labels(source: Path, *, label_column: str | None = None, strict: bool = False) -> Examples:
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
    listing = _Listing(source)
    if listing.is_folder:
        listing.refuse_column(label_column)
        examples = listing.examples(_folder_label, strict)
    else:
        column = listing.column(label_column or "label", "labels", "--label-column")
        examples = listing.examples(partial(_labels_of_row, column), strict)
    if len(examples.classes) < 2:
        raise ManifestError(
            f"all {len(examples)} examples of {source} are of one class, "
            f"'{examples.classes[0]}'; learning to tell classes apart takes two or more",
            field="label_column",
        )
    return examples


# Each of these turns an item into an example; a `ManifestError` says why it cannot be one.


def _captioned_pair(column: str, item: MediaItem) -> Example:
    caption = _tidy(str(item.metadata.get(column) or ""))
    if not caption:
        raise ManifestError(f"the column '{column}' holds no caption")
    return _pair(item, (caption,), names_of_row(item.metadata))


def _named_pair(templates: Sequence[str] | None, item: MediaItem) -> Example:
    names = names_of_row(item.metadata)
    filled = captions_of(names, item.modality, templates)
    if not filled:
        raise ManifestError(f"none of {', '.join(NAME_COLUMNS)} gives a name that a caption needs")
    return _pair(item, filled, names)


def _folder_pair(templates: Sequence[str] | None, item: MediaItem) -> Example:
    names = names_of_folder(_folder_of(item))
    filled = captions_of(names, item.modality, templates)
    if not filled and not names.scientific:  # the folder's name may be of either kind
        filled = captions_of(Names(scientific=names.common), item.modality, templates)
    if not filled:
        raise ManifestError(f"the folder's name, '{_folder_of(item)}', fills no template")
    return _pair(item, filled, names)


def _labels_of_row(column: str, item: MediaItem) -> Example:
    cell = str(item.metadata.get(column) or "")
    return _labelled(item, cell.split("|"), f"the column '{column}'")


def _folder_label(item: MediaItem) -> Example:
    return _labelled(item, [_folder_of(item)], "the folder's name")


def _folder_of(item: MediaItem) -> str:
    """The first folder below the source."""
    first, *below = PurePosixPath(item.media).parts
    if not below:
        raise ManifestError("it is in no subfolder, whose name would be its class")
    return first


def _pair(item: MediaItem, filled: tuple[str, ...], names: Names) -> Example:
    longest = max(len(caption) for caption in filled)
    if longest > MAX_CAPTION_CHARS:
        raise ManifestError(f"a caption of {longest} characters; the limit is {MAX_CAPTION_CHARS}")
    group = _tidy(names.scientific or names.common or filled[0]).casefold()
    return Example(item.occurrence_id, _path(item), item.modality, filled, group=group)


def _labelled(item: MediaItem, given: Sequence[str], where: str) -> Example:
    labels = tuple(sorted({tidy for label in given if (tidy := _tidy(label))}))
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


class _Listing:
    """The media of a source, and its metadata columns.

    Attributes:
        is_folder: whether the source is a folder, not a manifest.
        columns: names of the metadata columns that are not empty, in order.
    """

    def __init__(self, path: Path) -> None:
        """List a source.

        Raises:
            SourceNotFoundError: no such source, or no media in it.
            ManifestError: unreadable, or no row has existing media.
        """
        try:
            source = read_source(path)
        except OSError as error:
            raise ManifestError(f"{path} cannot be read: {error}", field="source") from error
        self._path = source.path
        self._entries = [(where or e.occurrence_id, e) for e, where in source.listed]
        self.is_folder = source.path.is_dir()
        self.columns: dict[str, None] = {}
        for _, entry in self._entries:
            if isinstance(entry, MediaItem):
                self.columns.update(dict.fromkeys(entry.metadata))
        failed = [_failed(w, e) for w, e in self._entries if isinstance(e, AddResult)]
        if len(failed) == len(self._entries):
            self._refuse(0, failed)

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
                f"{self._path} has no column '{name}' with {holds}; its columns with something in "
                f"them are {self.column_list()}: name one of them with {option}",
                field=option.strip("-").replace("-", "_"),
            )
        return found

    def refuse_column(self, column: str | None) -> None:
        """Refuse a named column for a folder, which has none."""
        if column is not None:
            raise InvalidInputError(
                f"{self._path} is a folder and has no column '{column}'; its subfolders' names "
                "are used, or give a manifest",
                field="source",
            )

    def examples(self, read: Callable[[MediaItem], Example], strict: bool) -> Examples:
        """All entries as examples, or skipped with their reason."""
        items: list[Example] = []
        skipped: list[Skipped] = []
        first: dict[str, str] = {}
        for where, entry in self._entries:
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
        return Examples(self._path, tuple(items), tuple(skipped))

    def _refuse(self, usable: int, skipped: Sequence[Skipped]) -> NoReturn:
        shown = "; ".join(f"{s.where}: {s.reason}" for s in skipped[:_SHOWN])
        more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        raise ManifestError(
            f"{self._path}: {len(skipped)} of {usable + len(skipped)} entries cannot be trained "
            f"on: {shown}{more}",
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
    if ranked := _RANKED.fullmatch(folder):
        ranks = ranked[1].split("_")
        return Names(scientific=" ".join(ranks[-2:]), taxonomy=" ".join(ranks))
    if both := _LATIN_AND_COMMON.fullmatch(folder):
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


def _filled(names: Names, templates: Sequence[str]) -> list[str]:
    try:
        return captions(names, templates)
    except QueryError:  # none of the templates has its names
        return []


def _tidy(text: str) -> str:
    return " ".join(text.split())
