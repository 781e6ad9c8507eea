"""A folder of media, local or remote, and the species' names in the names of folders.

**Names.** A wrong name does more harm than none, because it is searched, exported and published. A
folder called ``Summer holidays``, ``Canon eos`` or ``New folder`` has the shape of a species' name:
a capitalised word and one in lower case. So sibling folders are judged together. They give names if

- all of them have the shape (``Strix aluco``, ``Strix_aluco``, a subspecies' third word, or
  ``Corvus sp.``), except bins such as ``unknown`` or ``blank``, which get no name;
- none of them contains a word of `_NO_NAMES`, the usual words for folders;
- and the parent folder is named like a family (``Strigidae``, ``Rosaceae``), or at least a third of
  them are Latin by their second word: it repeats the first (``Bubo bubo``), has a typical ending
  (``-us``, ``-ensis``, ``-ii``, ...), or is one of `_EPITHETS`. ``Costa rica`` beside ``Sierra
  nevada`` fails this test; so does a single folder ``Strix aluco``.

The long names of iNaturalist's data sets, ``00001_Animalia_Chordata_Aves_Strigiformes_Strigidae_
Strix_aluco``, begin with a number and a kingdom, and are recognised one by one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from bittern.errors import BitternError, ManifestError, SourceNotFoundError
from bittern.service.sources.base import (
    Listed,
    SourceOptions,
    failed,
    id_of_name,
    modality_of_suffix,
)
from bittern.service.sources.globs import matcher
from bittern.service.sources.remote import system_of, with_retries
from bittern.types import AddResult, AddStatus, MediaItem

MAX_DEPTH = 100
"""Deepest nesting of folders."""
_SPECIES = re.compile(r"([A-Z][a-z]{2,}(?:-[a-z]+)?)[ _]([a-z]{2,}(?:-[a-z]{2,})*)")
_SUBSPECIES = re.compile(_SPECIES.pattern + r"[ _]([a-z]{3,}(?:-[a-z]{2,})*)")
_GENUS = re.compile(r"([A-Z][a-z]{2,})[ _](?:sp|spp)\.?")
_LATIN = re.compile(
    r".{2,}(?:us|um|ensis|iensis|ii|ae|oides|ans|ens|aris|alis|ilis|icus|ix|ax|ops|is)"
)
_EPITHETS = frozenset(
    """
    alpestris aquatica arctica arvense atricapilla atricilla caerulea cinerea citrinella coelebs
    concolor corax corone cristata domestica europaea graeca japonica maculata major merula minor
    nigra noctua palustre pratense rubecula rustica scrofa sylvatica sylvestre torquata tridactyla
    urogallus vespertina virginiana viscivora vulpina
    """.split()  # noqa: SIM905
)
_FAMILY = re.compile(r"[A-Z][a-z]{3,}(?:idae|aceae)")
_BINS = frozenset(
    {"unknown", "unidentified", "unsorted", "blank", "empty", "background", "other", "others"}
    | {"noise", "none", "human", "vehicle", "misc", "uncertain"}
)
_NO_NAMES = frozenset(
    """
    album albums archive audio august autumn backup best birds bonus camera cameras campus canon
    card centre club compact copy copies day days december dcim disk drive export family favorites
    fichiers field file files film first folder folders foto fotos friends garden gopro group
    holiday holidays home house image images img import june july last location lodge march media
    memory month my new nikon november october old olympus original originals other panasonic
    paris park phone photo photographs photography photos pics picture pictures plot plots project
    raw record recorder recording recordings reserve roll sample samples season selected selection
    september series session set sets shots site sites sony sound sounds spring station stations
    study summer survey tennis test the this trail transect transects trap traps travel trip
    unnamed untitled vacation various version video videos virus visit week weeks winter work year
    circus museum campus versus consensus focus minus plus trans locus nexus
    """.split()  # noqa: SIM905
)
_KINGDOMS = frozenset(
    {"Animalia", "Plantae", "Fungi", "Chromista", "Protozoa", "Bacteria", "Archaea", "Viruses"}
)
_RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")

Names = Mapping[str, str]
"""Darwin Core terms of one folder's species."""


