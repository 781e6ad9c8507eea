"""The gRPC server: several archives behind one `bittern.v1.ArchiveService`."""

from __future__ import annotations

import errno
import logging
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from bittern.errors import InvalidInputError, PreconditionError
from bittern.service.grpc.job_servicer import JobServicer
from bittern.service.grpc.servicer import ArchiveServicer
from bittern.service.jobs.serving import Jobs
from bittern.service.limits import ServiceConfig
from bittern.v1 import archive_service_pb2 as pb
from bittern.v1 import archive_service_pb2_grpc as pb_grpc
from bittern.v1 import job_service_pb2 as job_pb
from bittern.v1 import job_service_pb2_grpc as job_pb_grpc

if TYPE_CHECKING:
    from bittern.service.local.archive import LocalArchive

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["ArchiveService"].full_name
JOB_SERVICE_NAME = job_pb.DESCRIPTOR.services_by_name["JobService"].full_name
LOOPBACK = "127.0.0.1"
_POLL_S = 0.2
_HOST = re.compile(r"[A-Za-z0-9_.-]{0,253}|\[[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.-]{1,20})?\]")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger("bittern.service")


class Server:
    """A running server; made by `serve`. As a context manager it stops at the end.

    Attributes:
        host: name or address that it listens on.
        port: likewise.
    """

    def __init__(
        self,
        server: grpc.Server,
        servicer: ArchiveServicer,
        checks: health.HealthServicer,
        jobs: Jobs,
        *,
        host: str,
        port: int,
        grace_s: float,
    ) -> None:
        self._server = server
        self._servicer = servicer
        self._checks = checks
        self._jobs = jobs
        self._grace_s = grace_s
        self._stopped = threading.Event()
        self._stop_requested = threading.Event()
        self.host = host
        self.port = port

    @property
    def address(self) -> str:
        """``host:port``, as `bittern.connect` takes it."""
        return f"{self.host}:{self.port}"

    def stop(self, grace: float | None = None) -> None:
        """Stop, and return when nothing runs any more.

        Health becomes NOT_SERVING and new calls are refused at once. Running calls may finish; open
        Add calls commit and answer their items. A running job makes a last commit, and continues
        when the archive is served again.

        Args:
            grace: seconds after which running calls are cancelled; None for the configuration's
                `grace_s`.
        """
        self._servicer.stopping.set()
        self._jobs.queue.stop_soon()
        self._checks.enter_graceful_shutdown()
        _await(self._server.stop(self._grace_s if grace is None else grace))
        self._jobs.queue.close()
        if not self._stopped.is_set():
            log.info("stopped listening on %s", self.address)
        self._stopped.set()
        self._stop_requested.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self, ready: Callable[[], object] = lambda: None) -> None:
        """Block until the server has stopped.

        In the main thread, SIGTERM and SIGINT also stop the server: running calls finish; a
        second signal cancels them.

        Args:
            ready: called when signals are handled.
        """
        with self._stopping_on_signals():
            ready()
            _await(self._stop_requested)
            if not self._stopped.is_set():
                self.stop()

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def request_stop(number: int, frame: FrameType | None) -> None:
            if self._stop_requested.is_set():  # in a thread: this one may hold gRPC's lock
                threading.Thread(target=self._server.stop, args=(0,)).start()
            self._stop_requested.set()

        before = {number: signal.signal(number, request_stop) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _await(event: threading.Event) -> None:
    """Wait for an event, with a timeout in a loop, so Python can handle signals in between."""
    while not event.wait(_POLL_S):
        pass


def serve(
    archives: Mapping[str, LocalArchive],
    *,
    listen: str = f"{LOOPBACK}:50051",
    config: ServiceConfig | None = None,
    jobs: Jobs | None = None,
) -> Server:
    """Start a server of some archives; return at once.

    The caller closes the archives after the server has stopped.

    Args:
        archives: by the name that clients use.
        listen: ``HOST:PORT``. Without a host, only this machine can connect (127.0.0.1). Port 0
            chooses a free port, see `Server.port`.
        config: limits.
        jobs: codes media of this machine; None for no jobs. Closed with the server.

    Raises:
        InvalidInputError: no archives, or `listen` is not an address.
        PreconditionError: the port is in use, or the host is not this machine's.
    """
    config = config or ServiceConfig()
    if not archives:
        raise InvalidInputError("name at least one archive to serve", field="archives")
    host, port = parse_listen(listen)
    server = grpc.server(
        ThreadPoolExecutor(config.workers, thread_name_prefix="bittern-rpc"),
        maximum_concurrent_rpcs=config.max_concurrent_rpcs,
        options=[
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # otherwise a second server would share the port
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    jobs = jobs or Jobs.none()
    servicer = ArchiveServicer(archives, config)
    pb_grpc.add_ArchiveServiceServicer_to_server(servicer, server)
    job_servicer = JobServicer(jobs.queue, jobs.allowed, servicer.archive, config)
    job_pb_grpc.add_JobServiceServicer_to_server(job_servicer, server)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in (SERVICE_NAME, JOB_SERVICE_NAME, health.OVERALL_HEALTH):
        checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(
        (SERVICE_NAME, JOB_SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    bound = _bind(server, host, port)
    server.start()
    log.info("listening on %s:%d for %s", host, bound, ", ".join(sorted(archives)))
    return Server(server, servicer, checks, jobs, host=host, port=bound, grace_s=config.grace_s)


def parse_listen(listen: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``.

    Raises:
        InvalidInputError: it is something else.
    """
    host, colon, port = listen.rpartition(":")
    if colon and not _HOST.fullmatch(host):
        raise InvalidInputError(
            f"listen must be HOST:PORT with a host name, an IPv4 address or an IPv6 address in "
            f"brackets, not {listen[:100]!r}; for all addresses of this machine write 0.0.0.0:PORT "
            "or [::]:PORT",
            field="listen",
        )
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise InvalidInputError(
            f"listen must be HOST:PORT with a port from 0 to 65535, not {listen!r}", field="listen"
        )
    return host or LOOPBACK, int(port)


def _bind(server: grpc.Server, host: str, port: int) -> int:
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise PreconditionError(
            f"cannot listen on {host}:{port} ({_bind_error(host, port)})", field="listen"
        )
    return bound


def _bind_error(host: str, port: int) -> str:
    """The operating system's error for this address, and a remedy."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is too long
        reason = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", None) != errno.EADDRINUSE:
            return f"{reason}; give an address of this machine, such as {LOOPBACK} or 0.0.0.0"
    else:
        reason = "it may be in use"
    return f"{reason}; stop what listens there, or choose another port (0 takes a free one)"
