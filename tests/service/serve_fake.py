"""A server process for the tests that send signals: a fake archive whose searches wait."""

from __future__ import annotations

import sys
import threading

from bittern.service.grpc.server import serve
from bittern.service.limits import Deadline
from tests.service.fake_archive import FakeArchive


def main() -> None:
    """Print the port, then `searching` for each search, which ends with a line on stdin."""
    release = threading.Event()

    def hold(deadline: Deadline | None) -> None:
        print("searching", flush=True)
        release.wait(30)

    served = FakeArchive()
    served.on_search = hold
    server = serve({"herons": served}, listen=":0")

    def release_on_a_line() -> None:
        sys.stdin.readline()
        release.set()

    threading.Thread(target=release_on_a_line, daemon=True).start()
    print(server.port, flush=True)
    server.wait()
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
