"""A server of a fake archive on a free port, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from bittern.client import RemoteArchive, connect
from bittern.service.grpc.server import Server, serve
from bittern.service.limits import ServiceConfig
from bittern.v1 import archive_service_pb2_grpc as pb_grpc
from tests.service.fake_archive import FakeArchive


@pytest.fixture
def served() -> FakeArchive:
    return FakeArchive()


@pytest.fixture
def config() -> ServiceConfig:
    return ServiceConfig(workers=8, max_add_streams=2)


@pytest.fixture
def server(served: FakeArchive, config: ServiceConfig) -> Iterator[Server]:
    server = serve({"herons": served}, listen="127.0.0.1:0", config=config)
    yield server
    server.stop(grace=0)


@pytest.fixture
def remote(server: Server) -> Iterator[RemoteArchive]:
    with connect(server.address, timeout_s=20) as archive:
        yield archive


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> pb_grpc.ArchiveServiceStub:
    return pb_grpc.ArchiveServiceStub(channel)
