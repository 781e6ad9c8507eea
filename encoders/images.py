"""Photographs: bytes of a picture file in, one upright RGB array out.

The first bytes decide the format, never the file name: JPEG, PNG, WebP, TIFF, GIF and BMP are read,
no other bytes reach a decoder. Of an animation the first frame is read, of a document the first
page.

Every picture is normalised:

- EXIF orientation is applied, so that up is up;
- transparency is laid on white;
- palettes, greyscale and CMYK become RGB;
- 16-bit greyscale is divided by 257, not clipped; wider integers and floats are scaled as
  `_to_eight_bits` says.

Pixels are counted from the header, before anything is decoded.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import Image as PillowImage
from PIL.ImageFile import ImageFile

from bittern.encoders.base import Image
from bittern.errors import (
    MediaTooLargeError,
    SourceNotFoundError,
    UnreadableMediaError,
    UnsupportedMediaError,
)

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
"""Readable formats."""

_ORIENTATION = 0x0112
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits of a picture.

    Attributes:
        max_bytes: bytes of the file.
        max_pixels: width times height, from the header.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 100_000_000


def image_format(data: bytes) -> str | None:
    """Which of `FORMATS` the first bytes belong to, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    return None


def decode_image(
    data: bytes | Path,
    *,
    name: str,
    limits: ImageLimits | None = None,
    min_side: int | None = None,
) -> Image:
    """Decode a picture file.

    Args:
        data: bytes of the file, or its path (its size is checked before it is read).
        name: of the picture, in errors.
        limits: bytes and pixels allowed; None means the defaults of `ImageLimits`.
        min_side: large pictures are reduced by a whole factor, as long as the shorter side
            keeps at least this many pixels (a JPEG while it is decoded, which is several times
            faster). The result differs from a full decode: use one value for a whole archive.

    Returns:
        uint8 [height, width, 3], upright.

    Raises:
        UnsupportedMediaError: the content is in none of `FORMATS`.
        MediaTooLargeError: more bytes or pixels than the limit.
        UnreadableMediaError: empty, damaged or truncated.
        SourceNotFoundError: no such file.
    """
    limits = limits or ImageLimits()
    if isinstance(data, Path):
        data = _read(data, name, limits)
    _check_bytes(len(data), name, limits)
    kind = image_format(data)
    if kind is None:
        raise UnsupportedMediaError(
            f"{name}: the content is not a readable picture (it begins with "
            f"{data[:8]!r}); convert it to one of {', '.join(FORMATS)}"
        )
    try:
        with _OPENERS[kind](io.BytesIO(data)) as picture:
            _check_pixels(picture.size, name, limits)
            if min_side is not None and kind == "JPEG":
                picture.draft(None, (min_side, min_side))
            picture.load()
            # Read after decoding: the TIFF decoder turns the picture itself.
            orientation = _orientation(picture)
            pixels = _rgb(picture, min_side)
    except (MemoryError, MediaTooLargeError):
        raise
    except PillowImage.DecompressionBombError as error:
        raise MediaTooLargeError(f"{name}: refused before decoding: {error}") from error
    except Exception as error:  # any error, depending on the damage
        raise UnreadableMediaError(
            f"{name}: damaged or truncated {kind} ({len(data)} bytes): "
            f"{error or type(error).__name__}; export it again from its source"
        ) from error
    return _upright(pixels, orientation)


def _read(path: Path, name: str, limits: ImageLimits) -> bytes:
    if not path.exists():
        raise SourceNotFoundError(f"{name}: there is no file {path}", field="source")
    if not path.is_file():
        raise UnreadableMediaError(f"{name}: {path} is not a regular file")
    try:
        _check_bytes(path.stat().st_size, name, limits)
        return path.read_bytes()
    except OSError as error:
        raise UnreadableMediaError(f"{name}: {path} cannot be read: {error}") from error


def _check_bytes(size: int, name: str, limits: ImageLimits) -> None:
    if size == 0:
        raise UnreadableMediaError(f"{name}: the file is empty (0 bytes)")
    if size > limits.max_bytes:
        raise MediaTooLargeError(
            f"{name}: {size} bytes, the limit for a picture is {limits.max_bytes}",
            details={"bytes": str(size), "limit": str(limits.max_bytes)},
        )


def _check_pixels(size: tuple[int, int], name: str, limits: ImageLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"its header claims {width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise MediaTooLargeError(
            f"{name}: {width} x {height} pixels, the limit is {limits.max_pixels} in all; "
            "scale it down first",
            details={"width": str(width), "height": str(height), "limit": str(limits.max_pixels)},
        )


def _orientation(picture: ImageFile) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data does not make the photograph unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(picture: ImageFile, min_side: int | None) -> NDArray[np.uint8]:
    """The picture's colours on white, reduced to about `min_side`: uint8 [h, w, 3]."""
    mode = picture.mode
    if mode == "F" or mode == "I" or mode.startswith("I;"):
        grey = PillowImage.fromarray(_to_eight_bits(np.asarray(picture)))
        return np.repeat(_reduced(grey, min_side)[:, :, None], 3, axis=2)
    has_alpha = mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info
    if not has_alpha:
        return _reduced(picture if mode == "RGB" else picture.convert("RGB"), min_side)
    if mode in ("RGBa", "La"):
        layered = picture.convert("RGBA" if mode == "RGBa" else "LA").convert("RGBA")
    else:
        layered = picture.convert("RGBA")
    paper = PillowImage.new("RGB", layered.size, (255, 255, 255))
    paper.paste(layered, mask=layered.getchannel("A"))
    return _reduced(paper, min_side)


def _reduced(picture: PillowImage.Image, min_side: int | None) -> NDArray[np.uint8]:
    """Pixels, blocks of n by n averaged while the shorter side keeps at least `min_side`."""
    factor = min(picture.size) // min_side if min_side else 1
    return np.array(picture.reduce(factor) if factor > 1 else picture)


def _to_eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Greyscale of more than 8 bits as uint8 [h, w].

    Integers within 0..65535 are 16-bit and divided by 257; floats within 0..1 are multiplied
    by 255; anything else (elevations, radiances, counts) is stretched from its smallest to its
    largest value.

    Raises:
        ValueError: NaN or infinity.
    """
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise ValueError("its pixels hold NaN or infinity")
    low, high = float(wide.min()), float(wide.max())
    if np.issubdtype(values.dtype, np.integer) and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    elif np.issubdtype(values.dtype, np.floating) and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    span = high - low or 1.0
    return np.rint((wide - low) * (255.0 / span)).astype(np.uint8)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> Image:
    """Undo the EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
