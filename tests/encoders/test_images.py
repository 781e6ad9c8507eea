"""What a picture file becomes, and which are refused."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PillowImage

from bittern.encoders.images import FORMATS, ImageLimits, decode_image
from bittern.errors import (
    MediaError,
    MediaTooLargeError,
    SourceNotFoundError,
    UnreadableMediaError,
    UnsupportedMediaError,
)


def scene(height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    """Red above left, green above right, blue below left, white below right."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2, 0] = 255
    pixels[: height // 2, width // 2 :, 1] = 255
    pixels[height // 2 :, : width // 2, 2] = 255
    pixels[height // 2 :, width // 2 :] = 255
    return pixels


def saved(picture: PillowImage.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def file_of(pixels: NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    return saved(PillowImage.fromarray(pixels), kind, **options)


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with hardly any data behind it."""

    def chunk(label: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body))
            + label
            + body
            + struct.pack(">I", zlib.crc32(label + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_on_the_list_is_read(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode_image(file_of(scene(), kind, **options), name="a picture")
    assert image.dtype == np.uint8
    assert image.shape == (40, 60, 3)
    if kind in ("PNG", "TIFF", "BMP", "WEBP"):
        np.testing.assert_array_equal(image, scene())
    else:
        assert np.abs(image.astype(int) - scene()).mean() < 8


def test_format_not_on_the_list_is_refused_with_the_list() -> None:
    with pytest.raises(UnsupportedMediaError, match=r"heron\.ppm.*JPEG, PNG"):
        decode_image(file_of(scene(), "PPM"), name="heron.ppm")


def test_text_file_named_jpg_is_refused_with_its_name() -> None:
    with pytest.raises(UnsupportedMediaError, match=r"notes\.jpg"):
        decode_image(b"Dear diary, today I saw a bittern.", name="notes.jpg")


def test_png_named_jpg_is_read() -> None:
    np.testing.assert_array_equal(decode_image(file_of(scene()), name="owl.jpg"), scene())


def test_truncated_jpeg_is_refused_with_its_name() -> None:
    data = file_of(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8), "JPEG")
    with pytest.raises(UnreadableMediaError, match=r"owl\.jpg.*truncated"):
        decode_image(data[: len(data) // 2], name="owl.jpg")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "BMP", "WEBP"])
def test_truncated_picture_is_refused(kind: str) -> None:
    data = file_of(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), kind)
    with pytest.raises(UnreadableMediaError, match="owl"):
        decode_image(data[: len(data) // 2], name="owl")


def test_empty_file_is_refused() -> None:
    with pytest.raises(UnreadableMediaError, match=r"owl\.jpg.*empty"):
        decode_image(b"", name="owl.jpg")


@pytest.mark.parametrize("side", [9_500, 20_000, 60_000])
def test_header_that_claims_too_many_pixels_is_refused_before_decoding(side: int) -> None:
    limits = ImageLimits(max_pixels=90_000_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MediaTooLargeError, match=rf"bomb\.png.*{side} x {side}.*90000000"):
            decode_image(png_header(side, side), name="bomb.png", limits=limits)


def test_pillows_own_pixel_limit_does_not_narrow_ours() -> None:
    wide = ImageLimits(max_pixels=10**12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableMediaError):
            decode_image(png_header(9_800, 9_800), name="large but honest", limits=wide)


def test_too_many_bytes_are_refused_with_both_numbers() -> None:
    data = file_of(scene())
    with pytest.raises(MediaTooLargeError, match=rf"{len(data)} bytes.*is 10$"):
        decode_image(data, name="owl", limits=ImageLimits(max_bytes=10))


def test_file_on_disk_is_read(tmp_path: Path) -> None:
    (tmp_path / "owl.png").write_bytes(file_of(scene()))
    np.testing.assert_array_equal(decode_image(tmp_path / "owl.png", name="owl"), scene())


def test_file_on_disk_that_is_too_large_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "owl.jpg"
    with path.open("wb") as stream:
        stream.truncate(10**13)  # a hole: it takes no space
    with pytest.raises(MediaTooLargeError, match="10000000000000 bytes"):
        decode_image(path, name="owl.jpg")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"gone\.jpg"):
        decode_image(tmp_path / "gone.jpg", name="gone.jpg")
    with pytest.raises(UnreadableMediaError, match="not a regular file"):
        decode_image(tmp_path, name="folder")


def test_picture_of_one_pixel_is_read() -> None:
    one = np.array([[[7, 8, 9]]], dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(file_of(one), name="dot"), one)


def test_animated_gif_is_its_first_frame() -> None:
    frames = [PillowImage.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data, name="waving")[0, 0].tolist() == [255, 0, 0]


def test_document_of_several_pages_is_its_first_page() -> None:
    pages = [PillowImage.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert decode_image(data, name="plates")[0, 0].tolist() == [255, 0, 0]


def test_cmyk_jpeg_becomes_rgb() -> None:
    data = saved(PillowImage.fromarray(scene()).convert("CMYK"), "JPEG", quality=95)
    image = decode_image(data, name="print.jpg")
    assert image.shape == (40, 60, 3)
    assert np.abs(image[5, 5].astype(int) - [255, 0, 0]).max() < 12
    assert np.abs(image[35, 55].astype(int) - 255).max() < 12


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    image = decode_image(file_of(ramp), name="scan.png")
    np.testing.assert_array_equal(image[:, :, 0].ravel(), np.arange(256))
    np.testing.assert_array_equal(image[:, :, 0], image[:, :, 2])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[-10.0, 0.0, 10.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[0, 257, 65535]], dtype=np.int32), [0, 1, 255]),
        (np.array([[5.0, 5.0, 5.0]], dtype=np.float32), [0, 0, 0]),
    ],
)
def test_wide_greyscale_is_scaled_by_its_kind(values: NDArray[Any], expected: list[int]) -> None:
    image = decode_image(file_of(values, "TIFF"), name="elevation.tif")
    assert image[0, :, 0].tolist() == expected


def test_pixels_that_are_not_numbers_are_refused() -> None:
    broken = np.array([[0.0, np.nan]], dtype=np.float32)
    with pytest.raises(UnreadableMediaError, match="NaN"):
        decode_image(file_of(broken, "TIFF"), name="elevation.tif")


def test_transparency_is_laid_on_white() -> None:
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 0] = 255
    pixels[0, :, 3] = [255, 0, 128]
    image = decode_image(file_of(pixels), name="cut-out.png")
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[0, 1].tolist() == [255, 255, 255]
    assert abs(int(image[0, 2, 1]) - 127) <= 1


def test_transparent_colour_of_a_palette_becomes_white() -> None:
    picture = PillowImage.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1])
    image = decode_image(saved(picture, "PNG", transparency=0), name="icon.png")
    assert image[0].tolist() == [[255, 255, 255], [200, 100, 50]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_common_mode_becomes_rgb(mode: str) -> None:
    data = saved(PillowImage.fromarray(scene()).convert(mode), "PNG")
    assert decode_image(data, name="owl").shape == (40, 60, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(kind: str, orientation: int) -> None:
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    as_stored = np.ascontiguousarray(undo[orientation](scene(48, 64)))
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    image = decode_image(file_of(as_stored, kind, exif=exif, **options), name="turned")
    assert image.shape == (48, 64, 3)
    assert np.abs(image.astype(int) - scene(48, 64)).mean() < 4


def test_garbled_exif_leaves_the_picture_as_it_is() -> None:
    data = file_of(scene(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode_image(data, name="owl").shape == (40, 60, 3)


@pytest.mark.parametrize("min_side", [50, 100, 101, 200, 300, 1000])
def test_min_side_keeps_that_many_pixels(min_side: int) -> None:
    data = file_of(scene(800, 1000), "JPEG")
    image = decode_image(data, name="large", min_side=min_side)
    assert min(image.shape[:2]) >= min(min_side, 800)
    again = decode_image(data, name="large", min_side=min_side)
    np.testing.assert_array_equal(image, again)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_min_side_makes_a_large_photograph_smaller(kind: str) -> None:
    image = decode_image(file_of(scene(800, 1000), kind), name="large", min_side=100)
    assert image.shape == (100, 125, 3)


@settings(deadline=None)
@given(data=st.binary(max_size=64), kind=st.sampled_from(FORMATS), cut=st.integers(0, 400))
def test_damaged_bytes_raise_nothing_but_our_errors(data: bytes, kind: str, cut: int) -> None:
    whole = file_of(scene(8, 8), kind)
    cut = min(cut, len(whole))
    with warnings.catch_warnings(), contextlib.suppress(MediaError):
        warnings.simplefilter("ignore")
        image = decode_image(whole[:cut] + data + whole[cut + len(data) :], name="fuzz")
        assert image.dtype == np.uint8
        assert image.ndim == 3
