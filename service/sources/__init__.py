"""Where media come from: folders, manifests, and what sites and devices export.

base.py       what all sources have in common
formats.py    the formats, and how one is detected
folder.py, manifest.py and one file for each further format
"""

from bittern.service.sources.base import (
    AUDIO_SUFFIXES,
    IMAGE_SUFFIXES,
    Entry,
    Listed,
    Reader,
    Source,
    SourceOptions,
    another_medium,
)
from bittern.service.sources.formats import read_source

__all__ = [
    "AUDIO_SUFFIXES",
    "IMAGE_SUFFIXES",
    "Entry",
    "Listed",
    "Reader",
    "Source",
    "SourceOptions",
    "another_medium",
    "read_source",
]