class _Directory(NamedTuple):
    """The content of one folder.

    Attributes:
        folders: names.
        files: names.
        links: names of links to folders; these are not followed.
    """

    folders: list[str]
    files: list[str]
    links: list[str]


class _Found(NamedTuple):
    """One media file: its path below the source, and the species from folders' names."""

    media: str
    modality: str
    names: Names


def folder_entries(folder: Path, options: SourceOptions) -> Iterator[Listed]:
    """The media below a folder: of each folder first the files, then its sub-folders.

    Names are sorted; hidden ones are left out. Memory is bounded by the names in one folder and its
    parents. Links to files are media; links to folders are listed as skipped. Species in folders'
    names become metadata.
    """
    root = str(folder.resolve())

    def item(found: _Found) -> MediaItem:
        path = folder / found.media
        name = id_of_name(found.media)
        return MediaItem(name, found.media, found.modality, path, None, root, found.names)

    look = partial(_directory, folder)
    return _entries(_walk(look, folder.resolve().name, options), item)


def remote_folder_entries(address: str, options: SourceOptions) -> Iterator[Listed]:
    """As `folder_entries`, for a folder at an address that the operator gave."""
    address = address.rstrip("/")
    system, root = system_of(address)
    is_http = address.lower().startswith(("http://", "https://"))

    def item(found: _Found) -> MediaItem:
        media = unquote(found.media) if is_http else found.media
        return MediaItem(
            occurrence_id=id_of_name(media),
            media=media,
            modality=found.modality,
            media_root=address,
            metadata=found.names,
            url=f"{address}/{found.media}",
        )

    base = root.rstrip("/")
    look = partial(_remote_directory, system, base, address)
    return _entries(_walk(look, Path(base).name, options), item)


def _entries(
    walk: Iterator[_Found | Listed], item: Callable[[_Found], MediaItem]
) -> Iterator[Listed]:
    for found in walk:
        yield found if isinstance(found, Listed) else Listed(item(found), found.media)


def _walk(
    look: Callable[[str], _Directory], name: str, options: SourceOptions
) -> Iterator[_Found | Listed]:
    """The media below a folder, local or remote.

    Args:
        look: lists the folder at a path below the source; "" is the source itself. Raises a
            `BitternError` on failure.
        name: the source's own name.
        options: `include` and `exclude` are globs over paths, see `globs`.

    Yields:
        media; and as entries, folders that could not be read.

    Raises:
        BitternError: the source itself cannot be read.
    """
    include, exclude = matcher(options.include, "include"), matcher(options.exclude, "exclude")
    waiting: list[tuple[str, Names | None]] = [("", None)]
    while waiting:
        below, names = waiting.pop()
        try:
            here = look(below)
        except BitternError as error:
            if not below:
                raise
            yield failed(below, "", error)
            continue
        prefix = f"{below}/" if below else ""
        for file in sorted(here.files):
            media = prefix + file
            modality = None if file.startswith(".") else modality_of_suffix(file)
            if modality is None or (include and not include(media)):
                continue
            if not (exclude and exclude(media)):
                yield _Found(media, modality, names or {}) if _is_text(file) else _unwritable(media)
        folders = _kept(here.folders, prefix, exclude)
        for link in _kept(here.links, prefix, exclude):
            yield _skipped(prefix + link)
        if folders and prefix.count("/") >= MAX_DEPTH:
            yield failed(below, "", ManifestError(f"folders are nested more than {MAX_DEPTH} deep"))
            continue
        own = names_of_siblings(folders, below.rpartition("/")[2] or name) if not names else {}
        waiting += [(prefix + each, names or own.get(each)) for each in reversed(folders)]


def _kept(names: list[str], prefix: str, exclude: Callable[[str], bool] | None) -> list[str]:
    visible = sorted(each for each in names if not each.startswith("."))
    return [each for each in visible if not (exclude and exclude(prefix + each))]


def _directory(folder: Path, below: str) -> _Directory:
    path = folder / below
    here = _Directory([], [], [])
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.is_dir():
                    here.files.append(entry.name)
                elif entry.is_symlink():
                    here.links.append(entry.name)
                else:
                    here.folders.append(entry.name)
    except OSError as error:
        raise SourceNotFoundError(
            f"the folder '{path}' cannot be read: {error.strerror}", field="source"
        ) from error
    return here


