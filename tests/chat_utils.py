"""vLLM's helpers for chats, from where the installed release has them: vLLM 0.29 has them among its entrypoints."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["CHAT_UTILS"]

_NAME = "vllm.renderers.chat_utils"
CHAT_UTILS: Any = import_module(_NAME if find_spec(_NAME) else "vllm.entrypoints.chat_utils")
