"""The machine and the versions that numbers were measured with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from bittern.index.engines.threads import usable_cores

_PACKAGES = (
    "bittern-search",
    "numpy",
    "faiss-gpu",
    "faiss-cpu",
    "lancedb",
    "usearch",
    "torch",
    "open-clip-torch",
    "transformers",
    "peft",
    "ai-edge-litert",
    "grpcio",
)


def describe(load_before: float | None = None) -> dict[str, Any]:
    """Processor, cores, memory, threads and versions, as JSON values.

    Threads are those of the loaded libraries, so call this after measuring.

    Args:
        load_before: the load average before measuring.
    """
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": load_before,
        "threads": threads(),
        "python": platform.python_version(),
        "versions": versions(),
    }


def lines(machine: dict[str, Any]) -> list[str]:
    """The machine as lines of text."""
    used = ", ".join(f"{name} {count}" for name, count in machine["threads"].items())
    load = machine["load_before"]
    return [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB, "
        f"{machine['system']}; threads: {used}",
        "load before: "
        + (f"{load:.2f}" if load is not None else "unknown")
        + "".join(f"; {name} {version}" for name, version in machine["versions"].items())
        + f"; Python {machine['python']}",
    ]


def revision() -> str:
    """Commit of the checkout, with ``+`` for changed files; empty without a checkout."""
    root, git = Path(__file__).parents[1], shutil.which("git")
    if git is None or not (root / ".git").exists():
        return ""

    def output(*words: str) -> str:
        done = subprocess.run(  # noqa: S603 - fixed words
            [git, "-C", str(root), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = output("status", "--porcelain", "--untracked-files=no")
    return output("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def cpu_model() -> str:
    """Name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or "unknown processor"


def memory_gib() -> float:
    """Memory of the machine in GiB; 0 if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return 0.0


def load_average() -> float | None:
    """Load average of the last minute; None if unknown."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def threads() -> dict[str, int | str]:
    """Threads of each loaded library."""
    found: dict[str, int | str] = {}
    if "torch" in sys.modules:
        import torch

        found["torch"] = torch.get_num_threads()
    if "faiss" in sys.modules:
        import faiss

        found["faiss"] = int(faiss.omp_get_max_threads())
    found["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "not set")
    return found


def versions() -> dict[str, str]:
    """Installed versions of the packages that affect the numbers."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
