"""Pictures of a run as data URLs, each read with suspicion and encoded anew."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image

from ..images import as_served

__all__ = ["Pictures"]

_SIDE = 224
_MAX_BYTES = 32 << 20
_MAX_PIXELS = 64_000_000
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


@dataclass
class Pictures:
    """The pictures inside one folder; whatever cannot be shown is kept in `gaps`, by name, with its reason.

    A name is relative to the folder and stays in it, through links too. Nothing of a file reaches the page but its
    pixels, at most 224 per side, so that no metadata and no other format comes along.
    """

    run: Path
    gaps: dict[str, str] = field(default_factory=dict)
    _urls: dict[str, str] = field(default_factory=dict)

    def url(self, name: str) -> str | None:
        """A `data:` URL, or None where there is a gap."""
        if name in self._urls:
            return self._urls[name]
        if name not in self.gaps:
            try:
                self._urls[name] = _encoded(self._inside(name))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's ways to refuse
                self.gaps[name] = _reason(error)
        return self._urls.get(name)

    def _inside(self, name: str) -> Path:
        asked = PurePosixPath(name)
        if asked.is_absolute() or ".." in asked.parts or "\\" in name or "\0" in name:
            raise ValueError("its name leads out of the run")
        found = (self.run / asked).resolve(strict=True)
        if not found.is_relative_to(self.run.resolve()):
            raise ValueError("it is a link that leads out of the run")
        if not found.is_file() or found.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is no file of at most {_MAX_BYTES >> 20} MiB")
        return found


def _encoded(path: Path) -> str:
    with Image.open(path, formats=_FORMATS) as opened:
        if opened.width * opened.height > _MAX_PIXELS:
            raise ValueError(f"it has more than {_MAX_PIXELS:,} pixels")
        small = as_served(opened)
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    small.save(buffer, "WEBP", quality=88, method=6)
    return "data:image/webp;base64," + b64encode(buffer.getvalue()).decode()


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return str(error) if type(error) is ValueError else "it does not open as a picture"
