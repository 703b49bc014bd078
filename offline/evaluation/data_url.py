"""A picture as a data URL, the way chat endpoints take it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from ..images import UnreadableImage, as_served

__all__ = ["data_url"]

_AS_IT_IS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


def data_url(path: Path) -> str:
    """The file's own bytes where servers read its format, else a PNG of it. It is decoded whole, to be sure.

    Raises:
        UnreadableImage: it is missing, no picture, torn, or too large to be decoded.
    """
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            kind = _AS_IT_IS.get(picture.format or "")
            picture.load()
            if kind is None:
                file = io.BytesIO()
                as_served(picture).save(file, "PNG")
                content, kind = file.getvalue(), "image/png"
    except FileNotFoundError as error:
        raise UnreadableImage("the picture is missing") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage("the picture does not open") from error
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
