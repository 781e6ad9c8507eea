"""Whether an archive holds exactly what it should: every row, every column, every search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bittern.index.archive import Archive
from bittern.index.store import Store
from tests.index.samples import code
from tests.survival.content import COUNTRIES, DIM, Content, embedding, record_of

CUT_OFF = "(a registration was interrupted)"


def stored(archive: Archive) -> dict[str, dict[str, Any]]:
    """Every row of the store by id: its values that are not null, without `committed`."""
    table = archive._current().store.read()
    rows = {}
    for value in table.to_pylist():
        assert value["id"] not in rows, f"{value['id']} occurs twice"
        value.pop("committed")
        rows[value["id"]] = {name: each for name, each in value.items() if each is not None}
    return rows


def expected(content: Content) -> dict[str, dict[str, Any]]:
    """The same, as it should be."""
    rows = {}
    for id_, row in content.rows().items():
        value = {"row": row.row, **row.fields}
        for name, seed in row.codes.items():
            record = record_of(name)
            value[record.code_column] = code(seed, record.bits).tobytes()
        for name, seed in row.embeddings.items():
            value[record_of(name).embedding_column] = embedding(seed)
        rows[id_] = value
    return rows


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The differences, one line each."""
    lines = [f"lost {id_}" for id_ in wanted.keys() - found.keys()]
    lines += [f"not expected {id_}" for id_ in found.keys() - wanted.keys()]
    for id_ in found.keys() & wanted.keys():
        if found[id_] != wanted[id_]:
            names = found[id_].keys() | wanted[id_].keys()
            wrong = [n for n in sorted(names) if found[id_].get(n) != wanted[id_].get(n)]
            lines += [f"{id_}: {n} {found[id_].get(n)} {wanted[id_].get(n)}" for n in wrong]
    return lines


def is_held(archive: Archive, content: Content) -> list[str]:
    """How rows, models and pinned versions differ from the expected content; empty if not."""
    lines = differences(stored(archive), expected(content))
    models = [record.name for record in archive.model_records()]
    if models != [record_of(name).name for name in content.models]:
        lines.append(f"models {models}, not {content.models}")
    kept = archive._store.pins()
    if kept.keys() != content.kept.keys():
        lines.append(f"kept {sorted(kept)}, not {sorted(content.kept)}")
    for name in kept.keys() & content.kept.keys():
        table = Store(archive.path / "store", kept[name]).read(["id", "row"])
        rows = dict(zip(table["id"].to_pylist(), table["row"].to_pylist(), strict=True))
        if rows != content.kept[name]:
            lines.append(f"version {name} is not as it was")
    return lines


def check_answers(archive: Archive, content: Content) -> None:
    """Check that listings, look-ups and searches give the expected content."""
    rows = content.rows()
    ordered = sorted(rows, key=lambda id_: rows[id_].row)
    assert [seen.id for seen in archive.list(page_size=10_000).observations] == ordered
    for country in COUNTRIES:
        chosen = [id_ for id_ in ordered if rows[id_].fields.get("countryCode") == country]
        page = archive.list(page_size=10_000, where=f"countryCode = '{country}'")
        assert [seen.id for seen in page.observations] == chosen
    for id_ in ordered[::17]:
        assert archive.get(id_).row == rows[id_].row
    for name in content.models:
        _check_model(archive, content, name, ordered)
    stats = archive.stats()
    assert sum(stats.observations.values()) == len(rows)


def _check_model(archive: Archive, content: Content, name: str, ordered: list[str]) -> None:
    record, rows = record_of(name), content.rows()
    coded = [id_ for id_ in ordered if name in rows[id_].codes]
    owners = {rows[id_].fields["occurrenceID"] for id_ in coded}
    assert archive.coded(list(content.items), record.digest).keys() == owners
    assert (archive.model_folder(record.digest) / "heads" / "shared.bin").is_file()
    query = code(len(rows), record.bits)
    hits = archive.search(query, model=record.digest, k=10_000, metric="hamming").hits
    bits = [np.unpackbits(code(rows[id_].codes[name], record.bits) ^ query).sum() for id_ in coded]
    order = np.argsort(bits, kind="stable") if bits else np.empty(0, np.int64)
    assert [hit.observation.id for hit in hits] == [coded[at] for at in order]
    assert [hit.distance for hit in hits] == [int(bits[at]) for at in order]


def problems(archive: Archive, *, registering: bool) -> list[str]:
    """The problems that `verify` finds, without the traces of an interrupted registration."""
    found = archive.verify()
    return [line for line in found if not (registering and CUT_OFF in line)]


def disk_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


__all__ = ["DIM", "check_answers", "disk_bytes", "is_held", "problems"]
