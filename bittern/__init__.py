"""Bittern finds wildlife photographs and sound recordings by words, by sound or by picture."""

from __future__ import annotations

__version__ = "0.1.0"
