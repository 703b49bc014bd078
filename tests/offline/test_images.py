"""A picture offline is the picture that the server sees."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from vllm.multimodal.media.image import ImageMediaIO

from tests.offline.odd_pictures import ODD, SIZE
from trimtab.offline.concepts.pictures import thumbnails
from trimtab.offline.evaluation.data_url import data_url
from trimtab.offline.images import UnreadableImage, open_image


def pixels(picture: Image.Image) -> npt.NDArray[np.uint8]:
    assert picture.mode == "RGB"
    return np.asarray(picture)


def as_vllm(content: bytes) -> npt.NDArray[np.uint8]:
    return pixels(ImageMediaIO().load_bytes(content).media)


@pytest.mark.parametrize("name", ODD)
def test_a_picture_is_pixel_for_pixel_what_vllm_makes_of_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(ODD[name]())
    np.testing.assert_array_equal(pixels(open_image(path)), as_vllm(path.read_bytes()))


@pytest.mark.parametrize("name", ODD)
def test_what_evaluate_sends_of_a_picture_is_seen_alike(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(ODD[name]())
    sent = base64.b64decode(data_url(path).partition(",")[2])
    np.testing.assert_array_equal(as_vllm(sent), pixels(open_image(path)))


def test_a_thumbnail_shows_what_the_model_saw(tmp_path: Path) -> None:
    names = ("jpeg-turned-6.jpg", "rgba.png")
    for name in names:
        (tmp_path / name).write_bytes(ODD[name]())
    (written,), left_out = thumbnails([names], {name: tmp_path / name for name in names}, tmp_path / "thumbnails")
    turned, clear = (Image.open(tmp_path / "thumbnails" / name) for name in written)
    assert not left_out
    assert turned.size == SIZE[::-1]
    assert clear.getpixel((40, 20)) == (255, 255, 255)


def test_the_pictures_of_this_test_do_decode_in_more_than_one_way() -> None:
    """Otherwise equality would say nothing."""
    for name in ("jpeg-turned-6.jpg", "mpo.jpg", "rgba.png", "palette-one-clear.png", "grey-alpha.png"):
        content = ODD[name]()
        plain = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        assert not np.array_equal(plain, as_vllm(content))


def test_what_is_no_picture_says_why(tmp_path: Path) -> None:
    whole = ODD["rgba.png"]()
    for name, content in {"torn.png": whole[: len(whole) // 2], "text.png": b"no picture", "empty.png": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableImage, match="does not open"):
            open_image(tmp_path / name)
    with pytest.raises(UnreadableImage, match="is missing"):
        open_image(tmp_path / "absent.png")
    (tmp_path / "script.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(UnreadableImage, match="does not open"):
        open_image(tmp_path / "script.eps")
