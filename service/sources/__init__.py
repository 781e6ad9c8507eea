"""Sources of media: folders, manifests, and exports of sites and devices.

base.py       options, entries and sources
formats.py    the formats and their detection
listing.py    what formats that join tables have in common
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
