"""Ray on this machine only: it does not listen on a network and sends no usage reports.

A cluster of several machines is started with Ray's own command (see docs/background/search.md),
and connected to with `ray.init`.
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
    """Import Ray.

    Args:
        what: the feature that needs it, for the message.

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


_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # Read on Linux too, despite its name: use the loopback interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""Environment variables that Ray reads when it is imported."""


@contextmanager
def local_cluster(
    cpus: int = 2,
    object_store_bytes: int = _LEAST_OBJECT_STORE_BYTES,
    what: str = "search over several processes or machines",
) -> Iterator[None]:
    """Start Ray, reachable from this machine only; stop it at the end.

    Args:
        cpus: number of cores for its actors.
        object_store_bytes: shared memory for messages between processes.
        what: the feature that needs it, for messages.

    Raises:
        PreconditionError: Ray is not installed, was imported or started before, or does not start.
    """
    if "ray" in sys.modules and _ENVIRONMENT.items() - os.environ.items():
        raise PreconditionError(
            "Ray was imported before it was configured to stay on this machine; "
            "enter local_cluster before ray is imported"
        )
    os.environ.update(_ENVIRONMENT)
    # The secret of its processes, so that none is written to a file.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray = ray_library(what)
    if ray.is_initialized():
        raise PreconditionError("Ray runs in this process already; use the cluster it is part of")
    # A short name, since paths of sockets are limited.
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
                f"Ray does not start on this machine ({error}); check free memory, and free "
                "space in /dev/shm and in the temporary folder"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()
