"""Whether the messages of a chat have a picture, before they are rendered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["has_pictures"]


def has_pictures(messages: Any) -> bool:
    """Whether a part of any message may be a picture or a video, in one of the forms that vLLM takes.

    messages: as JSON. Of a parsed request, pydantic's iterators could be read only once.

    Leans on the names of the parts in vllm/renderers/chat_utils.py: each has "image" or "video" in its type or its
    keys (0.29 to 0.32). Where this says no, none can come out of the rendering; where it says yes, admission decides.
    """
    return any(_is_picture(part) for message in messages for part in _parts(message))


def _parts(message: Any) -> Iterable[Any]:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, list) else ()


def _is_picture(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    return any(word in name for name in (str(part.get("type")), *map(str, part)) for word in ("image", "video"))
