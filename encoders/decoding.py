"""How media are decoded before a tower sees them.

This decides codes as much as weights do, so the two sentences are part of the digests of image
and audio towers. Whoever changes the decoders changes the sentence.
"""

from __future__ import annotations

SHORTER_SIDE = 512
"""Pictures are decoded to at least this many pixels on the shorter side."""
PICTURES = f"1: upright 8-bit RGB; reduced by a whole factor, side >= {SHORTER_SIDE}"
SOUNDS = "1: mean of the channels, soxr HQ"
