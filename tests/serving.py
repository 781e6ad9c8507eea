"""An archive behind a server on a free port of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bittern.client import RemoteArchive, connect
from bittern.service.grpc.server import serve
from bittern.service.local.archive import LocalArchive


@contextmanager
def client_of(archive: LocalArchive) -> Iterator[RemoteArchive]:
    with serve({archive.name: archive}, listen=":0") as server, connect(server.address) as client:
        yield client
