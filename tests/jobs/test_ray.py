"""Jobs on Ray come to the same rows and codes as in one process, whatever happens to a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bittern.encoders.base import Media, Modality
from bittern.hashing.saved_model import SavedModel
from bittern.index.archive import Archive
from bittern.index.engines.sharded.cluster import local_cluster
from bittern.index.observation import Fingerprint
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.items import Embedded, PipelineEntry, Recheck
from bittern.service.ingest.report import new_stages
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.indexing import JobControl, index_source
from bittern.service.jobs.ray import (
    UNIT_ITEMS,
    embed_on_ray,
    embedded_of,
    embedded_to_table,
    entries_of,
    units_of,
)
from bittern.service.local.archive import LocalArchive
from bittern.service.models.model import Embedder
from bittern.types import AddResult, AddStatus, MediaItem
from tests.engine.conftest import toy_model
from tests.engine.toy import ToyEncoder

pytestmark = pytest.mark.ray


def toy(name: str) -> ToyEncoder:
    return ToyEncoder()


class Deadly(ToyEncoder):
    """Kills its process at a picture of one colour, the first time that it sees one."""

    def __init__(self, flag: Path) -> None:
        super().__init__()
        self.flag = flag

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        for image in batch:
            deadly = isinstance(image, np.ndarray) and image.ndim == 3 and image[0, 0, 0] == 201
            if deadly and not self.flag.exists():
                self.flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(modality, batch)


class DeadlyLoader:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __call__(self, name: str) -> Deadly:
        return Deadly(self.flag)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with local_cluster(cpus=3):
        yield


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[PipelineEntry]:
    folder = tmp_path_factory.mktemp("pictures")
    found: list[PipelineEntry] = []
    for number in range(UNIT_ITEMS + 40):
        path = folder / f"{number}.png"
        Image.new("RGB", (24, 24), (number % 256, 90, 30)).save(path)
        metadata = {"number": number, "wild": True, "name": None, "weight": 0.1}
        item = MediaItem(f"p{number}", path.name, "image", path, None, str(folder), metadata)
        found.append(item)
    found[5] = AddResult("p5", AddStatus.SKIPPED, message="there already")
    (folder / "7.png").write_bytes(b"no picture")
    data = (folder / "9.png").read_bytes()
    found[9] = MediaItem("p9", "9.png", "image", None, data)
    assert isinstance(found[11], MediaItem)
    found[11] = Recheck(found[11], Fingerprint("0" * 32, 3, 1), False, "renew")
    return found


def same(found: list[Embedded], wanted: list[Embedded]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.result == other.result
        assert (one.spans, one.fingerprint, one.renews) == (
            other.spans,
            other.fingerprint,
            other.renews,
        )
        assert (one.item is None) == (other.item is None)
        if one.item is not None and other.item is not None:
            assert one.item.occurrence_id == other.item.occurrence_id
            assert dict(one.item.metadata) == dict(other.item.metadata)
            assert one.item.path == other.item.path
        if one.result is None:
            assert np.array_equal(one.stacked(), other.stacked())


def test_units_come_back_as_they_were(entries: list[PipelineEntry]) -> None:
    units = list(units_of(entries))
    assert [len(unit) for unit in units] == [UNIT_ITEMS, 40]
    assert [entry for unit in units for entry in entries_of(unit)] == entries


def test_what_was_embedded_comes_back_as_it_was(entries: list[PipelineEntry]) -> None:
    stages, counted = new_stages(), new_stages()
    embedder = Embedder("toy", toy)
    wanted = list(embed_items(embedder, entries, stages))
    found = list(embedded_of(embedded_to_table(wanted, stages), counted))
    same(found, wanted)
    assert counted == stages


def test_workers_embed_what_one_process_embeds_in_the_same_order(
    cluster: None, entries: list[PipelineEntry]
) -> None:
    embedder, control = Embedder("toy", toy), JobControl(workers=2)
    found = list(embed_on_ray(embedder, entries, control, None, toy))
    same(found, list(embed_items(embedder, entries)))
    assert control.report.stages["network"].items == len(entries) - 2


def test_a_worker_that_is_killed_loses_nothing(
    cluster: None, entries: list[PipelineEntry], tmp_path: Path
) -> None:
    flag = tmp_path / "killed"
    embedder = Embedder("toy", toy)
    control = JobControl(workers=2)
    found = list(embed_on_ray(embedder, entries, control, None, DeadlyLoader(flag)))
    assert flag.exists()
    same(found, list(embed_items(embedder, entries)))


def test_a_job_that_is_cancelled_ends(cluster: None, entries: list[PipelineEntry]) -> None:
    taken: list[Embedded] = []
    control = JobControl(cancelled=lambda: len(taken) >= 3, workers=1)
    for embedded in embed_on_ray(Embedder("toy", toy), entries, control, None, toy):
        taken.append(embedded)
    assert len(taken) == 3


class OnToyWorkers(JobControl):
    """Workers load the toy encoder, which is in no catalogue."""

    def embed(
        self,
        embedder: Embedder,
        entries: Iterable[PipelineEntry],
        saved: SavedModel | None = None,
    ) -> Iterator[Embedded]:
        return embed_on_ray(embedder, entries, self, saved, toy)


def test_an_archive_made_on_ray_is_the_one_made_in_one_process(
    cluster: None, tmp_path: Path, entries: list[PipelineEntry]
) -> None:
    toy_model(ToyEncoder()).save(tmp_path / "model")
    found = {}
    for engine, make in (("here", JobControl), ("ray", lambda: OnToyWorkers(workers=2))):
        options = IndexOptions(model=str(tmp_path / "model"))
        listed = [entry for entry in entries if not isinstance(entry, Recheck)]
        with Archive.create(tmp_path / engine) as archive:
            report = index_source(LocalArchive(archive, load_encoder=toy), listed, options, make())
            again = index_source(LocalArchive(archive, load_encoder=toy), listed, options, make())
            rows = archive.iter_batches(model=archive.model_records()[0].digest)
            found[engine] = [row for batch in rows for row in batch.to_pylist()]
        assert report.items == {"added": 293, "overwritten": 0, "skipped": 1, "failed": 1}
        assert again.items == {"added": 0, "overwritten": 0, "skipped": 294, "failed": 1}
    assert found["ray"] == found["here"]
