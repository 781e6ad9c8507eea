"""A server codes what lies on its own disks, is killed in the middle, and goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.client import connect
from bittern.encoders.base import Media, Modality
from bittern.index.archive import Archive
from bittern.service.grpc.server import Server, serve
from bittern.service.jobs.serving import AllowedFolders, Jobs
from bittern.service.local.archive import LocalArchive
from bittern.types import AddStatus
from tests.engine.conftest import toy_model
from tests.engine.toy import ToyEncoder, fill_folder
from tests.jobs.test_queue import WAIT_S


class Held(ToyEncoder):
    """Waits before each batch until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.begun = threading.Event()

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        if modality != Modality.TEXT:
            self.begun.set()
            self.go.wait(WAIT_S)
        return super().encode(modality, batch)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return fill_folder(tmp_path / "media")


@pytest.fixture
def archive(tmp_path: Path, media: Path) -> Path:
    with Archive.create(tmp_path / "marsh") as archive:
        LocalArchive(archive, load_encoder=lambda name: ToyEncoder()).registry.register(
            toy_model(ToyEncoder())
        )
    return tmp_path / "marsh"


def served(archive: Path, media: Path, encoder: ToyEncoder) -> tuple[Server, Archive]:
    opened = Archive.open(archive, write=True)
    engines = {"marsh": LocalArchive(opened, load_encoder=lambda name: encoder)}
    jobs = Jobs.of(engines, AllowedFolders({"media": media}))
    return serve(engines, listen="127.0.0.1:0", jobs=jobs), opened


@pytest.fixture
def running(archive: Path, media: Path) -> Iterator[Server]:
    server, opened = served(archive, media, ToyEncoder())
    yield server
    server.stop(grace=0)
    opened.close()


def test_a_folder_is_coded_and_found(running: Server) -> None:
    with connect(running.address, archive="marsh") as remote:
        job = remote.jobs.submit("media", model="toy-64")
        *_, last = remote.jobs.watch(job.id)
        assert (last.state, last.error) == ("done", "")
        assert last.progress.items[AddStatus.ADDED] == 7
        assert last.progress.observations == 8
        assert last.progress.failures == []
        assert last.progress.stages["network"].items == 8
        assert remote.search("red", k=1).hits[0].observation.media == "red.png"
        *_, again = remote.jobs.watch(remote.jobs.submit("media", model="toy-64").id)
        assert again.progress.items[AddStatus.SKIPPED] == 7


def test_a_job_fails_if_all_of_its_items_fail(running: Server, media: Path) -> None:
    for path in media.rglob("*.*"):
        path.write_bytes(b"no picture")
    with connect(running.address, archive="marsh") as remote:
        *_, last = remote.jobs.watch(remote.jobs.submit("media", model="toy-64").id)
    assert (last.state, last.error) == ("failed", "none of the 7 items could be used")


def test_a_job_survives_the_end_of_its_server(archive: Path, media: Path) -> None:
    encoder = Held()
    server, opened = served(archive, media, encoder)
    with connect(server.address, archive="marsh") as remote:
        job = remote.jobs.submit("media", model="toy-64")
        assert encoder.begun.wait(WAIT_S)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    encoder.go.set()
    stopping.join(WAIT_S)
    opened.close()
    server, opened = served(archive, media, ToyEncoder())
    with connect(server.address, archive="marsh") as remote:
        *_, last = remote.jobs.watch(job.id)
        assert (last.state, last.runs) == ("done", 2)
        assert sum(remote.stats().observations.values()) == 8
    server.stop(grace=0)
    opened.close()
