"""Files in an archive's folder that belong to nothing: what broken-off writings have left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from bittern.index.checking.manifests import Manifest, table_folder
from bittern.index.checksums import NAME, files_below
from bittern.index.folder import ArchiveFolder

_NEEDED = ("data", "_deletions", "_indices")


def orphans(
    folder: ArchiveFolder, manifests: Mapping[int, Manifest] | None, models: Iterable[str] | None
) -> list[Path]:
    """Files that no version, no model and nothing else of the archive needs.

    Files of places that Bittern does not know are nobody's business and left out. A process
    that writes just now has such files too.

    Args:
        folder: where the archive lies.
        manifests: all its versions; None where some cannot be read, so that nothing is known
            of the files of the store.
        models: digests of its models; None where that is not known.
    """
    found = [*_temporary(folder)]
    if models is not None:
        found += _of_no_model(folder, set(models))
    if manifests is not None:
        found += _of_no_version(table_folder(folder.store), manifests)
    return sorted(found)


def _temporary(folder: ArchiveFolder) -> Iterator[Path]:
    for pattern in (".archive-*", f".{NAME}-*"):
        yield from folder.path.glob(pattern)
    yield from folder.derived.glob("*.tmp")
    for begun in folder.models.glob(".new-*"):
        yield from files_below(begun)


def _of_no_model(folder: ArchiveFolder, models: set[str]) -> Iterator[Path]:
    if folder.models.is_dir():
        for model in folder.models.iterdir():
            if model.is_dir() and model.name not in models and not model.name.startswith("."):
                yield from files_below(model)


def _of_no_version(table: Path, manifests: Mapping[int, Manifest]) -> Iterator[Path]:
    needed = {file.path for named in manifests.values() for file in named.files}
    indexes = {path.split("/")[1] for path in needed if path.startswith("_indices/")}
    for name in _NEEDED:
        for path in files_below(table / name):
            relative = path.relative_to(table)
            # An index may have files that its entry does not name.
            in_index = name == "_indices" and relative.parts[1] in indexes
            if relative.as_posix() not in needed and not in_index:
                yield path
