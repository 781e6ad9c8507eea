"""Files that are replaced atomically and durably, and checks of paths."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bittern.errors import InvalidInputError, PreconditionError


def is_file(path: Path) -> bool:
    """Whether there is a file; none has a name that the file system does not allow."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def replace_file(path: Path, content: bytes, prefix: str | None = None) -> None:
    """Replace a file durably and at once: whoever reads it finds the old content or the new.

    A symbolic link at `path` is replaced, not followed. The file's mode follows the umask.

    Args:
        path: of the file, in an existing folder.
        content: the new content.
        prefix: of the temporary file beside it; a dot and the file's name by default.

    Raises:
        OSError: the disk refuses; the old content is still there.
    """
    # Not by `tempfile`, whose files only their owner may read.
    temporary = path.with_name(f"{prefix or f'.{path.name}-'}{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def writing_file(path: Path) -> Iterator[BinaryIO]:
    """A stream for the new content of a large file: it replaces the file when the block ends.

    Until then the content is in ``NAME.partial`` beside it; an error removes that. A process that
    is killed leaves it, and the next one replaces it, as it does a symbolic link of that name.

    Raises:
        OSError: the disk refuses; the old content is still there.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.absolute().parent)


def check_output_file(path: Path, field: str = "output") -> None:
    """Check that a file can be written at `path`, before any work is done for it.

    Args:
        path: of the file.
        field: the option or argument that names it.

    Raises:
        InvalidInputError: its folder does not exist, it is a folder itself, or it is in an archive.
    """
    check_outside_archives(path, field)
    if not path.absolute().parent.is_dir():
        raise InvalidInputError(
            f"there is no folder {path.parent} to write {path.name} into", field=field
        )
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder; name a file in it", field=field)


def check_outside_archives(path: Path, field: str) -> None:
    """Check that a file or folder to be made is in no archive: that has Bittern's own files only.

    Args:
        path: of the new file or folder.
        field: the option or argument that names it.

    Raises:
        InvalidInputError: it is in an archive.
    """
    for folder in (*path.absolute().parents, *path.resolve().parents):
        if (folder / "archive.json").is_file() and (folder / "store").is_dir():
            raise InvalidInputError(
                f"{path} is in the archive at {folder}, which has Bittern's own files only; name a "
                "path outside of it",
                field=field,
            )


def check_inside(folder: Path, path: Path) -> None:
    """Check that a path really lies in a folder, before it is read, written, moved or deleted.

    Neither the path nor a folder between the two may be a symbolic link, wherever it leads; the
    folder itself may be reached through one.

    Args:
        folder: an archive, or another folder that nothing may leave.
        path: in it; need not exist.

    Raises:
        PreconditionError: a symbolic link is in between, or the path leads out of the folder.
    """
    here = folder
    for name in path.relative_to(folder).parts:
        here /= name
        if name == "..":
            raise PreconditionError(f"{path} leads out of {folder}; nothing was changed")
        if problem := link_problem(here):
            raise PreconditionError(f"{here} {problem}")


def link_problem(path: Path) -> str:
    """Why a path cannot be used in an archive, with the remedy; empty for files and folders.

    Args:
        path: of anything, or of nothing; a symbolic link is not followed.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if stat.S_ISLNK(mode):
        return (
            f"is a symbolic link to {path.readlink()}, and Bittern follows no links in an archive; "
            "replace it by the file or folder that it leads to, or delete it"
        )
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    return "is neither a file nor a folder; delete it"


def sync_folder(path: Path) -> None:
    """Make sure that the names in a folder are on the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
