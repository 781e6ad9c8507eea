"""Files that spare work at the next opening and are never needed for a right answer."""

from bittern.index.derived.files import DerivedFiles, DerivedSet

__all__ = ["DerivedFiles", "DerivedSet"]
