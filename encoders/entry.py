"""What the catalogue knows about an encoder without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bittern.encoders.base import Modality

Layout = Literal["open_clip", "clap", "embedded"]


@dataclass(frozen=True, slots=True)
class EncoderEntry:
    """One encoder of the catalogue.

    Attributes:
        name: what users call it.
        layout: how its files are laid out, which decides what loads them.
        hub_id: repository on the Hugging Face hub; empty for an embedded encoder.
        revision: commit of that repository, or a branch where no commit is known.
        architecture: in words.
        dim: length of an embedding.
        modalities: its towers.
        licence: of the weights.
        size_mb: megabytes to download, about.
        weights_file: the weights file of that revision; empty where not known.
        sha256: of that file; empty where not known.
        source: the paper.
    """

    name: str
    layout: Layout
    hub_id: str
    revision: str
    architecture: str
    dim: int
    modalities: tuple[Modality, ...]
    licence: str
    size_mb: int
    weights_file: str = ""
    sha256: str = ""
    source: str = ""

    @property
    def pinned(self) -> bool:
        """Whether `revision` is a commit, which always means the same files."""
        return len(self.revision) == 40 and set(self.revision) <= set("0123456789abcdef")
