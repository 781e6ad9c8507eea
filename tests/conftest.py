"""No test uses the network, and examples are the same in every run but those of `make soak`."""

from __future__ import annotations

import os

from hypothesis import settings

# Set before anything imports a hub's client.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Consoles take their width when they are imported, which any test may do first.
os.environ["COLUMNS"] = "160"

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
