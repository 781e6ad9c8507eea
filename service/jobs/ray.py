"""Jobs on Ray Data: workers read, decode and run the network; this process lists and commits.

A worker runs the pipeline of a local job on a unit of entries, so rows and codes are the same. Ray
Data distributes units in order, limits fast workers, and repeats the units of a lost worker.

Units are Arrow tables of text, numbers and bytes, so nothing that arrives can run code.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from bittern.errors import PreconditionError
from bittern.hashing.saved_model import SavedModel
from bittern.index.engines.sharded.cluster import local_cluster, ray_library
from bittern.index.observation import Fingerprint
from bittern.service.ingest.embedding import FLUSH_ITEMS, embed_items
from bittern.service.ingest.items import Embedded, PipelineEntry, Recheck, item_of
from bittern.service.ingest.prefetch import Bounds
from bittern.service.ingest.report import Stages, new_stages
from bittern.service.jobs.indexing import JobControl
from bittern.service.models.model import Embedder, Embedders, catalogue_encoder
from bittern.service.models.saved import load_saved
from bittern.service.sources.remote import TemporaryMedia
from bittern.types import AddResult, MediaItem

ADDRESS = "RAY_ADDRESS"
"""Environment variable with the address of a cluster; without it, workers run on this machine."""
UNIT_ITEMS = 4 * FLUSH_ITEMS
"""Entries of one unit: a multiple of `FLUSH_ITEMS`, so the network gets the same batches as in one
process."""
UNIT_BYTES = 64 << 20
"""A unit ends early when the bytes of its entries reach this size."""
_OBJECT_STORE_BYTES = 512 << 20
_ENTRY: TypeAdapter[PipelineEntry] = TypeAdapter(PipelineEntry)
_ENTRIES = pa.schema([("entry", pa.string()), ("data", pa.large_binary())])
_EMBEDDED = pa.schema(
    [
        ("item", pa.string()),
        ("starts", pa.list_(pa.float64())),
        ("ends", pa.list_(pa.float64())),
        ("embeddings", pa.large_binary()),
        ("result", pa.string()),
        ("fingerprint", pa.string()),
        ("renews", pa.bool_()),
        ("stages", pa.string()),
    ]
)

EncoderLoader = Callable[[str], Any]


class Worker:
    """Embeds units; one process of the pool.

    Args:
        encoder: catalogue name of the encoder, used without `files`.
        files: of the model; None if a hasher must be fitted first.
        fetch: address prefixes that may be fetched.
        load: from a catalogue name to an encoder.
        threads: cores that it may use.
    """

    def __init__(
        self,
        encoder: str,
        files: Mapping[str, bytes] | None,
        fetch: tuple[str, ...],
        load: EncoderLoader,
        threads: int,
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self._fetch = fetch
        self._bounds = Bounds(threads=threads + 2)  # two may wait for files
        embedders = Embedders(load)
        if files is None:
            self._embedder = embedders.named(encoder)
        else:
            self._embedder = embedders.of(_model_of(files))
        self._embedder.encoder()

    def __call__(self, unit: Any) -> Any:
        """Embed one unit."""
        stages = new_stages()
        stream = embed_items(
            self._embedder, entries_of(unit), stages, fetch=self._fetch, bounds=self._bounds
        )
        return embedded_to_table(list(stream), stages)


def _model_of(files: Mapping[str, bytes]) -> SavedModel:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return load_saved(Path(folder))


def embed_on_ray(
    embedder: Embedder,
    entries: Iterable[PipelineEntry],
    control: JobControl,
    saved: SavedModel | None,
    load: EncoderLoader = catalogue_encoder,
) -> Iterator[Embedded]:
    """Embed every entry, in order, on workers of the running Ray cluster.

    Args:
        embedder: names the encoder.
        entries: photographs, recordings, and results that pass through. All are listed first, into
            Ray's object store, which spills to disk.
        control: number of workers, each with a network; its report counts the work of finished
            units. Once the job is cancelled, the iterator ends; remaining items are dropped.
        saved: the model; None if a hasher must be fitted on the embeddings first.
        load: from a catalogue name to an encoder, on the worker.
    """
    ray = ray_library()
    importlib.import_module("ray.data")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    references = []
    for unit in units_of(entries):
        if control.cancelled():
            return
        references.append(ray.put(unit))
    if not references:
        return
    processors, cards = _share(ray, control.workers)
    embedded = ray.data.from_arrow_refs(references).map_batches(
        Worker,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(control.workers, len(references))),
        num_cpus=processors,
        num_gpus=cards,
        fn_constructor_args=(
            embedder.name,
            None if saved is None else dict(saved.files()),
            control.fetch,
            load,
            processors,
        ),
    )
    del references
    for table in embedded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for one in embedded_of(table, control.report.stages):
            if control.cancelled():
                return
            yield one


def _share(ray: Any, workers: int) -> tuple[int, int]:
    """Cores and GPUs of each worker: the most that fit for all of them."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    machines = [int(resources.get("CPU", 0)) for resources in alive]
    if sum(machines) < workers:
        raise PreconditionError(
            f"{workers} workers need a core each, there are {sum(machines)}; use fewer with "
            "--workers, or add machines"
        )
    cards = sum(int(resources.get("GPU", 0)) for resources in alive)
    fitting = [
        cores
        for cores in range(1, max(machines) + 1)
        if sum(machine // cores for machine in machines) >= workers
    ]
    return fitting[-1], 1 if cards >= workers else 0


@contextmanager
def cluster(workers: int) -> Iterator[None]:
    """The Ray cluster of a job: the one at `ADDRESS`, or a local one.

    Raises:
        PreconditionError: Ray is not installed, or does not start, or cannot be reached.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Bittern raises the errors
    address = os.environ.get(ADDRESS)
    if not address:
        with local_cluster(os.cpu_count() or 1, _OBJECT_STORE_BYTES, "a job on several processes"):
            _share(ray_library(), workers)  # refuses too many workers
            yield
        return
    ray = ray_library("a job on several machines")
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except Exception as error:
        raise PreconditionError(
            f"the Ray cluster at {address} cannot be reached ({error}); look at `ray status`, or "
            f"unset {ADDRESS} to run on this machine"
        ) from error
    try:
        _share(ray, workers)
        yield
    finally:
        ray.shutdown()


# Units of work as Arrow tables


def units_of(entries: Iterable[PipelineEntry]) -> Iterator[pa.Table]:
    """Entries, cut into units, in order."""
    source = iter(entries)
    while chunk := list(islice(source, UNIT_ITEMS)):
        rows: list[dict[str, Any]] = []
        size = 0
        for entry in chunk:
            data = _data_of(entry)
            rows.append({"entry": _to_text(entry), "data": data})
            size += len(data or b"")
            # Only after a flush.
            if size >= UNIT_BYTES and len(rows) % FLUSH_ITEMS == 0:
                yield pa.Table.from_pylist(rows, schema=_ENTRIES)
                rows, size = [], 0
        if rows:
            yield pa.Table.from_pylist(rows, schema=_ENTRIES)


def entries_of(unit: pa.Table) -> list[PipelineEntry]:
    """The entries of a unit, in order."""
    rows = unit.select(["entry", "data"]).to_pylist()
    return [_from_text(row["entry"], row["data"]) for row in rows]


def embedded_to_table(embedded: Iterable[Embedded], stages: Stages) -> pa.Table:
    """The embedded entries of a unit, and the work of its stages.

    Args:
        embedded: its entries, in order.
        stages: of this unit alone.
    """
    rows: list[dict[str, Any]] = [
        {
            "item": _to_text(one.item) if one.item else None,
            "starts": [start for start, _ in one.spans],
            "ends": [end for _, end in one.spans],
            "embeddings": (
                one.stacked().astype("<f4").tobytes()
                if one.embeddings and one.result is None
                else None
            ),
            "result": _to_text(one.result) if one.result else None,
            "fingerprint": json.dumps(asdict(one.fingerprint)) if one.fingerprint else None,
            "renews": one.renews,
            "stages": None,
        }
        for one in embedded
    ]
    if rows:
        work = {n: [w.items, w.busy_s, w.waited_s, w.bytes] for n, w in stages.items()}
        rows[0]["stages"] = json.dumps(work)
    return pa.Table.from_pylist(rows, schema=_EMBEDDED)


def embedded_of(table: pa.Table, stages: Stages) -> Iterator[Embedded]:
    """The entries of a finished unit; adds the work of its stages to `stages`."""
    for row in table.to_pylist():
        if row["stages"] is not None:
            for name, (items, busy_s, waited_s, size) in json.loads(row["stages"]).items():
                stages[name].add(items, busy_s=busy_s, waited_s=waited_s, size=size)
        item = _from_text(row["item"]) if row["item"] else None
        result = _from_text(row["result"]) if row["result"] else None
        assert item is None or isinstance(item, MediaItem)
        assert result is None or isinstance(result, AddResult)
        spans = list(zip(row["starts"], row["ends"], strict=True))
        embedded = Embedded(item, spans=spans, result=result, renews=row["renews"])
        if row["fingerprint"]:
            embedded.fingerprint = Fingerprint(**json.loads(row["fingerprint"]))
        if row["embeddings"] is not None:
            found = np.frombuffer(row["embeddings"], dtype="<f4").astype(np.float32)
            embedded.embeddings = list(found.reshape(len(spans), -1))
        yield embedded


def _data_of(entry: PipelineEntry) -> bytes | None:
    item = item_of(entry)
    if item is None:
        return None
    if isinstance(item.path, TemporaryMedia):  # deleted with its last reference
        return bytes(item.path.read_bytes())
    return None if item.data is None else bytes(item.data)


def _to_text(entry: PipelineEntry) -> str:
    """An entry as JSON, without its bytes."""
    item = item_of(entry)
    if item is not None:
        temporary = isinstance(item.path, TemporaryMedia)
        item = replace(item, data=None, path=None if temporary else item.path)
        entry = replace(entry, item=item) if isinstance(entry, Recheck) else item
    return json.dumps(_ENTRY.dump_python(entry, mode="json"))


def _from_text(text: str, data: bytes | None = None) -> PipelineEntry:
    entry = _ENTRY.validate_python(json.loads(text))
    if isinstance(entry, Recheck):
        return replace(entry, item=replace(entry.item, data=data))
    return replace(entry, data=data) if isinstance(entry, MediaItem) else entry
