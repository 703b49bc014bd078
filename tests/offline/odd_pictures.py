"""Pictures that people have and that decode in more than one way: each as the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
SIZE = (80, 40)


def _ground() -> Image.Image:
    """Red above, blue below, green in the left quarter: no turn and no flip of it looks the same."""
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[:20, :, 0] = pixels[20:, :, 2] = 255
    pixels[:, :20] = (0, 255, 0)
    return Image.fromarray(pixels)


def _with_hole(mode: str) -> Image.Image:
    """A picture whose middle is transparent, half of it half so."""
    picture = _ground().convert(mode)
    alpha = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
    alpha[10:30, 30:50], alpha[10:30, 50:70] = 0, 128
    picture.putalpha(Image.fromarray(alpha))
    return picture


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _bytes(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    return file.getvalue()


def _palette(transparency: int | bytes) -> bytes:
    return _bytes(_ground().quantize(4), "PNG", transparency=transparency)


def _two_in_one() -> bytes:
    return _bytes(_ground(), "MPO", save_all=True, append_images=[_ground()], exif=_turned(8))


def _deep() -> bytes:
    values = np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[1], SIZE[0])
    return _bytes(Image.fromarray(values), "PNG")


def _colour_key() -> bytes:
    return _bytes(_ground(), "PNG", transparency=(255, 0, 0))


def _turned_jpeg(orientation: int) -> bytes:
    return _bytes(_ground(), "JPEG", exif=_turned(orientation))


def _torn_exif() -> bytes:
    return _bytes(_ground(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")


ODD: dict[str, Callable[[], bytes]] = {
    **{f"jpeg-turned-{number}.jpg": partial(_turned_jpeg, number) for number in (3, 5, 6, 8)},
    "png-turned.png": lambda: _bytes(_ground(), "PNG", exif=_turned(6)),
    "webp-turned.webp": lambda: _bytes(_ground(), "WEBP", exif=_turned(6), lossless=True),
    "torn-exif.jpg": _torn_exif,
    "rgba.png": lambda: _bytes(_with_hole("RGB"), "PNG"),
    "rgba.webp": lambda: _bytes(_with_hole("RGB"), "WEBP", lossless=True),
    "grey-alpha.png": lambda: _bytes(_with_hole("L"), "PNG"),
    "palette-one-clear.png": lambda: _palette(1),
    "palette-alpha.png": lambda: _palette(bytes([0, 128, 255, 255])),
    "colour-key.png": _colour_key,
    "grey-key.png": lambda: _bytes(_ground().convert("L"), "PNG", transparency=29),
    "clear.gif": lambda: _bytes(_ground().quantize(4), "GIF", transparency=1),
    "mpo.jpg": _two_in_one,
    "deep.png": _deep,
    "cmyk.jpg": lambda: _bytes(_ground().convert("CMYK"), "JPEG"),
    "grey.jpg": lambda: _bytes(_ground().convert("L"), "JPEG"),
    "bits.png": lambda: _bytes(_ground().convert("1"), "PNG"),
    "ycc.tiff": lambda: _bytes(_ground().convert("YCbCr"), "TIFF"),
}
