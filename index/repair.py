"""Repair: fixes damage of an archive without losing sound data.

The store is repaired by ordinary Lance commits: an older version is restored, unreadable fragments
are dropped. Damaged files are moved to `ARCHIVE/lost-found/<time>/`, with their paths; only files
that were never part of the archive are deleted. The next repair continues an interrupted one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow.compute as pc

from bittern.errors import ArchiveDamagedError, BitternError, PreconditionError
from bittern.files import check_inside, sync_folder
from bittern.index.checksums import (
    read_checksums,
    replace_checksums,
    stored_files,
    version_of,
)
from bittern.index.commit_log import CommitLog
from bittern.index.derived_files import DerivedFiles
from bittern.index.folder import ArchiveFolder, Header, same_header
from bittern.index.leftovers import leftover_files, remove, unnamed_columns
from bittern.index.model_switch import drop_code_columns
from bittern.index.snapshots import models_in_use, read_snapshots
from bittern.index.store import Store
from bittern.index.table_versions import TableVersion, needed_by_any
from bittern.index.verify import ComparedFiles, compare_files

LOST_FOUND = "lost-found"
_MOST_LOST_VERSIONS = 1_000
"""If the log names a version so far above the newest one that exists, the log is wrong: every
commit adds one, and a repair makes as many commits to reach that number."""
OnStep = Callable[[str], None]
"""Called with each step before it is done."""
_START_AGAIN = "restore the archive from a backup, or index the media again into a new folder"


@dataclass
class Repair:
    """The result of a repair, or of a dry run.

    Attributes:
        steps: one line each, in order; empty if there was nothing to do.
        lost: known ids of lost observations; index them again.
        lost_rows: number of observations that could not be read.
        given_up: versions of the store whose changes are lost; index again what was indexed last.
        aside: folder that damaged files were moved to, if any.
    """

    steps: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    lost_rows: int = 0
    given_up: list[int] = field(default_factory=list)
    aside: Path | None = None


def repair(
    path: Path,
    *,
    dry_run: bool = False,
    on_step: OnStep | None = None,
    is_sound_model: Callable[[Path], bool] = lambda folder: False,
) -> Repair:
    """Repair an archive as far as that is safe.

    Args:
        path: the archive's folder; nobody else may write to it meanwhile.
        dry_run: only list the steps.
        on_step: called with each step before it is done.
        is_sound_model: whether the files in a model's folder have the digest that is its name. Such
            a model stays where it is, whatever its checksums in the log say.

    Raises:
        ArchiveNotFoundError: there is no archive.
        ArchiveDamagedError: `archive.json`, or all of the store, is lost: only a backup helps. Or
            there is a link, which repair neither follows nor deletes.
        ArchiveVersionError: a newer version of Bittern made it.
        ArchiveLockedError: another process writes to it.
        PreconditionError: the disk refuses.
    """
    folder = ArchiveFolder(path)
    if path.is_dir():
        folder.check_links()
    with suppress(ArchiveDamagedError):
        folder.check_present()
    if not folder.store.is_dir():
        raise ArchiveDamagedError(
            f"the archive at {path} has lost its store folder with all observations: {_START_AGAIN}"
        )
    lock = folder.lock()
    try:
        return _Repairing(folder, dry_run, on_step or (lambda _: None), is_sound_model).run()
    except OSError as error:
        raise PreconditionError(
            f"the archive at {path} cannot be repaired ({error}); check free space and "
            "permissions, then run bittern verify --repair again"
        ) from error
    finally:
        lock.release()


@dataclass
class _Plan:
    """How to repair the store.

    Attributes:
        base: the version to start from.
        newest: the newest version that is known to have existed.
        unreadable: versions whose manifests cannot be used.
        lost: fragments of `base` that cannot be read.
        indexes: look-up indexes of `base` that cannot be read.
        same_rows: whether newer versions than `base` hold the same rows.
    """

    base: TableVersion
    newest: int
    unreadable: list[int]
    lost: list[int]
    indexes: list[str]
    same_rows: bool = False

    @property
    def restored(self) -> bool:
        """Whether `base`, an older version, is made the newest one."""
        return self.base.number < self.newest

    @property
    def given_up(self) -> list[int]:
        """Versions whose changes are lost."""
        return [] if self.same_rows else list(range(self.base.number + 1, self.newest + 1))

    @property
    def is_empty(self) -> bool:
        """Whether the newest version is intact."""
        return not (self.restored or self.lost or self.indexes)

    def changes(self) -> str:
        """What the new version lacks, for the user."""
        changes = []
        if self.restored and self.same_rows:
            changes.append("with the same rows, from before the last compaction")
        elif self.restored:
            versions = ", ".join(map(str, self.given_up))
            changes.append(f"without the changes of version {versions}, which cannot be read")
        if self.lost:
            changes.append(f"without {len(self.lost)} data files that cannot be read")
        if self.indexes:
            changes.append("without look-up indexes that cannot be read, which are built again")
        return ", ".join(changes)


class _Repairing:
    """One run of a repair.

    Args:
        folder: the archive's folder; its lock is held.
        dry_run: only list the steps.
        on_step: called with each step.
        is_sound_model: see `repair`.
    """

    def __init__(
        self,
        folder: ArchiveFolder,
        dry_run: bool,
        on_step: OnStep,
        is_sound_model: Callable[[Path], bool],
    ) -> None:
        self._folder = folder
        self._store = folder.store
        self._dry_run = dry_run
        self._on_step = on_step
        self._is_sound_model = is_sound_model
        self._report = Repair()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S")
        self._aside = folder.path / LOST_FOUND / now

    def run(self) -> Repair:
        header, from_copy = self._header()
        models: list[str] | None = None
        with suppress(ArchiveDamagedError):  # a snapshot cannot be read: no model is removed
            models = models_in_use(self._folder, header)
        files = compare_files(self._folder, models or [])
        plan = self._plan(files)
        before = self._ids(files) if plan.lost or plan.given_up else []
        for number in plan.unreadable:
            key = files.stored.manifests[number]
            self._move(key, "a version of the store that cannot be read")
        if not plan.is_empty:
            self._commit(plan, before)
        self._set_aside_versions(files, plan)
        self._set_aside_damaged(files)
        if from_copy and not self._dry_run:
            self._raise_next_row()
        self._delete(leftover_files(self._folder, models))
        if plan.is_empty or not self._dry_run:
            self._delete_damaged_derived()
            self._drop_columns(header)
        self._write_checksums(files)
        return self._report

    def _step(self, what: str, do: Callable[[], object]) -> None:
        self._report.steps.append(what)
        self._on_step(what)
        if not self._dry_run:
            do()

    # archive.json

    def _header(self) -> tuple[Header, bool]:
        """The header, and whether it was restored from its copy."""
        folder = self._folder
        try:
            header = folder.read_header()
        except ArchiveDamagedError:
            header = _fitting(folder, folder.read_header_copy())
            written = datetime.fromtimestamp(folder.header_copy.stat().st_mtime, UTC)
            self._step(
                f"restore {folder.header_file.name} from {folder.header_copy.name}, which was "
                f"written at {written:%Y-%m-%d %H:%M} UTC; new rows get numbers above all stored "
                "ones",
                partial(self._restore_header, header),
            )
            return header, True
        with suppress(ArchiveDamagedError):
            if same_header(folder.read_header_copy(), header):
                return header, False
        what = f"write {folder.header_copy.name} again from {folder.header_file.name}"
        self._step(what, partial(folder.write_header_copy, header))
        return header, False

    def _restore_header(self, header: Header) -> None:
        if self._folder.header_file.exists():
            self._save(self._folder.header_file, copy=True)
        self._folder.write_header(header)

    def _raise_next_row(self) -> None:
        """Raise `next_row` above all rows: the copy may be older than the last deletions."""
        greatest = -1
        for version in stored_files(self._store).manifests:
            with suppress(ArchiveDamagedError):
                for batch in Store(self._store, version).batches(["row"]):
                    greatest = max(greatest, pc.max(batch["row"]).as_py() or 0)
        header = self._folder.read_header()
        if header.next_row <= greatest:
            self._folder.write_header(replace(header, next_row=greatest + 1))

    # The store

    def _plan(self, files: ComparedFiles) -> _Plan:
        damaged, manifests = files.problems.keys(), files.stored.manifests
        newest = files.stored.newest
        if files.log.newest <= newest + _MOST_LOST_VERSIONS:
            newest = max(newest, files.log.newest)
        readable = [n for n, key in manifests.items() if key not in damaged and self._opens(n)]
        if not readable:
            raise ArchiveDamagedError(
                f"no version of the store at {self._store} can be read; {_START_AGAIN}"
            )
        base = TableVersion.open(self._store, readable[0])
        unreadable = [number for number in manifests if number not in readable]
        lost, indexes = base.lost_fragments(damaged), base.lost_indexes(damaged)
        plan = _Plan(base, newest, unreadable, lost, indexes)
        if lost and base.number == newest:
            # Before a compaction, the same rows were in other files.
            for older in self._with_same_rows(base, readable):
                if not older.lost_fragments(damaged) and not older.lost_indexes(damaged):
                    return replace(plan, base=older, lost=[], indexes=[], same_rows=True)
        return plan

    def _opens(self, number: int) -> bool:
        """Whether a version can be opened."""
        with suppress(ArchiveDamagedError):
            return bool(TableVersion.open(self._store, number))
        return False

    def _with_same_rows(self, base: TableVersion, readable: list[int]) -> Iterable[TableVersion]:
        """Earlier versions with the same rows, the newest first."""
        number = base.number
        while base.only_moves_rows(number) and number - 1 in readable:
            number -= 1
            yield TableVersion.open(self._store, number)

    def _commit(self, plan: _Plan, before: list[str]) -> None:
        report, base = self._report, plan.base
        report.given_up = plan.given_up
        report.lost_rows = base.rows_in(plan.lost)
        if before:
            left = set(base.ids(plan.lost))
            report.lost = [name for name in before if name not in left]
        self._step(
            f"make a new version of the store from version {base.number}, {plan.changes()}; "
            f"{max(report.lost_rows, len(report.lost))} observations are lost",
            partial(base.make_newest, plan.newest, plan.lost, plan.indexes),
        )

    def _ids(self, files: ComparedFiles) -> list[str]:
        """Ids of the observations of the newest version that is completely readable."""
        for number in files.stored.manifests:
            with suppress(ArchiveDamagedError):
                return TableVersion.open(self._store, number).ids()
        return []

    # Moving and deleting

    def _set_aside_versions(self, files: ComparedFiles, plan: _Plan) -> None:
        """Move away incomplete versions, and sound files that LanceDB would now delete."""
        complete = []
        for number, key in files.stored.manifests.items():
            if number in plan.unreadable:
                continue
            if self._is_complete(number, files, plan):
                complete.append(number)
            else:
                self._move(key, f"version {number} of the store, which is incomplete")
        lost = {key for number in plan.lost for key in plan.base.fragments[number]}
        for key in sorted(lost - files.problems.keys()):
            what = f"copy {key}, with lost rows, to {LOST_FOUND}"
            self._step(what, partial(self._save, self._folder.path / key, copy=True))
        if plan.given_up:
            data = set(files.stored.data)
            kept = needed_by_any(self._store, data, complete) | files.problems.keys()
            for key in sorted(data - kept):
                self._move(key, "which no version needs any more")

    def _is_complete(self, number: int, files: ComparedFiles, plan: _Plan) -> bool:
        """Whether a version is intact, or the one that the repair starts from."""
        if number == plan.base.number:
            return True
        if plan.restored and number > plan.base.number:
            return False
        version = TableVersion.open(self._store, number)
        return not files.problems or not version.needed(files.problems)

    def _set_aside_damaged(self, files: ComparedFiles) -> None:
        """Move away damaged files of the store, and models with a damaged file."""
        damaged = dict.fromkeys(
            "/".join(key.split("/")[:2]) if key.startswith("models/") else key
            for key in sorted(files.problems)
            if not version_of(key)
        )
        for key in damaged:
            path = self._folder.path / key
            if key.startswith("models/") and self._is_sound_model(path):
                continue
            if path.exists():
                self._move(key, "which is damaged")

    def _move(self, key: str, why: str) -> None:
        self._report.aside = self._aside
        save = partial(self._save, self._folder.path / key)
        self._step(f"move {key}, {why}, to {LOST_FOUND}", save)

    def _save(self, path: Path, *, copy: bool = False) -> None:
        """Move or copy a file or folder to `lost-found`."""
        check_inside(self._folder.path, path)
        target = self._aside / path.relative_to(self._folder.path)
        check_inside(self._folder.path, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._report.aside = self._aside
        if copy:
            shutil.copy2(path, target)
            return
        if target.is_dir():  # left by an interrupted repair
            shutil.rmtree(target)
        path.rename(target)
        sync_folder(path.parent)

    def _delete(self, paths: Iterable[Path]) -> None:
        for path in paths:
            name = path.relative_to(self._folder.path).as_posix()
            what = f"delete {name}, which nothing needs"
            self._step(what, partial(remove, self._folder.path, path))
            with suppress(OSError):  # a folder that is not empty stays, and those above it
                for parent in path.parents if not self._dry_run else ():
                    parent.rmdir()

    def _delete_damaged_derived(self) -> None:
        derived = DerivedFiles(self._folder.derived, Store(self._store))
        for name in derived.names():
            if damage := derived.damage(name):
                what = f"delete derived/{name}.json and its arrays, built again when needed"
                self._step(f"{what}: {damage}", partial(self._delete_derived, name))

    def _delete_derived(self, name: str) -> None:
        for path in list(self._folder.derived.iterdir()):
            if path.name.startswith(f"{name}."):
                remove(self._folder.path, path)

    def _drop_columns(self, header: Header) -> None:
        """Remove columns of codes that an interrupted restore has left and a snapshot keeps."""
        try:
            store = Store(self._store)
            kept = [record for info in read_snapshots(self._folder) for record in info.models]
            theirs = {name for record in kept for name in record.columns}
        except ArchiveDamagedError:
            return
        unnamed = unnamed_columns(store, header.at(store.version))
        names = [name for name in unnamed if name in theirs]
        if names:
            what = (
                f"drop {', '.join(names)} from the store: a restore has removed the model; "
                "snapshots keep it"
            )
            self._step(what, partial(drop_code_columns, self._folder, store, names))

    def _write_checksums(self, files: ComparedFiles) -> None:
        """Drop checksums of missing and damaged files, and add missing checksums."""
        log, path = files.log, self._folder.path
        wrong = log.torn or log.damaged or not log.present or files.problems
        if self._report.steps or wrong:

            def write() -> None:
                # A lost manifest may have been written anew, under the same name.
                left = {
                    key: recorded
                    for key, recorded in read_checksums(path).files.items()
                    if key not in files.problems and (path / key).exists()
                }
                replace_checksums(path, left)

            self._step("write the checksums again", write)
        if files.without_checksums:
            what = f"add the checksums of {len(files.without_checksums)} files"
            self._step(what, lambda: None)
        if not self._dry_run and self._report.steps:
            CommitLog(self._folder, Store(self._store)).adopt()


def _fitting(folder: ArchiveFolder, header: Header) -> Header:
    """The header from a copy of `archive.json`, without models that the store does not have."""
    try:
        store = Store(folder.store)
    except BitternError:
        return header
    if strange := unnamed_columns(store, header):
        raise ArchiveDamagedError(
            f"{folder.header_file} is damaged, and {folder.header_copy.name} is older than the "
            f"model of column {strange[0]}; restore {folder.header_file.name} from a backup"
        )
    # A model without a column was dropped after the copy was written.
    found = tuple(one for one in header.models if one.code_column in store.columns)
    return replace(header, models=found)
