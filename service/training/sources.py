"""Training sources: a manifest or a folder read as examples.

What is not usable is listed with its place and reason, and the rest is kept; `strict` refuses the
source as a whole instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bittern.encoders.prompts import Names
from bittern.errors import InvalidInputError, ManifestError
from bittern.service.training.examples import Example, Examples
from bittern.service.training.listing import Reading, list_media
from bittern.service.training.naming import (
    NAME_COLUMNS,
    captions_of,
    check_templates,
    group_of,
    names_of_folder,
    names_of_row,
)
from bittern.types import MAX_TEXT_CHARS, MediaItem

MAX_CAPTION_CHARS = MAX_TEXT_CHARS
"""Longest caption; as long as a text query may be."""
MAX_LABEL_CHARS = 200
MAX_LABELS = 100
"""Most labels of one item."""
DEFAULT_CAPTION_COLUMN = "caption"
DEFAULT_LABEL_COLUMN = "label"


def read_pairs(
    source: Path,
    *,
    caption_column: str | None = None,
    templates: Sequence[str] | None = None,
    strict: bool = False,
) -> Examples:
    """Media with their captions.

    The captions of a manifest's rows are, in this order of preference: the column that is
    asked for, a column ``caption`` (unless templates are given), or the templates filled with
    the names in `vernacularName`, `scientificName` and the ranks from `kingdom` to `family`. In
    a folder, the names are those of its subfolders (``Strix aluco/1.jpg``, ``tawny owl/1.jpg``).

    Args:
        source: manifest or folder, as `bittern.service.sources.read_source` takes it.
        caption_column: a manifest's column with one caption per row.
        templates: with `{common}`, `{scientific}`, `{taxonomy}`; None means the published ones
            of pictures or sounds.
        strict: whether one unusable row refuses the source.

    Returns:
        examples of one modality or both (`Examples.of`), with captions and groups.

    Raises:
        SourceNotFoundError: nothing there, or no media in it.
        ManifestError: unreadable, without captions or names (the message names the columns that
            are there), nothing usable in it, or with `strict` anything unusable.
        InvalidInputError: a malformed template, or templates with a caption column.
    """
    if templates is not None:
        check_templates(templates)
        if caption_column is not None:
            raise InvalidInputError(
                f"captions come from the column {caption_column!r} or from templates and names, "
                "not from both; leave one of them out",
                field="templates",
            )
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
            f"are {listing.told()}: name the one with the captions with --caption-column",
            field="caption_column",
        )
    return listing.examples(read, strict)


def read_labels(
    source: Path,
    *,
    label_column: str | None = None,
    separator: str = "|",
    strict: bool = False,
) -> Examples:
    """Media with their classes.

    Args:
        source: manifest, or folder with a subfolder per class.
        label_column: a manifest's column of labels; None means ``label``.
        separator: stands between the labels of an item that has several.
        strict: whether one unusable row refuses the source.

    Returns:
        examples with labels, of two classes or more; the labels together are the group.

    Raises:
        SourceNotFoundError: nothing there, or no media in it.
        ManifestError: unreadable, no such column (the message names those that are there), one
            class only, nothing usable, or with `strict` anything unusable.
        InvalidInputError: an empty separator.
    """
    if not separator:
        raise InvalidInputError("the separator of labels must not be empty", field="separator")
    listing = list_media(source)
    read: Reading
    if listing.is_folder:
        listing.refuse_column(label_column)
        read = _folder_label
    else:
        column = listing.column(label_column or DEFAULT_LABEL_COLUMN, "labels", "--label-column")
        read = _Labelled(column, separator)
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
    separator: str

    def __call__(self, item: MediaItem) -> Example:
        cell = str(item.metadata.get(self.column) or "")
        return _labelled(item, cell.split(self.separator), f"the column '{self.column}'")


def _folder_label(item: MediaItem) -> Example:
    return _labelled(item, [_folder_of(item)], "the folder's name")


def _folder_of(item: MediaItem) -> str:
    """The first folder below the source."""
    parts = PurePosixPath(item.media).parts
    if len(parts) < 2:
        raise ManifestError("it lies in no subfolder whose name would say what it is")
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
        raise ManifestError("it is no file")
    return item.path
