"""Starting, being found, and stopping: ports, health, reflection, several archives, signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from bittern.client import connect
from bittern.errors import ArchiveNotFoundError, InvalidInputError, PreconditionError
from bittern.service.grpc.server import JOB_SERVICE_NAME, SERVICE_NAME, Server, serve
from bittern.service.grpc.status import from_rpc_error
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc
from tests.service.fake_archive import PATIENCE_S, FakeArchive, Hold

REPOSITORY = Path(__file__).parents[2]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize(
    ("listen", "host"),
    [(":0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.1"), ("localhost:0", "localhost")],
)
def test_port_0_is_a_free_port_of_this_machine(listen: str, host: str) -> None:
    server = serve({"herons": FakeArchive()}, listen=listen)
    try:
        assert server.address == f"{host}:{server.port}"
        assert server.port > 0
        with connect(server.address, timeout_s=PATIENCE_S) as remote:
            assert remote.name == "herons"
    finally:
        server.stop(grace=0)


def test_a_used_port_and_a_host_of_another_machine_are_refused(server: Server) -> None:
    with pytest.raises(PreconditionError, match=f"{server.port} .*in use.*choose another"):
        serve({"herons": FakeArchive()}, listen=server.address)
    with pytest.raises(PreconditionError, match=r"cannot listen on 192\.0\.2\.1:0.*127\.0\.0\.1"):
        serve({"herons": FakeArchive()}, listen="192.0.2.1:0")


@pytest.mark.parametrize(
    "listen",
    ["", "localhost", "localhost:", "localhost:http", ":65536", "*:0", "::1:0", "a b:0", "x\x1b:0"],
)
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(InvalidInputError, match="HOST:PORT"):
        serve({"herons": FakeArchive()}, listen=listen)


def test_a_server_without_archives_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least one archive"):
        serve({}, listen=":0")


@pytest.mark.parametrize("address", ["", "  ", None])
def test_an_empty_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInputError, match="address"):
        connect(address)


# Being found


@pytest.mark.parametrize("name", ["", "bittern.v1.ArchiveService"])
def test_health_is_serving_overall_and_for_the_service(channel: grpc.Channel, name: str) -> None:
    request = health_pb2.HealthCheckRequest(service=name)
    assert health_pb2_grpc.HealthStub(channel).Check(request).status == SERVING


def test_reflection_lists_the_services_and_describes_search(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    assert {SERVICE_NAME, JOB_SERVICE_NAME, "grpc.health.v1.Health"} <= services
    described = DescriptorPool(database).FindServiceByName(SERVICE_NAME)
    assert {method.name for method in described.methods} == {
        *("Search", "Add", "Get", "List", "Delete"),
        *("Encode", "Stats", "ListModels", "ListArchives", "Export"),
    }


# Several archives


@pytest.fixture
def two() -> Iterator[Server]:
    archives = {"owls": FakeArchive("owls", rows=4), "herons": FakeArchive("herons", rows=8)}
    server = serve(archives, listen=":0")
    yield server
    server.stop(grace=0)


def test_each_archive_answers_by_its_name(two: Server) -> None:
    with connect(two.address, archive="owls") as owls, connect(two.address, archive="herons") as h:
        assert (len(list(owls.list())), len(list(h.list()))) == (4, 8)
        assert (owls.stats().name, h.stats().name) == ("owls", "herons")


@pytest.mark.parametrize("archive", ["", "storks", "../owls"])
def test_an_unknown_archive_is_answered_with_the_names(two: Server, archive: str) -> None:
    with pytest.raises(ArchiveNotFoundError, match="herons, owls"):
        connect(two.address, archive=archive)
    with grpc.insecure_channel(two.address) as channel:
        stub = pb_grpc.ArchiveServiceStub(channel)
        assert [a.name for a in stub.ListArchives(pb.ListArchivesRequest()).archives] == [
            "herons",
            "owls",
        ]
        for call in (
            lambda: stub.Search(pb.SearchRequest(archive=archive, text="x")),
            lambda: stub.Get(pb.GetRequest(archive=archive, id="x")),
            lambda: stub.List(pb.ListRequest(archive=archive)),
            lambda: stub.Delete(pb.DeleteRequest(archive=archive)),
            lambda: stub.Encode(pb.EncodeRequest(archive=archive, text="x")),
            lambda: stub.Stats(pb.StatsRequest(archive=archive)),
            lambda: stub.ListModels(pb.ListModelsRequest(archive=archive)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            error = from_rpc_error(caught.value, "")
            assert type(error) is ArchiveNotFoundError
            assert (error.field, error.details["archives"]) == ("archive", "herons, owls")


# Stopping


def test_stopping_says_so_and_lets_calls_in_flight_finish(
    server: Server, served: FakeArchive, channel: grpc.Channel
) -> None:
    hold = served.on_search = Hold()
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == SERVING
    call = pb_grpc.ArchiveServiceStub(channel).Search.future(pb.SearchRequest(text="a heron"))
    assert hold.begun.acquire(timeout=PATIENCE_S)
    stopping = threading.Thread(target=server.stop, args=(PATIENCE_S,))
    stopping.start()
    assert next(watch).status == NOT_SERVING
    watch.cancel()
    hold.release.set()
    assert call.result(PATIENCE_S).hits
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()


def test_calls_that_outlast_the_grace_are_cut_off(
    server: Server, served: FakeArchive, stub: pb_grpc.ArchiveServiceStub
) -> None:
    hold = served.on_search = Hold()
    call = stub.Search.future(pb.SearchRequest(text="a heron"))
    assert hold.begun.acquire(timeout=PATIENCE_S)
    server.stop(grace=0)
    assert call.exception(PATIENCE_S) is not None
    hold.release.set()


def test_wait_returns_when_the_server_stops(server: Server) -> None:
    waiting = threading.Thread(target=server.wait)
    waiting.start()
    server.stop(grace=0)
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()
    server.stop(grace=0)
    server.wait()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.serve_fake"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


@dataclass
class Searching:
    """A search that a server process holds until it is released."""

    process: subprocess.Popen[str]
    call: grpc.Future[pb.SearchResponse]
    watch: Iterator[health_pb2.HealthCheckResponse]

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def last_words(self) -> str:
        assert self.process.stdout is not None
        assert self.process.wait(PATIENCE_S) == 0
        return self.process.stdout.read()


@pytest.fixture
def searching(process: subprocess.Popen[str]) -> Iterator[Searching]:
    assert process.stdout is not None
    port = int(process.stdout.readline())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        stub = pb_grpc.ArchiveServiceStub(channel)
        call = stub.Search.future(pb.SearchRequest(text="a heron"))
        assert process.stdout.readline() == "searching\n"
        yield Searching(process, call, watch)
        watch.cancel()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_calls_finish_and_ends_the_process_with_0(
    searching: Searching, number: signal.Signals
) -> None:
    searching.process.send_signal(number)
    assert next(searching.watch).status == NOT_SERVING
    searching.watch.cancel()  # type: ignore[attr-defined]
    searching.release()
    assert searching.call.result(PATIENCE_S).hits
    assert searching.last_words() == "stopped\n"


def test_a_second_signal_cuts_calls_off(searching: Searching) -> None:
    searching.process.send_signal(signal.SIGINT)
    assert next(searching.watch).status == NOT_SERVING
    searching.process.send_signal(signal.SIGINT)
    assert searching.call.exception(PATIENCE_S / 4) is not None  # sooner than the grace ends
    searching.release()
    assert searching.last_words() == "stopped\n"


def test_a_signal_that_another_thread_is_given_is_heard() -> None:
    server = serve({"herons": FakeArchive()}, listen="127.0.0.1:0")
    given_up = threading.Event()

    def give_up() -> None:
        given_up.set()
        server.stop(grace=0)

    def signal_myself() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    patience = threading.Timer(PATIENCE_S, give_up)
    patience.start()
    server.wait(lambda: threading.Thread(target=signal_myself).start())
    patience.cancel()
    assert not given_up.is_set()
