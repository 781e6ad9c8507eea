"""Ray on this machine alone: nothing of it listens on a network, and nothing is reported.

A cluster of several machines is started with Ray's own command (see docs/background/search.md); a
program that was connected to it with `ray.init` needs none of this.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bittern.errors import PreconditionError

_LEAST_OBJECT_STORE_BYTES = 80 << 20
"""Ray refuses to start with less than 75 MiB."""


def ray_library(what: str = "search over several processes or machines") -> Any:
    """The library, loaded when it is first needed.

    Args:
        what: needs it, for the message.

    Raises:
        PreconditionError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise PreconditionError(
            f"{what} needs Ray; install it with: pip install 'bittern-search[ray]'"
        ) from error
    return ray


_AS_RAY_IS_LOADED = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # Despite its name this is read on Linux as well: no cluster, so the loopback interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""What Ray reads from the environment, once, as it is imported."""


@contextmanager
def local_cluster(
    cpus: int = 2,
    object_store_bytes: int = _LEAST_OBJECT_STORE_BYTES,
    what: str = "search over several processes or machines",
) -> Iterator[None]:
    """Start Ray on this machine, reachable from this machine only; stop it at the end.

    Args:
        cpus: how many cores its actors may take together.
        object_store_bytes: shared memory for what is sent between processes.
        what: needs it, for messages.

    Raises:
        PreconditionError: Ray is not installed, was imported or started before, or does not start.
    """
    if "ray" in sys.modules and _AS_RAY_IS_LOADED.items() - os.environ.items():
        raise PreconditionError(
            "Ray was imported before it could be told to stay on this machine; "
            "enter local_cluster before anything imports ray"
        )
    os.environ.update(_AS_RAY_IS_LOADED)
    # The secret that its processes share, so that none has to be written to a file.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray = ray_library(what)
    if ray.is_initialized():
        raise PreconditionError("Ray runs in this process already; use the cluster it is part of")
    # Paths of sockets may not be long, so the folder's name is short.
    with tempfile.TemporaryDirectory(prefix="br-") as folder:
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=object_store_bytes,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                _temp_dir=folder,
            )
        except Exception as error:
            raise PreconditionError(
                f"Ray does not start on this machine ({error}); "
                "look for free memory, and for space in /dev/shm and in the temporary folder"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()
