"""Jobs on Ray Data: workers read, decode and run the network; this process lists and commits.

What a worker does with its unit is the pipeline of one process, so the same rows and codes come
out of it. Ray Data hands out units, keeps their order, holds back workers that are ahead of the
commits, and gives the unit of a worker that was lost to another one.
"""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bittern.errors import PreconditionError
from bittern.hashing.saved import SavedModel
from bittern.index.engines.sharded.cluster import local_cluster, ray_library
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.items import Embedded, PipelineEntry
from bittern.service.ingest.prefetch import Bounds
from bittern.service.ingest.report import Cancelled, Stages, never, new_stages
from bittern.service.jobs.units import embedded_of, embedded_to_table, entries_of, units_of
from bittern.service.models.loaded import Embedder, Embedders, catalogue_encoder
from bittern.service.models.saved import load_saved

ADDRESS = "RAY_ADDRESS"
"""Environment variable with the address of a cluster; without it, workers run on this machine."""
_OBJECT_STORE_BYTES = 512 << 20

EncoderLoader = Callable[[str], Any]


class Worker:
    """Embeds units; one process of the pool.

    Args:
        encoder: catalogue name of the encoder, where a hasher is still to be fitted.
        files: the model's files, else.
        fetch: beginnings of addresses that may be fetched.
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
        self._bounds = Bounds(decode_threads=max(1, threads))
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
    stages: Stages,
    *,
    saved: SavedModel | None,
    workers: int,
    cancelled: Cancelled = never,
    fetch: tuple[str, ...] = (),
    load: EncoderLoader = catalogue_encoder,
) -> Iterator[Embedded]:
    """Embed every entry, in order, on the workers of a Ray cluster that is running.

    Args:
        embedder: names the encoder.
        entries: photographs, recordings, and results that pass through. They are listed to
            their end first, into Ray's object store, which spills to disk.
        stages: filled in as units come back.
        saved: the model; None where a hasher is still to be fitted on the embeddings.
        workers: processes with a network each.
        cancelled: once it is true, the iterator ends; what was not yielded is dropped.
        fetch: beginnings of addresses that may be fetched.
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
        if cancelled():
            return
        references.append(ray.put(unit))
    if not references:
        return
    processors, cards = _share(ray, workers)
    embedded = ray.data.from_arrow_refs(references).map_batches(
        Worker,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(references))),
        num_cpus=processors,
        num_gpus=cards,
        fn_constructor_args=(
            embedder.name,
            None if saved is None else dict(saved.files()),
            fetch,
            load,
            processors,
        ),
    )
    del references
    for table in embedded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for one in embedded_of(table, stages):
            if cancelled():
                return
            yield one


def _share(ray: Any, workers: int) -> tuple[int, int]:
    """Cores and graphics cards of each worker: as many as let all of them find a machine."""
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    machines = [int(resources.get("CPU", 0)) for resources in there]
    if sum(machines) < workers:
        raise PreconditionError(
            f"{workers} workers need a core each, there are {sum(machines)}; ask for fewer with "
            "--workers, or add machines"
        )
    cards = sum(int(resources.get("GPU", 0)) for resources in there)
    fitting = [
        cores
        for cores in range(1, max(machines) + 1)
        if sum(machine // cores for machine in machines) >= workers
    ]
    return fitting[-1], 1 if cards >= workers else 0


@contextmanager
def cluster(workers: int) -> Iterator[None]:
    """The Ray cluster that a job runs on: the one at `ADDRESS`, or workers on this machine.

    Raises:
        PreconditionError: Ray is not installed, or does not start, or cannot be reached.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors are raised besides
    address = os.environ.get(ADDRESS)
    if not address:
        what = "a job on several processes"
        with local_cluster(os.cpu_count() or 1, _OBJECT_STORE_BYTES, what):
            _share(ray_library(), workers)  # too many workers are told before anything is made
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


def embedding_on_ray(workers: int, load: EncoderLoader = catalogue_encoder) -> Any:
    """`embed_on_ray` with its workers, as an engine of jobs."""
    return partial(embed_on_ray, workers=workers, load=load)
