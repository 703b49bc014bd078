"""Pictures as the server sees them.

A picture means the same to `trimtab represent` and to a served request only if both decode it alike. vLLM turns a
picture upright by its EXIF tag and lays what is transparent on white (vllm/multimodal/image.py and media/image.py, the
same in 0.29 to 0.32). `open_image` does the same, and whatever opens a picture offline goes through it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from PIL import Image, ImageOps

__all__ = ["UnreadableImage", "as_served", "open_image"]

_REFUSED = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
"""Pillow's formats that vLLM does not open: they start another program, or only look like pictures."""
_WITH_ALPHA = ("RGBA", "LA", "PA")


class UnreadableImage(Exception):
    """A picture that does not open. Its message is the reason, as a clause: "the picture is missing"."""


def open_image(path: Path) -> Image.Image:
    """A picture in RGB, upright, transparent parts white, decoded; pixel for pixel what vLLM's server makes of it.

    Raises:
        UnreadableImage: it is missing, no picture, torn, or too large to be decoded.
    """
    Image.init()
    try:
        with Image.open(path, formats=[name for name in Image.OPEN if name not in _REFUSED]) as image:
            return as_served(image)
    except FileNotFoundError as error:
        raise UnreadableImage("the picture is missing") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's ways to refuse
        raise UnreadableImage(f"the picture does not open ({type(error).__name__})") from error


def as_served(image: Image.Image) -> Image.Image:
    """An opened picture as `open_image` gives it; any of Pillow's errors where it cannot be decoded."""
    with contextlib.suppress(Exception):  # vLLM too leaves a picture as it is where its EXIF part cannot be read
        image = ImageOps.exif_transpose(image)
    image.load()
    if image.mode in _WITH_ALPHA or (image.mode != "RGB" and "transparency" in image.info):
        layer = image.convert("RGBA")
        ground = Image.new("RGB", image.size, (255, 255, 255))
        ground.paste(layer, mask=layer.getchannel("A"))
        return ground
    # An RGB picture comes back as it is, a colour of it that is marked transparent included: so does vLLM's.
    return image.convert("RGB")
