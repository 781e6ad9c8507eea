"""Whether the rows of an archive, its models and its index agree with each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bittern.index.columns import is_code_or_embedding
from bittern.index.derived_files import DerivedFiles
from bittern.index.derived_index import IndexFiles
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.generation import MODALITIES, Generation
from bittern.index.store import Store

_SHOWN = 5


class _OnlyRead(IndexFiles):
    """Uses what is kept and writes nothing."""

    def save_if_worth_it(self, snapshot: Generation) -> None:
        """Keep nothing."""


def snapshot_to_verify(folder: ArchiveFolder, store: Store) -> Generation:
    """The index as an archive that is opened now would have it; nothing is written."""
    return Generation(store, None, _OnlyRead(DerivedFiles(folder.derived, store)))


def _some(values: pa.ChunkedArray | list[object]) -> str:
    shown = values[:_SHOWN]
    texts = [str(value) for value in (shown if isinstance(shown, list) else shown.to_pylist())]
    return ", ".join(texts) + (", ..." if len(values) > _SHOWN else "")


def row_problems(header: Header, snapshot: Generation) -> Iterator[str]:
    """Rows that contradict themselves or each other, one line each."""
    table = snapshot.store.read(
        ["row", "id", "occurrenceID", "modality", "media", "start_s", "end_s"]
    )
    for column in ("row", "id"):
        counts = table[column].value_counts()
        values, times = counts.field("values"), counts.field("counts")
        twice = values.filter(pc.greater(times, 1))
        if len(twice):
            yield f"{len(twice)} values of {column} occur more than once: {_some(twice)}"
    for column in ("row", "id", "occurrenceID", "modality", "media"):
        if missing := table[column].null_count:
            yield f"{missing} rows have no {column}"
    names = table["id"]
    strange = pc.invert(pc.is_in(table["modality"], pa.array(MODALITIES)))
    if len(found := names.filter(strange)):
        yield f"{len(found)} observations are neither image nor audio: {_some(found)}"
    start, end = table["start_s"], table["end_s"]
    uneven = pc.xor(pc.is_null(start), pc.is_null(end))
    backward = pc.fill_null(pc.or_(pc.less_equal(end, start), pc.less(start, 0.0)), False)
    if len(found := names.filter(pc.or_(uneven, backward))):
        yield f"{len(found)} windows do not run forward from 0 s or later: {_some(found)}"
    strangers = [
        name
        for name, owner in zip(names.to_pylist(), table["occurrenceID"].to_pylist(), strict=True)
        if name != owner and not str(name).startswith(f"{owner}#t=")
    ]
    if strangers:
        yield (
            f"{len(strangers)} observation ids do not belong to their occurrenceID: "
            f"{_some(list(strangers))}"
        )


def model_problems(folder: ArchiveFolder, header: Header, snapshot: Generation) -> Iterator[str]:
    """Models without files or codes, and codes without a model, one line each."""
    store = snapshot.store
    expected = set()
    for record in header.models:
        label = f"model {record.name} ({record.digest[:16]})"
        expected |= {record.code_column, record.embedding_column}
        model_folder = folder.models / record.digest
        if not model_folder.is_dir():
            yield f"{label} has lost its files: {model_folder} is missing"
        found = store.field_type(record.code_column)
        if found != pa.binary(record.bits // 8):
            yield f"{label} should have codes of {record.bits} bits, the store has {found}"
    strangers = [name for name in store.columns if is_code_or_embedding(name)]
    for name in strangers:
        if name not in expected:
            yield f"column {name} belongs to no registered model (a registration was cut off)"
    codes = [record.code_column for record in header.models if record.code_column in store.columns]
    none = " AND ".join(f"`{name}` IS NULL" for name in codes) or "true"
    if uncoded := store.count(none):
        yield f"{uncoded} observations have no code of any model"


def index_problems(header: Header, snapshot: Generation) -> Iterator[str]:
    """Where the index in use differs from the store, one line each."""
    fresh = Generation(snapshot.store)
    if not fresh.has_rows_of(snapshot):
        yield "the index does not hold the rows of the store"
        return
    for record in header.models:
        if record.code_column not in snapshot.store.columns:
            continue
        used, stored = snapshot.codes(record), fresh.codes(record)
        for modality in MODALITIES:
            same = np.array_equal(used[modality].rows, stored[modality].rows)
            if not same or not np.array_equal(used[modality].codes, stored[modality].codes):
                yield (
                    f"the {modality} index of model {record.name} ({record.digest[:16]}) differs "
                    "from the store"
                )


def derived_damage(folder: ArchiveFolder, snapshot: Generation) -> Iterator[str]:
    """Derived files that cannot be used, one line each."""
    files = DerivedFiles(folder.derived, snapshot.store)
    for name in files.names():
        if damage := files.damage(name):
            yield f"{name}: {damage}"
