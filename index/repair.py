"""Repair: what can be put right without the loss of anything that is sound.

Everything that is taken out of use is moved to `ARCHIVE/lost-found/<time>/`, under the path that
it had; only what was never part of the archive is deleted. The order is such that a repair
that was cut off leaves an archive that the next repair goes on with: first the new version
of the store, then moves, then checksums.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow.compute as pc

from bittern.errors import ArchiveDamagedError, ArchiveVersionError, PreconditionError
from bittern.files import sync_folder
from bittern.index.checking.contents import CheckedFiles, check_files
from bittern.index.checking.manifests import manifest_files, parsed_manifest, table_folder
from bittern.index.checking.mending import Mending, manifest_name, plan_mending
from bittern.index.checking.orphans import orphans
from bittern.index.checksums import read_sums, replace_sums
from bittern.index.columns import is_code_or_embedding
from bittern.index.commit_log import Settler
from bittern.index.derived_files import DerivedFiles
from bittern.index.folder import ArchiveFolder, Header, same_header
from bittern.index.model_switch import drop_code_columns
from bittern.index.snapshots import Snapshots, models_in_use
from bittern.index.store import Store

LOST_FOUND = "lost-found"
OnStep = Callable[[str], None]
"""Called with each step before it is done."""


@dataclass
class Repair:
    """What a repair did, or would do.

    Attributes:
        steps: one line each, in order; empty where there was nothing to do.
        lost: ids of observations that are no more, as far as they can be told: index them again.
        lost_rows: how many observations could not be read.
        given_up: versions of the store whose changes are lost and cannot be told: index what was
            indexed last once more, what is there is skipped.
        aside: folder that damaged files were moved to, if any were.
    """

    steps: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    lost_rows: int = 0
    given_up: list[int] = field(default_factory=list)
    aside: Path | None = None


def repair(path: Path, *, dry_run: bool = False, on_step: OnStep | None = None) -> Repair:
    """Put an archive right as far as that is safe.

    Args:
        path: the archive's folder; nobody else may write to it meanwhile.
        dry_run: only tell what would be done.
        on_step: called with each step before it is done.

    Raises:
        ArchiveNotFoundError: there is no archive.
        ArchiveDamagedError: `archive.json`, or all of the store, is lost: only a backup helps.
        ArchiveVersionError: a newer version of Bittern made it.
        ArchiveLockedError: another process writes to it.
        PreconditionError: the disk refuses.
    """
    folder = ArchiveFolder(path)
    with suppress(ArchiveDamagedError):
        folder.check_present()
    if not folder.store.is_dir():
        raise ArchiveDamagedError(
            f"the archive at {path} has lost its store folder, and with it all observations: "
            "restore it from a backup, or index the media again into a new folder"
        )
    lock = folder.lock()
    try:
        work = _Repairing(folder, dry_run, on_step or (lambda _: None))
        return work.done()
    except OSError as error:
        raise PreconditionError(
            f"the archive at {path} cannot be repaired ({error}); check free space and "
            "permissions, then run bittern repair again"
        ) from error
    finally:
        lock.release()


class _Repairing:
    def __init__(self, folder: ArchiveFolder, dry_run: bool, on_step: OnStep) -> None:
        self._folder = folder
        self._models: list[str] | None = None
        self._from_copy = False
        self._dry_run = dry_run
        self._on_step = on_step
        self._report = Repair()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S")
        self._aside = folder.path / LOST_FOUND / now

    def done(self) -> Repair:
        header = self._header()
        with suppress(ArchiveDamagedError):  # a snapshot that does not tell: none is given up
            self._models = models_in_use(self._folder, header)
        files = check_files(self._folder, self._models or [])
        for version, named in files.manifests.items():
            if named.is_newer:
                raise ArchiveVersionError(
                    f"version {version} of the store at {self._folder.store} uses features of a "
                    "newer LanceDB: update with pip install -U bittern-search"
                )
        mending = plan_mending(self._folder, files)
        if mending:
            self._mend(mending)
        if self._from_copy and not self._dry_run:
            self._raise_next_row()
        self._set_aside(files, mending)
        self._drop_orphans(files, mending)
        self._drop_damaged_derived(mending)
        self._drop_orphan_columns(header)
        self._write_sums(files)
        return self._report

    def _header(self) -> Header:
        """`archive.json`, brought back from its copy where it is damaged."""
        folder = self._folder
        try:
            header = folder.read_header()
        except ArchiveDamagedError:
            header = _fitting(folder, folder.read_header(folder.header_copy))
            self._from_copy = True
            self._step(
                f"bring {folder.header_file.name} back from {folder.header_copy.name}, as it was "
                f"when that was written ({_changed(folder.header_copy)}); row numbers go on above "
                "all that are stored",
                lambda: self._bring_back(header),
            )
            return header
        with suppress(ArchiveDamagedError):
            if same_header(folder.read_header(folder.header_copy), header):
                return header
        what = f"write {folder.header_copy.name} again from {folder.header_file.name}"
        self._step(what, lambda: folder.write_header_copy(header))
        return header

    def _bring_back(self, header: Header) -> None:
        path = self._folder.header_file
        if path.exists():
            target = self._aside / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            self._report.aside = self._aside
        self._folder.write_header(header)

    def _raise_next_row(self) -> None:
        """Give out no row number again that any version has which can be read.

        The copy may be older than the last deletions; then it does not tell of their rows.
        """
        store, greatest = Store(self._folder.store), -1
        for version in manifest_files(self._folder.store):
            with suppress(ArchiveDamagedError):
                then = Store(store.path, version, store._session)
                for batch in then.batches(["row"]):
                    greatest = max(greatest, pc.max(batch["row"]).as_py() or 0)
        header = self._folder.read_header()
        if header.next_row <= greatest:
            self._folder.write_header(replace(header, next_row=greatest + 1))

    def _drop_orphan_columns(self, header: Header) -> None:
        """Remove columns of codes that a restore, cut off, has left and a snapshot holds."""
        try:
            store = Store(self._folder.store)
            named = header.at(store.version)
            kept = Snapshots(self._folder, store).models().values()
        except ArchiveDamagedError:
            return
        ours = {name for one in named.models for name in (one.code_column, one.embedding_column)}
        left = {name for one in kept for name in (one.code_column, one.embedding_column)} - ours
        names = [name for name in store.columns if name in left]
        if names:
            what = (
                f"drop {', '.join(names)} from the store, of a model that the archive has no more "
                "since a snapshot was restored; snapshots keep it"
            )
            self._step(what, lambda: drop_code_columns(self._folder, store, names))

    def _step(self, what: str, do: Callable[[], None]) -> None:
        self._report.steps.append(what)
        self._on_step(what)
        if not self._dry_run:
            do()

    def _mend(self, mending: Mending) -> None:
        store = self._folder.store
        self._report.lost += mending.lost
        self._report.lost_rows += mending.lost_rows
        parts = []
        if mending.newer and mending.only_moved:
            parts.append("the same rows as they lay before the last compaction")
        elif mending.newer:
            self._report.given_up += mending.newer
            given_up = ", ".join(map(str, mending.newer))
            parts.append(f"without what version {given_up} changed, which cannot be read")
        if mending.fragments:
            parts.append(f"without {len(mending.fragments)} data files that cannot be read")
        if mending.indexes_dropped:
            parts.append("without look-up indexes, which are made anew")
        lost = max(mending.lost_rows, len(mending.lost))
        what = (
            f"make version {mending.version} of the store from version {mending.base}, "
            f"{', '.join(parts) or 'unchanged'}; {lost} observations are lost"
        )

        def write() -> None:
            versions = table_folder(store) / "_versions"
            temporary = versions / f".repair-{secrets.token_hex(6)}"
            with temporary.open("xb") as stream:
                stream.write(mending.manifest)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(versions / manifest_name(mending.version))
            sync_folder(versions)

        self._step(what, write)

    def _set_aside(self, files: CheckedFiles, mending: Mending | None) -> None:
        """Move away versions that are not whole, and damaged files."""
        kept = mending.version if mending else max(files.manifests)
        for version, path in manifest_files(self._folder.store).items():
            if version == kept:
                continue
            named = files.manifests.get(version)
            given_up = mending is not None and version in mending.newer
            if named is None or given_up or files.broken(self._folder, named):
                self._move(path, f"version {version} of the store, which is not whole")
        for key in files.problems:
            path = self._folder.path / key
            if key.startswith("models/"):
                path = self._folder.path.joinpath(*Path(key).parts[:2])
            elif key.endswith(".manifest"):
                continue
            if path.exists():
                self._move(path, "which is damaged")

    def _drop_orphans(self, files: CheckedFiles, mending: Mending | None) -> None:
        careful = mending is not None or bool(files.unreadable)
        whole = {
            version: named
            for version, named in files.manifests.items()
            if not (mending and version in mending.newer) and not files.broken(self._folder, named)
        }
        if mending:
            whole[mending.version] = parsed_manifest(mending.manifest)
        found = orphans(self._folder, whole, self._models)
        for path in found:
            if str(path.relative_to(self._folder.path).as_posix()) in files.problems:
                continue
            if careful and table_folder(self._folder.store) in path.parents:
                self._move(path, "which no version needs any more")
            else:
                name = path.relative_to(self._folder.path).as_posix()
                self._step(f"delete {name}, which belongs to nothing", path.unlink)
        if found and not self._dry_run:
            self._remove_empty_folders()

    def _drop_damaged_derived(self, mending: Mending | None) -> None:
        if mending and self._dry_run:
            return
        derived = DerivedFiles(self._folder.derived, Store(self._folder.store))
        for name in derived.names():
            if damage := derived.damage(name):
                paths = [
                    path
                    for path in self._folder.derived.iterdir()
                    if path.name == f"{name}.json" or path.name.startswith(f"{name}.")
                ]
                what = f"delete derived/{name}.json and its arrays, made anew when wanted: {damage}"
                self._step(what, partial(_unlink, paths))

    def _write_sums(self, files: CheckedFiles) -> None:
        """Leave no checksum of what is gone or damaged, and no file without one."""
        folder = self._folder
        left = {
            key: told
            for key, told in read_sums(folder.path).files.items()
            if key not in files.problems and (folder.path / key).exists()
        }
        sums = files.sums
        if self._report.steps or sums.torn or sums.damaged or not sums.present:
            self._step("write the checksums anew", lambda: replace_sums(folder.path, left))
        if files.without_sums:
            what = f"give {files.without_sums} files that have none a checksum"
            self._step(what, lambda: None)
        if not self._dry_run and self._report.steps:
            Settler(folder, Store(folder.store)).adopt(everything=True)

    def _move(self, path: Path, why: str) -> None:
        relative = path.relative_to(self._folder.path)
        target = self._aside / relative
        self._report.aside = self._aside

        def move() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                shutil.copytree(path, target, dirs_exist_ok=True)
                shutil.rmtree(path)
            else:
                path.rename(target)
            sync_folder(path.parent)

        self._step(f"move {relative.as_posix()}, {why}, to {LOST_FOUND}", move)

    def _remove_empty_folders(self) -> None:
        for parent in (self._folder.models, table_folder(self._folder.store) / "_indices"):
            if parent.is_dir():
                for folder in sorted(parent.rglob("*"), reverse=True):
                    if folder.is_dir() and not any(folder.iterdir()):
                        folder.rmdir()


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _fitting(folder: ArchiveFolder, header: Header) -> Header:
    """What a copy of `archive.json` says that is true of the store as well.

    Raises:
        ArchiveDamagedError: it does not know all models of the store.
    """
    try:
        columns = Store(folder.store).columns
    except ArchiveDamagedError:
        return header
    models = (*header.models, *(header.switch.models if header.switch else ()))
    known = {name for one in models for name in (one.code_column, one.embedding_column)}
    strange = [name for name in columns if is_code_or_embedding(name) and name not in known]
    if strange:
        raise ArchiveDamagedError(
            f"{folder.header_file} is damaged, and {folder.header_copy.name} is older than the "
            f"model of column {strange[0]}; restore {folder.header_file.name} from a backup"
        )
    # A model without a column was dropped after the copy was written.
    return replace(header, models=tuple(m for m in header.models if m.code_column in columns))


def _changed(path: Path) -> str:
    when = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return f"{when:%Y-%m-%d %H:%M} UTC"
