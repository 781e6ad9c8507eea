"""Units of work as Arrow tables: entries on their way to a worker, embeddings on their way back.

Everything is text, numbers and bytes, so that what arrives is data and nothing that runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bittern.index.observation import Fingerprint
from bittern.service.ingest.embedding import FLUSH_ITEMS
from bittern.service.ingest.items import Embedded, PipelineEntry, Recheck
from bittern.service.ingest.report import Stages
from bittern.service.sources.remote import TemporaryMedia
from bittern.types import AddResult, AddStatus, MediaItem

UNIT_ITEMS = 4 * FLUSH_ITEMS
"""Entries of one unit. Batches of the network end with it, so it is a multiple of the number of
items after which they end in any case: the network sees what it sees in one process."""
UNIT_BYTES = 64 << 20
"""A unit whose entries bring their bytes along is cut where these add up to so much."""
ASKED = pa.schema([("entry", pa.string()), ("data", pa.large_binary())])
EMBEDDED = pa.schema(
    [
        ("entry", pa.string()),
        ("starts", pa.list_(pa.float64())),
        ("ends", pa.list_(pa.float64())),
        ("embeddings", pa.large_binary()),
        ("result", pa.string()),
        ("fingerprint", pa.string()),
        ("renews", pa.bool_()),
        ("stages", pa.string()),
    ]
)


def units_of(entries: Iterable[PipelineEntry]) -> Iterator[pa.Table]:
    """Entries, cut into units, in order."""
    source = iter(entries)
    while some := list(islice(source, UNIT_ITEMS)):
        rows: list[dict[str, Any]] = []
        size = 0
        for entry in some:
            data = _data_of(entry)
            rows.append({"entry": json.dumps(_entry_to_json(entry)), "data": data})
            size += len(data or b"")
            # Only where batches end in any case.
            if size >= UNIT_BYTES and len(rows) % FLUSH_ITEMS == 0:
                yield pa.Table.from_pylist(rows, schema=ASKED)
                rows, size = [], 0
        if rows:
            yield pa.Table.from_pylist(rows, schema=ASKED)


def entries_of(unit: pa.Table) -> list[PipelineEntry]:
    """The entries of a unit, in order."""
    rows = unit.select(["entry", "data"]).to_pylist()
    return [_entry_from_json(json.loads(row["entry"]), row["data"]) for row in rows]


def embedded_to_table(embedded: Iterable[Embedded], stages: Stages) -> pa.Table:
    """What became of a unit, and what its stages have done.

    Args:
        embedded: its entries, in order.
        stages: of this unit alone.
    """
    rows = []
    for one in embedded:
        rows.append(
            {
                "entry": json.dumps(_entry_to_json(one.item)) if one.item else None,
                "starts": [start for start, _ in one.spans],
                "ends": [end for _, end in one.spans],
                "embeddings": (
                    one.stacked().astype("<f4").tobytes()
                    if one.embeddings and one.result is None
                    else None
                ),
                "result": json.dumps(_result_to_json(one.result)) if one.result else None,
                "fingerprint": json.dumps(asdict(one.fingerprint)) if one.fingerprint else None,
                "renews": one.renews,
                "stages": None,
            }
        )
    if rows:
        work = {n: [w.items, w.busy_s, w.waited_s, w.bytes] for n, w in stages.items()}
        rows[0]["stages"] = json.dumps(work)
    return pa.Table.from_pylist(rows, schema=EMBEDDED)


def embedded_of(table: pa.Table, stages: Stages) -> Iterator[Embedded]:
    """The entries of a unit that came back; what its stages have done is added to `stages`."""
    for row in table.to_pylist():
        if row["stages"] is not None:
            for name, (items, busy_s, waited_s, size) in json.loads(row["stages"]).items():
                stages[name].add(items, busy_s=busy_s, waited_s=waited_s, size=size)
        item = None
        if row["entry"] is not None:
            entry = _entry_from_json(json.loads(row["entry"]), None)
            assert isinstance(entry, MediaItem)
            item = entry
        spans = list(zip(row["starts"], row["ends"], strict=True))
        fingerprint = json.loads(row["fingerprint"]) if row["fingerprint"] else None
        embedded = Embedded(
            item,
            spans=spans,
            result=_result_from_json(json.loads(row["result"])) if row["result"] else None,
            fingerprint=Fingerprint(**fingerprint) if fingerprint else None,
            renews=row["renews"],
        )
        if row["embeddings"] is not None:
            found = np.frombuffer(row["embeddings"], dtype="<f4").astype(np.float32)
            embedded.embeddings = list(found.reshape(len(spans), -1))
        yield embedded


def _data_of(entry: PipelineEntry) -> bytes | None:
    item = entry.item if isinstance(entry, Recheck) else entry
    if not isinstance(item, MediaItem):
        return None
    if isinstance(item.path, TemporaryMedia):  # is gone as soon as nobody here refers to it
        return bytes(item.path.read_bytes())
    return None if item.data is None else bytes(item.data)


def _entry_to_json(entry: PipelineEntry) -> dict[str, Any]:
    if isinstance(entry, AddResult):
        return {"kind": "result", **_result_to_json(entry)}
    if isinstance(entry, Recheck):
        return {
            "kind": "recheck",
            "item": _entry_to_json(entry.item),
            "before": asdict(entry.before),
            "moved": entry.moved,
            "changed": entry.changed,
        }
    return {
        "kind": "item",
        "occurrence_id": entry.occurrence_id,
        "media": entry.media,
        "modality": entry.modality,
        "path": (
            None
            if entry.path is None or isinstance(entry.path, TemporaryMedia)
            else str(entry.path)
        ),
        "media_root": entry.media_root,
        "metadata": dict(entry.metadata),
        "url": entry.url,
    }


def _entry_from_json(value: Mapping[str, Any], data: bytes | None) -> PipelineEntry:
    fields = {name: one for name, one in value.items() if name != "kind"}
    if value["kind"] == "result":
        return _result_from_json(fields)
    if value["kind"] == "recheck":
        item = _entry_from_json(value["item"], data)
        assert isinstance(item, MediaItem)
        before = Fingerprint(**value["before"])
        return Recheck(item, before, bool(value["moved"]), value["changed"])
    path = fields.pop("path")
    return replace(MediaItem(**fields), path=None if path is None else Path(path), data=data)


def _result_to_json(result: AddResult) -> dict[str, Any]:
    return {**asdict(result), "status": str(result.status)}


def _result_from_json(value: Mapping[str, Any]) -> AddResult:
    return AddResult(**{**value, "status": AddStatus(value["status"])})