def _remote_directory(system: Any, root: str, address: str, below: str) -> _Directory:
    """The content of a folder; links on a web page that leave the folder are skipped."""
    path = f"{root}/{below}" if below else root
    prefix = f"{path}/"
    rows = with_retries(lambda: system.ls(prefix, detail=True), f"{address}/{below}".rstrip("/"))
    with contextlib.suppress(Exception):  # a cache of listings would grow without limit
        system.invalidate_cache(path)
    here = _Directory([], [], [])
    for row in rows:
        name = str(row["name"])
        is_folder = row.get("type") == "directory" or name.endswith("/")
        name = name.rstrip("/")
        if not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        if name and "/" not in name and name not in (".", "..") and not set(name) & set("?#"):
            (here.folders if is_folder else here.files).append(name)
    if not below and not rows:
        raise SourceNotFoundError(f"there is nothing at {address}", field="source")
    return _Directory(sorted(set(here.folders)), sorted(set(here.files)), [])


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unwritable(media: str) -> Listed:
    shown = media.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    error = ManifestError(f"the name of '{shown}' is not UTF-8; rename the file")
    return failed(shown, "", error)


def _skipped(link: str) -> Listed:
    message = (
        f"'{link}' is a link to a folder; these are not followed. Index the linked folder by itself"
    )
    return Listed(AddResult(link, AddStatus.SKIPPED, 0, "LINKED_FOLDER", message), link)


def names_of_siblings(folders: Sequence[str], above: str) -> dict[str, Names]:
    """The species in sibling folders' names, judged together.

    Args:
        folders: names of all the folders in one folder.
        above: name of the parent folder.

    Returns:
        folder to terms: `scientificName`, `taxonRank`, `genus`, `species`, and the higher ranks
        in the names; folders without a species are left out.
    """
    named: dict[str, Names] = {f: names for f in folders if (names := _long_form(f)) is not None}
    rest = [f for f in folders if f not in named and f.lower() not in _BINS]
    shaped = {f: names for f in rest if (names := _short_form(f)) is not None}
    if not rest or len(shaped) < len(rest):
        return named
    family = above if _FAMILY.fullmatch(above) else None
    latin = [f for f in rest if _is_latin(f)]
    if family is None and (not latin or 3 * len(latin) < len(rest)):
        return named
    for folder, names in shaped.items():
        named[folder] = {**names, "family": family} if family else names
    return named


def _long_form(folder: str) -> Names | None:
    number, *words = folder.split("_")
    if len(words) != 7 or not re.fullmatch(r"[0-9]{1,7}", number) or words[0] not in _KINGDOMS:
        return None
    if not all(re.fullmatch(r"[A-Z][a-z-]+", word) for word in words[1:6]):
        return None
    if not re.fullmatch(r"[a-z-]{2,}", words[6]):
        return None
    species = f"{words[5]} {words[6]}"
    ranks = dict(zip(_RANKS, words, strict=False))
    return {"scientificName": species, "taxonRank": "species", **ranks, "species": species}


def _short_form(folder: str) -> Names | None:
    if set(re.split(r"[ _-]", folder.lower())) & _NO_NAMES:
        return None
    if genus := _GENUS.fullmatch(folder):
        return {"scientificName": genus[1], "taxonRank": "genus", "genus": genus[1]}
    match = _SPECIES.fullmatch(folder) or _SUBSPECIES.fullmatch(folder)
    if match is None:
        return None
    words = [word for word in match.groups() if word]
    species = f"{words[0]} {words[1]}"
    rank = "species" if len(words) == 2 else "subspecies"
    name = " ".join(words)
    return {"scientificName": name, "taxonRank": rank, "genus": words[0], "species": species}


def _is_latin(folder: str) -> bool:
    match = _SPECIES.match(folder)
    if match is None:
        return False
    genus, epithet = match[1].lower(), match[2]
    return epithet == genus or epithet in _EPITHETS or _LATIN.fullmatch(epithet) is not None
